package server

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/trace"
)

// otlpCollector receives spans by both protocols of OTLP.
type otlpCollector struct {
	collectorv1.UnimplementedTraceServiceServer
	http, grpc string // URLs

	mu       sync.Mutex
	spans    []*otlp.Span
	resource map[string]string
}

func newCollector(t *testing.T) *otlpCollector {
	t.Helper()
	c := &otlpCollector{resource: map[string]string{}}
	web := httptest.NewServer(c)
	t.Cleanup(web.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rpc := grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(rpc, c)
	ended := make(chan error, 1)
	go func() { ended <- rpc.Serve(l) }()
	t.Cleanup(func() {
		rpc.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	c.http, c.grpc = web.URL+"/v1/traces", "http://"+l.Addr().String()
	return c
}

func (c *otlpCollector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	in := &collectorv1.ExportTraceServiceRequest{}
	if err == nil {
		err = proto.Unmarshal(body, in)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_, _ = c.Export(r.Context(), in)
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func (c *otlpCollector) Export(_ context.Context, in *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range in.ResourceSpans {
		for _, a := range r.GetResource().GetAttributes() {
			c.resource[a.Key] = a.Value.GetStringValue()
		}
		for _, s := range r.ScopeSpans {
			c.spans = append(c.spans, s.Spans...)
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

// named is the span of a name, nil if it has not come.
func (c *otlpCollector) named(name string) *otlp.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// wait is the span of a name, when it has come.
func (c *otlpCollector) wait(t *testing.T, name string) *otlp.Span {
	t.Helper()
	eventually(t, "the collector has a span "+name, func() bool { return c.named(name) != nil })
	return c.named(name)
}

func (c *otlpCollector) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.spans)
}

func attributeOf(s *otlp.Span, key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}

// exporting has a node send its traces, soon.
func exporting(endpoint, protocol string, ratio float64) func(*Config) {
	return func(c *Config) {
		c.Trace = trace.Config{Export: true, Endpoint: endpoint, Protocol: protocol, Ratio: ratio}.Every(20 * time.Millisecond)
	}
}

// tracedApp is an atomic function that reads, writes and publishes, and one that gets the event. The first answers with the
// trace headers that it was called with.
var tracedApp = files{
	"quipu.yaml": function("f", "f.py", "python", "atomic: true") + strings.Replace(function("g", "g.py", "python"), "triggers: [", "triggers: [{topic: {name: t}}, ", 1),
	"f.py": `
import http.client, json, lib, os
def publish(body):
    door = http.client.HTTPConnection("127.0.0.1", int(os.environ["DAPR_HTTP_PORT"]))
    door.request("POST", "/v1.0/publish/pubsub/t", body, {"Content-Type": "application/json", "dapr-api-token": os.environ["DAPR_API_TOKEN"]})
    door.getresponse().read()
def handle(r):
    lib.state("GET", "shared/before")
    lib.state("POST", "shared/", json.dumps([{"key": "after", "value": 1}]))
    publish('{"n":1}')
    r.answer(200, json.dumps({k.lower(): v for k, v in r.headers.items()}))
lib.serve(handle)`,
	"g.py": `
import lib
def handle(r):
    lib.state("GET", "shared/after")
    r.answer(200, "ok")
lib.serve(handle)`,
}

const (
	remoteTrace  = "0af7651916cd43dd8448eb211c80319c"
	remoteSpan   = "b7ad6b7169203331"
	remoteParent = "00-" + remoteTrace + "-" + remoteSpan + "-01"
)

// A call is one trace, from who called through the gateway, the call, the function and its operations to the log, and on to
// the function that gets the event: with both protocols of OTLP.
func TestACallAndItsEventAreOneTrace(t *testing.T) {
	for _, protocol := range []string{trace.ProtocolHTTP, trace.ProtocolGRPC} {
		t.Run(protocol, func(t *testing.T) {
			to := newCollector(t)
			endpoint := to.http
			if protocol == trace.ProtocolGRPC {
				endpoint = to.grpc
			}
			n := start(t, exporting(endpoint, protocol, 0))
			n.deploy(tracedApp)
			a := n.post("/f/", "{}", "traceparent", remoteParent, "tracestate", "vendor=1", "baggage", "user=7")
			if a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			var seen map[string]string
			if err := json.Unmarshal([]byte(a.body), &seen); err != nil {
				t.Fatal(err)
			}
			to.wait(t, "function g")
			to.wait(t, "call g")
			gateway, call, function := to.wait(t, "POST f"), to.wait(t, "call f"), to.wait(t, "function f")
			wantParent(t, gateway, remoteSpan)
			for child, parent := range map[string]*otlp.Span{"call f": gateway, "wait for a place": call, "function f": call, "commit": call,
				"state.get shared": function, "state.set shared": function, "publish t": function, "call g": function,
				"log append": to.wait(t, "commit"), "write and sync": to.wait(t, "log append")} {
				wantParent(t, to.wait(t, child), hex.EncodeToString(parent.SpanId))
			}
			if want := "00-" + remoteTrace + "-" + hex.EncodeToString(function.SpanId) + "-01"; seen["traceparent"] != want {
				t.Errorf("the function got traceparent %s, want %s: its own span", seen["traceparent"], want)
			}
			if seen["tracestate"] != "vendor=1" || seen["baggage"] != "user=7" {
				t.Errorf("tracestate %q and baggage %q did not pass", seen["tracestate"], seen["baggage"])
			}
			if got := attributeOf(call, "faas.invocation_id"); got != a.header.Get(quipu.HeaderCallID) {
				t.Errorf("the span is of call %s, not %s", got, a.header.Get(quipu.HeaderCallID))
			}
			if got := attributeOf(to.named("state.get shared"), "quipu.keys"); got != "before" {
				t.Errorf("the read names %q", got)
			}
			if to.resource["service.name"] != "quipu" || to.resource["service.version"] != "test" {
				t.Errorf("the resource is %v", to.resource)
			}
		})
	}
}

func wantParent(t *testing.T, s *otlp.Span, parent string) {
	t.Helper()
	if got := hex.EncodeToString(s.ParentSpanId); got != parent {
		t.Errorf("%s has the parent %s, want %s", s.Name, got, parent)
	}
	if got := hex.EncodeToString(s.TraceId); got != remoteTrace {
		t.Errorf("%s is in trace %s", s.Name, got)
	}
}

// Who asks for a trace gets it without any collector, with the cold start in its parts; nobody else is recorded.
func TestATraceThatWasAskedForIsRemembered(t *testing.T) {
	n := start(t)
	n.deploy(tracedApp)
	const other = "00-11111111111111111111111111111111-2222222222222222-01"
	if a := n.post("/f/", "{}", "traceparent", other, quipu.HeaderTrace, quipu.TraceKeep); a.status != 200 {
		t.Fatal(a.body) // a route is for everybody, who may not ask
	}
	if _, err := n.client.Trace(t.Context(), other[3:35]); quipu.CodeOf(err) != quipu.CodeNoTrace {
		t.Fatalf("a trace was kept for who may not ask: %v", err)
	}
	a := n.post("/-/v1/functions/f/call/", "{}", "traceparent", remoteParent, quipu.HeaderTrace, quipu.TraceKeep)
	if a.status != 200 || strings.Contains(strings.ToLower(a.body), "quipu-trace") {
		t.Fatalf("%d %s", a.status, a.body)
	}
	byID, err := n.client.Trace(t.Context(), remoteTrace)
	if err != nil {
		t.Fatal(err)
	}
	byCall, err := n.client.Trace(t.Context(), a.header.Get(quipu.HeaderCallID))
	if err != nil || byCall.ID != byID.ID {
		t.Fatalf("by the call: %v, %v", byCall.ID, err)
	}
	names := map[string]int{}
	for _, s := range byCall.Spans {
		names[s.Name]++
	}
	for _, want := range []string{"POST f", "call f", "function f", "state.set shared", "publish t", "commit", "log append", "write and sync"} {
		if names[want] != 1 {
			t.Errorf("%d spans %q in %v", names[want], want, names)
		}
	}
	info, err := n.client.Call(t.Context(), a.header.Get(quipu.HeaderCallID))
	if err != nil || info.Trace != remoteTrace {
		t.Errorf("the call names trace %q, %v", info.Trace, err)
	}
}

// An instance that a call had to wait for shows in the call's trace, in its parts.
func TestAColdStartIsInTheTraceOfTheCallThatWaited(t *testing.T) {
	n := start(t)
	n.python(hello, "scale: {idle: 10ms}")
	eventually(t, "the instance of the deploy has ended", func() bool {
		list, err := n.client.Instances(t.Context())
		return err == nil && len(list) == 0
	})
	a := n.post("/-/v1/functions/f/call/", "{}", "traceparent", remoteParent, quipu.HeaderTrace, quipu.TraceKeep)
	if a.status != 200 {
		t.Fatal(a.body)
	}
	got, err := n.client.Trace(t.Context(), remoteTrace)
	if err != nil {
		t.Fatal(err)
	}
	spans := map[string]quipu.TraceSpan{}
	for _, s := range got.Spans {
		spans[s.Name] = s
	}
	place := spans["wait for a place"]
	for _, part := range []string{"start", "init"} {
		if s := spans[part]; s.Nanos <= 0 || s.Parent != place.ID || s.Nanos > place.Nanos {
			t.Errorf("%s took %d ns below %s, the whole %d ns of %s", part, s.Nanos, s.Parent, place.Nanos, place.ID)
		}
	}
	if spans["call f"].Attributes["faas.coldstart"] != "true" {
		t.Errorf("the call is %v", spans["call f"].Attributes)
	}
}

// hello answers, and does nothing else.
const hello = `
import lib
lib.serve(lambda r: r.answer(200, r.headers.get("traceparent", "none") + " " + r.headers.get("tracestate", "none")))`

// What is no traceparent is ignored, together with its tracestate, and what nobody records passes as it is.
func TestWhatIsNoTraceparentIsIgnored(t *testing.T) {
	to := newCollector(t)
	n := start(t, exporting(to.http, "", 0))
	n.python(hello)
	for _, bad := range []string{"x", "00-" + strings.Repeat("0", 32) + "-" + remoteSpan + "-01", "00-" + remoteTrace + "-" + strings.Repeat("0", 16) + "-01",
		"ff" + remoteParent[2:], remoteParent + "-more", remoteParent + strings.Repeat("0", 9000), strings.ToUpper(remoteParent), "00-" + remoteTrace + "-" + remoteSpan + "-zz"} {
		a := n.get("/f/", "traceparent", bad, "tracestate", "a=b")
		given, state, _ := strings.Cut(a.body, " ")
		if a.status != 200 || strings.Contains(given, remoteTrace) || !strings.HasSuffix(given, "-00") || state != "none" {
			t.Errorf("%.80q became %d %q", bad, a.status, a.body)
		}
	}
	unsampled := remoteParent[:53] + "00"
	n.get("/f/", "traceparent", unsampled, "tracestate", "a=b").want(t, 200, unsampled+" a=b")
	if later := n.get("/f/", "traceparent", "cc"+remoteParent[2:]+"-more"); !strings.HasPrefix(later.body, "00-"+remoteTrace) {
		t.Errorf("a later version became %q", later.body)
	}
	to.wait(t, "function f")
	if got := to.count(); got > 5 {
		t.Errorf("%d spans were recorded of one call that says so", got)
	}
}

// A collector that hangs slows no call and does not keep the node from ending; what does not fit is counted.
func TestACollectorThatHangsSlowsNoCall(t *testing.T) {
	hang := make(chan struct{})
	reached := make(chan struct{}, 1000)
	dead := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		reached <- struct{}{}
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(dead.Close)
	t.Cleanup(func() { close(hang) })
	n := start(t, func(c *Config) {
		exporting(dead.URL, "", 1)(c)
		c.Trace = c.Trace.Queued(16)
	})
	n.python(hello)
	n.get("/f/")
	<-reached // it hangs from now on
	for range 50 {
		if a := n.get("/f/"); a.status != 200 {
			t.Fatal(a.body)
		}
	}
	figures := n.get("/-/metrics").body
	if !strings.Contains(figures, `quipu_trace_spans_total{outcome="exported"} 0`) || strings.Contains(figures, `quipu_trace_spans_total{outcome="dropped"} 0`) {
		t.Errorf("the drops are not counted:\n%s", linesWith(figures, "quipu_trace"))
	}
	if err := n.stop(); err != nil { // start's own end has patience, so a node that waits for ever is found
		t.Error(err)
	}
}

// What calls did in the drain is sent before the node ends.
func TestTheEndOfTheNodeSendsWhatWaits(t *testing.T) {
	to := newCollector(t)
	n := start(t, exporting(to.http, "", 1), func(c *Config) { c.Trace = c.Trace.Every(time.Hour) })
	n.python(hello)
	n.get("/f/")
	if to.count() != 0 {
		t.Fatal("spans were sent before")
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	if to.named("POST f") == nil && to.named("GET f") == nil {
		t.Error("the span of the request was not sent")
	}
}

// An asynchronous call stays in the trace of who asked for it.
func TestAnAsynchronousCallIsInTheTraceOfItsRequest(t *testing.T) {
	n := start(t)
	n.python(hello)
	a := n.post("/-/v1/functions/f/call/", "{}", "traceparent", remoteParent, quipu.HeaderTrace, quipu.TraceKeep, "Prefer", "respond-async")
	if a.status != 202 {
		t.Fatal(a.body)
	}
	eventually(t, "the call is in the trace", func() bool {
		got, err := n.client.Trace(t.Context(), a.header.Get(quipu.HeaderCallID))
		if err != nil {
			return false
		}
		request, call := "", ""
		for _, s := range got.Spans {
			switch s.Name {
			case "POST f":
				request = s.ID
			case "call f":
				call = s.Parent
			}
		}
		return got.ID == remoteTrace && request != "" && request == call
	})
}

// A line about a request says which trace and which call it is about, as JSON if it should.
func TestLinesOfTheLogNameTraceAndCall(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(trace.LogHandler(slog.NewJSONHandler(&out, nil)))
	tracer, err := trace.New(t.Context(), trace.Config{Ratio: 1}, "test", log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := tracer.Enter(t.Context(), http.Header{}, "x", trace.Server, false)
	defer span.End()
	log.ErrorContext(ctx, "request failed", "err", trace.CallError{Call: "c1", Function: "f", Err: io.ErrUnexpectedEOF})
	var line map[string]string
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line["trace"] != span.TraceID() || line["call"] != "c1" || line["fn"] != "f" {
		t.Errorf("%s, %v", out.String(), err)
	}
}

func linesWith(text, part string) string {
	var found []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}

// A function that calls another, joined in its transaction or on its own, has that call in its trace: below the operation,
// also when it names its own span, as OpenTelemetry's SDK does.
func TestACallOfAnotherFunctionIsBelowItsOperation(t *testing.T) {
	const caller = `
import http.client, lib, os
def handle(r):
    door = http.client.HTTPConnection("127.0.0.1", int(os.environ["DAPR_HTTP_PORT"]))
    own = r.headers["traceparent"][:36] + "00f067aa0ba902b7-01"
    for name in ("joined", "plain"):
        headers = {"dapr-api-token": os.environ["DAPR_API_TOKEN"]}
        if name == "plain":
            headers["traceparent"] = own
        door.request("POST", "/v1.0/invoke/" + name + "/method/x", "", headers)
        if door.getresponse().read().decode().split(" ")[0][:36] != own[:36]:
            return r.answer(500, "another trace")
    r.answer(200, "ok")
lib.serve(handle)`
	n := start(t)
	n.deploy(files{"quipu.yaml": function("f", "f.py", "python", "atomic: true") + function("joined", "g.py", "python", "atomic: true") + function("plain", "g.py", "python"),
		"f.py": caller, "g.py": hello})
	if a := n.post("/-/v1/functions/f/call/", "", "traceparent", remoteParent, quipu.HeaderTrace, quipu.TraceKeep); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	got, err := n.client.Trace(t.Context(), remoteTrace)
	if err != nil {
		t.Fatal(err)
	}
	spans := map[string]quipu.TraceSpan{}
	for _, s := range got.Spans {
		spans[s.Name] = s
	}
	for child, parent := range map[string]string{"invoke joined": spans["function f"].ID, "invoke plain": "00f067aa0ba902b7", "call joined": spans["invoke joined"].ID,
		"call plain": spans["invoke plain"].ID, "function joined": spans["call joined"].ID, "function plain": spans["call plain"].ID} {
		if s, there := spans[child]; !there || s.Parent != parent {
			t.Errorf("%s is below %q, want %q", child, s.Parent, parent)
		}
	}
}
