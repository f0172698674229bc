package ledger

import (
	"context"
	"fmt"
	"sync"

	"github.com/quipu-run/quipu"
)

// Bounds of one append of the log.
const (
	batchEntries = 1024
	batchBytes   = 4 << 20 // or one entry more
)

// Writer appends entries to the ledger that it made. Its methods may be called concurrently.
//
// One append of the log is under way at a time; entries that come meanwhile go together in the next. The first append that
// fails ends the writer: all entries not yet acknowledged fail, so that there is never one without those before it. An error
// of CodeUnknown means that some of them may be there. Open decides.
type Writer struct {
	opt    Options
	book   quipu.Book
	name   string
	giveUp context.CancelFunc // ends the append under way, when Close waits no longer
	life   context.Context

	mu      sync.Mutex
	queue   []*Sent
	queued  int           // bytes of it
	next    int64         // id of the next entry
	n       uint64        // of the last append
	changed chan struct{} // closed, and made anew, when there is room in the queue, or when nothing is under way
	busy    bool          // flush runs
	closing bool
	sealed  bool
	err     error // why it ended
}

// Sent is an entry on its way.
type Sent struct {
	id    int64
	draft quipu.Draft
	done  chan struct{}
	err   error // set before done is closed
}

func newWriter(opt Options, book quipu.Book, name string) *Writer {
	w := &Writer{opt: opt, book: book, name: name, changed: make(chan struct{})}
	w.life, w.giveUp = context.WithCancel(context.Background())
	return w
}

// Append adds an entry and returns its id when it is durable. Concurrent calls share an append of the log.
// CodeFenced: somebody opened the ledger; this entry is not in it. CodeUnknown: it may be or not, also if ctx ended first.
// CodeRecord: the entry is too large. CodeUsage: the ledger was closed here.
func (w *Writer) Append(ctx context.Context, data []byte) (id int64, err error) {
	s, err := w.Send(ctx, data)
	if err != nil {
		return None, err
	}
	return s.Wait(ctx)
}

// Send is Append without the wait for the log; it waits only while the queue is full, and then ends with ctx as
// CodeOverloaded. Data is copied. Entries have ids in the order in which Send returned for them.
func (w *Writer) Send(ctx context.Context, data []byte) (*Sent, error) {
	if len(data) > EntryBytesMax {
		return nil, &quipu.Error{Code: quipu.CodeRecord, Op: "ledger.append", Text: fmt.Sprintf("the entry has %d bytes, more than %d", len(data), EntryBytesMax)}
	}
	for {
		s, changed, err := w.enqueue(data)
		if s != nil || err != nil {
			return s, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, &quipu.Error{Code: quipu.CodeOverloaded, Op: "ledger.append", Text: "the queue of ledger " + w.name + " is full, and the caller gave up; the entry was not added", Err: ctx.Err()}
		}
	}
}

// enqueue answers nothing but a channel if the queue is full.
func (w *Writer) enqueue(data []byte) (*Sent, <-chan struct{}, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.err != nil:
		return nil, nil, w.err
	case w.closing:
		return nil, nil, &quipu.Error{Code: quipu.CodeUsage, Op: "ledger.append", Text: "the ledger " + w.name + " was closed", Hint: "create another one"}
	case w.queued > 0 && w.queued+len(data) > w.opt.QueueBytesMax:
		return nil, w.changed, nil
	}
	s := &Sent{id: w.next, draft: entryDraft(w.next, data), done: make(chan struct{})}
	w.next++
	w.queue = append(w.queue, s)
	w.queued += len(s.draft.Data)
	if !w.busy {
		w.busy = true
		go w.flush() // Close waits for it
	}
	return s, nil, nil
}

// Wait answers the id when the entry is durable; errors as of Append. If ctx ends first, it can be called again.
func (s *Sent) Wait(ctx context.Context) (id int64, err error) {
	select {
	case <-s.done:
	case <-ctx.Done():
		select {
		case <-s.done: // both are; the outcome counts
		default:
			return None, &quipu.Error{Code: quipu.CodeUnknown, Op: "ledger.append", Text: "the caller gave up before the entry was durable", Err: ctx.Err()}
		}
	}
	if s.err != nil {
		return None, s.err
	}
	return s.id, nil
}

// flush appends until nothing waits.
func (w *Writer) flush() {
	for {
		batch, drafts := w.take()
		if batch == nil {
			return
		}
		_, err := appendSurely(w.life, w.opt, w.book, drafts)
		if err != nil {
			w.fail(batch, err)
			return
		}
		for _, s := range batch {
			close(s.done)
		}
	}
}

// take answers nil, and ends flush, if nothing waits.
func (w *Writer) take() (batch []*Sent, drafts []quipu.Draft) {
	w.mu.Lock()
	defer w.mu.Unlock()
	size := 0
	for len(batch) < len(w.queue) && len(batch) < batchEntries && size < batchBytes {
		s := w.queue[len(batch)]
		if size += len(s.draft.Data); size > batchBytes && len(batch) > 0 {
			break
		}
		batch, drafts = append(batch, s), append(drafts, s.draft)
		w.queued -= len(s.draft.Data)
	}
	w.wake()
	if batch == nil {
		w.busy = false
		return nil, nil
	}
	clear(w.queue[:len(batch)]) // so that what is done is not held
	w.queue = w.queue[len(batch):]
	w.n++
	drafts[0].Producer = quipu.Producer{ID: producer, Epoch: epochWriter, N: w.n}
	return batch, drafts
}

// fail ends the writer.
func (w *Writer) fail(batch []*Sent, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end(err)
	for _, s := range append(batch, w.queue...) {
		s.err = w.err
		close(s.done)
	}
	w.queue, w.queued, w.busy = nil, 0, false
	w.wake()
}

// end keeps the first reason. w.mu is held.
func (w *Writer) end(err error) {
	if w.err != nil {
		return
	}
	e := *quipu.AsError(err)
	e.Op, e.Err = "ledger.append", err
	e.Text = "the writer of ledger " + w.name + " cannot go on"
	if e.Code == quipu.CodeFenced {
		e.Text, e.Hint = "somebody else opened the ledger "+w.name+", so its writer is fenced", "create another ledger"
	}
	w.err = &e
}

func (w *Writer) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// Close waits for what was sent and closes the ledger, durable on return; it answers the last entry, None if there is
// none. It is to be called also when the writer has failed, and then answers why. If ctx ends first, the writer ends with
// CodeUnknown: the ledger may be closed or not, and Open closes it. A second Close answers as the first.
func (w *Writer) Close(ctx context.Context) (last int64, err error) {
	defer context.AfterFunc(ctx, w.giveUp)()
	if err := w.turn(); err != nil {
		return None, err
	}
	w.mu.Lock()
	last, sealed := w.next-1, w.sealed
	number := w.n + 1
	w.mu.Unlock()
	if !sealed {
		seal := sealDraft(last, quipu.Producer{ID: producer, Epoch: epochWriter, N: number})
		_, err = appendSurely(w.life, w.opt, w.book, []quipu.Draft{seal})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy = false; err != nil {
		w.end(err)
	} else {
		w.sealed = true
	}
	w.wake()
	if w.err != nil {
		return None, w.err
	}
	return last, nil
}

// turn waits until nothing is under way, and takes the place of flush.
func (w *Writer) turn() error {
	for {
		w.mu.Lock()
		w.closing = true
		err, busy, changed := w.err, w.busy, w.changed
		if err == nil && !busy {
			w.busy = true
		}
		w.mu.Unlock()
		if err != nil || !busy {
			return err
		}
		<-changed // giveUp ends what is under way, if the log does as it says
	}
}
