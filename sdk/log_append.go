package sdk

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	logv1 "github.com/quipu-run/quipu/api/log/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/grpcwire"
)

// Bounds of appends on their way.
const (
	appendsMax     = 4096      // without an answer
	streamedMax    = 256 << 10 // bytes of an append that goes through the stream, and about those of a message of it
	appendsAtOnce  = 1024      // in a message
	draftOverhead  = 64        // bytes counted for a draft besides its data and tags
	recycledMax    = 8 << 10   // bytes of the largest buffer that is kept
	bytesWireStart = 8         // of a field that holds a message: its tag and length
)

// Append implements quipu.Log.
func (l *Log) Append(ctx context.Context, book quipu.Book, d quipu.Draft) (quipu.Seq, error) {
	seqs, err := l.AppendBatch(ctx, book, []quipu.Draft{d})
	if err != nil {
		return 0, err
	}
	return seqs[0], nil
}

// AppendBatch implements quipu.Log.
func (l *Log) AppendBatch(ctx context.Context, book quipu.Book, ds []quipu.Draft) ([]quipu.Seq, error) {
	var seqs []quipu.Seq
	var err error
	switch size := draftBytes(ds); {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case size <= streamedMax:
		seqs, err = l.appends.do(ctx, book, ds)
	case size > logv1.MessageBytesMax:
		return nil, &quipu.Error{Code: quipu.CodeRecord, Op: "log.append",
			Text: fmt.Sprintf("a batch has at most %d bytes of data and tags, not %d", logv1.MessageBytesMax, size)}
	default:
		var m *logv1.AppendResponse
		m, err = change(ctx, l, l.rpc.Append, &logv1.AppendRequest{Book: uint64(book), Drafts: logv1.NewDrafts(ds)})
		seqs = logv1.PlainSeqs(m.GetSeqs())
	}
	if err == nil && len(seqs) != len(ds) {
		return nil, outcomeUnknown(fmt.Errorf("%d records were answered with %d seqs", len(ds), len(seqs)))
	}
	return seqs, err
}

// AppendResult is what became of one of many appends.
type AppendResult struct {
	Seq quipu.Seq
	Err error // as of Append
}

// AppendEach appends drafts to a book each for itself, all on their way together, and answers in their order when all
// are answered. Those without a condition take effect in their order. It is what many callers of Append at once
// cost less, for one caller that has many records.
func (l *Log) AppendEach(ctx context.Context, book quipu.Book, ds []quipu.Draft) []AppendResult {
	out, started := make([]AppendResult, len(ds)), make([]*pending, len(ds))
	for i := range ds {
		switch err := ctx.Err(); {
		case err != nil:
			out[i].Err = err
		case draftBytes(ds[i:i+1]) > streamedMax:
			out[i].Seq, out[i].Err = l.Append(ctx, book, ds[i])
		default:
			started[i], out[i].Err = l.appends.start(ctx, book, ds[i:i+1])
		}
	}
	for i, p := range started {
		if p == nil {
			continue
		}
		seqs, err := p.await(ctx)
		if err == nil && len(seqs) != 1 {
			err = outcomeUnknown(fmt.Errorf("a record was answered with %d seqs", len(seqs)))
		}
		if out[i].Err = err; err == nil {
			out[i].Seq = seqs[0]
		}
	}
	return out
}

// draftBytes is about what drafts take in a message, and not less.
func draftBytes(ds []quipu.Draft) int {
	size := 0
	for i := range ds {
		size += len(ds[i].Data) + draftOverhead
		for _, t := range ds[i].Tags {
			size += len(t) + bytesWireStart
		}
		if ds[i].Cond != nil {
			size += len(ds[i].Cond.Tag)
		}
	}
	return size
}

// States of a pending append.
const (
	pendingQueued int32 = iota
	pendingTaken
	pendingWithdrawn
)

// pending is an append without an answer. It is encoded by its caller, whose data is not looked at again.
type pending struct {
	id    uint64
	bytes []byte // a field of AppendStreamRequest
	state atomic.Int32
	done  chan struct{} // gets one value when seqs or err is set
	seqs  []quipu.Seq
	err   error
}

var pendings = sync.Pool{New: func() any { return &pending{done: make(chan struct{}, 1)} }}

func (p *pending) recycle() {
	if cap(p.bytes) <= recycledMax {
		p.bytes, p.seqs, p.err = p.bytes[:0], nil, nil
		p.state.Store(pendingQueued)
		pendings.Put(p)
	}
}

// appender has all appends share a stream: one goroutine sends what waits, one for each stream hears the answers.
type appender struct {
	log   *Log
	slots chan struct{} // one for each append without an answer
	ids   atomic.Uint64
	tasks sync.WaitGroup

	sending sync.Mutex // guards talk, and its sending
	talk    *talk      // nil if there is none

	mu      sync.Mutex // guards below
	waiting []*pending
	closed  bool
	ready   chan struct{} // has a value when waiting or closed changed
}

func newAppender(l *Log) *appender {
	a := &appender{log: l, slots: make(chan struct{}, appendsMax), ready: make(chan struct{}, 1)}
	a.tasks.Go(a.send)
	return a
}

// wait ends the appender, whose log is closing.
func (a *appender) wait() {
	a.mu.Lock()
	a.closed = true
	a.signal()
	a.mu.Unlock()
	a.tasks.Wait()
}

func (a *appender) signal() {
	select {
	case a.ready <- struct{}{}:
	default:
	}
}

// do sends an append and waits for its answer.
func (a *appender) do(ctx context.Context, book quipu.Book, ds []quipu.Draft) ([]quipu.Seq, error) {
	p, err := a.start(ctx, book, ds)
	if err != nil {
		return nil, err
	}
	return p.await(ctx)
}

// start waits for a place, and brings an append on its way.
func (a *appender) start(ctx context.Context, book quipu.Book, ds []quipu.Draft) (*pending, error) {
	select {
	case a.slots <- struct{}{}:
	default:
		select {
		case a.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-a.log.closing.Done():
			return nil, logClosed()
		}
	}
	p := pendings.Get().(*pending)
	p.id = a.ids.Add(1)
	p.bytes = logv1.PutAppend(p.bytes, p.id, book, ds)
	if a.direct(p) || a.put(p) {
		return p, nil
	}
	<-a.slots
	return nil, logClosed()
}

// await waits for the answer. A context that ends first withdraws the append; if it was sent, the outcome is unknown.
func (p *pending) await(ctx context.Context) ([]quipu.Seq, error) {
	select {
	case <-p.done:
		seqs, err := p.seqs, p.err
		p.recycle()
		return seqs, err
	case <-ctx.Done():
		if p.state.CompareAndSwap(pendingQueued, pendingWithdrawn) {
			return nil, ctx.Err()
		}
		return nil, outcomeUnknown(ctx.Err())
	}
}

// direct sends an append at once, without waking the goroutine that does so, if it is the only one: then there is room in
// the window, and sending does not wait for the node.
func (a *appender) direct(p *pending) bool {
	if len(a.slots) > 1 || !a.sending.TryLock() {
		return false
	}
	defer a.sending.Unlock()
	if a.talk == nil {
		return false
	}
	one := [1]*pending{p}
	m := pack(one[:])
	p.state.Store(pendingTaken)
	if !a.talk.expect(one[:]) {
		p.state.Store(pendingQueued)
		m.Out.Free()
		return false
	}
	_ = a.talk.stream.SendMsg(m) // an error is hear's to see
	return true
}

// put answers false if the log was closed.
func (a *appender) put(p *pending) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false
	}
	a.waiting = append(a.waiting, p)
	a.signal()
	return true
}

// take waits for appends and answers some, encoded as one message; none when the log is closed.
func (a *appender) take(some []*pending) []*pending {
	some = some[:0]
	for {
		a.mu.Lock()
		n := 0
		for bytes := 0; n < len(a.waiting) && n < appendsAtOnce && bytes < streamedMax; n++ {
			bytes += len(a.waiting[n].bytes)
		}
		for _, p := range a.waiting[:n] {
			if p.state.CompareAndSwap(pendingQueued, pendingTaken) {
				some = append(some, p)
			} else {
				<-a.slots // withdrawn
			}
		}
		left := copy(a.waiting, a.waiting[n:])
		clear(a.waiting[left:])
		a.waiting = a.waiting[:left]
		closed := a.closed
		a.mu.Unlock()
		if len(some) > 0 || closed && n == 0 {
			return some
		}
		if n == 0 {
			<-a.ready
		}
	}
}

// resolve answers an append that was taken.
func (a *appender) resolve(p *pending, seqs []quipu.Seq, err error) {
	p.seqs, p.err = seqs, err
	<-a.slots
	p.done <- struct{}{}
}

// send sends what waits until the log is closed.
func (a *appender) send() {
	for some := a.take(nil); len(some) > 0; some = a.take(some) {
		if err := a.sendSome(some); err != nil { // nothing was sent
			for _, p := range some {
				a.resolve(p, nil, err)
			}
		}
	}
	a.sending.Lock()
	defer a.sending.Unlock()
	if a.talk != nil {
		a.talk.cancel()
	}
}

// sendSome sends on the stream that there is, or on a new one.
func (a *appender) sendSome(some []*pending) error {
	a.sending.Lock()
	defer a.sending.Unlock()
	m := pack(some) // before they are expected: what is answered is used again
	if a.talk == nil || !a.talk.expect(some) {
		var err error
		if a.talk, err = a.begin(some); err != nil {
			m.Out.Free()
			return err
		}
	}
	_ = a.talk.stream.SendMsg(m) // blocks while the node does not read; an error is hear's to see
	return nil
}

// pack makes one message.
func pack(some []*pending) *grpcwire.Bytes {
	size := 0
	for _, p := range some {
		size += len(p.bytes)
	}
	pool := mem.DefaultBufferPool()
	buf := pool.Get(size)
	n := 0
	for _, p := range some {
		n += copy((*buf)[n:], p.bytes)
	}
	return &grpcwire.Bytes{Out: mem.BufferSlice{mem.NewBuffer(buf, pool)}}
}

// begin opens a stream that expects some appends. Without one, nil.
func (a *appender) begin(some []*pending) (*talk, error) {
	t, err := a.open()
	if err == nil && !t.expect(some) {
		t, err = nil, &quipu.Error{Code: quipu.CodeNoNode, Text: "the connection to " + a.log.opt.Address + " broke at once"}
	}
	return t, err
}

// open begins a stream. It waits for a connection that is being made.
func (a *appender) open() (*talk, error) {
	ctx, cancel := context.WithCancel(a.log.call(a.log.closing))
	stream, err := a.log.rpc.AppendStream(ctx, grpc.ForceCodecV2(grpcwire.NewCodec()))
	if err != nil {
		defer cancel()
		return nil, a.log.problem(ctx, err)
	}
	t := &talk{a: a, stream: stream, cancel: cancel, waiting: map[uint64]*pending{}}
	a.tasks.Go(t.hear)
	return t, nil
}

// talk is one stream of appends.
type talk struct {
	a      *appender
	stream grpc.BidiStreamingClient[logv1.AppendStreamRequest, logv1.AppendStreamResponse]
	cancel context.CancelFunc

	mu      sync.Mutex // guards below
	waiting map[uint64]*pending
	over    bool
}

// expect notes what will be sent. It answers false if the stream is over.
func (t *talk) expect(some []*pending) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return false
	}
	for _, p := range some {
		t.waiting[p.id] = p
	}
	return true
}

// hear answers appends until the stream is over, and then those that have none: with what the node said, since then it did
// not take them, or else with CodeUnknown.
func (t *talk) hear() {
	defer t.cancel()
	for {
		var m grpcwire.Bytes
		err := t.stream.RecvMsg(&m)
		if err == nil {
			err = logv1.EachResult(m.In, t.answer)
		}
		if err != nil {
			t.end(err)
			return
		}
	}
}

func (t *talk) answer(r logv1.Result) {
	t.mu.Lock()
	p := t.waiting[r.ID]
	delete(t.waiting, r.ID)
	t.mu.Unlock()
	switch {
	case p == nil: // the node answers what nobody asked
	case r.Err != nil:
		t.a.resolve(p, nil, r.Err)
	default:
		t.a.resolve(p, r.Seqs, nil)
	}
}

func (t *talk) end(cause error) {
	err := outcomeUnknown(cause)
	if e := told(cause); e != nil {
		err = e
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	for _, p := range t.waiting {
		t.a.resolve(p, nil, err)
	}
	clear(t.waiting)
}
