package book

import (
	"context"
	"errors"
	"io"
	"sync"

	logv1 "github.com/quipu-run/quipu/api/log/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/grpcwire"
)

// Bounds of one stream of appends.
const (
	streamAppendsMax = 4096     // without an answer
	streamBytesMax   = 64 << 20 // of their data
	runRecordsMax    = 4096     // of appends that are made one
	runBytesMax      = 4 << 20
)

// AppendStream implements the protocol.
//
// The method itself commits plain appends, all that came while the last were on their way to disk as one batch of the log:
// so one goroutine and one wait serve any number of them, and their order stays. What has a condition or a
// producer cannot be made one with others: it waits for its own answer aside.
func (s *service) AppendStream(client grpc.BidiStreamingServer[logv1.AppendStreamRequest, logv1.AppendStreamResponse]) error {
	ctx := client.Context()
	shelf, err := s.d.shelf(ctx)
	if err != nil {
		return s.d.fail(ctx, err)
	}
	a := &appendStream{d: s.d, shelf: shelf, client: client, ctx: ctx, flight: newFlight(streamBytesMax, streamAppendsMax),
		lanes: map[lane][]*appending{}, ready: make(chan struct{}, 1)}
	a.out = outbox{send: client.SendMsg, sent: a.flight.leave}
	defer context.AfterFunc(s.d.closing, func() { a.end(stopping()) })()
	go a.receive() // Recv ends with the stream, which is when this method returns
	for run := a.take(); len(run) > 0; run = a.take() {
		a.commit(run)
	}
	a.aside.Wait()
	return s.d.fail(ctx, a.cause)
}

// appendStream is one stream of appends.
type appendStream struct {
	d      *Door
	shelf  *shelf
	client grpc.ServerStream
	ctx    context.Context
	flight *flight // room is given back when the answer was sent; that of all streams, when there is one
	out    outbox
	aside  sync.WaitGroup

	mu    sync.Mutex // guards below
	plain []*appending
	lanes map[lane][]*appending // what waits for the one before it
	ended bool                  // nothing more is taken
	cause error                 // why; written once, before ended
	ready chan struct{}         // has a value when plain or ended changed
}

// lane are appends that go one after the other: those of a producer.
type lane struct {
	book     quipu.Book
	producer uint64
}

// receive takes appends until the stream ends.
func (a *appendStream) receive() {
	for {
		var m grpcwire.Bytes
		err := a.client.RecvMsg(&m)
		if errors.Is(err, io.EOF) {
			a.end(nil)
			return
		}
		if err == nil {
			err = logv1.EachAppend(m.In, a.admit)
		}
		if err != nil {
			a.end(err)
			return
		}
	}
}

// admit waits for room, and then brings an append on its way. An error ends the stream.
func (a *appendStream) admit(q *logv1.Append) error {
	w := &appending{id: q.ID, book: q.Book, drafts: q.Drafts}
	w.weigh()
	if err := a.flight.enter(a.ctx, w.bytes); err != nil {
		return err
	}
	if err := a.d.flight.enter(a.ctx, w.bytes); err != nil {
		return err
	}
	bad := q.Bad
	if bad == nil {
		bad = a.shelf.writable(a.ctx, w.book)
	}
	a.dispatch(w, bad)
	return nil
}

// dispatch has somebody append or, if it is bad already, answer, whom the end of the stream waits for.
func (a *appendStream) dispatch(w *appending, bad error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended { // without an answer: it was not added
		a.flight.leave(w.bytes, 1)
		a.d.flight.leave(w.bytes, 1)
		return
	}
	if bad != nil {
		a.aside.Go(func() { a.answer(w, nil, bad) })
		return
	}
	if w.isPlain() {
		a.plain = append(a.plain, w)
		a.signal()
		return
	}
	if len(w.drafts) == 0 || w.drafts[0].Producer == (quipu.Producer{}) {
		a.aside.Go(func() { a.one(w) })
		return
	}
	key := lane{w.book, w.drafts[0].Producer.ID}
	waiting, busy := a.lanes[key]
	a.lanes[key] = append(waiting, w)
	if !busy {
		a.aside.Go(func() { a.drive(key) })
	}
}

// drive does the appends of a lane until there are none.
func (a *appendStream) drive(key lane) {
	for {
		a.mu.Lock()
		waiting := a.lanes[key]
		if len(waiting) == 0 {
			delete(a.lanes, key)
			a.mu.Unlock()
			return
		}
		w := waiting[0]
		a.lanes[key] = waiting[1:]
		a.mu.Unlock()
		a.one(w)
	}
}

// end has the stream take nothing more. The first cause counts.
func (a *appendStream) end(cause error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.ended {
		a.cause, a.ended = cause, true
		a.signal()
	}
}

func (a *appendStream) signal() {
	select {
	case a.ready <- struct{}{}:
	default:
	}
}

// take waits for plain appends, and answers those of one book that came first; none when the stream has ended.
func (a *appendStream) take() []*appending {
	for {
		a.mu.Lock()
		run := a.plain[:runOf(a.plain)]
		a.plain = a.plain[len(run):]
		ended := a.ended
		a.mu.Unlock()
		if len(run) > 0 || ended {
			return run
		}
		<-a.ready
	}
}

// runOf is how many of the first appends may be made one.
func runOf(waiting []*appending) int {
	records, bytes := 0, int64(0)
	for i, w := range waiting {
		records, bytes = records+len(w.drafts), bytes+w.bytes
		if i > 0 && (w.book != waiting[0].book || records > runRecordsMax || bytes > runBytesMax) {
			return i
		}
	}
	return len(waiting)
}

// commit appends a run as one batch. If the log refuses it, nothing was added, and its halves are tried: so one bad append
// fails alone.
func (a *appendStream) commit(run []*appending) {
	if len(run) == 1 {
		a.one(run[0])
		return
	}
	records := 0
	for _, w := range run {
		records += len(w.drafts)
	}
	all := make([]quipu.Draft, 0, records)
	for _, w := range run {
		all = append(all, w.drafts...)
	}
	seqs, err := a.shelf.log.AppendBatch(a.ctx, run[0].book, all)
	if err != nil && quipu.CodeOf(err) != quipu.CodeUnknown && a.ctx.Err() == nil {
		a.commit(run[:len(run)/2])
		a.commit(run[len(run)/2:])
		return
	}
	results := make([]result, len(run))
	for i, w := range run {
		if err != nil {
			results[i] = a.result(w, nil, err)
			continue
		}
		results[i] = a.result(w, seqs[:len(w.drafts)], nil)
		seqs = seqs[len(w.drafts):]
	}
	a.out.put(results...)
}

// one does an append by itself.
func (a *appendStream) one(w *appending) {
	seqs, err := w.do(a.ctx, a.shelf.log)
	a.answer(w, seqs, err)
}

func (a *appendStream) answer(w *appending, seqs []quipu.Seq, err error) {
	a.out.put(a.result(w, seqs, err))
}

// result is the answer to an append that is done.
func (a *appendStream) result(w *appending, seqs []quipu.Seq, err error) result {
	a.d.flight.leave(w.bytes, 1)
	r := result{id: w.id, seqs: seqs, bytes: w.bytes}
	if err != nil && a.ctx.Err() == nil { // else there is nobody to tell
		r.failed = a.d.describe(a.ctx, err)
	}
	return r
}

// result is an answer on its way.
type result struct {
	id     uint64
	seqs   []quipu.Seq
	failed *logv1.Error // nil unless the append failed
	bytes  int64        // of the append
}

// answersBytesMax is how large a message of answers may be when another one is added.
const answersBytesMax = 64 << 10

// outbox sends answers: who finds nobody sending sends all that come meanwhile. So answers that are ready together go in one
// message, and none waits for a goroutine to wake.
type outbox struct {
	send func(any) error
	sent func(bytes int64, count int) // of appends

	mu      sync.Mutex // guards below
	waiting []byte     // of an AppendStreamResponse
	bytes   int64      // of the appends that it answers
	count   int        // of them
	sending bool
}

func (o *outbox) put(results ...result) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range results {
		r := &results[i]
		o.waiting = logv1.PutResult(o.waiting, r.id, r.seqs, r.failed)
		o.bytes, o.count = o.bytes+r.bytes, o.count+1
		if len(o.waiting) > answersBytesMax && i < len(results)-1 {
			o.flush()
		}
	}
	o.flush()
}

// flush sends what waits, unless somebody else does. o.mu is held, and let go meanwhile.
func (o *outbox) flush() {
	if o.sending {
		return
	}
	o.sending = true
	for len(o.waiting) > 0 {
		m, bytes, count := o.waiting, o.bytes, o.count
		o.waiting, o.bytes, o.count = nil, 0, 0
		o.mu.Unlock()
		_ = o.send(&grpcwire.Bytes{Out: mem.BufferSlice{mem.SliceBuffer(m)}}) // a stream that broke ends at RecvMsg
		o.sent(bytes, count)
		o.mu.Lock()
	}
	o.sending = false
}
