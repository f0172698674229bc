package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// runFlags are those of quipu run, with the names that dapr run has.
type runFlags struct {
	sidecar
	tls           bool
	env           []string
	data          string
	file          string
	bodyMegabytes int
	logLevel      string
}

// runIgnored are flags of the dapr CLI that mean nothing here, with their letters.
var runIgnored = map[string]string{"dapr-internal-grpc-port": "I", "metrics-port": "M", "profile-port": "", "placement-host-address": "", "scheduler-host-address": "",
	"read-buffer-size": "", "dapr-http-read-buffer-size": "", "runtime-path": "", "enable-profiling": "", "enable-api-logging": "", "log-as-json": ""}

func (c *cli) runCommand() *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{Use: "run --app-id ID [--app-port N] [-- COMMAND [ARGS...]] | -f dapr.yaml", Args: cobra.ArbitraryArgs,
		Short: "Run a Dapr application of yours, or those of a dapr.yaml, beside a node, which is started if none answers",
		RunE:  func(cmd *cobra.Command, args []string) error { return c.runApps(cmd, f, args) }}
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	flags.StringVarP(&f.file, "run-file", "f", "", "dapr.yaml with several applications, or its folder")
	flags.StringVarP(&f.appID, "app-id", "a", "", "name of the application; its keys and subscriptions are kept under it")
	flags.IntVarP(&f.Port, "app-port", "p", 0, "port that the application listens on; 0: it only calls")
	flags.StringVarP(&f.Protocol, "app-protocol", "P", quipu.ProtocolHTTP, "what it speaks there: http, https, h2c, grpc, grpcs")
	flags.BoolVar(&f.tls, "app-ssl", false, "as an s after --app-protocol")
	flags.StringVar(&f.Address, "app-channel-address", "", "host that the application listens on; none: 127.0.0.1")
	flags.IntVar(&f.Concurrency, "app-max-concurrency", 0, "calls at a time; 0 for as many as come")
	flags.IntVarP(&f.DaprHTTPPort, "dapr-http-port", "H", 0, "port of Dapr's HTTP API for it; 0 for any free one")
	flags.IntVarP(&f.DaprGRPCPort, "dapr-grpc-port", "G", 0, "port of Dapr's gRPC API for it; 0 for any free one")
	flags.StringVar(&f.listen, "dapr-listen-addresses", "", "hosts of these ports, with commas; none: 127.0.0.1")
	flags.StringVarP(&f.Socket, "unix-domain-socket", "u", "", "folder of Unix sockets that are there in place of these ports")
	flags.StringArrayVarP(&f.resources, "resources-path", "d", nil, "folder with Dapr's resource files; may be repeated")
	flags.StringArrayVar(&f.resources, "components-path", nil, "the name that --resources-path had")
	flags.StringArrayVarP(&f.configs, "config", "c", nil, "file with a Configuration; may be repeated")
	flags.StringArrayVar(&f.env, "env", nil, "NAME=VALUE for the application; may be repeated")
	flags.BoolVar(&f.health, "enable-app-health-check", false, "ask the application whether it is well")
	flags.StringVar(&f.healthy.Path, "app-health-check-path", "/healthz", "path that is asked, over HTTP")
	flags.IntVar(&f.healthy.IntervalMillis, "app-health-probe-interval", 5, "seconds from question to question")
	flags.IntVar(&f.healthy.TimeoutMillis, "app-health-probe-timeout", 500, "milliseconds for an answer")
	flags.IntVar(&f.healthy.Threshold, "app-health-threshold", 3, "failures in a row before it is unwell")
	flags.StringVarP(&f.bodyMax, "max-body-size", "B", "", "of a request, like 4Mi; none: 64Mi")
	flags.IntVar(&f.bodyMegabytes, "dapr-http-max-request-size", 0, "the same in MB, as it once was")
	flags.StringVar(&f.logLevel, "log-level", "info", "of the node, if one is started")
	flags.StringVar(&f.data, "data", ".quipu", "data of the node, if one is started")
	for name, letter := range runIgnored {
		flags.StringP(name, letter, "", "of the dapr CLI; makes no difference here")
		if strings.HasPrefix(name, "enable-") || name == "log-as-json" {
			flags.Lookup(name).NoOptDefVal = "true"
		}
		_ = flags.MarkHidden(name) // it is there
	}
	return cmd
}

// runApps makes applications of the flags, or of the file, and runs them beside one node.
func (c *cli) runApps(cmd *cobra.Command, f *runFlags, command []string) error {
	for name := range runIgnored {
		if cmd.Flags().Changed(name) {
			c.note("warning: --%s makes no difference here", name)
		}
	}
	ctx, cancel := context.WithCancelCause(cmd.Context())
	defer cancel(nil)
	var apps []*appRun
	var err error
	switch {
	case f.file != "" && (f.appID != "" || len(command) > 0):
		return usage("-f names a file that has app ids and commands: leave out others")
	case f.file != "":
		apps, err = c.appsOf(f.file)
	case f.appID == "":
		return &quipu.Error{Code: quipu.CodeUsage, Text: `required flag(s) "app-id" not set`, Hint: "quipu run --app-id ID -- COMMAND, or quipu run -f dapr.yaml"}
	default:
		apps, err = f.single(c, command)
	}
	if err != nil {
		return err
	}
	stopNode, err := c.ensureNode(ctx, cancel, f.data, f.logLevel)
	if err != nil {
		return err
	}
	defer stopNode()
	node, err := c.client()
	if err != nil {
		return err
	}
	return runAll(ctx, node, apps)
}

// single is the application of the flags: its output is ours.
func (f *runFlags) single(c *cli, command []string) ([]*appRun, error) {
	f.Protocol, f.AppToken = protocolOf(f.Protocol, f.tls), os.Getenv("APP_API_TOKEN")
	f.Port, f.Concurrency = max(0, f.Port), max(0, f.Concurrency) // -1 is none, in the dapr CLI
	f.DaprHTTPPort, f.DaprGRPCPort = max(0, f.DaprHTTPPort), max(0, f.DaprGRPCPort)
	f.healthy.IntervalMillis *= 1000
	if f.bodyMax == "" && f.bodyMegabytes > 0 {
		f.bodyMax = strconv.Itoa(f.bodyMegabytes) + "Mi"
	}
	for _, one := range f.env {
		if name, _, ok := strings.Cut(one, "="); !ok || name == "" {
			return nil, usage("--env %q is not NAME=VALUE", one)
		}
	}
	app := &appRun{sidecar: f.sidecar, command: command, env: f.env, in: c.in, out: c.out, err: c.err, note: c.note}
	return []*appRun{app}, app.prepare()
}

// appRun is one application beside a node: the attachment, and the command if there is one.
type appRun struct {
	sidecar
	command  []string
	env      []string // NAME=VALUE, besides our own
	in       io.Reader
	out, err io.Writer
	note     func(format string, args ...any) // tells of the attachment
	close    func() error                     // gives files back; may be nil
}

// prepare reads the files of the application.
func (a *appRun) prepare() (err error) {
	if a.Socket != "" {
		if a.Socket, err = filepath.Abs(a.Socket); err != nil {
			return err
		}
	}
	return a.load(a.lookup, a.environ)
}

func (a *appRun) environ() []string { return append(os.Environ(), a.env...) }

func (a *appRun) lookup(name string) (string, bool) {
	for _, one := range a.env {
		if own, value, _ := strings.Cut(one, "="); own == name {
			return value, true
		}
	}
	return os.LookupEnv(name)
}

// runAll runs applications until all have ended, or ctx has. Its error is the first that one of them ended with.
func runAll(ctx context.Context, node *sdk.Client, apps []*appRun) error {
	var all sync.WaitGroup
	ends := make([]error, len(apps))
	for i, a := range apps {
		all.Go(func() { ends[i] = a.run(ctx, node) })
	}
	all.Wait()
	for i, a := range apps {
		if a.close != nil {
			ends[i] = errors.Join(ends[i], a.close())
		}
	}
	for _, err := range ends {
		if err != nil {
			return err
		}
	}
	return nil
}

// run attaches, runs the command with what it needs to know, and ends when it does.
func (a *appRun) run(ctx context.Context, node *sdk.Client) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel(nil)
	var ended chan error
	for now, err := range node.Attach(ctx, a.appID, a.Attachment) {
		if err != nil {
			if ended == nil || ctx.Err() == nil {
				cancel(err) // the application goes with its node
			}
			break
		}
		if now.State == sdk.AttachedOpen {
			ended = make(chan error, 1)
			tasks.Go(func() {
				err := a.runChild(ctx, now)
				ended <- err
				cancel(err)
			})
			tasks.Go(func() { a.watch(ctx, node, now.ID) })
		}
		a.tell(now)
		if now.State == sdk.AttachedShutdown {
			cancel(nil)
			break
		}
	}
	cause := context.Cause(ctx)
	if ended == nil {
		return cause
	}
	err := <-ended
	if err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// tell notes how the attachment stands.
func (a *appRun) tell(now sdk.Attached) {
	switch now.State {
	case sdk.AttachedListening:
		a.note("%s is attached%s", a.appID, subscribedTo(now.Subscriptions))
		if now.Warning != "" {
			a.note("  %s", now.Warning)
		}
	case sdk.AttachedUnwell:
		a.note("%s is not well: it gets no calls and no events until it is", a.appID)
	case sdk.AttachedShutdown:
		a.note("%s asked for the end", a.appID)
	}
}

// watch loads resource files again when they change.
func (a *appRun) watch(ctx context.Context, node *sdk.Client, id string) {
	if len(a.resources)+len(a.configs) == 0 {
		return
	}
	err := a.keepReading(ctx, func() (sdk.AttachedResources, error) { return a.read(a.lookup, a.environ) },
		func(r sdk.AttachedResources) error { return node.Reload(ctx, a.appID, id, r) },
		func(err error) {
			if err != nil {
				a.note("resources of %s changed and cannot be used; those before stay: %s", a.appID, reason(err))
				return
			}
			a.note("resources of %s were loaded again", a.appID)
		})
	if err != nil {
		a.note("resources of %s are not watched any more: %s", a.appID, reason(err))
	}
}

func subscribedTo(topics []string) string {
	if len(topics) == 0 {
		return ""
	}
	return ", and gets events of " + strings.Join(topics, ", ")
}

// childGrace is how long the application may take to end after it was asked.
const childGrace = 5 * time.Second

// runChild runs the application to its end. ^C asks it to end; its exit code becomes ours. Without a command it is as one that runs
// until it is asked to end.
func (a *appRun) runChild(ctx context.Context, at sdk.Attached) error {
	if len(a.command) == 0 {
		a.note("%s has no command: it is attached until it is interrupted; DAPR_HTTP_PORT=%s DAPR_GRPC_PORT=%s", a.appID, at.DaprHTTP, at.DaprGRPC)
		<-ctx.Done()
		return nil
	}
	child := exec.CommandContext(ctx, a.command[0], a.command[1:]...)
	child.Dir, child.Stdin, child.Stdout, child.Stderr = a.Dir, a.in, a.out, a.err
	rest := endTogether(child, a.in)
	child.WaitDelay = childGrace
	child.Env = append(os.Environ(), "APP_ID="+a.appID, "APP_PORT="+strconv.Itoa(a.Port), "APP_PROTOCOL="+a.Protocol, "DAPR_API_TOKEN="+at.Token)
	child.Env = append(append(child.Env, doorsOf(a.Socket, at)...), a.env...)
	err := child.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		rest()
		return nil // it was asked to end
	case errors.As(err, &exit):
		a.note("%s ended: %s", a.appID, exit.ProcessState)
		return shown(exit.String())
	case err != nil:
		return &quipu.Error{Code: quipu.CodeUsage, Text: fmt.Sprintf("%q cannot be run", a.command[0]), Err: err, Hint: "give the command after --, as you would type it"}
	}
	return nil
}

// doorsOf are the variables that SDKs look for.
func doorsOf(socket string, at sdk.Attached) []string {
	if socket != "" {
		return []string{"DAPR_HTTP_ENDPOINT=unix://" + at.DaprHTTP, "DAPR_GRPC_ENDPOINT=unix://" + at.DaprGRPC}
	}
	return []string{"DAPR_HTTP_PORT=" + at.DaprHTTP, "DAPR_HTTP_ENDPOINT=http://127.0.0.1:" + at.DaprHTTP,
		"DAPR_GRPC_PORT=" + at.DaprGRPC, "DAPR_GRPC_ENDPOINT=http://127.0.0.1:" + at.DaprGRPC}
}

// ensureNode starts a node of our own unless one answers, or was named.
func (c *cli) ensureNode(ctx context.Context, cancel context.CancelCauseFunc, data, logLevel string) (stop func(), err error) {
	if c.node != "" || nodeAbove(".") != "" {
		return func() {}, nil
	}
	if conn, err := net.DialTimeout("tcp", addressDefault, time.Second); err == nil {
		return func() {}, conn.Close()
	}
	if data, err = filepath.Abs(data); err != nil {
		return nil, err
	}
	running, stopped := context.WithCancel(context.WithoutCancel(ctx))
	ready, ended := make(chan sdk.Node, 1), make(chan error, 1)
	go func() {
		err := runNode(running, NodeConfig{Data: data, Version: version, FreePorts: true, Port: 8080, DaprHTTPPort: 3500, DaprGRPCPort: 50001,
			observeFlags: observeFlags{TraceRatio: -1, LogLevel: logLevel}, Ready: func(n sdk.Node) { ready <- n }})
		ended <- err
		cancel(err)
	}()
	select {
	case n := <-ready:
		c.node = n.HTTP
		c.note("started a node at http://%s, data in %s", n.HTTP, data)
		return func() { stopped(); <-ended }, nil
	case err := <-ended:
		stopped()
		return nil, err
	case <-ctx.Done():
		stopped()
		return nil, context.Cause(ctx)
	}
}
