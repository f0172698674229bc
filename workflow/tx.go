package workflow

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/internal/timers"
	"github.com/quipu-run/quipu/view"
)

// Start makes an instance as part of a transaction, and answers its id. See quipu.WorkflowStarter.
func (v *View) Start(tx *view.Tx, s quipu.WorkflowStart) (string, error) {
	kind := v.o.KindOf(s.App)
	l, err := v.language(kind)
	if err != nil {
		return "", err
	}
	if s.ID == "" {
		s.ID = uuid.NewString()
	}
	begin := l.Begin(s, instant(tx.Now()))
	return s.ID, v.Change(tx, []flow.Change{{WorkflowKey: s.WorkflowKey, Start: &flow.Start{
		Kind: kind, Name: s.Name, Version: s.Version, Input: s.Input, At: s.At, Messages: [][]byte{begin}}}})
}

// Raise gives an instance an event as part of a transaction. See quipu.WorkflowStarter.
func (v *View) Raise(tx *view.Tx, k quipu.WorkflowKey, event string, data []byte) error {
	return v.tell(tx, k, func(l flow.Language, at time.Time) []byte { return l.Raise(event, data, at) })
}

// tell puts a message of the instance's language into its inbox.
func (v *View) tell(tx *view.Tx, k quipu.WorkflowKey, write func(flow.Language, time.Time) []byte) error {
	h, err := v.head(tx, k)
	if err != nil {
		return err
	}
	l, err := v.language(h.kind)
	if err != nil {
		return err
	}
	return v.Change(tx, []flow.Change{{WorkflowKey: k, Message: write(l, instant(tx.Now()))}})
}

// Terminate has an instance end as part of a transaction. CodeNoWorkflow, CodeWorkflowEnded.
func (v *View) Terminate(tx *view.Tx, k quipu.WorkflowKey, output []byte, recursive bool) error {
	err := v.tell(tx, k, func(l flow.Language, at time.Time) []byte { return l.Terminate(output, recursive, at) })
	if err != nil {
		return err
	}
	return v.release(tx, k)
}

// AwaitEnd has Options.Ended told of the end of an instance, as part of a transaction; of one that has ended it answers how, and of
// one that is not there what Ended is told of one that was purged.
func (v *View) AwaitEnd(tx *view.Tx, k quipu.WorkflowKey) (*flow.End, error) {
	e, err := v.edit(tx, k)
	switch {
	case err != nil:
		return nil, err
	case !e.prior.there:
		return &flow.End{WorkflowKey: k}, nil
	case e.head.status.Ended():
		s, err := v.load(tx, k)
		end := &flow.End{WorkflowKey: k, Version: s.Version, Status: s.Status, Output: s.Output}
		if n := len(s.History); n > 0 {
			end.Event = s.History[n-1]
		}
		return end, err
	case e.head.awaited:
		return nil, nil
	}
	e.head.awaited = true
	return nil, e.done()
}

// release begins an instance before its time.
func (v *View) release(tx *view.Tx, k quipu.WorkflowKey) error {
	e, err := v.edit(tx, k)
	if err != nil || !e.head.held {
		return err
	}
	e.head.held = false
	if err := e.cancel(startTimer); err != nil {
		return err
	}
	return e.done()
}

func (v *View) edit(tx *view.Tx, k quipu.WorkflowKey) (*edit, error) {
	e := &edit{v: v, tx: tx, key: k, name: name(k)}
	return e, e.read()
}

// Fire is what a timer of the view does when it is due, as part of a transaction that also takes it off. A timer that does not
// stand any more, or was set again, does nothing.
func (v *View) Fire(tx *view.Tx, t timers.Timer) error {
	id, timer, ok := strings.Cut(t.ID, timerSeparator)
	if !ok {
		return fmt.Errorf("%w: timer %q", errForm, t.ID)
	}
	now, there, err := v.o.Timers.Get(tx, t.Key)
	if err != nil || !there || now.Seq != t.Seq {
		return err
	}
	e, err := v.edit(tx, quipu.WorkflowKey{App: t.Owner, ID: id})
	if err != nil {
		return err
	}
	if err := e.fired(timer, now); err != nil {
		return err
	}
	_, err = v.o.Timers.Cancel(tx, t.Key)
	return err
}

// fired gives the instance what its timer brings.
func (e *edit) fired(id string, t timers.Timer) error {
	there, err := e.stands(id)
	if err != nil || !e.prior.there || !there {
		return err
	}
	if id == startTimer {
		e.head.held = false
	} else {
		l, err := e.v.language(e.head.kind)
		if err != nil {
			return err
		}
		if err := e.receive([][]byte{l.Fired(id, t.Body, instant(e.tx.Now()))}); err != nil {
			return err
		}
	}
	e.gone = append(e.gone, id)
	e.head.timers--
	return e.done()
}
