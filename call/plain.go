package call

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// plain runs a call whose operations are commits of their own. Its reply streams, unless it has to be
// recorded for an idempotency key.
func (c *Caller) plain(ctx context.Context, q *request) (*quipu.CallReply, error) {
	lease, err := q.acquire(ctx, c.placeFor(q, c.o.Acquire))
	if err != nil {
		return nil, err
	}
	q.info.Runs = 1
	ctx, cancel := context.WithTimeout(ctx, q.f.Spec.Timeout.Std())
	ctx, span := q.calling(ctx)
	r := q.httpRequest(ctx)
	open := &openCall{id: q.id, cause: q.cause(), attempt: q.Attempt, f: q.f, depth: q.depth, ctx: ctx, traceparent: r.Header.Get(quipu.HeaderTraceparent), span: span}
	c.open.enter(lease.ID(), open)
	began := c.o.Clock.Now()
	finish := func(healthy bool) {
		cancel()
		open.close()
		c.ran(q, began, nil)
		if q.deferred != nil || q.IdempotencyKey != "" {
			c.processor(q, lease.ID())
		}
		c.open.leave(lease.ID(), open)
		if healthy {
			lease.Release()
		} else {
			lease.Kill()
		}
	}
	response, err := lease.Do(r)
	if err != nil {
		err = q.failure(ctx, err)
		answered(span, 0, err)
		finish(!q.breaks(err))
		return nil, err
	}
	q.info.Status = response.StatusCode
	reply := &quipu.CallReply{Call: q.id, Revision: q.f.Revision, Status: response.StatusCode, Header: response.Header, Trailer: response.Trailer,
		Session: c.o.Book.Applied()}
	if q.IdempotencyKey != "" || q.deferred != nil || q.attempt {
		h, err := hold(q.f, response)
		if err != nil {
			err = q.failure(ctx, err)
		} else {
			q.taken.out = int64(len(h.body))
		}
		answered(span, q.info.Status, err)
		finish(!q.breaks(err))
		if err != nil {
			return nil, err
		}
		if q.deferred != nil || q.attempt {
			c.ended(q)
			return h.reply(q.info, reply.Session), nil
		}
		return c.recordPlain(context.WithoutCancel(ctx), q, h)
	}
	q.streams = true
	body := &streamed{ReadCloser: response.Body}
	body.done = sync.OnceFunc(func() {
		answered(span, q.info.Status, nil)
		q.taken.out = body.n.Load()
		finish(ctx.Err() != context.DeadlineExceeded || q.f.Spec.Concurrency > 1)
		c.ended(q)
		q.finish(nil)
	})
	reply.Body = body
	return reply, nil
}

// breaks tells whether an error means that the instance should not be used again. After a timeout or a refused
// reply the handler still runs, and what it does next could be taken for the next call's; but one such call
// does not take its neighbours with it.
func (q *request) breaks(err error) bool {
	switch quipu.CodeOf(err) {
	case quipu.CodeTimeout, quipu.CodeCallCancelled, quipu.CodeReplySize, quipu.CodeStreaming:
		return q.f.Spec.Concurrency == 1
	case quipu.CodeCrashed, quipu.CodeReply:
		return true
	}
	return false
}

// streamed is a reply's body; its end is the end of the call.
type streamed struct {
	io.ReadCloser
	done func()
	n    atomic.Int64 // bytes that were read
}

func (s *streamed) Read(b []byte) (int, error) {
	n, err := s.ReadCloser.Read(b)
	s.n.Add(int64(n))
	return n, err
}

func (s *streamed) Close() error {
	err := s.ReadCloser.Close()
	s.done()
	return err
}

// recordPlain commits the result of an idempotent call of a plain function.
func (c *Caller) recordPlain(ctx context.Context, q *request, h *held) (*quipu.CallReply, error) {
	if !h.worthKeeping() {
		c.ended(q)
		return h.reply(q.info, c.o.Book.Applied()), nil
	}
	q.info.Micros = c.o.Clock.Now().Sub(q.start).Microseconds()
	var earlier *quipu.CallReply
	seq, err := c.o.Book.Change(ctx, func(tx *view.Tx) (err error) {
		if earlier, err = c.o.Results.recorded(tx, q); err != nil || earlier != nil {
			return err
		}
		if err := c.ride(tx, q); err != nil {
			return err
		}
		return c.o.Results.record(tx, q, h)
	})
	if quipu.CodeOf(err) == quipu.CodeCallPending { // accepted under the same key meanwhile, within an atomic call
		c.ended(q)
		return h.reply(q.info, c.o.Book.Applied()), nil
	}
	if err == nil && earlier == nil || quipu.CodeOf(err) == quipu.CodeUnknown {
		q.counted()
	}
	if earlier != nil {
		c.rest(q)
	}
	if err != nil || earlier != nil {
		return earlier, err
	}
	c.o.Observe(q.info)
	return h.reply(q.info, seq), nil
}

// once runs a request with an idempotency key unless its result is known, and makes others with the same
// key wait for it.
func (c *Caller) once(ctx context.Context, q *request, run func(context.Context, *request) (*quipu.CallReply, error)) (*quipu.CallReply, error) {
	if err := q.checkKey(); err != nil {
		return nil, err
	}
	q.hash = q.fingerprint()
	done, err := c.alone(ctx, q.f.Name, q.IdempotencyKey)
	if err != nil {
		return nil, err
	}
	defer done()
	tx := c.o.Book.Look()
	known, err := c.o.Results.recorded(tx, q)
	if err = errors.Join(err, tx.Close()); err != nil || known != nil {
		return known, err
	}
	return run(ctx, q)
}

func (q *request) checkKey() error {
	if len(q.IdempotencyKey) <= quipu.TagBytesMax {
		return nil
	}
	return &quipu.Error{Code: quipu.CodeUsage, Op: "call",
		Text: fmt.Sprintf("the %s has %d bytes, the most is %d", quipu.HeaderIdempotency, len(q.IdempotencyKey), quipu.TagBytesMax)}
}

// alone waits until no other request with the idempotency key of a function is under way, and keeps others out until done.
func (c *Caller) alone(ctx context.Context, function, key string) (done func(), err error) {
	name := function + "\x00" + key
	mine := make(chan struct{})
	for {
		other, busy := c.running.LoadOrStore(name, mine)
		if !busy {
			break
		}
		select {
		case <-other.(chan struct{}):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return func() {
		c.running.Delete(name)
		close(mine)
	}, nil
}

// held is a whole reply in memory.
type held struct {
	status int
	header map[string][]string
	tail   map[string][]string // trailers; they are not recorded
	body   []byte
}

// worthKeeping: a failure of the function is not its last word, a refusal is.
func (h *held) worthKeeping() bool { return h.status < 500 }

func (h *held) reply(of quipu.CallInfo, seq quipu.Seq) *quipu.CallReply {
	return &quipu.CallReply{Call: of.ID, Revision: of.Revision, Status: h.status, Header: h.header, Trailer: h.tail, Session: seq,
		Body: heldBody{bytes.NewReader(h.body)}}
}

// heldBody is a body that is there as a whole, which its length tells.
type heldBody struct{ *bytes.Reader }

func (heldBody) Close() error { return nil }
