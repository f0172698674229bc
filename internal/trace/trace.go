// Package trace records what the platform does for a request, as OpenTelemetry has it: spans go to a collector by OTLP,
// and to a memory of bounded size from which quipu call --trace prints a timeline.
//
// Most requests are not recorded, and for them nothing here may cost anything: Start of a context without a span is one
// load of a counter, and all methods of a nil *Span do nothing and allocate nothing.
//
// What is recorded is decided once for each trace, where it comes in (Enter). A caller that says in traceparent that it
// records is followed, if this node exports at all or was asked to keep that trace; who says nothing is chosen by a ratio.
// What is not recorded here passes with its traceparent, tracestate and baggage unchanged, so that the spans of who called
// and of who is called stay connected.
//
// Spans are lost in a crash. A collector that is slow or gone slows no call: its queue is bounded, and what does not fit is
// dropped and counted.
package trace

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/quipu-run/quipu"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Limits of a span.
const (
	attributesMax     = 64
	attributeBytesMax = 1024
)

// Kind is the part that a span has in a conversation.
type Kind = trace.SpanKind

// Kinds of spans.
const (
	Internal = trace.SpanKindInternal
	Server   = trace.SpanKindServer
	Client   = trace.SpanKindClient
	Producer = trace.SpanKindProducer
	Consumer = trace.SpanKindConsumer
)

// Tracer records spans. A nil one records nothing.
type Tracer struct {
	otel     trace.Tracer
	provider *sdktrace.TracerProvider
	kept     *memory
	exports  *queue // nil without an exporter
	ratio    float64
}

// live counts the spans that have begun and not ended, of all tracers: while there are none, nobody needs to look for one.
var live atomic.Int64

// Span is a piece of work that is recorded. All methods of nil do nothing.
type Span struct {
	tracer *Tracer
	otel   trace.Span
	ended  atomic.Bool
}

type spanKey struct{}

// Of is the span of a context, nil if it has none.
func Of(ctx context.Context) *Span {
	if live.Load() == 0 {
		return nil
	}
	s, _ := ctx.Value(spanKey{}).(*Span)
	return s
}

// With is ctx with a span, which may be nil.
func With(ctx context.Context, s *Span) context.Context {
	if s == nil {
		return ctx
	}
	return context.WithValue(ctx, spanKey{}, s)
}

// Start begins a span below that of ctx; nil if ctx has none.
func Start(ctx context.Context, name string) (context.Context, *Span) {
	return StartKind(ctx, name, Internal)
}

// StartKind is Start of a span that has a part in a conversation.
func StartKind(ctx context.Context, name string, kind Kind) (context.Context, *Span) {
	parent := Of(ctx)
	if parent == nil {
		return ctx, nil
	}
	s := parent.tracer.start(parent.otel.SpanContext(), name, kind, time.Time{})
	return With(ctx, s), s
}

// start begins a span below parent, which may be invalid, at a time, which may be zero.
func (t *Tracer) start(parent trace.SpanContext, name string, kind Kind, at time.Time) *Span {
	options := []trace.SpanStartOption{trace.WithSpanKind(kind)}
	if !at.IsZero() {
		options = append(options, trace.WithTimestamp(at))
	}
	live.Add(1)
	_, s := t.otel.Start(trace.ContextWithSpanContext(context.Background(), parent), name, options...)
	return &Span{tracer: t, otel: s}
}

// Enter begins the first span of a request in this node, or one below that of ctx. It is nil if the request is not recorded.
// keep asks to remember the trace, if the request says that it is recorded. In h, which may be nil, a traceparent that is
// none is removed together with its tracestate, and one is added if it was decided here that nobody records the trace.
func (t *Tracer) Enter(ctx context.Context, h http.Header, name string, kind Kind, keep bool) (context.Context, *Span) {
	if t == nil {
		return ctx, nil
	}
	if Of(ctx) != nil {
		return StartKind(ctx, name, kind)
	}
	parent, ok := t.incoming(h, keep)
	if !ok {
		return ctx, nil
	}
	s := t.start(parent, name, kind, time.Time{})
	return With(ctx, s), s
}

// incoming decides whether a request is recorded, below which span.
func (t *Tracer) incoming(h http.Header, keep bool) (parent trace.SpanContext, record bool) {
	given := h[quipu.HeaderTraceparent]
	if len(given) == 0 && t.ratio == 0 && t.exports == nil {
		return parent, false // as most
	}
	parent = parse(given)
	switch {
	case parent.IsSampled():
		if keep {
			t.kept.ask(parent.TraceID())
		}
		state, err := trace.ParseTraceState(strings.Join(h[quipu.HeaderTracestate], ","))
		if err == nil { // W3C: one that cannot be read is no reason to leave the trace
			parent = parent.WithTraceState(state)
		}
		return parent, t.exports != nil || t.kept.wants(parent.TraceID())
	case parent.IsValid():
		return parent, false
	case len(given) > 0:
		delete(h, quipu.HeaderTraceparent)
		delete(h, quipu.HeaderTracestate)
	}
	return trace.SpanContext{}, t.choose(h)
}

// choose decides about a trace that begins here. Who comes after is told, so that nobody decides otherwise.
func (t *Tracer) choose(h http.Header) bool {
	if t.ratio == 0 && t.exports == nil {
		return false // it is not ours to decide
	}
	if chance() < t.ratio {
		return true
	}
	if h != nil {
		h[quipu.HeaderTraceparent] = []string{unrecorded()}
	}
	return false
}

// Trace remembers one by its id, or by that of a call in it. It waits, within ctx, for spans that have begun to end.
func (t *Tracer) Trace(ctx context.Context, id string) (quipu.Trace, bool) {
	if t == nil {
		return quipu.Trace{}, false
	}
	return t.kept.find(ctx, id)
}

// End ends a span. The first counts.
func (s *Span) End() { s.EndAt(time.Time{}) }

// EndAt is End at a time that has passed; zero means now.
func (s *Span) EndAt(at time.Time) {
	if s == nil || s.ended.Swap(true) {
		return
	}
	if at.IsZero() {
		s.otel.End()
	} else {
		s.otel.End(trace.WithTimestamp(at))
	}
	live.Add(-1)
}

// Past records a part of a span that is over. It answers the part, which is nil for a nil span or one that took no time.
func (s *Span) Past(name string, from, to time.Time) *Span {
	if s == nil || from.IsZero() || !to.After(from) {
		return nil
	}
	part := s.tracer.start(s.otel.SpanContext(), name, Internal, from)
	part.EndAt(to)
	return part
}

// Begin begins a part of a span, without a context.
func (s *Span) Begin(name string, at time.Time) *Span {
	if s == nil {
		return nil
	}
	return s.tracer.start(s.otel.SpanContext(), name, Internal, at)
}

// Rename gives a span a name that is worth making only for who records it.
func (s *Span) Rename(name string) {
	if s != nil {
		s.otel.SetName(strings.ToValidUTF8(name, "\ufffd"))
	}
}

// Str sets an attribute.
func (s *Span) Str(key, value string) {
	if s != nil {
		s.otel.SetAttributes(attribute.String(key, strings.ToValidUTF8(value, "\ufffd"))) // OTLP refuses a batch with anything else
	}
}

// Int sets an attribute.
func (s *Span) Int(key string, value int64) {
	if s != nil {
		s.otel.SetAttributes(attribute.Int64(key, value))
	}
}

// Bool sets an attribute.
func (s *Span) Bool(key string, value bool) {
	if s != nil {
		s.otel.SetAttributes(attribute.Bool(key, value))
	}
}

// Fail marks a span as failed, if there is an error. What is internal stays out of it, as out of what clients are told.
func (s *Span) Fail(err error) {
	if s == nil || err == nil {
		return
	}
	e := quipu.AsError(err)
	text := e.Text
	if text == "" || e.Code == quipu.CodeInternal {
		text = quipu.Codes[e.Code].Title
	}
	s.Str("error.type", string(e.Code))
	s.otel.SetStatus(codes.Error, strings.ToValidUTF8(text, "\ufffd"))
}

// Failed marks a span as failed, for a reason that is no error of ours.
func (s *Span) Failed(kind, text string) {
	if s != nil {
		s.Str("error.type", kind)
		s.otel.SetStatus(codes.Error, text)
	}
}

// Done ends a span, as failed if there is an error.
func (s *Span) Done(err error) {
	if s != nil {
		s.Fail(err)
		s.End()
	}
}

// TraceID is 32 hexadecimal digits; "" of nil.
func (s *Span) TraceID() string {
	if s == nil {
		return ""
	}
	return s.otel.SpanContext().TraceID().String()
}

// Traceparent names the span for who is called by it; "" of nil.
func (s *Span) Traceparent() string {
	if s == nil {
		return ""
	}
	c := s.otel.SpanContext()
	return "00-" + c.TraceID().String() + "-" + c.SpanID().String() + "-01"
}
