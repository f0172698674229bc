package step

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/delivery"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/internal/timers"
)

// drive goes on with an execution until it has ended, or rests; then it is in memory no more. Its error says why it should be
// looked at again.
func (e *Engine) drive(x *execution) error {
	for {
		x.mu.Lock()
		switch v := x.j.next(); {
		case x.broken != nil:
			err := x.broken
			x.mu.Unlock()
			e.leave(x)
			return err
		case v == goOn && x.turn.urgent: // what has arrived is durable before the function hears of it
			if err := e.commits.flush(x); err != nil {
				e.leave(x)
				return err
			}
		case v == goOn:
			x.mu.Unlock()
			if err := e.run(x); err != nil {
				return e.rest(x, err)
			}
		case v == giveUp:
			e.terminate(x)
			x.mu.Unlock()
		default:
			x.mu.Unlock()
			if done, err := e.rested(x); done {
				return err
			}
		}
	}
}

// rest leaves an execution that is to be looked at again.
func (e *Engine) rest(x *execution, why error) error {
	x.mu.Lock()
	err := e.commits.flush(x)
	e.leave(x)
	return errors.Join(why, err)
}

// rested makes all durable and leaves, unless something has arrived meanwhile.
func (e *Engine) rested(x *execution) (done bool, err error) {
	x.mu.Lock()
	if err := e.commits.flush(x); err != nil {
		e.leave(x)
		return true, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	if v := x.j.next(); x.broken == nil && (v == goOn || v == giveUp || x.turn.urgent || x.turn.queued) {
		return false, nil
	}
	e.forget(x)
	return true, x.broken
}

func (e *Engine) leave(x *execution) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.broken == nil { // what arrives from now on is for who loads it next
		x.breakOff(&quipu.Error{Code: quipu.CodeLeaseLost, Op: "step", Text: "nobody drives the execution any more"})
	}
	e.forget(x)
}

// forget takes an execution out of memory. Both mutexes are held.
func (e *Engine) forget(x *execution) {
	if e.live[x.key] == x {
		delete(e.live, x.key)
	}
	if x.again {
		e.enqueue(x.key)
	}
}

var runs atomic.Uint64

// run calls the function once and takes in what came of it. An error means that the function was not reached.
func (e *Engine) run(x *execution) error {
	token := strconv.FormatUint(runs.Add(1), 36) + "-" + strconv.FormatInt(e.o.Clock.Now().UnixNano(), 36)
	ctx, cut := context.WithCancel(context.Background())
	defer cut()
	x.mu.Lock()
	x.token, x.cut, x.paused, x.refused = token, cut, false, nil
	a := x.attempt()
	x.mu.Unlock()
	e.runs.Store(token, x)
	reply, err := e.o.Call(ctx, a)
	e.runs.Delete(token)
	if err == nil {
		e.reached(x.key.App)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.token, x.cut = "", nil
	if x.broken != nil || x.j.terminate != nil {
		return nil
	}
	if err != nil && (delivery.Missed(err) || e.ctx.Err() != nil) {
		return err
	}
	e.judge(x, reply, err)
	return nil
}

// attempt is the request of the next run.
func (x *execution) attempt() Attempt {
	r := &x.j.request
	a := Attempt{Function: x.f, Call: r.Call, Number: x.j.failures + 1, Method: r.Method, Path: r.Path, Query: r.Query,
		Header: make(http.Header, len(r.Header)+3), Trigger: r.Trigger, Body: x.input}
	if a.Call == "" {
		a.Call = x.key.ID
	}
	if a.Method == "" {
		a.Method, a.Path = http.MethodPost, "/"
	}
	maps.Copy(a.Header, r.Header)
	values := [...]string{x.key.ID, x.token, strconv.Itoa(len(x.j.entries))}
	a.Header[HeaderExecution], a.Header[HeaderRun], a.Header[HeaderJournal] = values[0:1:1], values[1:2:2], values[2:3:3]
	return a
}

// judge decides what follows a run. mu is held.
func (e *Engine) judge(x *execution, reply Reply, err error) {
	waits := reply.Header.Get(HeaderSuspended)
	if err == nil && len(reply.Body) > ResultMax {
		err = tooLarge()
		x.refused = err
	}
	switch {
	case x.refused != nil:
		e.fail(x, Reply{}, x.refused)
	case x.j.suspended && (err != nil || waits != ""): // it goes on when that is over
	case x.paused && err == nil && waits == suspendedPlace: // that was over before the run ended
	case err == nil && waits != "":
		e.park(x, strings.Split(waits, ","))
	case err == nil && reply.Status < http.StatusBadRequest:
		e.end(x, quipu.WorkflowCompleted, reply, nil)
	case err == nil && refuses(reply.Status):
		e.fail(x, reply, nil)
	case x.j.failures >= x.f.AsyncRules().Retry.Max:
		e.fail(x, reply, err)
	default:
		e.retry(x, reply, err)
	}
}

// refuses tells whether a status is a function's last word.
func refuses(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return status >= http.StatusBadRequest && status < http.StatusInternalServerError
}

// park has an execution rest until one of the places has come. If one has since the run looked, it runs again at once.
func (e *Engine) park(x *execution, ids []string) {
	for i := range ids {
		ids[i] = strings.TrimSpace(ids[i])
	}
	still, known := x.j.waits(ids)
	if !known {
		e.fail(x, Reply{}, &quipu.Error{Code: quipu.CodeJournal, Op: "step.run",
			Text: fmt.Sprintf("the function ended to wait for %.80q, which its journal does not have", strings.Join(ids, ",")),
			Hint: "answer with Quipu-Suspended only what the journal has been asked to wait for"})
		return
	}
	if still {
		x.add(&event{Event: evParked, At: millis(e.o.Clock.Now()), IDs: ids})
	}
}

// retry has a failed run made again, later.
func (e *Engine) retry(x *execution, reply Reply, err error) {
	now := e.o.Clock.Now()
	n := x.j.failures + 1
	due := now.Add(delivery.Backoff(x.f.AsyncRules().Retry.Backoff.Std(), n))
	x.add(&event{Event: evFailed, At: millis(now), Attempt: n, Status: reply.Status, Cause: cause(reply, err), Until: millis(due)})
	x.turn.set = append(x.turn.set, timers.Timer{Key: timers.Key{ID: retryTimer}, Due: due})
}

func cause(reply Reply, err error) string {
	if err != nil {
		return delivery.Cause(quipu.AsError(err).Text)
	}
	return delivery.Cause(fmt.Sprintf("status %d: %s", reply.Status, reply.Body[:min(len(reply.Body), delivery.CauseBytesMax)]))
}

// fail ends an execution that the function, or the platform, has given up.
func (e *Engine) fail(x *execution, reply Reply, err error) {
	why := &quipu.WorkflowFailure{Type: fmt.Sprintf("status %d", reply.Status), Message: cause(reply, err)}
	if err != nil {
		why.Type = string(quipu.CodeOf(err))
		reply = Reply{}
	}
	e.end(x, quipu.WorkflowFailed, reply, why)
}

// terminate ends an execution for who asked for it, and its children if that was asked for, too.
func (e *Engine) terminate(x *execution) {
	asked := x.j.terminate
	if asked.Recursive {
		for _, open := range x.j.open() {
			if open.Child != "" {
				m := event{Event: evTerminate, At: asked.At, Recursive: true}
				x.turn.extra = append(x.turn.extra, flow.Change{WorkflowKey: quipu.WorkflowKey{App: open.Name, ID: open.Child}, Message: m.encode(), Lenient: true})
			}
		}
	}
	e.end(x, quipu.WorkflowTerminated, Reply{Body: asked.Data}, nil)
}

// resultHeaders are what is kept of the headers of an answer: those that say what its body is, where something is, and the function's own.
func resultHeaders(h http.Header) map[string][]string {
	kept := map[string][]string{}
	for name, values := range h {
		switch name {
		case "Date", "Content-Length", "Connection", "Keep-Alive", "Transfer-Encoding", "Trailer":
		default:
			kept[name] = values
		}
	}
	return kept
}

// end has an execution end, and tells its parent, in one record.
func (e *Engine) end(x *execution, status quipu.WorkflowStatus, reply Reply, why *quipu.WorkflowFailure) {
	for _, open := range x.j.open() {
		if open.Until != 0 {
			x.turn.cancel = append(x.turn.cancel, open.ID)
		}
	}
	now := millis(e.o.Clock.Now())
	over := &event{Event: evEnd, At: now, Status: reply.Status, Header: resultHeaders(reply.Header)}
	if why != nil && reply.Status == 0 {
		over.Error = &Failure{Type: why.Type, Message: why.Message}
	}
	x.add(over)
	x.output, x.ended, x.turn.fail = reply.Body, status, why
	if x.parent == nil {
		return
	}
	m := event{Event: evChild, At: now, ID: x.j.request.Parent}
	switch {
	case why != nil:
		m.Error = &Failure{Type: why.Type, Message: why.Message}
	case status == quipu.WorkflowTerminated:
		m.Error = &Failure{Type: string(quipu.WorkflowTerminated), Message: "it was terminated"}
	default:
		m.Result = asJSON(reply.Body)
	}
	x.turn.extra = append(x.turn.extra, flow.Change{WorkflowKey: *x.parent, Message: m.encode(), Lenient: true})
}
