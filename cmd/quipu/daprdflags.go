package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// daprdFlags are those of the upstream sidecar that make a difference here.
type daprdFlags struct {
	sidecar
	componentsPath            string
	appPort, httpPort         string
	grpcPort, publicPort      string
	publicAddress             string
	metricsPort, metricsHost  string
	metrics                   bool
	mode                      string
	bodyMegabytes             int
	concurrency               int
	tls                       bool
	logLevel, logFile         string
	logJSON                   bool
	graceSec                  int
	block                     time.Duration
	version, buildInfo, await bool
}

func newDaprdFlags() (*pflag.FlagSet, *daprdFlags) {
	f, fs := &daprdFlags{}, pflag.NewFlagSet("daprd", pflag.ContinueOnError)
	fs.StringVar(&f.appID, "app-id", "", "name of the application; its keys and subscriptions are kept under it")
	fs.StringVar(&f.appPort, "app-port", "", "port that the application listens on; none: it only calls")
	fs.StringVar(&f.Protocol, "app-protocol", quipu.ProtocolHTTP, "what it speaks there: http, https, h2c, grpc, grpcs")
	fs.StringVar(&f.Address, "app-channel-address", "127.0.0.1", "host that the application listens on")
	fs.IntVar(&f.concurrency, "app-max-concurrency", -1, "calls of it at a time; -1 for as many as come")
	fs.BoolVar(&f.tls, "app-ssl", false, "as an s after --app-protocol")
	fs.StringVar(&f.httpPort, "dapr-http-port", "3500", "port of Dapr's HTTP API")
	fs.StringVar(&f.grpcPort, "dapr-grpc-port", "50001", "port of Dapr's gRPC API")
	fs.StringVar(&f.listen, "dapr-listen-addresses", "", "hosts of these ports, with commas; none: loopback")
	fs.StringVar(&f.Socket, "unix-domain-socket", "", "folder of Unix sockets that are there in place of these ports")
	fs.StringVar(&f.publicPort, "dapr-public-port", "", "port for health and metadata alone")
	fs.StringVar(&f.publicAddress, "dapr-public-listen-address", "", "host of that port; none: loopback")
	fs.StringSliceVar(&f.resources, "resources-path", nil, "folder of resource files; may be repeated")
	fs.StringVar(&f.componentsPath, "components-path", "", "the name that --resources-path had")
	fs.StringSliceVar(&f.configs, "config", nil, "file with a Configuration; may be repeated")
	fs.BoolVar(&f.health, "enable-app-health-check", false, "ask the application whether it is well")
	fs.StringVar(&f.healthy.Path, "app-health-check-path", "/healthz", "path that is asked, over HTTP")
	fs.IntVar(&f.healthy.IntervalMillis, "app-health-probe-interval", 5, "seconds from question to question")
	fs.IntVar(&f.healthy.TimeoutMillis, "app-health-probe-timeout", 500, "milliseconds for an answer")
	fs.IntVar(&f.healthy.Threshold, "app-health-threshold", 3, "failures in a row before it is unwell")
	fs.BoolVar(&f.metrics, "enable-metrics", true, "serve metrics of the node")
	fs.StringVar(&f.metricsPort, "metrics-port", "9090", "port that they are served at")
	fs.StringVar(&f.metricsHost, "metrics-listen-address", "", "host of that port; none: loopback")
	fs.StringVar(&f.bodyMax, "max-body-size", "", "of a request, like 4Mi; none: 64Mi")
	fs.IntVar(&f.bodyMegabytes, "dapr-http-max-request-size", -1, "the same in MB, as it once was")
	fs.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn, error or fatal")
	fs.StringVar(&f.logFile, "log-file", "", "file that the log is appended to, in place of stdout")
	fs.BoolVar(&f.logJSON, "log-as-json", false, "lines of JSON")
	fs.IntVar(&f.graceSec, "dapr-graceful-shutdown-seconds", 5, "how long calls under way may take when it ends")
	fs.DurationVar(&f.block, "dapr-block-shutdown-duration", 0, "how long it goes on after it was asked to end, or until the application is unwell")
	fs.StringVar(&f.mode, "mode", "standalone", "standalone")
	fs.BoolVar(&f.version, "version", false, "print the version of Dapr whose API this is")
	fs.BoolVar(&f.buildInfo, "build-info", false, "print that, and the version of this program")
	fs.BoolVar(&f.await, "wait", false, "wait until the sidecar at --dapr-http-port answers")
	for _, name := range daprdIgnored {
		fs.String(name, "", "of upstream; makes no difference here")
		fs.Lookup(name).NoOptDefVal = daprdIgnoredBool[name]
	}
	return fs, f
}

// daprdIgnored are flags of the upstream sidecar that mean nothing here: there is no control plane, no placement and no scheduler, and
// what they do is the node's.
var daprdIgnored = []string{
	"actors-disseminate-timeout", "actors-service", "allowed-origins", "control-plane-address", "control-plane-namespace", "control-plane-trust-domain",
	"dapr-http-read-buffer-size", "dapr-internal-grpc-listen-address", "dapr-internal-grpc-port", "disable-builtin-k8s-secret-store", "disable-init-endpoints",
	"enable-api-logging", "enable-mtls", "enable-profiling", "hot-reload-reconcile-interval", "placement-host-address", "profile-port", "read-buffer-size",
	"reminders-service", "scheduler-host-address", "scheduler-job-streams", "sentry-address", "sentry-request-jwt-audiences",
}

// daprdIgnoredBool are those of them that need no value.
var daprdIgnoredBool = map[string]string{"disable-builtin-k8s-secret-store": "true", "enable-api-logging": "true", "enable-mtls": "true", "enable-profiling": "true"}

// twoDashes lets flags begin with one dash, as upstream does.
func twoDashes(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		if len(a) > 2 && a[0] == '-' && a[1] != '-' {
			a = "-" + a
		}
		out[i] = a
	}
	return out
}

// settle makes an attachment of the flags.
func (f *daprdFlags) settle(token, appToken string) (err error) {
	for _, p := range []struct {
		name, text string
		to         *int
	}{{"app-port", f.appPort, &f.Port}, {"dapr-http-port", f.httpPort, &f.DaprHTTPPort}, {"dapr-grpc-port", f.grpcPort, &f.DaprGRPCPort}} {
		if *p.to, err = parsePort(p.name, p.text); err != nil {
			return err
		}
	}
	switch {
	case f.mode != "standalone":
		return fmt.Errorf("mode %q: there is standalone alone", f.mode)
	case f.appID == "":
		return fmt.Errorf("parameter app-id cannot be empty")
	case strings.Contains(f.appID, "."):
		return fmt.Errorf("parameter app-id cannot contain dots")
	case !slices.Contains([]string{"", "http", "https", "h2c", "grpc", "grpcs"}, strings.ToLower(f.Protocol)):
		return fmt.Errorf("invalid value for 'app-protocol': %s", f.Protocol)
	case f.Port != 0 && f.Port == f.DaprHTTPPort:
		return fmt.Errorf("the 'dapr-http-port' argument value %d conflicts with 'app-port'", f.Port)
	case f.Port != 0 && f.Port == f.DaprGRPCPort:
		return fmt.Errorf("the 'dapr-grpc-port' argument value %d conflicts with 'app-port'", f.Port)
	case f.health && f.healthy.TimeoutMillis > 1000*f.healthy.IntervalMillis && f.healthy.IntervalMillis > 0:
		return fmt.Errorf("value for 'health-probe-timeout' must be smaller than 'health-probe-interval'")
	}
	if len(f.resources) == 0 && f.componentsPath != "" {
		f.resources = []string{f.componentsPath}
	}
	if f.bodyMax == "" && f.bodyMegabytes > 0 {
		f.bodyMax = strconv.Itoa(f.bodyMegabytes) + "Mi"
	}
	f.Protocol = protocolOf(f.Protocol, f.tls)
	f.Concurrency = max(0, f.concurrency)
	f.healthy = sdk.AttachedHealth{Path: f.healthy.Path, IntervalMillis: 1000 * max(0, f.healthy.IntervalMillis),
		TimeoutMillis: max(0, f.healthy.TimeoutMillis), Threshold: max(0, f.healthy.Threshold)}
	f.Token, f.Open, f.AppToken = token, token == "", appToken
	return nil
}

// protocolOf is --app-protocol with --app-ssl.
func protocolOf(name string, tls bool) string {
	name = strings.ToLower(name)
	if name == "" {
		name = quipu.ProtocolHTTP
	}
	if tls && (name == quipu.ProtocolHTTP || name == quipu.ProtocolGRPC) {
		name += "s"
	}
	return name
}

func parsePort(flag, text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	port, err := strconv.Atoi(text)
	if err != nil || port > 65535 {
		return 0, fmt.Errorf("error parsing %s: %q is no port", flag, text)
	}
	return max(0, port), nil
}
