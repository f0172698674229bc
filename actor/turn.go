package actor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"sync"

	"github.com/quipu-run/quipu"
)

// Headers of turns.
const (
	reentrancyHeader = "Dapr-Reentrancy-Id"
	// ErrorHeader says in a reply of status 200 that the method failed, CancelHeader that a timer or a reminder is not to come again.
	ErrorHeader  = "X-Daprerrorresponseheader"
	CancelHeader = "X-Daprremindercancel"
)

// Do makes the call of a turn.
type Do func(ctx context.Context, r quipu.CallRequest) (*quipu.CallReply, error)

// Turn has an actor make a turn: do is given the call, once, when the actor is active and it is the call's turn. The reply is whole. An actor
// that leaves before the turn began is looked for again. CodeNoActorHost, CodeActorDepth, CodeBusy, and the errors of do.
func (e *Engine) Turn(ctx context.Context, c quipu.ActorCall, do Do) (*quipu.CallReply, error) {
	if err := check(c.ActorKey); err != nil {
		return nil, err
	}
	body, err := Whole(c.Body)
	if err != nil {
		return nil, err
	}
	for range movesMax {
		a, err := e.find(ctx, c.ActorKey)
		if err != nil {
			return nil, err
		}
		reply, err := e.turnOf(ctx, a, c, body, do)
		if !errors.Is(err, errClosed) {
			return reply, err
		}
		select {
		case <-a.gone:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, noHost(c.ActorKey, "it is moved all the time")
}

func check(k quipu.ActorKey) error {
	if k.Type == "" || len(k.Type) > quipu.ActorTypeMax || k.ID == "" || len(k.ID) > quipu.ActorIDMax {
		return &quipu.Error{Code: quipu.CodeUsage, Op: "actor.call",
			Text: fmt.Sprintf("the type of an actor has 1 to %d bytes, and its id 1 to %d", quipu.ActorTypeMax, quipu.ActorIDMax)}
	}
	return nil
}

// Whole reads a body that may have to be sent to another instance, or again. CodeBodySize.
func Whole(from io.Reader) ([]byte, error) {
	if from == nil {
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(from, replyBytesMax+1))
	if err == nil && len(body) > replyBytesMax {
		err = &quipu.Error{Code: quipu.CodeBodySize, Op: "actor.call", Text: fmt.Sprintf("the body for an actor is over %d MiB", replyBytesMax>>20)}
	}
	return body, err
}

// turnOf makes the turn in the instance that the actor lives in. errClosed: it was not begun.
func (e *Engine) turnOf(ctx context.Context, a *activation, c quipu.ActorCall, body []byte, do Do) (*quipu.CallReply, error) {
	id := ""
	if a.of.Reentrant {
		if id = c.Header.Get(reentrancyHeader); id == "" {
			id = newRun()
		}
	}
	leave, err := a.lock.enter(ctx, id)
	if err != nil {
		return nil, err
	}
	e.touch(a)
	t := &turn{e: e, a: a, leave: leave}
	defer t.end()
	if a.stale.Swap(false) && a.met.Load() {
		e.forget(ctx, a)
	}
	known := a.met.Swap(true)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.ctx, cancel)()
	var reply *quipu.CallReply
	err = e.o.Within(ctx, a.f, a.instance, a.key.Type, func(ctx context.Context) (err error) {
		reply, err = hold(do(ctx, t.request(c, id, body)))
		return err
	})
	t.judge(reply, err)
	if !known && neverSent(err) {
		a.met.Store(false) // an application may break if it is told to forget what it does not know
	}
	switch {
	case quipu.CodeOf(err) == quipu.CodeNoActorHost: // the instance went before it took the call
		e.evict(a)
		return nil, errClosed
	case err != nil && a.ctx.Err() != nil && e.ctx.Err() == nil && errors.Is(err, context.Canceled):
		return nil, &quipu.Error{Code: quipu.CodeCrashed, Op: "actor.call", Text: fmt.Sprintf("actor %s left its instance before the method ended", a.key), Err: err}
	}
	return reply, err
}

// evict removes an actor whose instance takes no calls.
func (e *Engine) evict(a *activation) {
	a.lock.close()
	e.remove(a)
	e.giveBack([]*activation{a})
}

func (e *Engine) touch(a *activation) { a.used.Store(e.o.Clock.Now().UnixNano()) }

// turn is one that is under way.
type turn struct {
	e     *Engine
	a     *activation
	leave func()

	mu     sync.Mutex
	joined bool // the transaction of another call ends it
}

// request is the call of the turn.
func (t *turn) request(c quipu.ActorCall, id string, body []byte) quipu.CallRequest {
	r := c.CallRequest
	r.Function, r.Revision, r.Method = t.a.f.Name, t.a.f.Revision, http.MethodPut
	r.Path = Path(c.ActorKey) + "/method/" + c.Method
	r.Header = r.Header.Clone()
	if r.Header == nil {
		r.Header = http.Header{}
	}
	if id != "" {
		r.Header[textproto.CanonicalMIMEHeaderKey(reentrancyHeader)] = []string{id}
	}
	r.Body, r.ContentLength = nil, int64(len(body))
	if body != nil {
		r.Body = bytes.NewReader(body)
	}
	r.Turn = &quipu.ActorTurn{ActorKey: c.ActorKey, Instance: t.a.instance, Lease: t.a.lease, Again: t.again, Joins: t.joins}
	return r
}

// Path is where an application has an actor.
func Path(k quipu.ActorKey) string {
	return "/actors/" + url.PathEscape(k.Type) + "/" + url.PathEscape(k.ID)
}

// again is called before another run: the one before did not count.
func (t *turn) again(ctx context.Context) { t.e.forget(ctx, t.a) }

// joins lets the turn last until the transaction has ended that it is a part of.
func (t *turn) joins() func(bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.joined = true
	return func(counts bool) {
		if !counts {
			t.a.stale.Store(true)
		}
		t.leave()
	}
}

// judge remembers that what the instance has in memory does not count, if so. A plain function's operations were commits of their own.
func (t *turn) judge(reply *quipu.CallReply, err error) {
	if t.a.f.Spec.Atomic && (err != nil || !Succeeded(reply)) {
		t.a.stale.Store(true)
	}
}

// neverSent tells whether a call ended before the instance heard of it.
func neverSent(err error) bool {
	switch quipu.CodeOf(err) {
	case quipu.CodeNoActorHost, quipu.CodeBusy, quipu.CodeStopping, quipu.CodeNoFunction, quipu.CodeNoRevision, quipu.CodeBodySize, quipu.CodeDepth:
		return true
	}
	return false
}

// Succeeded tells whether a method did, by its reply: 200 without ErrorHeader.
func Succeeded(reply *quipu.CallReply) bool {
	_, failed := reply.Header[ErrorHeader]
	return reply.Status == http.StatusOK && !failed
}

// end ends the turn, unless it has become part of another call's transaction.
func (t *turn) end() {
	t.e.touch(t.a)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.joined {
		t.leave()
	}
}

// hold reads a reply to its end: a turn lasts as long.
func hold(reply *quipu.CallReply, err error) (*quipu.CallReply, error) {
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(reply.Body, replyBytesMax+1))
	if err = errors.Join(err, reply.Body.Close()); err == nil && len(body) > replyBytesMax {
		err = &quipu.Error{Code: quipu.CodeReplySize, Op: "actor.call", Text: fmt.Sprintf("the actor answered with more than %d MiB", replyBytesMax>>20)}
	}
	if err != nil {
		return nil, err
	}
	reply.Body = io.NopCloser(bytes.NewReader(body))
	return reply, nil
}
