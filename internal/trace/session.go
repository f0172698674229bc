package trace

import (
	"context"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
)

// headerBinary is what clients of gRPC may send instead of traceparent; its bytes are in base64, as in all headers.
const headerBinary = "Grpc-Trace-Bin"

// Door is the trace of the operations that a function asks for with the header h of its request, within a call that was made
// with the traceparent called, which may be "". A trace of the function's own wins if it is the call's; without one the call's
// is written to h, so that it goes on with what is published and called. caller is the span of the call, nil if it is not
// recorded.
func (t *Tracer) Door(h http.Header, s quipu.Session, called string, caller *Span) quipu.Session {
	if values := h[headerBinary]; len(values) > 0 && len(h[quipu.HeaderTraceparent]) == 0 {
		if raw, err := base64.RawStdEncoding.DecodeString(values[0]); err == nil && FromBinary(raw) != "" {
			h[quipu.HeaderTraceparent] = []string{FromBinary(raw)}
		}
	}
	own := parse(h[quipu.HeaderTraceparent])
	if called != "" && (!own.IsValid() || own.TraceID().String() != TraceIDOf(called)) {
		h[quipu.HeaderTraceparent] = []string{called}
		own = parse(h[quipu.HeaderTraceparent])
	}
	if t == nil || !own.IsSampled() {
		return s
	}
	if caller == nil && t.exports == nil && !t.kept.wants(own.TraceID()) {
		return s
	}
	return &session{s, t, h}
}

// session records what is done in another.
type session struct {
	quipu.Session
	t      *Tracer
	header http.Header // whose traceparent is the parent of all
}

// do records one operation.
func (s *session) do(ctx context.Context, name string, kind Kind, set func(*Span), op func(context.Context) error) error {
	span := s.t.start(parse(s.header[quipu.HeaderTraceparent]), name, kind, time.Time{})
	set(span)
	err := op(With(ctx, span))
	span.Done(err)
	return err
}

func (s *session) Get(ctx context.Context, store string, keys ...string) (items []quipu.Item, err error) {
	err = s.do(ctx, "state.get "+store, Client, stateOf("get", store, keys), func(ctx context.Context) error {
		items, err = s.Session.Get(ctx, store, keys...)
		return err
	})
	return items, err
}

func (s *session) List(ctx context.Context, store string, r quipu.ListRequest) (page quipu.Page, err error) {
	err = s.do(ctx, "state.list "+store, Client, stateOf("list", store, []string{r.Prefix}), func(ctx context.Context) error {
		page, err = s.Session.List(ctx, store, r)
		return err
	})
	return page, err
}

// Together is one span; what is done in it is its own business.
func (s *session) Together(ctx context.Context, do func(quipu.Group) error) error {
	return s.do(ctx, "together", Client, func(*Span) {}, func(ctx context.Context) error { return s.Session.Together(ctx, do) })
}

func (s *session) Apply(ctx context.Context, store string, changes []quipu.Change) error {
	name, keys := "set", make([]string, 0, min(len(changes), keysMax))
	for _, c := range changes[:min(len(changes), keysMax)] {
		keys = append(keys, c.Key)
	}
	switch {
	case len(changes) > 1:
		name = "transaction"
	case len(changes) == 1 && changes[0].Delete:
		name = "delete"
	}
	return s.do(ctx, "state."+name+" "+store, Client, func(span *Span) {
		stateOf(name, store, keys)(span)
		span.Int("db.operation.batch.size", int64(len(changes)))
	}, func(ctx context.Context) error { return s.Session.Apply(ctx, store, changes) })
}

// keysMax is how many keys an attribute names.
const keysMax = 10

func stateOf(operation, store string, keys []string) func(*Span) {
	return func(span *Span) {
		span.Str("db.system.name", "quipu")
		span.Str("db.operation.name", operation)
		span.Str("db.collection.name", store)
		span.Str("quipu.keys", strings.Join(keys[:min(len(keys), keysMax)], " "))
	}
}

func (s *session) Publish(ctx context.Context, ms []quipu.Message) error {
	topic := ""
	if len(ms) > 0 {
		topic = ms[0].Topic
	}
	return s.do(ctx, "publish "+topic, Producer, func(span *Span) {
		messaging(span, "send", topic)
		span.Int("messaging.batch.message_count", int64(len(ms)))
		if len(ms) == 1 {
			span.Str("messaging.message.id", ms[0].ID)
		}
	}, func(ctx context.Context) error { return s.Session.Publish(ctx, ms) })
}

func messaging(span *Span, operation, topic string) {
	span.Str("messaging.system", "quipu")
	span.Str("messaging.operation.type", operation)
	span.Str("messaging.destination.name", topic)
}

func (s *session) Cancel(ctx context.Context, topic, id string) error {
	return s.do(ctx, "cancel "+topic, Client, func(span *Span) {
		messaging(span, "cancel", topic)
		span.Str("messaging.message.id", id)
	}, func(ctx context.Context) error { return s.Session.Cancel(ctx, topic, id) })
}

func (s *session) Invoke(ctx context.Context, r quipu.CallRequest) (reply *quipu.CallReply, err error) {
	err = s.do(ctx, "invoke "+r.Function, Client, func(span *Span) { span.Str("faas.invoked_name", r.Function) },
		func(ctx context.Context) error {
			reply, err = s.Session.Invoke(ctx, r)
			return err
		})
	return reply, err
}

func (s *session) InvokeAsync(ctx context.Context, r quipu.CallRequest) (info quipu.CallInfo, err error) {
	err = s.do(ctx, "invoke "+r.Function, Producer, func(span *Span) {
		span.Str("faas.invoked_name", r.Function)
	}, func(ctx context.Context) error {
		info, err = s.Session.InvokeAsync(ctx, r)
		return err
	})
	return info, err
}
