package call

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

const (
	lostBeforeTurn     = 2 // then a turn on the keys of the last run
	lostBeforeFunction = 3 // then on the function as well: the keys change from run to run
)

// atomic runs a call until its transaction commits or is given up. A client that hangs up cancels nothing
// once it runs.
func (c *Caller) atomic(ctx context.Context, q *request) (*quipu.CallReply, error) {
	var claim view.Claim
	for lost := 0; ; lost++ {
		q.info.Runs = lost + 1
		reply, err := c.runOnce(ctx, q, lost, &claim)
		if lost > 0 && quipu.CodeOf(err) == quipu.CodeTimeout {
			return nil, q.contention()
		}
		if !view.Lost(err) {
			return reply, err
		}
		ctx = q.kept(ctx)
		q.again(ctx)
	}
}

// kept is ctx for what goes on although the client has hung up. A call that nobody waits for has no client: its context
// ends when it is cancelled.
func (q *request) kept(ctx context.Context) context.Context {
	if q.deferred != nil {
		return ctx
	}
	return context.WithoutCancel(ctx)
}

func (q *request) contention() error {
	return &quipu.Error{Code: quipu.CodeContention, Op: "call",
		Text: fmt.Sprintf("function %s lost %d times to other commits and could not finish within %s",
			q.f.Name, q.info.Runs-1, q.f.Spec.Timeout.Std()), Hint: quipu.Codes[quipu.CodeContention].Next}
}

// runOnce is one run: an instance, a turn if it needs one, the function's reply, the commit. The instance
// comes first: a call that had its turn and waited for an instance could wait for calls that hold all
// instances and wait for that turn.
func (c *Caller) runOnce(ctx context.Context, q *request, lost int, claim *view.Claim) (*quipu.CallReply, error) {
	waitCtx, cancel := c.bound(ctx, q)
	defer cancel()
	lease, err := q.acquire(waitCtx, c.placeFor(q, c.o.Acquire))
	if err != nil {
		return nil, q.failure(waitCtx, err)
	}
	if q.deadline.IsZero() { // a cold start does not count
		q.deadline = c.o.Clock.Now().Add(q.f.Spec.Timeout.Std())
	}
	runCtx, stop := c.bound(q.kept(ctx), q)
	defer stop()
	turn, err := c.turn(runCtx, q.f, lost, *claim)
	if err != nil {
		lease.Release()
		return nil, q.failure(runCtx, err)
	}
	defer turn.Done()
	tx := c.o.Book.Begin(runCtx, turn)
	tx.Gate(functionGate(q.f))
	if lost == 0 { // a run on what did not become so is not to be repeated on the next of that kind
		tx.Eager()
	}
	reply, healthy, err := c.runIn(runCtx, q, lease, tx)
	*claim = claim.Union(tx.Claim())
	err = errors.Join(err, tx.Close())
	if healthy {
		lease.Release()
	} else {
		lease.Kill()
	}
	if err != nil {
		return nil, err
	}
	return reply, nil
}

// bound is ctx with the call's deadline, once it has one. The deadline is of the node's clock.
func (c *Caller) bound(ctx context.Context, q *request) (context.Context, context.CancelFunc) {
	if q.deadline.IsZero() {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, q.deadline.Sub(c.o.Clock.Now()))
}

func functionGate(f quipu.Function) string { return "function\x00" + f.Name }

// turn waits for the call's turn, if it has lost often enough to take one.
func (c *Caller) turn(ctx context.Context, f quipu.Function, lost int, claim view.Claim) (*view.Turn, error) {
	switch {
	case lost < lostBeforeTurn:
		return nil, nil
	case lost >= lostBeforeFunction:
		claim = claim.Union(view.Key(functionGate(f)))
	}
	return c.o.Book.Turn(ctx, claim)
}

// runIn runs the call in an instance and commits. healthy says whether the instance can be used again, which
// is so only after the commit has been applied.
func (c *Caller) runIn(ctx context.Context, q *request, lease Lease, tx *view.Tx) (reply *quipu.CallReply, healthy bool, err error) {
	known, err := c.o.Results.recorded(tx, q)
	if err != nil || known != nil {
		return known, true, err
	}
	if q.deferred != nil {
		if err := c.stillWaits(tx, q.id); err != nil {
			return nil, true, err
		}
	}
	start := tx.Mark()
	h, err := c.exchange(ctx, q, lease, tx)
	if err != nil {
		healthy = !q.breaks(err)
		if ctx.Err() == nil && tx.Sure() != nil { // it may have failed because of what it read
			err = tx.Sure()
		}
		return nil, healthy, err
	}
	accepted := q.accepts(h)
	if q.willRecord(tx, h) {
		c.processor(q, lease.ID())
	}
	if !accepted {
		tx.Rollback(start)
	}
	seq, err := c.finish(ctx, q, tx, h, accepted)
	if err != nil {
		return nil, true, err
	}
	return h.reply(q.info, seq), true, nil
}

// exchange has the function answer, with its operations collected in tx.
func (c *Caller) exchange(ctx context.Context, q *request, lease Lease, tx *view.Tx) (*held, error) {
	called, span := q.calling(ctx)
	r := q.httpRequest(called)
	open := &openCall{id: q.id, cause: q.cause(), attempt: q.Attempt, f: q.f, depth: q.depth, ctx: ctx, tx: tx, traceparent: r.Header.Get(quipu.HeaderTraceparent), span: span}
	c.open.enter(lease.ID(), open)
	defer c.open.leave(lease.ID(), open)
	began := c.o.Clock.Now()
	defer func() { c.ran(q, began, open.joined) }() // once it is closed nothing joins any more
	defer open.close()
	response, err := lease.Do(r)
	if err != nil {
		err = q.failure(ctx, err)
		answered(span, 0, err)
		return nil, err
	}
	h, err := hold(q.f, response)
	if err != nil {
		err = q.failure(ctx, err)
		answered(span, response.StatusCode, err)
		return nil, err
	}
	answered(span, h.status, nil)
	q.info.Status, q.taken.out = h.status, int64(len(h.body))
	return h, nil
}

// finish commits what tx has collected, together with the result and the acknowledgement of what was delivered. A
// call without effects, without a key to be found by and without a delivery appends nothing.
func (c *Caller) finish(ctx context.Context, q *request, tx *view.Tx, h *held, accepted bool) (quipu.Seq, error) {
	q.info.Reads, q.info.Writes = tx.Size()
	if !accepted || q.info.Writes == 0 {
		if err := tx.Sure(); err != nil {
			return 0, err
		}
	}
	if q.deferred != nil && !accepted { // what follows is a record of its own
		c.ended(q)
		return tx.Snapshot(), nil
	}
	recorded := q.willRecord(tx, h)
	if accepted {
		if err := q.settle(tx); err != nil {
			return 0, err
		}
	}
	if err := c.guard(tx, q); err != nil {
		return 0, err
	}
	q.info.Micros = c.o.Clock.Now().Sub(q.start).Microseconds()
	if _, ops := tx.Size(); recorded || ops > 0 {
		if err := c.ride(tx, q); err != nil {
			return 0, err
		}
	}
	if recorded {
		if err := c.record(tx, q, h); err != nil {
			return 0, err
		}
	}
	if _, ops := tx.Size(); ops == 0 {
		c.ended(q)
		return tx.Snapshot(), nil
	}
	tx.Tag(functionTag(q.f.Name))
	seq, err := c.o.Book.Commit(ctx, tx)
	if err == nil || quipu.CodeOf(err) == quipu.CodeUnknown {
		q.counted()
	}
	if err != nil {
		return 0, q.failure(ctx, err)
	}
	q.settled = accepted
	if !recorded {
		c.recent.add(q.info)
	}
	c.o.Observe(q.info)
	return seq, nil
}

// willRecord tells whether the result of an atomic call is kept.
func (q *request) willRecord(tx *view.Tx, h *held) bool {
	_, writes := tx.Size()
	return q.deferred != nil || writes > 0 || q.IdempotencyKey != "" && h.worthKeeping()
}

// record adds the result to the transaction of an atomic call.
func (c *Caller) record(tx *view.Tx, q *request, h *held) error {
	if q.deferred != nil {
		return c.end(tx, q.deferred, q.ending(quipu.CallSucceeded, h))
	}
	return c.o.Results.record(tx, q, h)
}

func functionTag(name string) string { return "function/" + name }

// hold reads a whole reply. CodeReplySize, CodeStreaming.
func hold(f quipu.Function, r *http.Response) (*held, error) {
	defer r.Body.Close()
	if r.StatusCode == http.StatusSwitchingProtocols || strings.HasPrefix(r.Header.Get("Content-Type"), "text/event-stream") {
		return nil, &quipu.Error{Code: quipu.CodeStreaming, Op: "call",
			Text: fmt.Sprintf("function %s tried to stream its reply", f.Name), Hint: quipu.Codes[quipu.CodeStreaming].Next}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, quipu.AtomicBodyMax+1))
	if err != nil {
		return nil, &quipu.Error{Code: quipu.CodeCrashed, Op: "call",
			Text: fmt.Sprintf("function %s broke off in its reply", f.Name),
			Hint: fmt.Sprintf("quipu logs %s shows its output", f.Name), Err: err}
	}
	if len(body) > quipu.AtomicBodyMax {
		return nil, &quipu.Error{Code: quipu.CodeReplySize, Op: "call",
			Text: fmt.Sprintf("function %s answered with more than %d MiB", f.Name, quipu.AtomicBodyMax>>20),
			Hint: quipu.Codes[quipu.CodeReplySize].Next}
	}
	return &held{status: r.StatusCode, header: r.Header, tail: r.Trailer, body: body}, nil
}

// join runs an atomic function inside the open call of another: in the same transaction, with a savepoint
// that a failure goes back to.
func (c *Caller) join(ctx context.Context, caller *openCall, q *request) (*quipu.CallReply, error) {
	f := q.f
	q.info.Runs, q.taken.joins = 1, true
	if q.depth > quipu.CallDepthMax {
		return nil, &quipu.Error{Code: quipu.CodeDepth, Op: "call",
			Text: fmt.Sprintf("function %s was called at depth %d", f.Name, q.depth), Hint: quipu.Codes[quipu.CodeDepth].Next}
	}
	if err := q.readBody(); err != nil {
		return nil, err
	}
	caller.nested.Lock()
	defer caller.nested.Unlock()
	q.joins(caller.tx)
	ctx = c.begin(ctx, q)
	h, err := c.joined(ctx, q, caller.tx)
	defer q.finish(err)
	if err != nil {
		q.info.Error = quipu.CodeOf(err)
	}
	caller.joined = append(caller.joined, q.bill(0)...)
	c.ended(q)
	if err != nil {
		return nil, err
	}
	return h.reply(q.info, 0), nil
}

func (c *Caller) joined(ctx context.Context, q *request, tx *view.Tx) (*held, error) {
	lease, err := q.acquire(ctx, c.placeFor(q, c.o.AcquireJoined))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, q.f.Spec.Timeout.Std())
	defer cancel()
	mark := tx.Mark()
	h, err := c.exchange(ctx, q, lease, tx)
	if err == nil {
		err = c.guard(tx, q)
	}
	if err != nil || h.status >= http.StatusBadRequest || q.Turn != nil && !acceptsTurn(h) {
		tx.Rollback(mark)
	}
	if q.breaks(err) {
		lease.Kill()
	} else {
		lease.Release()
	}
	return h, err
}
