package locallog

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/quipu-run/quipu"
)

// States of a request.
const (
	requestQueued int32 = iota
	requestTaken
	requestWithdrawn
)

// request is one append on its way: records encoded by the caller, an answer by the writer.
type request struct {
	buf      []byte // records, to be finished
	count    int
	book     quipu.Book
	producer quipu.Producer
	system   bool
	traced   *traced // nil if it is not recorded
	before   int     // bytes that its book has in front of it, when books take turns
	state    atomic.Int32
	done     chan struct{} // gets one value when res or err is set
	res      result
	err      error
}

// recycledMax is the largest buffer that a request keeps for its next use.
const recycledMax = 64 << 10

var requests = sync.Pool{New: func() any { return &request{done: make(chan struct{}, 1)} }}

// newRequest answers a request with an empty buffer that has room for size bytes.
func newRequest(size int) *request {
	r := requests.Get().(*request)
	if cap(r.buf) < size {
		r.buf = make([]byte, 0, size)
	}
	return r
}

// recycle takes back a request that was answered.
func recycle(r *request) {
	if cap(r.buf) > recycledMax {
		return
	}
	r.buf, r.system, r.traced, r.res, r.err = r.buf[:0], false, nil, result{}, nil
	r.state.Store(requestQueued)
	requests.Put(r)
}

func (r *request) answer(res result, err error) {
	r.res, r.err = res, err
	r.done <- struct{}{}
}

// queue holds what waits for the writer, bounded in bytes.
type queue struct {
	bytesMax int64

	mu     sync.Mutex // guards below
	items  []*request
	bytes  int64
	closed error
	nudged bool
	ready  chan struct{} // has a value when there is something to do
}

func newQueue(bytesMax int64) *queue {
	return &queue{bytesMax: bytesMax, ready: make(chan struct{}, 1)}
}

// put queues a request. A request over the bound is taken only when nothing else waits.
func (q *queue) put(r *request) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed != nil {
		return stopped(q.closed)
	}
	if q.bytes > 0 && q.bytes+int64(len(r.buf)) > q.bytesMax {
		return &quipu.Error{Code: quipu.CodeOverloaded, Op: "log.append"}
	}
	q.bytes += int64(len(r.buf))
	q.items = append(q.items, r)
	q.signal()
	return nil
}

// take moves everything that waits to the end of pending. It blocks while both are empty and nobody nudges, and answers
// false once the queue is closed.
func (q *queue) take(pending []*request) ([]*request, bool) {
	for {
		q.mu.Lock()
		pending = append(pending, q.items...)
		clear(q.items)
		q.items = q.items[:0]
		closed, nudged := q.closed != nil, q.nudged
		q.nudged = false
		q.mu.Unlock()
		if closed || nudged || len(pending) > 0 {
			return pending, !closed
		}
		<-q.ready
	}
}

// size is the bytes that wait.
func (q *queue) size() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes
}

// left gives back the room of requests that were answered or withdrawn.
func (q *queue) left(bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= int64(bytes)
}

// close makes put refuse with cause, and take end.
func (q *queue) close(cause error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed == nil {
		q.closed = cause
		q.signal()
	}
}

// nudge makes take return, with nothing if nothing waits.
func (q *queue) nudge() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.nudged = true
	q.signal()
}

// signal wakes take. q.mu is held.
func (q *queue) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// do queues a request and waits for its answer. A context that ends first withdraws the request; if the writer has
// it already, the outcome is unknown.
func (q *queue) do(ctx context.Context, r *request) (result, error) {
	if err := ctx.Err(); err != nil {
		return result{}, err
	}
	if err := q.put(r); err != nil {
		return result{}, err
	}
	select {
	case <-r.done:
		return r.res, r.err
	case <-ctx.Done():
		if r.state.CompareAndSwap(requestQueued, requestWithdrawn) {
			return result{}, ctx.Err()
		}
		return result{}, unknown(ctx.Err())
	}
}
