package step

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
)

// Request asks for an execution of a function at a revision.
type Request struct {
	Function quipu.Function
	ID       string
	// Named: the id is the caller's, so there may be an execution of it; then Hash, if set, has to be its request's.
	Named bool
	Hash  string
	Async bool // the caller does not wait for the end

	Call    string // id of the call
	Method  string
	Path    string
	Query   string
	Header  http.Header
	Trigger string
	Body    []byte
}

// Invoke starts an execution and answers what its function did, if that is within the function's timeout, else 202 with the id: the
// execution goes on in any case, also if ctx ends. CodeIdempotency, CodeWorkflowID, CodeWorkflowSize, CodeWorkflowEnded, and
// the code that the execution failed with.
func (e *Engine) Invoke(ctx context.Context, r Request) (Reply, error) {
	if err := r.check(); err != nil {
		return Reply{}, err
	}
	if e.ctx.Err() != nil {
		return Reply{}, &quipu.Error{Code: quipu.CodeStopping, Op: "step.start"}
	}
	k := quipu.WorkflowKey{App: r.Function.Name, ID: r.ID}
	x, err := e.start(ctx, k, r)
	if quipu.CodeOf(err) == quipu.CodeWorkflowExists {
		return e.attach(ctx, k, r)
	}
	if err != nil {
		return Reply{}, err
	}
	if r.Async {
		e.handOver(x)
		return accepted(k, r.Function.Revision), nil
	}
	return e.accompany(ctx, x)
}

func (r Request) check() error {
	if r.ID == "" || len(r.ID) > quipu.WorkflowIDMax || !utf8.ValidString(r.ID) || strings.ContainsFunc(r.ID, unicode.IsControl) {
		return &quipu.Error{Code: quipu.CodeWorkflowID, Op: "step.start", Text: fmt.Sprintf("%.80q cannot be the id of an execution", r.ID),
			Hint: quipu.Codes[quipu.CodeWorkflowID].Next}
	}
	if len(r.Body) > quipu.WorkflowPayloadMax {
		return &quipu.Error{Code: quipu.CodeWorkflowSize, Op: "step.start",
			Text: fmt.Sprintf("the body for function %s has %d bytes, the most is %d", r.Function.Name, len(r.Body), quipu.WorkflowPayloadMax), Hint: quipu.Codes[quipu.CodeWorkflowSize].Next}
	}
	return nil
}

// start makes an execution durable, which is in memory then. CodeWorkflowExists.
func (e *Engine) start(ctx context.Context, k quipu.WorkflowKey, r Request) (*execution, error) {
	if r.Named {
		done, err := e.alone(ctx, k)
		if err != nil {
			return nil, err
		}
		defer done()
		if _, err := e.o.Store.Instance(ctx, k); quipu.CodeOf(err) != quipu.CodeNoWorkflow {
			return nil, exists(k, err)
		}
	}
	x := e.fresh(k, r)
	e.mu.Lock()
	if e.live[k] != nil {
		e.mu.Unlock()
		return nil, exists(k, nil)
	}
	e.live[k] = x
	e.mu.Unlock()
	x.mu.Lock()
	if err := e.commits.flush(x); err != nil {
		e.leave(x)
		return nil, err
	}
	return x, nil
}

func exists(k quipu.WorkflowKey, err error) error {
	if err != nil {
		return err
	}
	return &quipu.Error{Code: quipu.CodeWorkflowExists, Op: "step.start", Text: fmt.Sprintf("there is an execution %q of function %s", k.ID, k.App)}
}

// fresh is an execution whose start is to be committed. That it has taken its first message comes with its first turn.
func (e *Engine) fresh(k quipu.WorkflowKey, r Request) *execution {
	now := e.o.Clock.Now()
	begin := &event{Event: evBegin, At: millis(now), Request: &request{Call: r.Call, Method: r.Method, Path: r.Path, Query: r.Query,
		Header: r.Header, Trigger: r.Trigger, Hash: r.Hash}}
	message := begin.encode()
	x := &execution{key: k, fresh: true, j: newJournal(), f: r.Function, pinned: true, input: r.Body, rev: uint64(now.UnixNano())}
	x.j.apply(begin)
	x.turn.events = []pendingEvent{{bytes: message, message: true}}
	x.turn.start = &flow.Start{Kind: flow.KindStep, Version: r.Function.Revision, Input: r.Body, Messages: [][]byte{message}, Rev: x.rev}
	return x
}

// alone keeps other starts of the same id out until done.
func (e *Engine) alone(ctx context.Context, k quipu.WorkflowKey) (done func(), err error) {
	mine := make(chan struct{})
	for {
		other, busy := e.keys.LoadOrStore(k, mine)
		if !busy {
			return func() {
				e.keys.Delete(k)
				close(mine)
			}, nil
		}
		select {
		case <-other.(chan struct{}):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// handOver has an execution driven in its turn with others.
func (e *Engine) handOver(x *execution) {
	e.leave(x)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.enqueue(x.key)
}

// accompany drives a new execution and waits for its end as long as its function's timeout.
func (e *Engine) accompany(ctx context.Context, x *execution) (Reply, error) {
	patience := x.f.Spec.Timeout.Std()
	over := e.o.Clock.After(patience)
	deadline := e.o.Clock.Now().Add(patience)
	driven := make(chan error, 1)
	e.all.Go(func() {
		err := e.drive(x)
		if err != nil && e.ctx.Err() == nil {
			e.later(x.key, err)
		}
		driven <- err
	})
	select {
	case err := <-driven:
		if err == nil && x.j.end != nil { // nobody else has it now
			return ended(x.key, x.f.Revision, x.j.end, x.ended, x.output)
		}
		if e.ctx.Err() != nil {
			return Reply{}, &quipu.Error{Code: quipu.CodeStopping, Op: "step", Text: "the node stops; the execution goes on when it is back", Err: err}
		}
		return e.await(ctx, x.key, deadline.Sub(e.o.Clock.Now()))
	case <-over:
	case <-ctx.Done():
	}
	return accepted(x.key, x.f.Revision), nil
}

// attach waits for an execution that somebody else has begun.
func (e *Engine) attach(ctx context.Context, k quipu.WorkflowKey, r Request) (Reply, error) {
	if r.Hash != "" {
		s, err := e.o.Store.Load(ctx, k)
		if err != nil {
			return Reply{}, err
		}
		begun, err := beginning(s)
		if err != nil {
			return Reply{}, err
		}
		if begun.Hash != "" && begun.Hash != r.Hash {
			return Reply{}, &quipu.Error{Code: quipu.CodeIdempotency, Op: "step.start",
				Text: fmt.Sprintf("execution %q of function %s was begun by another request", k.ID, k.App), Hint: quipu.Codes[quipu.CodeIdempotency].Next}
		}
	}
	if r.Async {
		return accepted(k, r.Function.Revision), nil
	}
	return e.await(ctx, k, r.Function.Spec.Timeout.Std())
}

// beginning is the request of an execution.
func beginning(s flow.Snapshot) (request, error) {
	for _, list := range [...][][]byte{s.History, s.Inbox} {
		for _, b := range list {
			ev, err := decodeEvent(b)
			if err != nil {
				return request{}, err
			}
			if ev.Event == evBegin && ev.Request != nil {
				return *ev.Request, nil
			}
		}
	}
	return request{}, nil
}

// await answers how an execution ended, or 202 if it does not within patience.
func (e *Engine) await(ctx context.Context, k quipu.WorkflowKey, patience time.Duration) (Reply, error) {
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	over := e.o.Clock.After(max(0, patience))
	found := make(chan error, 1)
	go func() {
		_, err := e.o.Store.Await(waiting, k, func(i flow.Instance) bool { return i.Status.Ended() })
		found <- err
	}()
	select {
	case <-over:
		return accepted(k, ""), nil
	case err := <-found:
		if ctx.Err() != nil {
			return accepted(k, ""), nil
		}
		if err != nil {
			return Reply{}, err
		}
	}
	s, err := e.o.Store.Load(ctx, k)
	if err != nil {
		return Reply{}, err
	}
	if len(s.History) == 0 || !s.Status.Ended() {
		return accepted(k, s.Version), nil // another of its id was begun meanwhile
	}
	return Ended(flow.End{WorkflowKey: k, Version: s.Version, Status: s.Status, Event: s.History[len(s.History)-1], Output: s.Output})
}

// Ended is what an execution that ended answers.
func Ended(e flow.End) (Reply, error) {
	if e.Status == "" {
		return Reply{}, &quipu.Error{Code: quipu.CodeNoWorkflow, Op: "step", Text: fmt.Sprintf("execution %s of function %s was purged before it had ended", e.ID, e.App)}
	}
	last, err := decodeEvent(e.Event)
	if err != nil {
		return Reply{}, err
	}
	return ended(e.WorkflowKey, e.Version, last, e.Status, e.Output)
}

// accepted is the answer to who does not wait any longer.
func accepted(k quipu.WorkflowKey, revision string) Reply {
	body, err := json.Marshal(k)
	if err != nil {
		panic(err) // two texts
	}
	return Reply{Execution: k.ID, Revision: revision, Status: http.StatusAccepted,
		Header: http.Header{HeaderExecution: {k.ID}, "Content-Type": {"application/json"}}, Body: append(body, '\n')}
}

// ended is what an execution answers, as often as somebody asks.
func ended(k quipu.WorkflowKey, revision string, end *event, status quipu.WorkflowStatus, output []byte) (Reply, error) {
	switch {
	case status == quipu.WorkflowTerminated:
		return Reply{}, &quipu.Error{Code: quipu.CodeWorkflowEnded, Op: "step", Text: fmt.Sprintf("execution %s of function %s was terminated", k.ID, k.App)}
	case end.Error != nil:
		return Reply{}, failed(k, end.Error)
	}
	header := make(http.Header, len(end.Header)+1)
	for name, values := range end.Header {
		header[name] = values
	}
	header[HeaderExecution] = []string{k.ID}
	return Reply{Execution: k.ID, Revision: revision, Status: end.Status, Header: header, Body: output}, nil
}

func failed(k quipu.WorkflowKey, why *Failure) error {
	code := quipu.Code(why.Type)
	info, known := quipu.Codes[code]
	if !known {
		return errors.New(why.Message)
	}
	return &quipu.Error{Code: code, Op: "step", Text: fmt.Sprintf("execution %s of function %s failed: %s", k.ID, k.App, why.Message), Hint: info.Next}
}
