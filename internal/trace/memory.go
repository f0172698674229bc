package trace

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/quipu-run/quipu"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Limits of what is remembered, twice: of traces that somebody asked for, and of others.
const (
	tracesMax = 256
	spansMax  = 512     // of a trace
	bytesMax  = 8 << 20 // of all
	spanBytes = 256     // what a span takes besides its texts
)

// CallAttribute is the id of the call that a span is, by which its trace is found.
const CallAttribute = "faas.invocation_id"

// memory keeps the newest traces. It is a span processor. Traces that were asked for are apart, so that others, which may be
// a thousand a second, do not push them out.
type memory struct {
	mu     sync.Mutex
	asked  shelf
	others shelf
	wanted atomic.Int64 // traces in asked, so that most requests need no lock
}

func newMemory() *memory {
	return &memory{asked: shelf{of: map[trace.TraceID]*kept{}}, others: shelf{of: map[trace.TraceID]*kept{}}}
}

// shelf is traces in the order in which they came.
type shelf struct {
	of    map[trace.TraceID]*kept
	order []trace.TraceID
	bytes int
}

// kept is a trace.
type kept struct {
	trace quipu.Trace
	calls []string
	bytes int
	quiet chan struct{} // closed while no span is open
}

// ask has a trace remembered whose spans will come.
func (m *memory) ask(id trace.TraceID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asked.of[id] == nil {
		m.asked.add(id)
	}
	m.wanted.Store(int64(len(m.asked.of)))
}

// wants tells whether a trace was asked for.
func (m *memory) wants(id trace.TraceID) bool {
	if m.wanted.Load() == 0 {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked.of[id] != nil
}

func (s *shelf) add(id trace.TraceID) *kept {
	if len(s.order) >= tracesMax {
		s.dropOldest()
	}
	k := &kept{trace: quipu.Trace{ID: id.String(), Spans: []quipu.TraceSpan{}}, quiet: make(chan struct{})}
	close(k.quiet)
	s.of[id] = k
	s.order = append(s.order, id)
	return k
}

func (s *shelf) dropOldest() {
	s.bytes -= s.of[s.order[0]].bytes
	delete(s.of, s.order[0])
	s.order = s.order[1:]
}

// shelf is where a trace is. The caller holds mu.
func (m *memory) shelf(id trace.TraceID) *shelf {
	if m.asked.of[id] != nil {
		return &m.asked
	}
	return &m.others
}

// OnStart is of sdktrace.SpanProcessor.
func (m *memory) OnStart(_ context.Context, span sdktrace.ReadWriteSpan) {
	id := span.SpanContext().TraceID()
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.shelf(id)
	k := s.of[id]
	if k == nil {
		k = s.add(id)
	}
	if k.trace.Open++; k.trace.Open == 1 {
		k.quiet = make(chan struct{})
	}
}

// OnEnd is of sdktrace.SpanProcessor.
func (m *memory) OnEnd(span sdktrace.ReadOnlySpan) {
	read, call := read(span)
	size := spanBytes + len(read.Name) + len(read.Error)
	for name, value := range read.Attributes {
		size += len(name) + len(value)
	}
	id := span.SpanContext().TraceID()
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.shelf(id)
	k := s.of[id]
	if k == nil || k.trace.Open == 0 {
		return // it was forgotten meanwhile, or came back since
	}
	if k.trace.Open--; k.trace.Open == 0 {
		close(k.quiet)
	}
	if len(k.trace.Spans) >= spansMax {
		k.trace.Dropped++
		return
	}
	k.trace.Spans = append(k.trace.Spans, read)
	if call != "" {
		k.calls = append(k.calls, call)
	}
	k.bytes += size
	s.bytes += size
	for s.bytes > bytesMax && len(s.order) > 1 {
		s.dropOldest()
	}
	m.wanted.Store(int64(len(m.asked.of)))
}

// read copies a span; call is the id of the call that it is.
func read(span sdktrace.ReadOnlySpan) (out quipu.TraceSpan, call string) {
	out = quipu.TraceSpan{ID: span.SpanContext().SpanID().String(), Name: span.Name(), Kind: span.SpanKind().String(),
		Start: span.StartTime(), Nanos: span.EndTime().Sub(span.StartTime()).Nanoseconds()}
	if span.Parent().SpanID().IsValid() {
		out.Parent = span.Parent().SpanID().String()
	}
	if s := span.Status(); s.Code == codes.Error {
		out.Error = s.Description
		if out.Error == "" {
			out.Error = "failed"
		}
	}
	for _, a := range span.Attributes() {
		if out.Attributes == nil {
			out.Attributes = map[string]string{}
		}
		out.Attributes[string(a.Key)] = a.Value.String()
		if a.Key == CallAttribute {
			call = a.Value.AsString()
		}
	}
	return out, call
}

// find answers a trace when all of its spans that have begun are over, or ctx is.
func (m *memory) find(ctx context.Context, id string) (quipu.Trace, bool) {
	m.mu.Lock()
	k := m.lookup(id)
	m.mu.Unlock()
	if k == nil {
		return quipu.Trace{}, false
	}
	for {
		m.mu.Lock()
		quiet := k.quiet
		m.mu.Unlock()
		select {
		case <-quiet:
		case <-ctx.Done():
		}
		m.mu.Lock()
		if k.trace.Open > 0 && ctx.Err() == nil {
			m.mu.Unlock()
			continue // another has begun
		}
		out := k.trace
		out.Spans = slices.Clone(k.trace.Spans)
		m.mu.Unlock()
		slices.SortStableFunc(out.Spans, func(a, b quipu.TraceSpan) int { return a.Start.Compare(b.Start) })
		return out, true
	}
}

// lookup finds a trace by its id or that of a call. The caller holds mu.
func (m *memory) lookup(id string) *kept {
	named, err := trace.TraceIDFromHex(id)
	for _, s := range []*shelf{&m.asked, &m.others} {
		if k := s.of[named]; err == nil && k != nil {
			return k
		}
		for i := len(s.order) - 1; i >= 0; i-- {
			if k := s.of[s.order[i]]; slices.Contains(k.calls, id) {
				return k
			}
		}
	}
	return nil
}

// Shutdown is of sdktrace.SpanProcessor.
func (m *memory) Shutdown(context.Context) error { return nil }

// ForceFlush is of sdktrace.SpanProcessor.
func (m *memory) ForceFlush(context.Context) error { return nil }
