package view

import (
	"context"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/trace"
)

// commitTraced is commit within a span: its turn, the append, and until it is applied are parts of it.
func (b *Book) commitTraced(ctx context.Context, t *Tx) (quipu.Seq, error) {
	reads, ops := t.Size()
	if ops == 0 {
		return b.commit(ctx, t)
	}
	ctx, span := trace.Start(ctx, "commit")
	span.Int("quipu.reads", int64(reads))
	span.Int("quipu.operations", int64(ops))
	seq, err := b.commit(ctx, t)
	if err == nil {
		span.Str("quipu.seq", seq.String())
	}
	span.Done(err)
	return seq, err
}

// turnShown is the shortest wait for a turn that is worth a span: most commits wait for nobody.
const turnShown = 50 * time.Microsecond

// pass waits for the turns of others on what a transaction writes.
func (b *Book) pass(ctx context.Context, t *Tx, writes []string) (leave func(), err error) {
	span, began := trace.Of(ctx), time.Time{}
	if span != nil {
		began = time.Now()
	}
	leave, err = b.turns.pass(ctx, t.turn, append(t.gates, writes...))
	if span != nil && time.Since(began) > turnShown {
		span.Past("turn", began, time.Now())
	}
	return leave, err
}
