package xtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/codec"
)

// HistoryRestart ends a log and opens it again. unclean says that it was not closed, so its term grew.
type HistoryRestart func(rng *rand.Rand) (l quipu.Log, unclean bool)

// History does steps random operations, one after the other, on l and on a Model that reads the same clock, and fails at the first
// answer that differs: seqs, codes, winners, records. restart, if not nil, is called now and then. The
// same seed gives the same history.
func History(t *testing.T, seed uint64, steps int, clock *Clock, l quipu.Log, restart HistoryRestart) {
	t.Helper()
	h := &history{t: t, ctx: context.Background(), rng: rand.New(rand.NewPCG(seed, 0)), clock: clock, log: l, model: NewModel(clock)}
	for h.step = range steps {
		h.one()
		if h.step%10 == 0 {
			book, id := h.book(), h.rng.Uint64N(3)
			h.both(fmt.Sprintf("producer %d %d", book, id), func(l quipu.Log) (any, error) { return l.Producer(h.ctx, book, id) })
		}
		if restart != nil && h.rng.IntN(40) == 0 {
			var unclean bool
			if h.log, unclean = restart(h.rng); unclean {
				h.model.Crash()
			}
			h.compareAll()
		}
	}
	h.compareAll()
}

type history struct {
	t     *testing.T
	ctx   context.Context
	rng   *rand.Rand
	clock *Clock
	log   quipu.Log
	model *Model
	step  int
	tail  quipu.Seq // the newest seq that was answered
}

// one does one random operation on both.
func (h *history) one() {
	h.clock.Move(1)
	switch h.rng.IntN(12) {
	case 0:
		h.administer()
	case 1, 2, 3, 4, 5:
		h.appendOne()
	case 6:
		ds := make([]quipu.Draft, 1+h.rng.IntN(4))
		for i := range ds {
			ds[i] = h.draft()
		}
		book := h.book()
		h.both("batch", func(l quipu.Log) (any, error) { return l.AppendBatch(h.ctx, book, ds) })
	case 7:
		h.transact()
	case 8:
		if h.rng.IntN(3) == 0 {
			book, tag, upto := h.book(), h.tag(), h.seq()
			h.both(fmt.Sprintf("trim %d %q %s", book, tag, upto), func(l quipu.Log) (any, error) { return nil, l.Trim(h.ctx, book, tag, upto) })
		}
	case 9, 10:
		book, tag, seq := h.book(), h.tag(), h.seq()
		h.both(fmt.Sprintf("next %d %q %s", book, tag, seq), func(l quipu.Log) (any, error) { return l.Next(h.ctx, book, tag, seq) })
		h.both(fmt.Sprintf("prev %d %q %s", book, tag, seq), func(l quipu.Log) (any, error) { return l.Prev(h.ctx, book, tag, seq) })
	case 11:
		h.both("books", func(l quipu.Log) (any, error) { return l.Books(h.ctx) })
	}
}

// administer makes books, gives them other options, and deletes them, mostly others than the two that are written to.
func (h *history) administer() {
	name, book, o := fmt.Sprint("book", h.rng.IntN(4)), h.book(), quipu.BookOptions{}
	if h.rng.IntN(2) == 0 {
		o.Quota = int64(h.rng.IntN(200_000))
	}
	switch h.rng.IntN(6) {
	case 0:
		h.both(fmt.Sprintf("set %d %+v", book, o), func(l quipu.Log) (any, error) { return nil, l.SetBook(h.ctx, book, o) })
	case 1:
		if h.rng.IntN(4) > 0 {
			book = quipu.Book(1 + h.rng.IntN(h.model.created+2))
		}
		h.both(fmt.Sprintf("delete %d", book), func(l quipu.Log) (any, error) { return nil, l.DeleteBook(h.ctx, book) })
	default:
		h.both("create "+name, func(l quipu.Log) (any, error) { return l.CreateBook(h.ctx, name, o) })
	}
}

func (h *history) appendOne() {
	book, d := h.book(), h.draft()
	if h.rng.IntN(3) == 0 {
		d.Producer = h.producer(book)
	}
	h.both("append", func(l quipu.Log) (any, error) { return l.Append(h.ctx, book, d) })
}

// producer is mostly the number that is next, often one that was, and seldom one that may not be.
func (h *history) producer(book quipu.Book) quipu.Producer {
	p := quipu.Producer{ID: 1 + h.rng.Uint64N(2), N: 1}
	if past := h.model.producers[modelProducer{book, p.ID}]; len(past) > 0 {
		last := past[len(past)-1]
		p.Epoch, p.N = last.epoch, last.n+1
	}
	switch h.rng.IntN(8) {
	case 0, 1:
		p.N -= min(p.N-1, h.rng.Uint64N(2*quipu.ProducerWindow))
	case 2:
		p.N += h.rng.Uint64N(3)
	case 3:
		p.Epoch, p.N = p.Epoch+1, 1
	}
	return p
}

func (h *history) transact() {
	key := func() string { return fmt.Sprint("k", h.rng.IntN(30)) }
	tx := quipu.Tx{Snapshot: h.seq(), Writes: []string{key(), key()}, Tags: []string{"tx"}}
	if h.rng.IntN(2) == 0 {
		tx.Reads = []string{key()}
	}
	if h.rng.IntN(4) == 0 {
		tx.Later = []quipu.LaterRead{{Key: key(), At: h.seq()}}
	}
	if h.rng.IntN(4) == 0 {
		from := key()
		tx.Ranges = []quipu.KeyRange{{From: from, To: from + "5"}}
	}
	if h.rng.IntN(8) == 0 {
		tx.NotAfter = h.clock.Now().UnixNano() + int64(h.rng.IntN(2))
	}
	book := h.book()
	d := quipu.Draft{Kind: quipu.KindTx, Version: codec.TxVersion, Tags: tx.Tags, Data: codec.EncodeTx(nil, &tx)}
	h.both(fmt.Sprintf("tx %+v", tx), func(l quipu.Log) (any, error) { return l.Append(h.ctx, book, d) })
}

func (h *history) draft() quipu.Draft {
	d := quipu.Draft{Version: uint8(h.rng.IntN(3)), Data: make([]byte, h.rng.IntN(300))}
	if h.rng.IntN(20) == 0 {
		d.Data = make([]byte, h.rng.IntN(40_000))
	}
	for i := range d.Data {
		d.Data[i] = byte(h.rng.Uint32())
	}
	for range h.rng.IntN(3) {
		d.Tags = append(d.Tags, fmt.Sprint("t", h.rng.IntN(4)))
	}
	if h.rng.IntN(3) == 0 {
		d.Cond = &quipu.Cond{Tag: h.tag(), Last: h.seq()}
		if r, err := h.model.Prev(h.ctx, h.book(), d.Cond.Tag, quipu.SeqMax); err == nil && h.rng.IntN(3) > 0 {
			d.Cond.Last = r.Seq
		}
	}
	return d
}

// book is one of the two oldest that there are, or one that is not there.
func (h *history) book() quipu.Book {
	i := h.rng.IntN(2)
	h.model.mu.Lock()
	defer h.model.mu.Unlock()
	if i < len(h.model.books) {
		return h.model.books[i].id
	}
	return quipu.Book(h.model.created + 1)
}

func (h *history) tag() string {
	return []string{quipu.TagAll, "t0", "t1", "t2", "t3", "tx", "none"}[h.rng.IntN(7)]
}

// seq is one near the tail, more often than not.
func (h *history) seq() quipu.Seq {
	if h.rng.IntN(4) > 0 && h.tail > 20 {
		return h.tail - quipu.Seq(h.rng.IntN(20))
	}
	if h.tail == 0 {
		return 0
	}
	return quipu.MakeSeq(h.tail.Term(), h.rng.Uint64N(h.tail.Pos()+2))
}

// both does the same to both logs and compares the answers.
func (h *history) both(what string, do func(l quipu.Log) (any, error)) {
	h.t.Helper()
	want, wantErr := do(h.model)
	got, gotErr := do(h.log)
	if g, w := describe(got, gotErr), describe(want, wantErr); g != w {
		h.t.Fatalf("step %d: %s\n got %.2000s\nwant %.2000s", h.step, what, g, w)
	}
	if seq, ok := want.(quipu.Seq); ok && wantErr == nil {
		h.tail = max(h.tail, seq)
	}
}

// describe is an answer as text. What an error says is free, its code and seq are not.
func describe(answer any, err error) string {
	if err != nil {
		e := quipu.AsError(err)
		return fmt.Sprintf("%s %s", e.Code, e.Seq)
	}
	if r, ok := answer.(quipu.Record); ok {
		return fmt.Sprintf("%d %s %d.%d at %d %q %x", r.Book, r.Seq, r.Kind, r.Version, r.Stamp, r.Tags, r.Data)
	}
	return fmt.Sprintf("%+v", answer)
}

// compareAll reads all streams of both.
func (h *history) compareAll() {
	h.t.Helper()
	h.both("books", func(l quipu.Log) (any, error) { return l.Books(h.ctx) })
	for book := quipu.Book(1); book <= quipu.Book(h.model.created); book++ {
		for _, tag := range []string{quipu.TagAll, "t0", "t1", "t2", "t3", "tx"} {
			h.both(fmt.Sprintf("range %d %q", book, tag), func(l quipu.Log) (any, error) { return readStream(h.ctx, l, book, tag) })
		}
	}
}

// readStream is all that is left of a stream, as text.
func readStream(ctx context.Context, l quipu.Log, book quipu.Book, tag string) ([]string, error) {
	from := quipu.Seq(0)
	if _, err := l.Next(ctx, book, tag, 0); quipu.CodeOf(err) == quipu.CodeTrimmed {
		from = quipu.AsError(err).Seq + 1
	}
	var all []string
	for r, err := range l.Range(ctx, book, tag, from, quipu.SeqMax) {
		if err != nil {
			return nil, err
		}
		all = append(all, describe(r, nil))
	}
	return all, nil
}
