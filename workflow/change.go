package workflow

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/internal/timers"
	"github.com/quipu-run/quipu/view"
)

// eventOverhead is what an event may have besides a payload.
const eventOverhead = 64 << 10

// startTimer is the id of the timer that an instance begins at. No runner has such a one.
const startTimer = "\x01start"

// Change does the changes as part of a transaction: all of them, or an error.
func (v *View) Change(tx *view.Tx, changes []flow.Change) error {
	for i := range changes {
		if err := v.change(tx, &changes[i]); err != nil {
			return err
		}
	}
	return nil
}

func (v *View) change(tx *view.Tx, c *flow.Change) error {
	if err := checkKey(c.WorkflowKey); err != nil {
		return err
	}
	e := edit{v: v, tx: tx, key: c.WorkflowKey, name: name(c.WorkflowKey)}
	if err := e.read(); err != nil {
		return err
	}
	if c.Purge {
		return e.purge(c.Force)
	}
	do, err := e.all(c)
	if err != nil || !do {
		return err
	}
	return e.done()
}

// edit is one Change in the making.
type edit struct {
	v    *View
	tx   *view.Tx
	key  quipu.WorkflowKey
	name string
	step
}

// read takes the head as it is.
func (e *edit) read() (err error) {
	value, ok, err := e.tx.Get(Name, byHead+e.name)
	if err != nil || !ok {
		return err
	}
	e.step.name = e.name
	if e.head, err = decodeHead(value); err != nil {
		return fmt.Errorf("workflow %s of %s: %w", e.key.ID, e.key.App, err)
	}
	e.prior = prior{there: true, busy: e.head.busy(), status: e.head.status, version: e.head.version, ended: e.head.ended}
	return nil
}

// all does the parts of a change; false if there is nothing to do.
func (e *edit) all(c *flow.Change) (do bool, err error) {
	if c.Start != nil {
		if e.prior.there && !e.head.status.Ended() {
			if c.Lenient {
				return false, nil
			}
			return false, e.fault(quipu.CodeWorkflowExists, "an instance %s of %s has not ended", e.key.ID, e.key.App)
		}
		if err := e.start(c.Start); err != nil {
			return false, err
		}
		do = true
	}
	if c.Turn != nil {
		if err := e.turn(c.Turn); err != nil {
			return false, err
		}
		do = true
	}
	if c.Message == nil {
		return do, nil
	}
	err = e.message(c.Message)
	if err != nil && c.Lenient && isLate(err) {
		return do, nil
	}
	return true, err
}

// isLate tells whether a message cannot arrive, and never will.
func isLate(err error) bool {
	code := quipu.CodeOf(err)
	return code == quipu.CodeNoWorkflow || code == quipu.CodeWorkflowEnded
}

func (e *edit) fault(code quipu.Code, text string, args ...any) error {
	return fault(code, fmt.Sprintf(text, args...))
}

func fault(code quipu.Code, text string) error {
	return &quipu.Error{Code: code, Op: "workflow.change", Text: text, Hint: quipu.Codes[code].Next}
}

func (e *edit) start(s *flow.Start) error {
	if e.prior.there {
		if err := e.forget(); err != nil {
			return err
		}
	}
	now := e.tx.Now()
	rev := s.Rev
	if rev == 0 {
		rev = uint64(now)
	}
	e.step = step{name: e.name, head: head{kind: s.Kind, version: s.Version, status: quipu.WorkflowPending, rev: rev, updated: now}}
	text, err := json.Marshal(static{Name: s.Name, Created: now, Start: nanos(s.At), Parent: s.Parent})
	if err != nil {
		return err
	}
	e.static, e.input, e.setInput = text, s.Input, true
	if err := e.checkSize("input", s.Input); err != nil {
		return err
	}
	if err := e.append(s.History); err != nil {
		return err
	}
	if len(s.History) > 0 {
		e.head.status = quipu.WorkflowRunning
	}
	e.head.open = s.Open
	for _, one := range s.Set {
		if err := e.set(one); err != nil {
			return err
		}
	}
	if e.head.held = nanos(s.At) > now; e.head.held {
		if err := e.set(timers.Timer{Key: timers.Key{ID: startTimer}, Due: s.At}); err != nil {
			return err
		}
	}
	return e.receive(s.Messages)
}

// turn is what a runner did.
func (e *edit) turn(t *flow.Turn) error {
	switch {
	case !e.prior.there && e.static == nil:
		return e.fault(quipu.CodeNoWorkflow, "there is no instance %s of %s", e.key.ID, e.key.App)
	case t.Rev != e.head.rev:
		return e.fault(quipu.CodeWorkflowStale, "instance %s of %s is not at revision %d any more", e.key.ID, e.key.App, t.Rev)
	case e.head.status.Ended():
		return e.fault(quipu.CodeWorkflowEnded, "instance %s of %s has ended", e.key.ID, e.key.App)
	case t.Took < 0 || uint64(t.Took) > e.head.next-e.head.first:
		panic(fmt.Sprintf("workflow: a turn took %d messages of %d", t.Took, e.head.next-e.head.first))
	}
	h := &e.head
	e.first, e.took = h.first, uint64(t.Took)
	h.first += e.took
	h.rev++
	h.updated = e.tx.Now()
	h.open = t.Open
	if t.Status != "" {
		h.status = t.Status
	}
	if t.Version != nil {
		h.version = *t.Version
	}
	if t.Custom != nil {
		e.custom, h.custom = []byte(*t.Custom), true
	}
	if err := cmp.Or(e.checkSize("input", t.Input), e.checkSize("output", t.Output), e.checkSize("custom status", e.custom)); err != nil {
		return err
	}
	if err := e.content(t); err != nil {
		return err
	}
	if h.status.Ended() {
		return e.end(t)
	}
	return nil
}

// content is what a turn adds: history and timers.
func (e *edit) content(t *flow.Turn) error {
	if t.Again {
		if err := e.again(t); err != nil {
			return err
		}
	}
	if t.Redo > 0 {
		e.head.parts--
		e.head.events -= uint32(t.Redo)
	}
	if err := e.append(t.Events); err != nil {
		return err
	}
	for _, id := range t.Cancel {
		if err := e.cancel(id); err != nil {
			return err
		}
	}
	for _, one := range t.Set {
		if err := e.set(one); err != nil {
			return err
		}
	}
	return nil
}

// again begins another generation. Timers of the one before would be taken for those of the new one.
func (e *edit) again(t *flow.Turn) error {
	if err := e.cancelAll(); err != nil {
		return err
	}
	e.wipe = e.head.parts
	e.head.generation++
	e.head.parts, e.head.events = 0, 0
	e.input, e.setInput = t.Input, true
	return nil
}

// append adds events to the history as one part.
func (e *edit) append(events [][]byte) error {
	if len(events) == 0 {
		return nil
	}
	if int(e.head.events)+len(events) > quipu.WorkflowHistoryMax {
		return e.fault(quipu.CodeWorkflowSize, "the history of instance %s of %s would have more than %d events", e.key.ID, e.key.App, quipu.WorkflowHistoryMax)
	}
	for _, one := range events {
		if len(one) > quipu.WorkflowPayloadMax+eventOverhead {
			return e.fault(quipu.CodeWorkflowSize, "an event of instance %s of %s has %d bytes", e.key.ID, e.key.App, len(one))
		}
	}
	e.part, e.events = e.head.parts, events
	e.head.parts++
	e.head.events += uint32(len(events))
	return nil
}

func (e *edit) message(m []byte) error {
	switch {
	case !e.prior.there && e.static == nil:
		return e.fault(quipu.CodeNoWorkflow, "there is no instance %s of %s", e.key.ID, e.key.App)
	case e.head.status.Ended():
		return e.fault(quipu.CodeWorkflowEnded, "instance %s of %s has ended", e.key.ID, e.key.App)
	case e.head.next-e.head.first >= quipu.WorkflowInboxMax:
		return e.fault(quipu.CodeTooMany, "instance %s of %s has not taken %d messages, which is the most", e.key.ID, e.key.App, quipu.WorkflowInboxMax)
	}
	return e.receive([][]byte{m})
}

// receive adds messages to the inbox.
func (e *edit) receive(list [][]byte) error {
	for _, m := range list {
		if len(m) > quipu.WorkflowPayloadMax+eventOverhead {
			return e.fault(quipu.CodeWorkflowSize, "a message to instance %s of %s has %d bytes", e.key.ID, e.key.App, len(m))
		}
	}
	if len(e.messages) == 0 {
		e.number = e.head.next
	}
	e.messages = append(e.messages, list...)
	e.head.next += uint64(len(list))
	return nil
}

// end keeps how the instance ended, and nothing that would only matter if it went on.
func (e *edit) end(t *flow.Turn) (err error) {
	h := &e.head
	h.ended, h.open = h.updated, false
	e.took += h.next - h.first
	h.first = h.next
	if e.result, err = encodeResult(t.Output, t.Failure); err != nil {
		return err
	}
	if h.awaited {
		end := flow.End{WorkflowKey: e.key, Version: h.version, Status: h.status, Output: t.Output}
		if n := len(t.Events); n > 0 {
			end.Event = t.Events[n-1]
		}
		if err := e.v.o.Ended(e.tx, end); err != nil {
			return err
		}
	}
	return e.cancelAll()
}

func (e *edit) timerKey(id string) timers.Key {
	return timers.Key{Kind: TimerKind, Owner: e.key.App, ID: e.key.ID + timerSeparator + id}
}

// timerSeparator stands between the instance's id, which is printable, and that of its timer.
const timerSeparator = "\x02"

func (e *edit) set(t timers.Timer) error {
	id := t.ID
	t.Key = e.timerKey(id)
	if !slices.Contains(e.timers, id) {
		e.timers = append(e.timers, id)
		e.head.timers++
	}
	return e.v.o.Timers.Set(e.tx, t)
}

// cancel takes a timer off; one that is not there any more has fired.
func (e *edit) cancel(id string) error {
	if i := slices.Index(e.timers, id); i >= 0 {
		e.timers = slices.Delete(e.timers, i, i+1)
	} else if there, err := e.stands(id); err != nil || !there {
		return err
	}
	e.gone = append(e.gone, id)
	e.head.timers--
	_, err := e.v.o.Timers.Cancel(e.tx, e.timerKey(id))
	return err
}

func (e *edit) timerName(id string) string { return byTimer + e.name + "\x00" + id }

// stands tells whether a timer is there. The head, which each change writes, speaks for the transaction's reads.
func (e *edit) stands(id string) (bool, error) {
	if slices.Contains(e.gone, id) {
		return false, nil
	}
	_, there, err := e.tx.Get(Name, e.timerName(id))
	return there, err
}

func (e *edit) cancelAll() error {
	if e.head.timers == 0 {
		return nil
	}
	ids, err := e.standing()
	for _, id := range ids {
		err = errors.Join(err, e.cancel(id))
	}
	return err
}

// standing lists the timers of the instance, those that this change set included.
func (e *edit) standing() (ids []string, err error) {
	from := e.timerName("")
	err = e.tx.Scan(Name, from, from[:len(from)-1]+"\x01", func(key string, _ []byte) bool {
		if id := key[len(from):]; !slices.Contains(e.timers, id) {
			ids = append(ids, id)
		}
		return true
	})
	return append(ids, e.timers...), err
}

// done adds the operation to the transaction.
func (e *edit) done() error {
	e.tx.Put(Name, byHead+e.name, e.head.encode(nil))
	if e.reversioned() || !e.prior.there {
		if at := pin(e.key.App, e.head.kind, e.head.version, e.head.status); at != "" {
			e.tx.Put(Name, at, nil) // for who looked whether there is one, as Pinned does; the number is made where it is applied
		}
	}
	for _, id := range e.gone {
		e.tx.Put(Name, e.timerName(id), nil)
	}
	for _, id := range e.timers {
		e.tx.Put(Name, e.timerName(id), []byte{})
	}
	return e.tx.Do(quipu.Op{View: Name, Body: e.encode()})
}

func (e *edit) purge(force bool) error {
	switch {
	case !e.prior.there:
		return e.fault(quipu.CodeNoWorkflow, "there is no instance %s of %s", e.key.ID, e.key.App)
	case !e.head.status.Ended() && !force:
		return e.fault(quipu.CodeWorkflowRunning, "instance %s of %s has not ended", e.key.ID, e.key.App)
	}
	return e.forget()
}

// forget adds an operation that removes all there is of the instance.
func (e *edit) forget() error {
	if e.head.awaited && !e.head.status.Ended() {
		if err := e.v.o.Ended(e.tx, flow.End{WorkflowKey: e.key, Version: e.head.version}); err != nil {
			return err
		}
	}
	p := purge{name: e.name, head: e.head}
	if e.head.timers > 0 {
		var err error
		if p.timers, err = e.standing(); err != nil {
			return err
		}
	}
	for _, id := range p.timers {
		if _, err := e.v.o.Timers.Cancel(e.tx, e.timerKey(id)); err != nil {
			return err
		}
		e.tx.Put(Name, e.timerName(id), nil)
	}
	e.tx.Put(Name, byHead+e.name, nil)
	return e.tx.Do(quipu.Op{View: Name, Body: p.encode()})
}

func (e *edit) checkSize(what string, b []byte) error {
	if len(b) <= quipu.WorkflowPayloadMax {
		return nil
	}
	return e.fault(quipu.CodeWorkflowSize, "the %s of instance %s of %s has %d bytes, the most is %d", what, e.key.ID, e.key.App, len(b), quipu.WorkflowPayloadMax)
}

func checkKey(k quipu.WorkflowKey) error {
	bad := k.ID == "" || len(k.ID) > quipu.WorkflowIDMax || !utf8.ValidString(k.ID) || strings.ContainsFunc(k.ID, func(r rune) bool { return !unicode.IsPrint(r) })
	if bad || k.App == "" || strings.ContainsRune(k.App, 0) {
		return fault(quipu.CodeWorkflowID, fmt.Sprintf("%q cannot be the id of a workflow of %q", k.ID, k.App))
	}
	return nil
}
