package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/bundle"
	"github.com/quipu-run/quipu/internal/trace"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/test/fake"
)

// house is a gateway before a namespace in memory, on a real listener.
type house struct {
	*httptest.Server
	t   *testing.T
	ns  *fake.Namespace
	gw  *Gateway
	log *bytes.Buffer
}

func open(t *testing.T, token string) *house {
	t.Helper()
	h := &house{t: t, ns: fake.New(), log: &bytes.Buffer{}}
	tracer, err := trace.New(t.Context(), trace.Config{}, "test", slog.New(slog.DiscardHandler))
	h.must(err)
	h.gw = New(Options{
		Token:        token,
		Trace:        tracer,
		BodyBytesMax: 1000,
		Logger:       slog.New(slog.NewTextHandler(h.log, nil)),
		Backup: func(_ context.Context, to io.Writer) error {
			_, err := io.WriteString(to, "an archive")
			return err
		},
		Travel: travel{},
		Node:   func() sdk.Node { return sdk.Node{PID: 1, HTTP: "127.0.0.1:8080", Version: "test", Started: fake.Epoch} },
		Namespaces: func(name string) (Namespace, error) {
			if name != sdk.NamespaceDefault {
				return nil, &quipu.Error{Code: quipu.CodeNotFound, Text: fmt.Sprintf("no namespace %q", name)}
			}
			return h.ns, nil
		},
	})
	h.ns.OnRoutes = func(fns []quipu.Function) { h.must(h.gw.SetRoutes(sdk.NamespaceDefault, fns)) }
	h.Server = httptest.NewUnstartedServer(nil)
	h.Config = NewServer(h.gw, slog.New(slog.NewTextHandler(h.log, nil)))
	h.Start()
	t.Cleanup(h.Close)
	return h
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) add(fn quipu.Function, handler http.HandlerFunc) {
	h.t.Helper()
	h.ns.Add(fn, handler)
	h.must(h.gw.SetRoutes(sdk.NamespaceDefault, h.ns.Functions()))
}

// ask sends a request whose headers are "Name: value".
func (h *house) ask(method, path, body string, headers ...string) *http.Response {
	h.t.Helper()
	r, err := http.NewRequestWithContext(h.t.Context(), method, h.URL+path, strings.NewReader(body))
	h.must(err)
	for _, line := range headers {
		name, value, ok := strings.Cut(line, ": ")
		if !ok {
			continue
		}
		r.Header.Set(name, value)
		if name == "Host" {
			r.Host = value
		}
	}
	resp, err := http.DefaultTransport.RoundTrip(r) // redirects are answers here
	h.must(err)
	h.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func text(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// refused checks a problem: its status, its code, and that it tells what to do.
func refused(t *testing.T, r *http.Response, code quipu.Code) sdk.Problem {
	t.Helper()
	var p sdk.Problem
	if err := json.Unmarshal([]byte(text(t, r)), &p); err != nil {
		t.Fatalf("status %d without a problem: %v", r.StatusCode, err)
	}
	if p.Code != code || r.StatusCode != quipu.Codes[code].Status || p.Error == "" || p.Hint == "" {
		t.Errorf("status %d, %+v; want %s with %d, a text and a hint", r.StatusCode, p, code, quipu.Codes[code].Status)
	}
	return p
}

func TestPathAndQueryReachTheFunctionUnchanged(t *testing.T) {
	h := open(t, "")
	h.add(fake.HTTP("all", "/{rest...}"), fake.Echo)
	for _, uri := range []string{"/", "/a/b?x=1&y=%20", "/a//b", "/a/../b", "/a%2Fb/c", "/%7Euser", "/a;b", "/a/./", "/caf%C3%A9", "/x?", "/-x"} {
		c, err := net.Dial("tcp", h.Listener.Addr().String())
		h.must(err)
		fmt.Fprintf(c, "PUT %s HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody", uri)
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		h.must(err)
		if got, want := text(t, r), "PUT "+strings.TrimSuffix(uri, "?")+" body"; got != want {
			t.Errorf("the function saw %q, want %q", got, want)
		}
		c.Close()
	}
}

func TestRoutesPreferTheMoreSpecificPattern(t *testing.T) {
	h := open(t, "")
	h.add(fake.HTTP("root", "/{$}"), fake.Echo)
	h.add(fake.HTTP("orders", "/orders", "POST"), fake.Echo)
	h.add(fake.HTTP("list", "/orders", "GET"), fake.Echo)
	h.add(fake.HTTP("order", "/orders/{id}", "GET", "DELETE"), fake.Echo)
	h.add(fake.HTTP("new", "/orders/new"), fake.Echo)
	h.add(fake.HTTP("tree", "/tree/"), fake.Echo)
	for request, want := range map[string]string{
		"GET /": "root", "POST /orders": "orders", "GET /orders": "list", "HEAD /orders": "list", "DELETE /orders/7": "order",
		"GET /orders/new": "new", "PATCH /orders/new": "new", "GET /tree/": "tree", "GET /tree/a/b": "tree",
	} {
		method, path, _ := strings.Cut(request, " ")
		if r := h.ask(method, path, ""); r.StatusCode != 200 {
			t.Errorf("%s: status %d", request, r.StatusCode)
		}
		calls, err := h.ns.Calls(t.Context(), "", 1)
		h.must(err)
		if calls[0].Function != want {
			t.Errorf("%s went to %s, want %s", request, calls[0].Function, want)
		}
	}
	refused(t, h.ask("GET", "/nowhere", ""), quipu.CodeNoRoute)
	r := h.ask("PUT", "/orders", "")
	refused(t, r, quipu.CodeMethod)
	if got := r.Header.Get("Allow"); got != "GET, HEAD, POST" {
		t.Errorf("Allow: %s", got)
	}
	if r := h.ask("POST", "/tree?a=b", "x"); r.StatusCode != 308 || r.Header.Get("Location") != "/tree/?a=b" {
		t.Errorf("a missing last slash: %d %s, want a redirect that keeps the body", r.StatusCode, r.Header.Get("Location"))
	}
}

func TestRoutesThatCannotBeAreRefusedByName(t *testing.T) {
	cases := map[string]struct {
		functions []quipu.Function
		says      []string
	}{
		"the same path":       {[]quipu.Function{fake.HTTP("a", "/x"), fake.HTTP("b", "/x")}, []string{`"a"`, `"b"`, `"/x"`}},
		"other wildcards":     {[]quipu.Function{fake.HTTP("a", "/x/{i}"), fake.HTTP("b", "/x/{j}")}, []string{`"/x/{i}"`, `"/x/{j}"`}},
		"neither is narrower": {[]quipu.Function{fake.HTTP("a", "/x/{i}"), fake.HTTP("b", "/{i}/y")}, []string{`"a"`, `"b"`}},
		"one common method":   {[]quipu.Function{fake.HTTP("a", "/x", "GET", "PUT"), fake.HTTP("b", "/x", "PUT")}, []string{`"a"`, `"b"`}},
		"all and one method":  {[]quipu.Function{fake.HTTP("a", "/x"), fake.HTTP("b", "/x", "PUT")}, []string{`"a"`, `"b"`}},
		"head comes with get": {[]quipu.Function{fake.HTTP("a", "/x", "GET"), fake.HTTP("b", "/x", "HEAD")}, []string{`"a"`, `"b"`}},
		"no slash":            {[]quipu.Function{fake.HTTP("a", "x")}, []string{`"a"`, "slash"}},
		"a host":              {[]quipu.Function{fake.HTTP("a", "example.com/x")}, []string{`"a"`}},
		"open wildcard":       {[]quipu.Function{fake.HTTP("a", "/{x")}, []string{"malformed"}},
		"dots in the middle":  {[]quipu.Function{fake.HTTP("a", "/{x...}/y")}, []string{"malformed"}},
		"what is ours":        {[]quipu.Function{fake.HTTP("a", "/-/x")}, []string{"/-/"}},
		"a bad method":        {[]quipu.Function{fake.HTTP("a", "/x", "get")}, []string{`"get"`}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			err := CheckRoutes(c.functions)
			if quipu.CodeOf(err) != quipu.CodeRoute {
				t.Fatalf("got %v", err)
			}
			for _, part := range c.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not name %s", err, part)
				}
			}
		})
	}
	fine := []quipu.Function{fake.HTTP("a", "/x", "GET"), fake.HTTP("b", "/x", "PUT"), fake.HTTP("c", "/{i}/y", "GET"), fake.HTTP("d", "/x/{i}", "POST")}
	if err := CheckRoutes(fine); err != nil {
		t.Errorf("different methods do not collide: %v", err)
	}
}

func TestARefusedTableLeavesTheOldRoutes(t *testing.T) {
	h := open(t, "")
	h.add(fake.HTTP("a", "/a"), fake.Echo)
	if err := h.gw.SetRoutes(sdk.NamespaceDefault, []quipu.Function{fake.HTTP("b", "/b"), fake.HTTP("c", "/b")}); err == nil {
		t.Fatal("a collision was taken")
	}
	if r := h.ask("GET", "/a", ""); r.StatusCode != 200 {
		t.Errorf("the old route is gone: %d", r.StatusCode)
	}
}

func TestHeadersOfACall(t *testing.T) {
	h := open(t, "secret")
	h.add(fake.HTTP("f", "/f"), func(w http.ResponseWriter, r *http.Request) {
		w.Header()["X-Seen"] = []string{fmt.Sprint(r.Header)}
		w.Header().Set("Keep-Alive", "timeout=1")
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.WriteHeader(http.StatusTeapot)
	})
	r := h.ask("GET", "/f", "", "Host: example.com", "X-Mine: kept", "Connection: X-Secret", "X-Secret: hop", "Te: trailers",
		"Quipu-Call-Id: forged", "Quipu-Revision: r1", "Quipu-Token: secret", "Quipu-Session: 7", "X-Forwarded-For: 9.9.9.9")
	seen := r.Header.Get("X-Seen")
	for _, want := range []string{"X-Mine:[kept]", "X-Forwarded-Host:[example.com]", "X-Forwarded-Proto:[http]", "X-Forwarded-For:[9.9.9.9, 127.0.0.1]", "Quipu-Session:[7]"} {
		if !strings.Contains(seen, want) {
			t.Errorf("the function did not see %s in %s", want, seen)
		}
	}
	for _, no := range []string{"X-Secret", "Te:", "forged", "Quipu-Token", "Quipu-Revision"} {
		if strings.Contains(seen, no) {
			t.Errorf("the function saw %s", no)
		}
	}
	if r.StatusCode != http.StatusTeapot || r.Header.Get("Quipu-Call-Id") != "call-1" || r.Header.Get("Quipu-Revision") != "r1" || r.Header.Get("Quipu-Session") == "" || r.Header.Get("X-Hop") != "" {
		t.Errorf("reply %d %v", r.StatusCode, r.Header)
	}
}

func TestAStreamArrivesPieceByPiece(t *testing.T) {
	h := open(t, "")
	next := make(chan string)
	h.add(fake.HTTP("f", "/events"), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for s := range next {
			fmt.Fprintf(w, "%s\n", s)
		}
	})
	go func() { next <- "one" }()
	r := h.ask("GET", "/events", "")
	lines := bufio.NewScanner(r.Body)
	for _, want := range []string{"one", "two", "three"} {
		if want != "one" {
			next <- want // only after the one before has arrived
		}
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("got %q, want %q", lines.Text(), want)
		}
	}
	close(next)
}

func TestAReplyThatBreaksOffIsNotTakenForWhole(t *testing.T) {
	h := open(t, "")
	h.add(fake.HTTP("f", "/f"), func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "half")
		panic("died")
	})
	r := h.ask("GET", "/f", "")
	if _, err := io.ReadAll(r.Body); err == nil {
		t.Error("the client was not told that the reply is incomplete")
	}
}

func TestBodiesOverTheLimitAreRefused(t *testing.T) {
	h := open(t, "")
	h.add(fake.HTTP("f", "/f"), fake.Echo)
	if got := text(t, h.ask("POST", "/f", strings.Repeat("x", 1000))); len(got) != len("POST /f ")+1000 {
		t.Errorf("a body of just the limit came as %d bytes", len(got))
	}
	refused(t, h.ask("POST", "/f", strings.Repeat("x", 1001)), quipu.CodeBodySize)
	// Without a length in advance.
	r, err := http.NewRequestWithContext(t.Context(), "POST", h.URL+"/f", io.MultiReader(strings.NewReader(strings.Repeat("x", 1001))))
	h.must(err)
	resp, err := http.DefaultClient.Do(r)
	h.must(err)
	defer resp.Body.Close()
	refused(t, resp, quipu.CodeBodySize)
}

func TestWithoutATokenOnlyLoopbackMayUseTheAdminAPI(t *testing.T) {
	h := open(t, "")
	port := h.Listener.Addr().(*net.TCPAddr).Port
	for _, host := range []string{"localhost", fmt.Sprintf("localhost:%d", port), "127.0.0.1", "[::1]:80", "quipu.localhost", "LOCALHOST."} {
		if r := h.ask("GET", "/-/v1/node", "", "Host: "+host); r.StatusCode != 200 {
			t.Errorf("host %s: %d", host, r.StatusCode)
		}
	}
	for _, host := range []string{"evil.example", "10.0.0.1", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0"} {
		refused(t, h.ask("GET", "/-/v1/node", "", "Host: "+host), quipu.CodeOrigin)
		refused(t, h.ask("GET", "/-/metrics", "", "Host: "+host), quipu.CodeOrigin)
	}
	for _, origin := range []string{"https://evil.example", "null", "http://localhost:1", "http://"} {
		refused(t, h.ask("DELETE", "/-/v1/functions/f", "", "Origin: "+origin), quipu.CodeOrigin)
	}
	if r := h.ask("GET", "/-/v1/node", "", "Origin: "+h.URL); r.StatusCode != 200 {
		t.Errorf("our own page is refused: %d", r.StatusCode)
	}
}

func TestWithATokenOnlyItsHolderMayUseTheAdminAPI(t *testing.T) {
	h := open(t, "secret")
	h.add(fake.HTTP("f", "/f"), fake.Echo)
	for _, header := range []string{"Quipu-Token: secret", "Authorization: Bearer secret", "Authorization: bearer  secret"} {
		if r := h.ask("GET", "/-/v1/node", "", header, "Host: example.com"); r.StatusCode != 200 {
			t.Errorf("%s: %d", header, r.StatusCode)
		}
	}
	for _, header := range []string{"X-No: token", "Quipu-Token: secre", "Quipu-Token: secret2", "Authorization: Basic secret"} {
		refused(t, h.ask("GET", "/-/v1/node", "", header), quipu.CodeToken)
	}
	for path, want := range map[string]int{"/-/healthz": 200, "/f": 200} {
		if r := h.ask("GET", path, ""); r.StatusCode != want {
			t.Errorf("%s needs no token, but got %d", path, r.StatusCode)
		}
	}
}

type broken struct{ Namespace }

func (broken) Calls(context.Context, string, int) ([]quipu.CallInfo, error) {
	return nil, fmt.Errorf("the password is hunter2")
}

func TestInternalErrorsTellNothingButWhereToLook(t *testing.T) {
	h := open(t, "")
	h.gw.opt.Namespaces = func(string) (Namespace, error) { return broken{h.ns}, nil }
	p := refused(t, h.ask("GET", "/-/v1/calls", ""), quipu.CodeInternal)
	if strings.Contains(p.Error+p.Hint, "hunter2") {
		t.Errorf("the cause leaks: %+v", p)
	}
	id := p.Error[strings.LastIndex(p.Error, " ")+1:]
	if log := h.log.String(); !strings.Contains(log, id) || !strings.Contains(log, "hunter2") {
		t.Errorf("the log does not have the cause under %s: %s", id, log)
	}
}

type busy struct{ Namespace }

func (busy) Invoke(context.Context, quipu.CallRequest) (*quipu.CallReply, error) {
	return nil, &quipu.Error{Code: quipu.CodeBusy, Text: "the queue of f is full"}
}

func TestBusyFunctionsSayWhenToRetry(t *testing.T) {
	h := open(t, "")
	h.add(fake.HTTP("f", "/f"), fake.Echo)
	h.gw.opt.Namespaces = func(string) (Namespace, error) { return busy{h.ns}, nil }
	r := h.ask("GET", "/f", "")
	refused(t, r, quipu.CodeBusy)
	if r.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestMetricsCountFunctionsAndForgetRemovedOnes(t *testing.T) {
	h := open(t, "")
	h.add(fake.HTTP("f", "/f/{x}"), fake.Echo)
	for _, path := range []string{"/f/one", "/f/two", "/none"} {
		// Not over the listener: a client has its answer before it is counted.
		h.gw.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
	}
	got := text(t, h.ask("GET", "/-/metrics", ""))
	if !strings.Contains(got, `quipu_http_requests_total{function="f",namespace="default",status="200"} 2`) {
		t.Errorf("requests are not counted:\n%s", got)
	}
	if strings.Contains(got, "/f/one") || strings.Contains(got, "/none") {
		t.Error("a path became a label")
	}
	h.must(h.gw.SetRoutes(sdk.NamespaceDefault, nil))
	h.gw.metrics.call(sdk.NamespaceDefault, "f", 200, 0, nil) // one that was still under way
	if got := text(t, h.ask("GET", "/-/metrics", "")); strings.Contains(got, `function="f"`) {
		t.Error("a removed function is still there")
	}
}

func TestHTTP2WithoutTLS(t *testing.T) {
	h := open(t, "")
	h.add(fake.HTTP("f", "/f"), fake.Echo)
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: p}
	defer tr.CloseIdleConnections()
	r, err := (&http.Client{Transport: tr}).Post(h.URL+"/f", "text/plain", strings.NewReader("x"))
	h.must(err)
	defer r.Body.Close()
	if got := text(t, r); r.ProtoMajor != 2 || got != "POST /f x" {
		t.Errorf("HTTP/%d %q", r.ProtoMajor, got)
	}
}

func TestHeaderBombsAreClosed(t *testing.T) {
	h := open(t, "")
	r := h.ask("GET", "/-/healthz", "", "X-Big: "+strings.Repeat("x", 2*headerBytesMax))
	if r.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d", r.StatusCode)
	}
}

func appBundle(t *testing.T) string {
	t.Helper()
	b, err := bundle.Pack(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// travel answers as a node with one fork does.
type travel struct{}

func (travel) ListNamespaces() []sdk.Namespace {
	return []sdk.Namespace{{Name: "default", Functions: 1}, {Name: "fork", Fork: &sdk.Fork{Of: "default", At: 7}}}
}

func (travel) Fork(_ context.Context, from, name string, at quipu.Seq, running bool) (sdk.Namespace, error) {
	return sdk.Namespace{Name: name, Fork: &sdk.Fork{Of: from, At: at, Running: running}}, nil
}

func (travel) Resume(_ context.Context, name string) (sdk.Namespace, error) {
	return sdk.Namespace{Name: name, Fork: &sdk.Fork{Of: "default", Running: true}}, nil
}

func (travel) RemoveNamespace(_ context.Context, name string) error {
	if name == sdk.NamespaceDefault {
		return usage("it stays")
	}
	return nil
}

func (travel) Replay(_ context.Context, namespace, call string, o sdk.ReplayOptions) (quipu.CallReplay, error) {
	return quipu.CallReplay{Call: quipu.CallInfo{ID: call, Function: namespace}, Again: quipu.CallInfo{ID: call, Revision: o.Revision},
		Differences: []quipu.CallDifference{{What: "reply", Was: "a", Is: "b"}}}, nil
}

// Who asks in a namespace forks that one.
func TestAForkIsOfTheNamespaceThatIsAsked(t *testing.T) {
	h := open(t, "")
	for body, want := range map[string]string{
		`{"name":"new"}`: `"of":"default","at":"0000000000000000","running":false`,
		`{"name":"new","at":"000000000000002a","running":true}`: `"at":"000000000000002a","running":true`,
	} {
		if got := text(t, h.ask("POST", "/-/v1/forks", body, "Content-Type: application/json")); !strings.Contains(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if r := h.ask("POST", "/-/v1/forks", `{"name":"new","at":42}`, "Content-Type: application/json"); r.StatusCode != 400 {
		t.Errorf("a seq that is a number: %d", r.StatusCode)
	}
	if r := h.ask("DELETE", "/-/v1/namespaces/default", ""); r.StatusCode != 400 {
		t.Errorf("the default namespace was removed: %d", r.StatusCode)
	}
}
