package call

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/trace"
)

// What OpenTelemetry's conventions call the parts of a call. Keys of our own begin with quipu.
const (
	attrFunction = "faas.name"
	attrRevision = "faas.version"
	attrTrigger  = "faas.trigger"
	attrCold     = "faas.coldstart"
	attrStatus   = "http.response.status_code"
)

// begin begins the span of a call, if it is recorded. It ends with finish.
func (c *Caller) begin(ctx context.Context, q *request) context.Context {
	kind := trace.Internal
	if q.delivery != nil || q.deferred != nil {
		kind = trace.Consumer
	}
	ctx, q.span = c.o.Trace.Enter(ctx, q.Header, "call", kind, false)
	if q.span == nil {
		return ctx
	}
	q.span.Rename("call " + q.f.Name)
	q.info.Trace = q.span.TraceID()
	q.span.Str(trace.CallAttribute, q.id)
	q.span.Str(attrFunction, q.f.Name)
	q.span.Str(attrRevision, q.f.Revision)
	q.span.Str(attrTrigger, kindOfTrigger(q.Trigger))
	q.span.Str("quipu.trigger", q.Trigger)
	q.span.Int("quipu.attempt", int64(max(1, q.Attempt)))
	q.span.Bool("quipu.atomic", q.f.Spec.Atomic)
	if topic, ok := strings.CutPrefix(q.Trigger, "topic/"); ok && q.delivery != nil {
		q.span.Str("messaging.system", "quipu")
		q.span.Str("messaging.operation.type", "process")
		q.span.Str("messaging.destination.name", topic)
	}
	return ctx
}

// tracedBy is the header of a call that is made later, as part of the trace that ctx is recorded in.
func tracedBy(ctx context.Context, h http.Header) http.Header {
	span := trace.Of(ctx)
	if span == nil {
		return h
	}
	if h == nil {
		h = http.Header{}
	}
	h.Set(quipu.HeaderTraceparent, span.Traceparent())
	return h
}

// kindOfTrigger is what the conventions have for a trigger of ours.
func kindOfTrigger(trigger string) string {
	switch {
	case trigger == "schedule":
		return "timer"
	case strings.HasPrefix(trigger, "topic/"), trigger == triggerDestination:
		return "pubsub"
	case trigger == "http":
		return "http"
	}
	return "other"
}

// finish ends the span of a call that is over.
func (q *request) finish(err error) {
	if q.span == nil {
		return
	}
	if q.info.Runs > 1 {
		q.span.Int("quipu.runs", int64(q.info.Runs))
	}
	if q.info.Status != 0 {
		q.span.Int(attrStatus, int64(q.info.Status))
	}
	q.span.Done(err)
}

// starter is a lease that knows when its instance was begun, ran and could be called.
type starter interface {
	Started() (begun, ran, ready time.Time)
}

// acquire waits for a place, and records for what.
func (q *request) acquire(ctx context.Context, acquire func(context.Context, quipu.Function) (Lease, error)) (Lease, error) {
	if q.span == nil {
		return acquire(ctx, q.f)
	}
	began := time.Now()
	wait := q.span.Begin("wait for a place", began)
	lease, err := acquire(ctx, q.f)
	if err != nil {
		wait.Done(err)
		return nil, err
	}
	wait.Str("quipu.instance", lease.ID())
	q.cold(wait, lease, began)
	wait.End()
	return lease, nil
}

// cold records the start of an instance that a call has waited for since began.
func (q *request) cold(wait *trace.Span, lease Lease, began time.Time) {
	s, ok := lease.(starter)
	if !ok {
		return
	}
	begun, ran, ready := s.Started()
	cold := ready.After(began)
	q.span.Bool(attrCold, cold)
	if !cold {
		return
	}
	wait.Past("wait", began, begun)
	start := begun
	if start.Before(began) {
		start = began // another call, or scale.min, had it begun
	}
	wait.Past("start", start, ran)
	if ran.Before(start) {
		ran = start
	}
	wait.Past("init", ran, ready)
}

// calling begins the span of the function itself, whose context goes with the request. It ends when the function has
// answered.
func (q *request) calling(ctx context.Context) (context.Context, *trace.Span) {
	if q.span == nil {
		return ctx, nil
	}
	ctx, span := trace.StartKind(trace.With(ctx, q.span), "function "+q.f.Name, trace.Client)
	span.Str("http.request.method", q.Method)
	span.Str("url.path", q.Path)
	span.Str("faas.invoked_name", q.f.Name)
	return ctx, span
}

// answered ends the span of a function.
func answered(span *trace.Span, status int, err error) {
	if span == nil {
		return
	}
	if status != 0 {
		span.Int(attrStatus, int64(status))
	}
	if status >= http.StatusInternalServerError && err == nil {
		span.Failed(http.StatusText(status), "")
	}
	span.Done(err)
}

// Door is Session for a request of an instance with the header h, in which the trace of the call goes on.
func (c *Caller) Door(h http.Header, f quipu.Function, instance string) (quipu.Session, error) {
	s, o, err := c.session(f, instance, h.Get(quipu.HeaderCallID))
	if err != nil {
		return nil, err
	}
	if o == nil {
		return c.o.Trace.Door(h, s, "", nil), nil
	}
	return c.o.Trace.Door(h, s, o.traceparent, o.span), nil
}
