package trace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/quipu-run/quipu"
)

func newTracer(t testing.TB, c Config) *Tracer {
	t.Helper()
	tracer, err := New(t.Context(), c, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tracer.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return tracer
}

const (
	traceID = "0af7651916cd43dd8448eb211c80319c"
	parent  = "00-" + traceID + "-b7ad6b7169203331-01"
)

func asked(trace string) http.Header {
	return http.Header{quipu.HeaderTraceparent: {"00-" + trace + "-b7ad6b7169203331-01"}}
}

// The table of W3C Trace Context: what cannot be read is no parent, and versions to come are read as far as they are known.
func TestATraceparentIsReadAsW3CSays(t *testing.T) {
	for given, want := range map[string]string{
		parent:                             "sampled",
		parent[:53] + "00":                 "valid",
		parent[:53] + "02":                 "valid",
		parent[:53] + "03":                 "sampled",
		parent[:53] + "ff":                 "sampled",
		"01" + parent[2:]:                  "sampled",
		"01" + parent[2:] + "-what-is-new": "sampled",
		"01" + parent[2:] + "x":            "",
		parent + "-more":                   "",
		"ff" + parent[2:]:                  "",
		"":                                 "",
		parent[:54]:                        "",
		strings.ToUpper(parent):            "",
		"00-" + strings.Repeat("0", 32) + parent[35:]: "",
		parent[:36] + strings.Repeat("0", 16) + "-01": "",
		strings.ReplaceAll(parent, "-", "_"):          "",
		parent[:53] + "0g":                            "",
		"0x" + parent[2:]:                             "",
	} {
		got := ""
		if c := parse([]string{given}); c.IsSampled() {
			got = "sampled"
		} else if c.IsValid() {
			got = "valid"
		}
		if got != want {
			t.Errorf("%q is %q, want %q", given, got, want)
		}
	}
	if parse([]string{parent, parent}).IsValid() {
		t.Error("two are one too many")
	}
}

func FuzzATraceparentIsReadOrIgnored(f *testing.F) {
	f.Add(parent)
	f.Add("cc" + parent[2:] + "-x")
	f.Fuzz(func(t *testing.T, given string) {
		c := parse([]string{given})
		if c.IsValid() != (TraceIDOf(given) != "") {
			t.Fatalf("%q", given)
		}
		if c.IsValid() && TraceIDOf(given) != c.TraceID().String() {
			t.Fatalf("%q", given)
		}
	})
}

func TestTheBinaryFormOfDaprIsThatOfTheText(t *testing.T) {
	if got := FromBinary(Binary(parent)); got != parent {
		t.Errorf("%q", got)
	}
	if Binary("x") != nil || FromBinary(nil) != "" || FromBinary(make([]byte, binaryBytes)) != "" {
		t.Error("what is none was read")
	}
}

// Without an exporter, and without being asked, nothing is recorded and nothing is changed.
func TestWhoIsNotAskedRecordsNothing(t *testing.T) {
	tracer := newTracer(t, Config{})
	h := asked(traceID)
	if _, span := tracer.Enter(t.Context(), h, "x", Server, false); span != nil || h.Get("Traceparent") != parent {
		t.Errorf("recorded, or changed to %v", h)
	}
	if _, span := tracer.Enter(t.Context(), http.Header{}, "x", Server, false); span != nil {
		t.Error("recorded without a parent")
	}
	var none *Tracer
	if _, span := none.Enter(t.Context(), h, "x", Server, true); span != nil {
		t.Error("a nil tracer records")
	}
}

// A ratio decides once: who comes after is told.
func TestTheRatioDecidesOnceForATrace(t *testing.T) {
	never := newTracer(t, Config{Export: true, Endpoint: "http://127.0.0.1:1"}.Every(time.Hour))
	h := http.Header{}
	if _, span := never.Enter(t.Context(), h, "x", Server, false); span != nil || !strings.HasSuffix(h.Get("Traceparent"), "-00") || !Valid(h["Traceparent"]) {
		t.Errorf("header %v", h)
	}
	always := newTracer(t, Config{Ratio: 1})
	ctx, span := always.Enter(t.Context(), nil, "x", Server, false)
	if span == nil || Of(ctx) != span {
		t.Fatal("not recorded")
	}
	span.End()
}

// The memory has a limit of traces, of spans and of bytes, and traces that were asked for are not pushed out by others.
func TestTheMemoryOfTracesHasLimits(t *testing.T) {
	tracer := newTracer(t, Config{Ratio: 1})
	id := func(n int) string { return fmt.Sprintf("%032x", n+1) }
	_, mine := tracer.Enter(t.Context(), asked(traceID), "mine", Server, true)
	mine.End()
	for range 3 * tracesMax {
		_, span := tracer.Enter(t.Context(), http.Header{}, "other", Server, false)
		span.End()
	}
	if n := len(tracer.kept.others.of); n != tracesMax {
		t.Errorf("%d other traces", n)
	}
	if _, ok := tracer.Trace(t.Context(), traceID); !ok {
		t.Error("the trace that was asked for is gone")
	}
	for n := range tracesMax {
		_, span := tracer.Enter(t.Context(), asked(id(n)), "asked", Server, true)
		span.End()
	}
	if _, ok := tracer.Trace(t.Context(), traceID); ok || len(tracer.kept.asked.of) != tracesMax {
		t.Errorf("%d that were asked for, the oldest is there: %v", len(tracer.kept.asked.of), ok)
	}

	ctx, root := tracer.Enter(t.Context(), asked(traceID), "root", Server, true)
	for range spansMax + 10 {
		_, span := Start(ctx, "part")
		span.End()
	}
	root.End()
	got, _ := tracer.Trace(t.Context(), traceID)
	if len(got.Spans) != spansMax || got.Dropped != 11 || got.Open != 0 {
		t.Errorf("%d spans, %d dropped, %d open", len(got.Spans), got.Dropped, got.Open)
	}

	for n := range 40 {
		ctx, root := tracer.Enter(t.Context(), asked(id(n)), "root", Server, true)
		for range 400 {
			_, span := Start(ctx, "part")
			span.Str("key", strings.Repeat("x", 2*attributeBytesMax))
			span.End()
		}
		root.End()
	}
	if b := tracer.kept.asked.bytes; b > bytesMax || b < bytesMax/2 {
		t.Errorf("%d bytes are kept", b)
	}
}

// Who asks gets a trace when what has begun is over, or after a time.
func TestATraceIsAnsweredWhenItIsOver(t *testing.T) {
	tracer := newTracer(t, Config{})
	ctx, root := tracer.Enter(t.Context(), asked(traceID), "root", Server, true)
	_, part := Start(ctx, "part")
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if got, ok := tracer.Trace(over, traceID); !ok || got.Open != 2 || len(got.Spans) != 0 {
		t.Errorf("%+v, %v", got, ok)
	}
	found := make(chan quipu.Trace)
	go func() {
		got, _ := tracer.Trace(context.Background(), traceID)
		found <- got
	}()
	part.Fail(&quipu.Error{Code: quipu.CodeBusy, Text: "full"})
	part.End()
	part.End()
	root.End()
	got := <-found
	if len(got.Spans) != 2 || got.Spans[0].Name != "root" || got.Spans[1].Parent != got.Spans[0].ID || got.Spans[1].Error != "full" {
		t.Errorf("%+v", got)
	}
}

// Internal causes are for the log alone.
func TestASpanTellsNoInternalCause(t *testing.T) {
	tracer := newTracer(t, Config{})
	_, span := tracer.Enter(t.Context(), asked(traceID), "root", Server, true)
	span.Fail(errors.New("open /secret: denied"))
	span.End()
	if got, _ := tracer.Trace(t.Context(), traceID); strings.Contains(got.Spans[0].Error, "secret") || got.Spans[0].Error == "" {
		t.Errorf("%+v", got.Spans)
	}
}

// slow is an exporter that takes nothing until it may.
type slow struct {
	may     chan struct{}
	reached chan struct{}
	mu      sync.Mutex
	got     int
}

func (s *slow) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	s.reached <- struct{}{}
	select {
	case <-s.may:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got += len(spans)
	return nil
}

func (s *slow) Shutdown(context.Context) error { return nil }

// The queue takes as many spans as it may, drops and counts the others at once, and sends at the end what it has.
func TestAQueueThatIsFullDropsAndCounts(t *testing.T) {
	e := &slow{may: make(chan struct{}), reached: make(chan struct{}, 100)}
	q := newQueue(e, queueLimits{Queue: 4, Batch: 2, Delay: time.Hour, Timeout: time.Hour}, slog.New(slog.DiscardHandler))
	span := sdktrace.ReadOnlySpan(nil)
	q.OnEnd(span)
	q.OnEnd(span)
	<-e.reached // these two are being sent, and hang
	for range 10 {
		q.OnEnd(span)
	}
	if n := q.dropped.Load(); n != 6 {
		t.Errorf("%d dropped, want 6", n)
	}
	close(e.may)
	if err := q.Shutdown(t.Context()); err != nil || e.got != 6 || q.exported.Load() != 6 {
		t.Errorf("%d sent, %d counted, %v", e.got, q.exported.Load(), err)
	}
}

// The end does not wait longer than it may for a collector that hangs.
func TestTheEndOfAQueueHasALimit(t *testing.T) {
	e := &slow{may: make(chan struct{}), reached: make(chan struct{}, 100)}
	q := newQueue(e, queueLimits{Queue: 4, Batch: 1, Delay: time.Hour, Timeout: time.Hour}, slog.New(slog.DiscardHandler))
	q.OnEnd(nil)
	<-e.reached
	q.OnEnd(nil)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := q.Shutdown(over); err != nil || q.failed.Load() != 2 {
		t.Errorf("%d failed, %v", q.failed.Load(), err)
	}
}

func TestTheEnvironmentSaysHowToTrace(t *testing.T) {
	read := func(vars map[string]string) (Config, error) {
		return FromEnvironment(func(name string) string { return vars[name] })
	}
	const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"
	if c, err := read(nil); err != nil || c.Export || c.Ratio != 0 {
		t.Errorf("nothing said: %+v, %v", c, err)
	}
	if c, err := read(map[string]string{endpoint: "http://x", "OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25",
		"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc", "OTEL_BSP_MAX_QUEUE_SIZE": "9"}); err != nil ||
		!c.Export || c.Ratio != 0.25 || c.Protocol != ProtocolGRPC || c.limits.Queue != 9 {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := read(map[string]string{endpoint: "http://x"}); err != nil || c.Ratio != 1 || c.Protocol != ProtocolHTTP {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := read(map[string]string{endpoint: "http://x", "OTEL_SDK_DISABLED": "true"}); err != nil || c.Export {
		t.Errorf("disabled: %+v, %v", c, err)
	}
	for name, value := range map[string]string{"OTEL_TRACES_SAMPLER": "jaeger_remote", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json", "OTEL_BSP_MAX_QUEUE_SIZE": "-1"} {
		if _, err := read(map[string]string{endpoint: "http://x", name: value}); quipu.CodeOf(err) != quipu.CodeUsage {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
	for _, arg := range []string{"2", "-1", "NaN", "x"} {
		if _, err := sampler("traceidratio", arg); quipu.CodeOf(err) != quipu.CodeUsage {
			t.Errorf("%s: %v", arg, err)
		}
	}
}

// What a call that nobody records pays in all: two decisions, and each place that could begin a span.
func BenchmarkUnrecorded(b *testing.B) {
	tracer := newTracer(b, Config{})
	h, ctx := http.Header{"Content-Type": {"text/plain"}}, b.Context()
	b.ReportAllocs()
	for b.Loop() {
		ctx, gateway := tracer.Enter(ctx, h, "HTTP", Server, false)
		ctx, call := tracer.Enter(ctx, h, "call", Internal, false)
		for range 8 {
			_, span := Start(ctx, "part")
			span.Str("key", "value")
			span.Int("key", 1)
			span.End()
		}
		call.End()
		gateway.End()
	}
}

// The same with a traceparent that says that nobody records.
func BenchmarkUnsampledParent(b *testing.B) {
	tracer := newTracer(b, Config{})
	h, ctx := http.Header{quipu.HeaderTraceparent: {parent[:53] + "00"}}, b.Context()
	b.ReportAllocs()
	for b.Loop() {
		_, gateway := tracer.Enter(ctx, h, "HTTP", Server, false)
		_, call := tracer.Enter(ctx, h, "call", Internal, false)
		call.End()
		gateway.End()
	}
}

// What a span costs that is recorded.
func BenchmarkRecorded(b *testing.B) {
	tracer := newTracer(b, Config{Ratio: 1})
	ctx, root := tracer.Enter(b.Context(), nil, "root", Server, false)
	defer root.End()
	b.ReportAllocs()
	for b.Loop() {
		_, span := Start(ctx, "part")
		span.Str("key", "value")
		span.End()
	}
}
