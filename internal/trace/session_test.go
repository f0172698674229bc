package trace

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"testing"

	"github.com/quipu-run/quipu"
)

// store is a session in which everything succeeds but for the key bad.
type store struct {
	quipu.Session
	inner *Span // of the last operation
}

func (s *store) Get(ctx context.Context, _ string, keys ...string) ([]quipu.Item, error) {
	s.inner = Of(ctx)
	if keys[0] == "bad" {
		return nil, errors.New("broken")
	}
	return make([]quipu.Item, len(keys)), nil
}

func (s *store) List(ctx context.Context, _ string, _ quipu.ListRequest) (quipu.Page, error) {
	return quipu.Page{}, nil
}
func (s *store) Apply(context.Context, string, []quipu.Change) error { return nil }
func (s *store) Publish(context.Context, []quipu.Message) error      { return nil }
func (s *store) Cancel(_ context.Context, _, _ string) error         { return nil }
func (s *store) InvokeAsync(context.Context, quipu.CallRequest) (quipu.CallInfo, error) {
	return quipu.CallInfo{ID: "c"}, nil
}
func (s *store) Invoke(context.Context, quipu.CallRequest) (*quipu.CallReply, error) {
	return &quipu.CallReply{}, nil
}

// Each operation of a function is a span below the span that its request names, if that is of the call's trace.
func TestOperationsAreSpansBelowWhoAsksForThem(t *testing.T) {
	const own, foreign = "00-" + traceID + "-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for given, want := range map[string]string{own: "00f067aa0ba902b7", foreign: "", "": "", "nonsense": ""} {
		tracer := newTracer(t, Config{})
		_, call := tracer.Enter(t.Context(), asked(traceID), "call", Internal, true)
		h := http.Header{}
		if given != "" {
			h.Set("Traceparent", given)
		}
		s := &store{}
		door := tracer.Door(h, s, call.Traceparent(), call)
		if want == "" {
			want = call.Traceparent()[36:52]
			if h.Get("Traceparent") != call.Traceparent() {
				t.Errorf("%q: what is published and called gets %q", given, h.Get("Traceparent"))
			}
		}
		operations(t, door)
		if s.inner == nil {
			t.Error("what an operation does is not below it")
		}
		call.End()
		got, _ := tracer.Trace(t.Context(), traceID)
		if len(got.Spans) != 11 {
			t.Errorf("%q: %d spans", given, len(got.Spans))
		}
		for _, span := range got.Spans {
			if span.Name != "call" && span.Parent != want {
				t.Errorf("%q: %s has the parent %s, want %s", given, span.Name, span.Parent, want)
			}
			if failed := span.Error != ""; failed != (span.Attributes["quipu.keys"] == "bad") {
				t.Errorf("%s failed: %q", span.Name, span.Error)
			}
		}
	}
}

// operations does each once.
func operations(t *testing.T, s quipu.Session) {
	t.Helper()
	ctx := t.Context()
	_, badErr := s.Get(ctx, "shared", "bad")
	_, getErr := s.Get(ctx, "shared", "a", "b")
	_, listErr := s.List(ctx, "shared", quipu.ListRequest{Prefix: "p"})
	_, callErr := s.Invoke(ctx, quipu.CallRequest{Function: "f"})
	_, asyncErr := s.InvokeAsync(ctx, quipu.CallRequest{Function: "f"})
	err := errors.Join(getErr, listErr, callErr, asyncErr, s.Apply(ctx, "shared", []quipu.Change{{Key: "a", Delete: true}}),
		s.Apply(ctx, "shared", []quipu.Change{{Key: "a"}}), s.Apply(ctx, "shared", []quipu.Change{{Key: "a\xff"}, {Key: "b"}}),
		s.Publish(ctx, []quipu.Message{{Topic: "t", ID: "1"}}), s.Cancel(ctx, "t", "1"))
	if badErr == nil || err != nil {
		t.Errorf("%v, %v", badErr, err)
	}
}

// Dapr's clients over gRPC may name their trace in the older way.
func TestAnOlderClientNamesItsTraceInBytes(t *testing.T) {
	h := http.Header{headerBinary: {base64.RawStdEncoding.EncodeToString(Binary(parent))}}
	var none *Tracer
	s := &store{}
	if got := none.Door(h, s, "", nil); got != s || h.Get("Traceparent") != parent {
		t.Errorf("%v", h)
	}
}

// The trace of a call goes on with what it publishes and calls, although nobody here records it.
func TestWhatNobodyRecordsGoesOn(t *testing.T) {
	tracer, h, s := newTracer(t, Config{}), http.Header{}, &store{}
	if got := tracer.Door(h, s, parent, nil); got != s || h.Get("Traceparent") != parent {
		t.Errorf("recorded, or %v", h)
	}
}

// What a door pays for an operation of a call that nobody records.
func BenchmarkDoorUnrecorded(b *testing.B) {
	tracer, h, s := newTracer(b, Config{}), http.Header{"Content-Type": {"text/plain"}}, &store{}
	b.ReportAllocs()
	for b.Loop() {
		tracer.Door(h, s, "", nil)
	}
}
