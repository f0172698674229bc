package call

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/delivery"
	"github.com/quipu-run/quipu/view"
)

// tagsMax leaves room among the tags of a record for those of its own function and of topics.
const tagsMax = quipu.TagsMax / 2

// InvokeAsync accepts a call that nobody waits for.
func (c *Caller) InvokeAsync(ctx context.Context, r quipu.CallRequest) (info quipu.CallInfo, err error) {
	p, err := c.accept(ctx, r)
	if err != nil {
		return info, err
	}
	if p.Key != "" {
		done, err := c.alone(ctx, p.Info.Function, p.Key)
		if err != nil {
			return info, err
		}
		defer done()
	}
	seq, err := c.o.Book.Change(ctx, func(tx *view.Tx) error {
		info, err = c.enqueue(tx, p)
		return err
	})
	if seq != 0 { // else it was there under its key
		err = c.appended(p.Info.Function, err)
	}
	return info, err
}

// accept makes of a request what waits.
func (c *Caller) accept(ctx context.Context, r quipu.CallRequest) (*pending, error) {
	id := ulid.Make().String()
	f, err := c.o.Find(r, id)
	if err != nil {
		return nil, err
	}
	q := c.newRequest(r, f, id, 1)
	if err := q.checkKey(); err != nil {
		return nil, err
	}
	if err := c.awaitSession(ctx, r.Header.Get(quipu.HeaderSession)); err != nil {
		return nil, err
	}
	if err := q.readBody(); err != nil {
		return nil, err
	}
	header := r.Header.Clone()
	header.Del(quipu.HeaderSession) // the call comes later than what its caller has seen
	header = tracedBy(ctx, header)
	p := &pending{Info: q.info, Query: r.RawQuery, Header: header, Key: r.IdempotencyKey, Rules: f.AsyncRules(), body: q.body}
	if p.Key != "" {
		p.Hash = q.fingerprint()
	}
	if r.Revision != "" {
		p.Revision = f.Revision
	}
	p.Info.Queued, p.Info.Expires = q.start, q.start.Add(p.Rules.MaxAge.Std())
	return p, nil
}

// enqueue adds a call to a transaction, unless it is there under its key: then it answers that one.
func (c *Caller) enqueue(tx *view.Tx, p *pending) (quipu.CallInfo, error) {
	if p.Key != "" {
		known, err := c.earlier(tx, p)
		if err != nil || known.ID != "" {
			return known, err
		}
	}
	done, err := c.waits.reserve(p.Info.Function)
	if err != nil {
		return quipu.CallInfo{}, err
	}
	tx.OnClose(done)
	if err := c.o.Results.queue(tx, p); err != nil {
		return quipu.CallInfo{}, err
	}
	tx.TagUpTo(tagsMax, functionTag(p.Info.Function))
	return p.info(false), nil
}

// earlier finds the call of an earlier request with the key of p; one without id if there is none.
func (c *Caller) earlier(tx *view.Tx, p *pending) (info quipu.CallInfo, err error) {
	id, ok, err := tx.Get(Name, keyName(p.Info.Function, p.Key))
	if err != nil || !ok {
		return info, err
	}
	first, err := c.o.Results.waiting(tx, string(id))
	if err != nil {
		return info, err
	}
	if first != nil {
		return first.info(c.waits.isRunning(first.Info.ID)), sameRequest(p.Key, first.Hash, p.Hash)
	}
	r, _, err := c.o.Results.load(tx, string(id))
	if err != nil {
		return info, err
	}
	if r.Info.State == "" { // its caller waited
		r.Info.State = quipu.CallSucceeded
	}
	return r.Info, sameRequest(p.Key, r.Hash, p.Hash)
}

// deferred is one attempt of a call that nobody waits for.
func (c *Caller) deferred(p *pending, f quipu.Function) *request {
	r := quipu.CallRequest{Function: f.Name, Method: p.Info.Method, Path: p.Info.Path, RawQuery: p.Query, Header: p.Header,
		ContentLength: int64(len(p.body)), Trigger: p.Info.Trigger, Attempt: p.Attempts + 1}
	q := c.newRequest(r, f, p.Info.ID, 1)
	q.body, q.deferred = p.body, p
	q.info.Queued, q.info.Expires, q.info.Attempts = p.Info.Queued, p.Info.Expires, q.Attempt
	return q
}

// stillWaits makes sure, as part of the transaction, that a call has not been cancelled. CodeCallCancelled.
func (c *Caller) stillWaits(tx *view.Tx, id string) error {
	_, ok, err := tx.Get(Name, byPending+id)
	if err == nil && !ok {
		err = cancelled(id)
	}
	return err
}

func cancelled(id string) error {
	return &quipu.Error{Code: quipu.CodeCallCancelled, Op: "call", Text: fmt.Sprintf("call %s was cancelled", id)}
}

// ending is how a call ended.
type ending struct {
	info   quipu.CallInfo
	header map[string][]string // of the reply, if there was one
	body   []byte
}

// ending is how the attempt q ended its call; h is nil if the function did not answer.
func (q *request) ending(state quipu.CallState, h *held) ending {
	e := ending{info: q.info}
	e.info.State = state
	e.info.Usage.Add(q.deferred.tried.Usage) // of earlier attempts
	if h != nil {
		e.info.Status, e.header, e.body = h.status, h.header, h.body
	}
	return e
}

// ended is an ending without another attempt.
func (p *pending) ended(state quipu.CallState, now time.Time) ending {
	e := ending{info: p.info(false)}
	e.info.State, e.info.Next, e.info.Start = state, time.Time{}, now
	return e
}

// end adds the end of a call that waits to a transaction that has made sure that it does: its result, and the event
// for its destination.
func (c *Caller) end(tx *view.Tx, p *pending, e ending) error {
	tx.Put(Name, byPending+p.Info.ID, nil)
	if e.info.Execution != "" {
		tx.Put(Name, executionPrefix(p.Info.Function, e.info.Execution)+p.Info.ID, nil)
	}
	if err := c.tell(tx, p, &e); err != nil {
		return err
	}
	e.info.Cause = delivery.Cause(e.info.Cause)
	r := &result{Info: e.info, Header: e.header, Key: p.Key, Hash: p.Hash, Query: p.Query, body: e.body}
	r.sent(p.body, p.Header)
	tx.TagUpTo(tagsMax, functionTag(p.Info.Function))
	return c.o.Results.keep(tx, r)
}

// verdict says what follows an attempt that did not succeed: the record of its failure, and how the call stands then.
// What a function refuses it would refuse again.
func (p *pending) verdict(status int, failure error, cause string, now time.Time) (t tried, state quipu.CallState) {
	t = tried{ID: p.Info.ID, Attempts: p.Attempts + 1, Status: status, Error: quipu.CodeOf(failure), Cause: cause, Usage: p.Usage}
	t.Due = now.Add(delivery.Backoff(p.Rules.Retry.Backoff.Std(), t.Attempts))
	switch {
	case failure == nil && isRefusal(status), t.Attempts > p.Rules.Retry.Max:
		return t, quipu.CallFailed
	case !t.Due.Before(p.Info.Expires):
		return t, quipu.CallExpired
	}
	return t, quipu.CallWaiting
}

// isRefusal tells whether a status is a function's last word about a request.
func isRefusal(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return status >= http.StatusBadRequest && status < http.StatusInternalServerError
}

// CancelCall ends a call that has not ended.
func (c *Caller) CancelCall(ctx context.Context, id string) (info quipu.CallInfo, err error) {
	_, err = c.o.Book.Change(ctx, func(tx *view.Tx) error {
		p, err := c.o.Results.waiting(tx, id)
		if err != nil {
			return err
		}
		if p == nil {
			return c.hasEnded(tx, id)
		}
		if err := c.o.Results.fill(p); err != nil {
			return err
		}
		e := p.ended(quipu.CallCancelled, c.o.Clock.Now())
		info = e.info
		if err := c.end(tx, p, e); err != nil || p.Execution == "" {
			return err
		}
		return c.o.Executions.Terminate(tx, p.Info.Function, p.Execution)
	})
	if err != nil {
		return quipu.CallInfo{}, err
	}
	return info, nil
}

// hasEnded is why a call cannot be cancelled that does not wait. CodeCallEnded, CodeNotFound.
func (c *Caller) hasEnded(tx *view.Tx, id string) error {
	if _, ok := c.remembered(id); !ok {
		if _, _, err := c.o.Results.load(tx, id); err != nil {
			return err
		}
	}
	return &quipu.Error{Code: quipu.CodeCallEnded, Op: "call.cancel", Text: fmt.Sprintf("call %s has ended", id),
		Hint: quipu.Codes[quipu.CodeCallEnded].Next}
}

// CallResult is what a call was answered with.
func (c *Caller) CallResult(_ context.Context, id string) (reply *quipu.CallReply, err error) {
	tx := c.o.Book.Look()
	defer func() { err = errors.Join(err, tx.Close()) }()
	p, err := c.o.Results.waiting(tx, id)
	if err != nil {
		return nil, err
	}
	if p != nil {
		return nil, notEnded(id)
	}
	r, _, err := c.o.Results.load(tx, id)
	if err != nil {
		return nil, err
	}
	return c.o.Results.reply(r)
}
