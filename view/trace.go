package view

import (
	"context"

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
