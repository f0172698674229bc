// Package daprnode is nodes for the SDKs of Dapr. Start makes one of the real doors, over HTTP and gRPC, in front of a
// namespace in memory, and of real applications that are started, asked what they subscribe to, and called; it delivers
// events one by one and tries again at once. Serve runs the program itself.
package daprnode

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	contract "github.com/quipu-run/quipu/contract/dapr"
	plain "github.com/quipu-run/quipu/contract/http"
	"github.com/quipu-run/quipu/gateway"
	"github.com/quipu-run/quipu/gateway/dapr"
	"github.com/quipu-run/quipu/internal/cloudevent"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/test/fake"
)

// Limits of waiting for a process.
const (
	startMax = time.Minute
	endMax   = 5 * time.Second
)

// Node ends with its test.
type Node struct {
	*fake.Namespace
	t       testing.TB
	secrets map[string]string
	env     []string // of a client from outside
}

// Start opens the doors for clients from outside.
func Start(t testing.TB, secrets map[string]string) *Node {
	n := &Node{Namespace: fake.New(), t: t, secrets: secrets}
	n.env = n.open("default", "outside-token")
	return n
}

// open serves the doors of an app, and answers what it must know to find them.
func (n *Node) open(app, token string) []string {
	n.t.Helper()
	d := dapr.New(dapr.Options{
		Token: token, RequireToken: true, Version: "test", Logger: slog.New(slog.DiscardHandler),
		Session: func(*http.Request) (quipu.Session, error) { return n.Session(app), nil },
		Components: func(*http.Request) (*component.Set, error) {
			return component.NewSet(dapr.BuiltIn(func() (map[string]string, error) { return n.secrets, nil })...), nil
		},
		Subscribe: func(r *http.Request, s quipu.SubscribeRequest, deliver func(context.Context, quipu.Event) quipu.Outcome) error {
			return n.Subscribe(r.Context(), s, deliver)
		},
		Subscriptions: func(*http.Request) []quipu.TopicTrigger {
			f, err := n.Function(app)
			if err != nil {
				return nil // a client from outside
			}
			return f.Subscriptions
		},
	})
	web, rpc := gateway.NewServer(d, slog.New(slog.DiscardHandler)), d.GRPC()
	webPort, rpcPort := n.serve(web.Serve), n.serve(rpc.Serve)
	n.t.Cleanup(func() { d.Close(); rpc.Stop(); _ = web.Close() })
	return []string{"DAPR_HTTP_PORT=" + webPort, "DAPR_GRPC_PORT=" + rpcPort, "DAPR_API_TOKEN=" + token, "APP_ID=" + app,
		"DAPR_HTTP_ENDPOINT=http://127.0.0.1:" + webPort, "DAPR_GRPC_ENDPOINT=127.0.0.1:" + rpcPort}
}

func (n *Node) serve(serve func(net.Listener) error) (port string) {
	n.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() { _ = serve(l) }) // ends with the server
	n.t.Cleanup(done.Wait)
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// Client runs a program as a client from outside, and fails unless it ends well and its last word is "ok".
func (n *Node) Client(dir string, command ...string) {
	n.t.Helper()
	runClient(n.t, n.env, dir, command...)
}

func runClient(t testing.TB, env []string, dir string, command ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "ok") {
		t.Errorf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
}

// Run starts an application, waits until it listens on PORT, and subscribes it to what it asks for.
func (n *Node) Run(name, protocol, dir string, command ...string) {
	n.t.Helper()
	port := freePort(n.t)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env = dir, append(append(os.Environ(), n.open(name, name+"-token")...), "PORT="+port)
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	n.t.Cleanup(func() {
		stop(cmd, ended)
		if n.t.Failed() {
			n.t.Logf("%s printed:\n%s", name, out)
		}
	})
	dial := func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", "127.0.0.1:"+port)
	}
	if err := listens(dial, ended); err != nil {
		n.t.Fatalf("%s does not start: %v", name, err)
	}
	n.attach(name, client(protocol, dial))
}

// freePort is free now; that nobody else takes it meanwhile is likely enough.
func freePort(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func stop(cmd *exec.Cmd, ended <-chan struct{}) {
	_ = cmd.Process.Signal(os.Interrupt) // it may have ended
	select {
	case <-ended:
	case <-time.After(endMax):
		_ = cmd.Process.Kill()
		<-ended
	}
}

// listens waits for a process that has no other way to say that it does.
func listens(dial func(context.Context) (net.Conn, error), ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), startMax)
	defer cancel()
	for {
		conn, err := dial(ctx)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ended:
			return errors.New("it has ended")
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// app is what both contracts make of an application.
type app interface {
	contract.App
	Close()
}

func client(protocol string, dial func(context.Context) (net.Conn, error)) app {
	if protocol == "grpc" {
		return contract.NewClient(contract.Options{Dial: dial})
	}
	return contract.HTTP{App: plain.NewClient(plain.Options{Dial: dial})}
}

// attach deploys a running application.
func (n *Node) attach(name string, a app) {
	n.t.Helper()
	n.t.Cleanup(a.Close)
	triggers, err := contract.Subscriptions(n.t.Context(), a)
	if err != nil {
		n.t.Fatal(err)
	}
	f := fake.HTTP(name, "/"+name)
	f.Subscriptions = triggers
	n.Add(f, relay(a))
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, t := range triggers {
		ready := make(chan struct{})
		all.Go(func() { n.deliver(ctx, name, t, a, func() { close(ready) }) })
		<-ready
	}
	n.t.Cleanup(func() { cancel(); all.Wait() })
}

// deliver brings the events of one subscription until ctx ends.
func (n *Node) deliver(ctx context.Context, name string, t quipu.TopicTrigger, a app, ready func()) {
	router, err := contract.NewRouter(t)
	if err != nil {
		n.t.Error(err)
		ready()
		return
	}
	err = n.Subscribe(ctx, quipu.SubscribeRequest{Topic: t.Name, Name: name, Ready: ready}, func(ctx context.Context, e quipu.Event) quipu.Outcome {
		event, contentType := envelope(e, t.Raw), quipu.MediaCloudEvent
		path, ok := router.Path(event)
		if !ok {
			return quipu.Ack
		}
		if t.Batch > 1 {
			event, contentType = append(append([]byte("["), event...), ']'), quipu.MediaCloudBatch
		}
		return n.call(ctx, a, path, contentType, event)
	})
	if !errors.Is(err, context.Canceled) {
		n.t.Errorf("subscription of %s to %s: %v", name, t.Name, err)
	}
}

// envelope is an event as it is delivered.
func envelope(e quipu.Event, raw bool) []byte {
	if cloudevent.IsCloudEvent(e.ContentType) && !raw {
		return e.Data
	}
	contentType := e.ContentType
	if raw {
		contentType = "application/octet-stream"
	}
	_, event, err := cloudevent.Wrap(cloudevent.Attributes{ID: e.ID, DataContentType: contentType, Topic: e.Topic, PubSub: quipu.PubSubDefault}, e.Data)
	if err != nil {
		panic(err) // what is not JSON becomes text or base64
	}
	return event
}

func (n *Node) call(ctx context.Context, a app, path, contentType string, event []byte) quipu.Outcome {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://app"+path, bytes.NewReader(event))
	if err != nil {
		n.t.Error(err)
		return quipu.Drop
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set(quipu.HeaderTrigger, "topic")
	resp, err := a.Do(r)
	if err != nil {
		return quipu.Retry
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return quipu.Retry
	}
	return contract.Judge(resp.StatusCode, body)
}

// relay calls an application, with trailers.
func relay(a app) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Scheme, r.URL.Host, r.RequestURI = "http", "app", ""
		resp, err := a.Do(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		for name, values := range resp.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(resp.StatusCode)
		if _, err := io.Copy(w, resp.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
		for name, values := range resp.Trailer {
			w.Header()[http.TrailerPrefix+name] = values
		}
	})
}

// output is what a process printed.
type output struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
