package view

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/codec"
)

// Book runs the machines of one book.
type Book struct {
	store    *Store
	log      quipu.Log
	id       quipu.Book
	clock    quipu.Clock
	prefix   []byte
	machines map[string]Machine
	hooks    map[string]func() error
	turns    turns

	// mu makes the store's content and its position change together for readers.
	mu      sync.RWMutex
	applied position

	// settled is the seq of the last record whose hooks have run too. Who waits for a record waits for that:
	// readers see it earlier, but what follows the views, such as routes, does not yet.
	settled atomic.Uint64
	waits   waiters
	stop    context.CancelFunc
	stopped chan struct{} // closed when the applier has ended
	failed  chan struct{} // closed when it ended by an error
	err     error         // set before failed is closed
}

// position is how far a book has been applied.
type position struct {
	seq   quipu.Seq
	stamp int64
}

// OpenBook starts the machines of a book of log, in the state that the store has, and returns when
// everything that was in the book has been applied. CodeCorrupt if the store is ahead of the log, or so
// far behind that records it needs were trimmed.
func OpenBook(ctx context.Context, store *Store, log quipu.Log, id quipu.Book, clock quipu.Clock, machines ...Machine) (*Book, error) {
	b := newBook(store, log, id, clock, bookPrefix(cmp.Or(store.o.Keys, id)), machines)
	if err := b.load(machines); err != nil {
		return nil, err
	}
	tail, err := log.Tail(ctx, id, quipu.Linearizable)
	if err != nil {
		return nil, fmt.Errorf("tail of book %d: %w", id, err)
	}
	if at := b.applied; at.seq > tail {
		return nil, &quipu.Error{Code: quipu.CodeCorrupt, Op: "view.open",
			Text: fmt.Sprintf("the views have applied seq %s of book %d, whose log ends at %s: acknowledged records are missing", at.seq, id, tail),
			Hint: "restore the data directory from a backup"}
	}
	if err := b.replay(ctx, tail); err != nil {
		return nil, err
	}
	store.add(b)
	run, cancel := context.WithCancel(context.Background())
	b.stop = cancel
	go b.run(run)
	return b, nil
}

func newBook(store *Store, log quipu.Log, id quipu.Book, clock quipu.Clock, prefix []byte, machines []Machine) *Book {
	b := &Book{store: store, log: log, id: id, clock: clock, prefix: prefix,
		machines: map[string]Machine{}, hooks: map[string]func() error{},
		stopped: make(chan struct{}), failed: make(chan struct{})}
	for _, m := range machines {
		b.machines[m.Name()] = m
	}
	return b
}

// load takes from the store how far the book was applied, and what its machines keep in memory.
func (b *Book) load(machines []Machine) (err error) {
	if b.applied, err = readPosition(b.store.db, b.prefix); err != nil {
		return err
	}
	b.settled.Store(uint64(b.applied.seq))
	for _, m := range machines {
		if l, ok := m.(Loader); ok {
			if err := l.Load(Reader{b, b.store.db}); err != nil {
				return fmt.Errorf("load view %s: %w", m.Name(), err)
			}
		}
	}
	return nil
}

// OnApply has hook called after each record with operations of view, when readers can see
// them and before its committer returns. It must be set before the first commit, and not wait for
// one. Its error stops the book.
func (b *Book) OnApply(view string, hook func() error) { b.hooks[view] = hook }

// replay applies what the log holds after the store's position.
func (b *Book) replay(ctx context.Context, tail quipu.Seq) error {
	for rec, err := range b.log.Range(ctx, b.id, quipu.TagAll, b.applied.seq+1, tail) {
		if quipu.CodeOf(err) == quipu.CodeTrimmed {
			return &quipu.Error{Code: quipu.CodeCorrupt, Op: "view.open",
				Text: fmt.Sprintf("the views of book %d end at seq %s, before the trim point of its log", b.id, b.applied.seq),
				Hint: "restore the data directory from a backup", Err: err}
		}
		if err != nil {
			return fmt.Errorf("replay book %d: %w", b.id, err)
		}
		if err := b.apply(rec); err != nil {
			return err
		}
	}
	return nil
}

// run applies records as they come, until Close.
func (b *Book) run(ctx context.Context) {
	defer close(b.stopped)
	for rec, err := range b.log.Subscribe(ctx, b.id, quipu.TagAll, b.Applied()+1) {
		if err == nil {
			err = b.apply(rec)
		}
		if err != nil {
			if ctx.Err() == nil {
				b.fail(fmt.Errorf("apply book %d: %w", b.id, err))
			}
			return
		}
	}
}

// apply makes one record visible in all views at once.
func (b *Book) apply(rec quipu.Record) error {
	batch := b.store.db.NewBatch()
	defer batch.Close()
	touched, err := b.write(batch, rec)
	if err != nil {
		return fmt.Errorf("seq %s: %w", rec.Seq, err)
	}
	at := position{seq: rec.Seq, stamp: rec.Stamp}
	if err := batch.Set(appliedKey(b.prefix), at.encode(), nil); err != nil {
		return err
	}
	b.mu.Lock()
	err = batch.Commit(pebble.NoSync)
	if err == nil {
		b.applied = at
	}
	b.mu.Unlock()
	if err != nil {
		return fmt.Errorf("seq %s: %w", rec.Seq, err)
	}
	b.store.note(len(rec.Data))
	for view := range touched {
		hook := b.hooks[view]
		if hook == nil {
			continue
		}
		if err := hook(); err != nil {
			return fmt.Errorf("seq %s: after view %s: %w", rec.Seq, view, err)
		}
	}
	b.settled.Store(uint64(rec.Seq))
	b.waits.wake(rec.Seq)
	return nil
}

// write hands the operations of rec to their machines and answers which views they touched.
func (b *Book) write(batch *pebble.Batch, rec quipu.Record) (map[string]bool, error) {
	if rec.Kind != quipu.KindTx || rec.Version != codec.TxVersion {
		return nil, fmt.Errorf("record of kind %d, version %d in a book of views", rec.Kind, rec.Version)
	}
	tx, err := codec.DecodeTx(rec.Data)
	if err != nil {
		return nil, err
	}
	touched := make(map[string]bool, 2)
	out := &Batch{book: b, b: batch}
	for n, op := range tx.Ops {
		m := b.machines[op.View]
		if m == nil {
			return nil, fmt.Errorf("operation of unknown view %q", op.View)
		}
		if err := m.Apply(out, op.Body, At{Seq: rec.Seq, N: n, Stamp: rec.Stamp}); err != nil {
			return nil, fmt.Errorf("view %s: %w", op.View, err)
		}
		touched[op.View] = true
	}
	return touched, nil
}

// Applied is the seq of the last record that readers see.
func (b *Book) Applied() quipu.Seq {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.applied.seq
}

// Wait honours a session token: a reader that waits for the seq of its last write, or last read,
// reads that or newer. CodeUsage if the book has not come so far: the token is not ours.
func (b *Book) Wait(ctx context.Context, token quipu.Seq) error {
	if b.isSettled(token) {
		return nil
	}
	tail, err := b.log.Tail(ctx, b.id, quipu.Linearizable)
	if err != nil {
		return err
	}
	if token > tail {
		return &quipu.Error{Code: quipu.CodeUsage, Op: "session.wait",
			Text: fmt.Sprintf("session token %s is after the end of the log", token), Hint: "send back the token that an answer carried"}
	}
	return b.wait(ctx, token)
}

func (b *Book) isSettled(seq quipu.Seq) bool { return quipu.Seq(b.settled.Load()) >= seq }

// wait returns when everything up to seq, which must be visible some time, is, and its hooks have run.
func (b *Book) wait(ctx context.Context, seq quipu.Seq) error {
	if b.isSettled(seq) {
		return nil
	}
	ch := b.waits.add(seq)
	if b.isSettled(seq) { // it was applied before we stood in the list
		return nil
	}
	select {
	case <-ch:
		return nil
	case <-b.failed:
		return b.err
	case <-b.stopped:
		return b.closedError()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Failed is closed when a record could not be applied; Err then says why. The node has to stop.
func (b *Book) Failed() <-chan struct{} { return b.failed }

// Err is why the book failed.
func (b *Book) Err() error {
	select {
	case <-b.failed:
		return b.err
	default:
		return nil
	}
}

// Close stops applying. Commits under way get CodeUnknown or CodeLogStopped.
func (b *Book) Close() error {
	b.stop()
	<-b.stopped
	b.store.remove(b)
	return b.Err()
}

func (b *Book) fail(err error) {
	b.err = &quipu.Error{Code: quipu.CodeLogStopped, Op: "view.apply",
		Text: "the views stopped because a record could not be applied", Err: err,
		Hint: "look at the node's standard error, then restart it"}
	close(b.failed)
}

func (b *Book) closedError() error {
	if err := b.Err(); err != nil {
		return err
	}
	return &quipu.Error{Code: quipu.CodeStopping, Op: "view.wait"}
}

func appliedKey(prefix []byte) []byte { return append(prefix[:len(prefix):len(prefix)], 0) }

func (p position) encode() []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, uint64(p.seq)), uint64(p.stamp))
}

// readPosition is how far the book of prefix has been applied in what r reads.
func readPosition(r pebble.Reader, prefix []byte) (position, error) {
	value, closer, err := r.Get(appliedKey(prefix))
	if errors.Is(err, pebble.ErrNotFound) {
		return position{}, nil
	}
	if err != nil {
		return position{}, fmt.Errorf("read applied position: %w", err)
	}
	defer closer.Close()
	return decodePosition(value)
}

func decodePosition(value []byte) (position, error) {
	if len(value) != 16 {
		return position{}, &quipu.Error{Code: quipu.CodeCorrupt, Op: "view.open",
			Text: fmt.Sprintf("applied position of %d bytes", len(value)), Hint: "restore the data directory from a backup"}
	}
	return position{
		seq:   quipu.Seq(binary.LittleEndian.Uint64(value)),
		stamp: int64(binary.LittleEndian.Uint64(value[8:])),
	}, nil
}

// Bytes is about how much the book's views take on disk; what was written last is not there yet.
func (b *Book) Bytes() (int64, error) {
	n, err := b.store.db.EstimateDiskUsage(b.prefix, after(b.prefix))
	if err != nil {
		return 0, fmt.Errorf("size of the views of book %d: %w", b.id, err)
	}
	return int64(n), nil
}
