package locallog

import (
	"context"
	"time"

	"github.com/quipu-run/quipu/internal/trace"
)

// traced is an append that is recorded. The writer fills in the figures of its group before it answers; who appended reads
// them after, and only then.
type traced struct {
	span           *trace.Span
	appends, bytes int
	storing        time.Time
	stored         time.Duration
}

// beginTrace is nil if ctx is not recorded, as most.
func beginTrace(ctx context.Context) *traced {
	_, span := trace.Start(ctx, "log append")
	if span == nil {
		return nil
	}
	return &traced{span: span}
}

// end records the group commit that an append was part of; figures says whether the writer has filled it in.
func (t *traced) end(err error, figures bool) {
	if t == nil {
		return
	}
	if figures && t.appends > 0 { // none for what needed no write
		t.span.Int("quipu.log.commit.appends", int64(t.appends))
		t.span.Int("quipu.log.commit.bytes", int64(t.bytes))
		t.span.Past("write and sync", t.storing, t.storing.Add(t.stored))
	}
	t.span.Done(err)
}

// traceAll tells the appends of a group what became of it.
func traceAll(group []*request, bytes int, storing time.Time, stored time.Duration) {
	for _, r := range group {
		if r.traced != nil {
			r.traced.appends, r.traced.bytes, r.traced.storing, r.traced.stored = len(group), bytes, storing, stored
		}
	}
}
