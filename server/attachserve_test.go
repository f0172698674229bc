package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/peers"
	"github.com/quipu-run/quipu/sdk"
)

// watched attaches, and answers what is told as it comes.
func (n *node) watched(id string, a sdk.Attachment) (told chan sdk.Attached) {
	n.t.Helper()
	ctx, cancel := context.WithCancel(n.t.Context())
	told, done := make(chan sdk.Attached, 100), make(chan struct{})
	go func() {
		defer close(done)
		for now, err := range n.client.Attach(ctx, id, a) {
			if err != nil {
				if ctx.Err() == nil {
					n.t.Errorf("attached %s: %v", id, err)
				}
				return
			}
			told <- now
		}
	}()
	n.t.Cleanup(func() { cancel(); <-done })
	return told
}

// until answers the first of what is told that has a state.
func until(t *testing.T, told chan sdk.Attached, state string) sdk.Attached {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case now := <-told:
			if now.State == state {
				return now
			}
		case <-deadline:
			t.Fatalf("not told %s within %s", state, patience)
		}
	}
}

// wantPart is want of a body that has a part.
func (a answer) wantPart(t *testing.T, status int, part string) {
	t.Helper()
	if a.status != status || !strings.Contains(a.body, part) {
		t.Fatalf("got %d %.300q, want %d with %.200q", a.status, a.body, status, part)
	}
}

func subscribing(topic string) map[string]string {
	return map[string]string{"sub.yaml": fmt.Sprintf(`
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: s}
spec: {pubsubname: pubsub, topic: %s, routes: {default: /take}}
`, topic)}
}

// An application gets nothing before it is well for the first time, and nothing while it is not; who invokes it then is told as by
// daprd, and what was published meanwhile comes when it is well again.
func TestAnApplicationThatIsNotWellGetsNoEventsAndNoCalls(t *testing.T) {
	n := start(t)
	app, well := newOutsideApp(t, "orders"), atomic.Bool{}
	app.mux.HandleFunc("GET /am/i", func(w http.ResponseWriter, _ *http.Request) {
		if !well.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	told := n.watched("shop", sdk.Attachment{Port: app.port, Protocol: "http", Health: &sdk.AttachedHealth{Path: "/am/i", IntervalMillis: 20, TimeoutMillis: 20, Threshold: 2}})
	open := until(t, told, sdk.AttachedOpen)
	until(t, told, sdk.AttachedFound)
	invoke := func() answer { return ask("POST", "http://"+n.info.DaprHTTP+"/v1.0/invoke/shop/method/hello", "you") }
	invoke().wantPart(t, 500, "app is not in a healthy state")

	well.Store(true)
	until(t, told, sdk.AttachedListening)
	invoke().wantPart(t, 200, "hello you")
	ask("GET", "http://127.0.0.1:"+open.DaprHTTP+"/v1.0/metadata", "", "dapr-api-token", open.Token).wantPart(t, 200, `"healthCheckPath":"/am/i","healthProbeInterval":"20ms","healthProbeTimeout":"20ms","healthThreshold":2`)

	well.Store(false)
	until(t, told, sdk.AttachedUnwell)
	n.publish("orders", "first", map[string]string{})
	invoke().wantPart(t, 500, "app is not in a healthy state")
	if got := app.got(); len(got) != 0 {
		t.Errorf("it is not well and got %v", got)
	}
	well.Store(true)
	until(t, told, sdk.AttachedListening)
	eventually(t, "it has the first", func() bool { return len(app.got()) == 1 })
}

func TestResourcesAreReplacedWholeOrNotAtAll(t *testing.T) {
	n := start(t)
	app := newOutsideApp(t, "unused")
	told := n.watched("shop", sdk.Attachment{Port: app.port, Protocol: "http", Resources: subscribing("before")})
	id := until(t, told, sdk.AttachedOpen).ID
	until(t, told, sdk.AttachedListening)

	for what, files := range map[string]map[string]string{
		"no YAML":          {"a.yaml": "apiVersion: dapr.io/v1alpha1\nkind: [Component"},
		"no such type":     {"a.yaml": "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: a}\nspec: {type: state.nothing, version: v1}"},
		"no such pub/sub":  {"a.yaml": strings.Replace(subscribing("other")["sub.yaml"], "pubsubname: pubsub", "pubsubname: nowhere", 1)},
		"an expression no": {"a.yaml": strings.Replace(subscribing("other")["sub.yaml"], "default: /take", "rules: [{match: 'event.', path: /take}]", 1)},
	} {
		if err := n.client.Reload(t.Context(), "shop", id, sdk.AttachedResources{Resources: files}); err == nil {
			t.Errorf("%s: it was taken", what)
		}
	}
	n.publish("before", "first", map[string]string{})
	eventually(t, "it has the first", func() bool { return len(app.got()) == 1 })

	files := subscribing("after")
	files["c.yaml"] = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: later}\nspec: {type: state.in-memory, version: v1}"
	if err := n.client.Reload(t.Context(), "shop", id, sdk.AttachedResources{Resources: files}); err != nil {
		t.Fatal(err)
	}
	if got := until(t, told, sdk.AttachedListening).Subscriptions; fmt.Sprint(got) != "[unused after]" && fmt.Sprint(got) != "[after unused]" {
		t.Errorf("it subscribes to %v", got)
	}
	n.publish("before", "nobody's", map[string]string{})
	n.publish("after", "second", map[string]string{})
	eventually(t, "it has the second", func() bool { return len(app.got()) == 2 })
	if got := app.got(); got[1] != "second" {
		t.Errorf("it got %v", got)
	}
	if err := n.client.Reload(t.Context(), "shop", "another", sdk.AttachedResources{}); quipu.CodeOf(err) != quipu.CodeNoFunction {
		t.Errorf("an attachment that is not there: %v", err)
	}
	for range retiredMax + 1 {
		if err := n.client.Reload(t.Context(), "shop", id, sdk.AttachedResources{}); err != nil {
			if quipu.CodeOf(err) != quipu.CodeTooMany {
				t.Error(err)
			}
			return
		}
	}
	t.Error("resources could be replaced without end")
}

// One that says how many calls it takes gets no more at a time; the others wait.
func TestAnAttachedApplicationGetsAsManyCallsAtATimeAsItTakes(t *testing.T) {
	n := start(t)
	app := newOutsideApp(t, "orders")
	var now, most atomic.Int64
	inside, goOn := make(chan struct{}, 10), make(chan struct{})
	app.mux.HandleFunc("POST /slow", func(http.ResponseWriter, *http.Request) {
		if at := now.Add(1); at > most.Load() {
			most.Store(at)
		}
		inside <- struct{}{}
		<-goOn
		now.Add(-1)
	})
	n.attach("shop", sdk.Attachment{Port: app.port, Protocol: "http", Concurrency: 2})
	done := make(chan int, 6)
	for range 6 {
		go func() {
			done <- ask("POST", "http://"+n.info.DaprHTTP+"/v1.0/invoke/shop/method/slow", "").status
		}()
	}
	<-inside
	<-inside
	close(goOn)
	for range 6 {
		if status := <-done; status != 200 {
			t.Errorf("status %d", status)
		}
	}
	if most.Load() != 2 {
		t.Errorf("%d calls at a time, want 2", most.Load())
	}
}

// A door of one's own asks for the token that it was given, has the size that it was given, and says that it is not ready until the
// application listens.
func TestTheDoorOfAnAttachedApplicationIsAsItWasAskedFor(t *testing.T) {
	n := start(t)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	told := n.watched("shop", sdk.Attachment{Port: port, Protocol: "http", Token: "hunter2", BodyBytesMax: 100, Listen: []string{"127.0.0.1", "127.0.0.2"}})
	open := until(t, told, sdk.AttachedOpen)
	if open.Token != "hunter2" {
		t.Errorf("the token is %q", open.Token)
	}
	for _, host := range []string{"127.0.0.1", "127.0.0.2"} {
		door := "http://" + net.JoinHostPort(host, open.DaprHTTP) + "/v1.0/"
		ask("GET", door+"healthz", "").wantPart(t, 500, "ERR_HEALTH_NOT_READY")
		ask("GET", door+"healthz/outbound", "").want(t, 204, "")
		ask("GET", door+"metadata", "").wantPart(t, 401, "")
		ask("GET", door+"metadata", "", "dapr-api-token", "hunter2").wantPart(t, 200, `"id":"shop"`)
		ask("POST", door+"state/statestore", `[{"key":"k","value":"`+strings.Repeat("x", 100)+`"}]`, "dapr-api-token", "hunter2").wantPart(t, 413, "")
	}
	l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.NotFoundHandler()}
	go func() { _ = s.Serve(l) }() // it ends with Close
	defer s.Close()
	until(t, told, sdk.AttachedListening)
	ask("GET", "http://127.0.0.1:"+open.DaprHTTP+"/v1.0/healthz", "").want(t, 204, "")
	ask("POST", "http://127.0.0.1:"+open.DaprHTTP+"/v1.0/shutdown", "", "dapr-api-token", "hunter2").want(t, 204, "")
	until(t, told, sdk.AttachedShutdown)
}

// Sockets take the place of ports. One that a killed node left is no obstacle.
func TestAnAttachedApplicationMayHaveSocketsInPlaceOfPorts(t *testing.T) {
	n, dir := start(t), t.TempDir()
	left, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, "dapr-shop-http.socket")})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	open := until(t, n.watched("shop", sdk.Attachment{Protocol: "http", Socket: dir}), sdk.AttachedOpen)
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", open.DaprHTTP)
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://unix/v1.0/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 204 {
		t.Errorf("status %d", resp.StatusCode)
	}
	if _, err := os.Stat(filepath.Join(dir, "dapr-shop-grpc.socket")); err != nil {
		t.Error(err)
	}
	for _, err := range n.client.Attach(t.Context(), "other", sdk.Attachment{Protocol: "http", Socket: "relative"}) {
		if quipu.CodeOf(err) != quipu.CodeUsage {
			t.Errorf("a relative folder: %v", err)
		}
		break
	}
}

// Applications may speak over TLS, with whatever certificate, or HTTP/2 without it.
func TestAnAttachedApplicationMaySpeakOverTLSOrHTTP2(t *testing.T) {
	n := start(t)
	for protocol, prepare := range map[string]func(*httptest.Server){
		"https": func(s *httptest.Server) { s.StartTLS() },
		"h2c": func(s *httptest.Server) {
			s.Config.Protocols = new(http.Protocols)
			s.Config.Protocols.SetUnencryptedHTTP2(true)
			s.Start()
		},
	} {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/hello" {
				http.NotFound(w, r)
				return
			}
			body, _ := io.ReadAll(r.Body) // it is the test's
			fmt.Fprintf(w, "%s %s %v %s", body, r.Proto, r.TLS != nil, r.Header.Get("dapr-api-token"))
		}))
		s.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		prepare(s)
		defer s.Close()
		n.attach(protocol, sdk.Attachment{Port: s.Listener.Addr().(*net.TCPAddr).Port, Protocol: protocol, AppToken: "app"})
		want := map[string]string{"https": "you HTTP/1.1 true app", "h2c": "you HTTP/2.0 false app"}[protocol]
		ask("POST", "http://"+n.info.DaprHTTP+"/v1.0/invoke/"+protocol+"/method/hello", "you").wantPart(t, 200, want)
	}
}

// What a node does not have is asked of another, once: two nodes that each take the other for the home make no circle.
func TestWhatANodeDoesNotHaveIsInvokedElsewhereOnce(t *testing.T) {
	var asked atomic.Int64
	elsewhere := func(c *Config) {
		c.Elsewhere = func(_ context.Context, r quipu.CallRequest) (*quipu.CallReply, error) {
			asked.Add(1)
			body, err := io.ReadAll(r.Body)
			if err != nil || r.Function != "away" {
				return nil, &quipu.Error{Code: quipu.CodeNoFunction, Text: "nor is it elsewhere"}
			}
			return &quipu.CallReply{Status: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(r.Path + " " + string(body)))}, nil
		}
	}
	n := start(t, elsewhere)
	app := newOutsideApp(t, "orders")
	open, _ := n.attach("shop", sdk.Attachment{Port: app.port, Protocol: "http", Open: true})
	for _, door := range []string{"http://" + n.info.DaprHTTP, "http://127.0.0.1:" + open.DaprHTTP} {
		ask("POST", door+"/v1.0/invoke/away/method/a/b", "body").wantPart(t, 200, "/a/b body")
		ask("POST", door+"/v1.0/invoke/nobody/method/a", "body").wantPart(t, 500, "nor is it elsewhere")
		before := asked.Load()
		ask("POST", door+"/v1.0/invoke/away/method/a", "body", peers.HeaderForwarded, "1").wantPart(t, 500, "ERR_DIRECT_INVOKE")
		ask("POST", door+"/v1.0/invoke/shop/method/hello", "you").wantPart(t, 200, "hello you")
		if asked.Load() != before {
			t.Error("it was asked for what came from elsewhere, or is here")
		}
	}
}
