package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/quipu-run/quipu/internal/peers"
)

// patience is how long a process may take for what it does at once.
const patience = 30 * time.Second

// running is the program in a process of its own.
type running struct {
	t   *testing.T
	cmd *exec.Cmd
	mu  sync.Mutex
	out bytes.Buffer // guarded by mu
}

// Write takes its output.
func (p *running) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *running) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// launch starts the program; at the end of the test it is killed.
func launch(t *testing.T, env []string, args ...string) *running {
	t.Helper()
	p := &running{t: t, cmd: exec.Command(os.Args[0])}
	p.cmd.Args = append([]string{"quipu"}, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

func (p *running) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()
}

// end asks it to end, and wants exit code 0.
func (p *running) end() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("it ended with %v:\n%s", err, p.said())
	}
}

// finds waits until its output has something, and answers the groups.
func (p *running) finds(pattern string) []string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	var found []string
	p.eventually(pattern, func() bool {
		found = re.FindStringSubmatch(p.said())
		return found != nil
	})
	return found
}

func (p *running) eventually(what string, holds func() bool) {
	p.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			p.t.Fatalf("not after %s: %s; it said:\n%s", patience, what, p.said())
		}
	}
}

// sidecarOf is a daprd with free ports that is ready, and where it listens.
type sidecarOf struct {
	*running
	http, grpc string
}

func daprdOf(t *testing.T, env []string, args ...string) *sidecarOf {
	t.Helper()
	s := &sidecarOf{running: launch(t, env, append([]string{"daprd", "--dapr-http-port", "0", "--dapr-grpc-port", "0", "--metrics-port", "0"}, args...)...)}
	s.finds(`dapr initialized\. Status: Running\. Init Elapsed \d+ms`)
	s.http = "http://127.0.0.1:" + s.finds(`HTTP server is running on port (\d+)`)[1]
	s.grpc = "127.0.0.1:" + s.finds(`API gRPC server is running on port (\d+)`)[1]
	return s
}

// ask makes a request, and answers status and body.
func (s *sidecarOf) ask(method, path, body string, header ...string) string {
	r, err := http.NewRequest(method, s.http+path, strings.NewReader(body))
	if err != nil {
		return err.Error()
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", resp.StatusCode, text))
}

func (s *sidecarOf) conn() *grpc.ClientConn {
	s.t.Helper()
	conn, err := grpc.NewClient(s.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// webApp answers with its name, who called, and what came.
func webApp(t *testing.T, name string) (port string, got chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got = make(chan string, 100)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // it is the test's
		switch r.URL.Path {
		case "/dapr/subscribe":
			fmt.Fprint(w, `[{"pubsubname":"bus","topic":"orders","route":"/take"}]`)
		case "/take":
			var event struct{ Data json.RawMessage }
			if err := json.Unmarshal(body, &event); err != nil {
				t.Error(err)
			}
			got <- string(event.Data)
		default:
			fmt.Fprintf(w, "%s got %s from %s at %s", name, body, r.Header.Get("dapr-caller-app-id"), r.URL.Path)
		}
	})}
	go func() { _ = s.Serve(l) }() // it ends with Close
	t.Cleanup(func() { s.Close() })
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), got
}

// healthApp is an application of gRPC: the health service of any server.
func healthApp(t *testing.T) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	healthv1.RegisterHealthServer(s, health.NewServer())
	go func() { _ = s.Serve(l) }() // it ends with Stop
	t.Cleanup(s.Stop)
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

const bus = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec: {type: pubsub.redis, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec:
  type: state.redis
  version: v1
  metadata: [{name: keyPrefix, value: name}]
`

func resourceDir(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "components.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Sidecars with nodes of their own find each other, both ways, over both protocols. One that is killed is not believed in any more, and
// what it left goes; one that ends leaves nothing.
func TestSidecarsOnOneMachineInvokeEachOther(t *testing.T) {
	temp := t.TempDir()
	env := []string{"TMPDIR=" + temp, "QUIPU_NODE="}
	res := resourceDir(t, bus)
	onePort, _ := webApp(t, "one")
	one := daprdOf(t, env, "--app-id", "one", "--app-port", onePort, "--resources-path", res)
	two := daprdOf(t, env, "-app-id", "two", "-app-protocol", "grpc", "-app-port", healthApp(t))
	if got := two.ask("POST", "/v1.0/invoke/one/method/a/b", "body"); got != "200 one got body from two at /a/b" {
		t.Error(got)
	}
	reply, err := rtv1.NewDaprClient(two.conn()).InvokeService(t.Context(), &rtv1.InvokeServiceRequest{Id: "one",
		Message: &commonv1.InvokeRequest{Method: "c", Data: &anypb.Any{Value: []byte("x")}, HttpExtension: &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_POST}}})
	if err != nil || string(reply.GetData().GetValue()) != "one got x from two at /c" {
		t.Errorf("over gRPC: %v, %v", reply, err)
	}
	check := func() error {
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "dapr-app-id", "two"), patience)
		defer cancel()
		_, err := healthv1.NewHealthClient(one.conn()).Check(ctx, &healthv1.HealthCheckRequest{})
		return err
	}
	if err := check(); err != nil {
		t.Errorf("a call of gRPC through two sidecars: %v", err)
	}
	if got := one.ask("POST", "/v1.0/invoke/nobody/method/a", ""); !strings.HasPrefix(got, "500 ") || !strings.Contains(got, "ERR_DIRECT_INVOKE") {
		t.Error(got)
	}

	two.kill()
	if err := check(); err == nil {
		t.Error("a killed sidecar answers")
	}
	one.end()
	folder, err := peers.Open(filepath.Join(temp, fmt.Sprintf("quipu-daprd-%d", os.Getuid())))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := folder.Find("one"); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(temp, "*", "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	for _, line := range []string{`msg="application discovered on port ` + onePort + `"`, `msg="app id: one" app_id=one`, "scope=dapr.runtime type=log ver=1.18.", `msg="Daprd shutdown gracefully"`} {
		one.finds(regexp.QuoteMeta(line))
	}
}

// At one node, sidecars share what components of one name have: keys and topics.
func TestSidecarsAtOneNodeShareTheirComponents(t *testing.T) {
	node := launch(t, nil, "serve", "--data", t.TempDir(), "--port", "0", "--dapr-http-port", "0", "--dapr-grpc-port", "0")
	env := []string{"QUIPU_NODE=" + node.finds(`routes and admin API\s+(\S+)`)[1]}
	res := resourceDir(t, bus)
	port, got := webApp(t, "taker")
	taker := daprdOf(t, env, "--app-id", "taker", "--app-port", port, "--resources-path", res)
	taker.finds(`app is subscribed to the following topics`)
	giver := daprdOf(t, append(env, "DAPR_API_TOKEN=hunter2"), "--app-id", "giver", "--resources-path", res)
	if got := giver.ask("GET", "/v1.0/metadata", ""); !strings.HasPrefix(got, "401") {
		t.Errorf("without the token: %s", got)
	}
	with := []string{"dapr-api-token", "hunter2", "Content-Type", "application/json"}
	for path, body := range map[string]string{"/v1.0/state/store": `[{"key":"k","value":7}]`, "/v1.0/publish/bus/orders": `{"n":1}`} {
		if got := giver.ask("POST", path, body, with...); got != "204" {
			t.Errorf("%s: %s", path, got)
		}
	}
	if got := taker.ask("GET", "/v1.0/state/store/k", ""); got != "200 7" {
		t.Errorf("the other has %s", got)
	}
	select {
	case data := <-got:
		if data != `{"n":1}` {
			t.Errorf("it got %s", data)
		}
	case <-time.After(patience):
		t.Error("it got no event")
	}
	if got := giver.ask("POST", "/v1.0/invoke/taker/method/x", "b", with...); got != "200 taker got b from giver at /x" {
		t.Error(got)
	}
	giver.end()
	taker.end()
	node.end()
}

// Resource files that change are loaded again. What cannot be used is told, and changes nothing.
func TestASidecarLoadsItsResourcesAgainWhenTheyChange(t *testing.T) {
	res := resourceDir(t, bus)
	s := daprdOf(t, []string{"TMPDIR=" + t.TempDir(), "QUIPU_NODE=", "STORE_TYPE=x"}, "--app-id", "one", "--resources-path", res)
	save := func(text string) {
		if err := os.WriteFile(filepath.Join(res, "components.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	has := func(name string) bool {
		return strings.Contains(s.ask("GET", "/v1.0/metadata", ""), `"name":"`+name+`"`)
	}
	if !has("store") {
		t.Error("it has no store")
	}
	save(strings.ReplaceAll(bus, "name: store", "name: depot"))
	s.eventually("it has the depot", func() bool { return has("depot") && !has("store") })
	save(strings.ReplaceAll(bus, "state.redis", "state.nothing"))
	s.finds(`level=error msg="resources changed and cannot be used.*state\.nothing`)
	if !has("depot") {
		t.Error("what cannot be used took the place of what could")
	}
	save(strings.ReplaceAll(bus, "name: store", "name: last"))
	s.eventually("it has the last", func() bool { return has("last") })
	if got := s.ask("POST", "/v1.0/shutdown", ""); got != "204" {
		t.Error(got)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("it ended with %v:\n%s", err, s.said())
	}
}

// A sidecar serves metrics, and health for everybody, at ports of their own.
func TestASidecarHasItsOtherPorts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	s := daprdOf(t, []string{"TMPDIR=" + t.TempDir(), "QUIPU_NODE=", "DAPR_API_TOKEN=hunter2"}, "--app-id", "one", "--dapr-public-port", free)
	public := &sidecarOf{running: s.running, http: "http://127.0.0.1:" + free}
	if got := public.ask("GET", "/v1.0/healthz", ""); got != "204" {
		t.Error(got)
	}
	if got := public.ask("GET", "/v1.0/metadata", ""); !strings.HasPrefix(got, `200 {"id":"one"`) {
		t.Error(got)
	}
	if got := public.ask("POST", "/v1.0/state/statestore", "[]"); !strings.HasPrefix(got, "404") {
		t.Error(got)
	}
	s.end()
}

// The Configuration of an application says where the traces of its sidecar go, and that it serves no metrics.
func TestASidecarIsConfigured(t *testing.T) {
	traces := make(chan string, 100)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { traces <- r.URL.Path }))
	t.Cleanup(collector.Close)
	config := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: own}
spec:
  metrics: {enabled: false}
  tracing:
    samplingRate: "1"
    otel: {endpointAddress: %q, isSecure: false, protocol: http}
`, collector.Listener.Addr().String()), 0o600); err != nil {
		t.Fatal(err)
	}
	s := daprdOf(t, []string{"TMPDIR=" + t.TempDir(), "QUIPU_NODE=", "OTEL_BSP_SCHEDULE_DELAY=50"}, "--app-id", "one", "--config", config)
	if got := s.ask("POST", "/v1.0/state/statestore", `[{"key":"k","value":1}]`, "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"); got != "204" {
		t.Error(got)
	}
	s.end() // the last traces go before it does
	select {
	case path := <-traces:
		if path != "/v1/traces" {
			t.Errorf("traces went to %s", path)
		}
	default:
		t.Error("no traces came")
	}
	if strings.Contains(s.said(), "metrics server started") {
		t.Errorf("metrics are served:\n%s", s.said())
	}
}

// Every flag of the upstream sidecar is known: its own source says which there are.
func TestEveryFlagOfUpstreamIsKnown(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/dapr/dapr").Output()
	if err != nil {
		t.Skipf("the source of upstream is not here: %v", err)
	}
	fs, _ := newDaprdFlags()
	names := []string{"log-level", "log-file", "log-as-json"} // of another module
	for _, file := range []string{"cmd/daprd/options/options.go", "pkg/metrics/options.go"} {
		text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), file))
		if err != nil {
			t.Skipf("the source of upstream is not here: %v", err)
		}
		for _, found := range regexp.MustCompile(`(?s)Var\(\s*[&\w.]+,\s*"([a-z0-9-]+)"`).FindAllSubmatch(text, -1) {
			names = append(names, string(found[1]))
		}
	}
	if len(names) < 57 {
		t.Errorf("only %d flags were found", len(names))
	}
	for _, name := range names {
		if fs.Lookup(name) == nil {
			t.Errorf("--%s is not known", name)
		}
	}
}
