package call

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/quipu-run/quipu"
)

// Recording is what is kept of a call: enough to make it again, and to compare.
type Recording struct {
	Info quipu.CallInfo
	At   quipu.Seq // the last record that it saw, or can have seen
	// Note says what is not known of it.
	Note string

	request quipu.CallRequest
	body    []byte
	status  int
	reply   []byte
	read    []string
	effects []effect
}

// effect is one operation, and the value that it left.
type effect struct{ what, value string }

// recordsBackMax bounds how far the record is looked for that came before a call of a plain function.
const recordsBackMax = 10_000

// Recording answers what is kept of a call that has a record. CodeNotFound; CodeTrimmed: its record is gone; CodeCallPending;
// CodeUsage: of its request not enough is kept.
func (c *Caller) Recording(ctx context.Context, id string) (Recording, error) {
	if found, ok := c.remembered(id); ok {
		return Recording{}, &quipu.Error{Code: quipu.CodeNotFound, Op: "call.replay", Text: withoutRecord(found).Missing,
			Hint: "calls of atomic functions that changed something have one, async calls, and those with an Idempotency-Key"}
	}
	p, err := c.load(id)
	if err != nil {
		return Recording{}, err
	}
	if p != nil {
		return Recording{}, notEnded(id)
	}
	tx := c.o.Book.Look()
	r, _, err := c.o.Results.load(tx, id)
	if err = errors.Join(err, tx.Close()); err != nil {
		return Recording{}, err
	}
	return c.recording(ctx, r)
}

func (c *Caller) recording(ctx context.Context, r *result) (rec Recording, err error) {
	if r.Kept < r.Sent {
		return rec, &quipu.Error{Code: quipu.CodeUsage, Op: "call.replay",
			Text: fmt.Sprintf("the request of call %s had %d bytes, of which %d are kept: it cannot be made again", r.Info.ID, r.Sent, r.Kept)}
	}
	if r.Info.Execution != "" {
		return rec, &quipu.Error{Code: quipu.CodeUsage, Op: "call.replay", Text: fmt.Sprintf("call %s was over with its execution %s, whose steps would do again what they did outside", r.Info.ID, r.Info.Execution),
			Hint: fmt.Sprintf("quipu workflow rerun %s --app %s makes another with the steps before an event", r.Info.Execution, r.Info.Function)}
	}
	rec = Recording{Info: r.Info, body: r.input, status: r.Info.Status, reply: r.body}
	rec.request = quipu.CallRequest{Function: r.Info.Function, Method: r.Info.Method, Path: r.Info.Path, RawQuery: r.Query,
		Header: r.Asked, IdempotencyKey: r.Key, Trigger: r.Info.Trigger}
	if r.Blob != nil {
		if rec.reply, err = c.o.Results.blobs.Get(*r.Blob); err != nil {
			return rec, fmt.Errorf("recorded reply: %w", err)
		}
	}
	tx, err := c.recordOf(ctx, r.Info)
	if err != nil {
		return rec, err
	}
	rec.see(c, tx)
	if !c.atomicOf(rec) {
		rec.read, rec.effects = nil, nil
		rec.Note = "the function is plain: what it did before it answered is not in the call's record, so only the reply is compared"
		rec.At = 0 // what was read for the record was read at its end
	}
	if rec.At == 0 {
		rec.At, err = c.before(ctx, r.Info)
	}
	return rec, err
}

// atomicOf tells whether the function was atomic; of a revision that is forgotten the record tells, if it has something.
func (c *Caller) atomicOf(rec Recording) bool {
	f, err := c.o.Find(quipu.CallRequest{Function: rec.Info.Function, Revision: rec.Info.Revision}, rec.Info.ID)
	if err != nil {
		return len(rec.read)+len(rec.effects) > 0
	}
	return f.Spec.Atomic
}

// see takes from a record what the call read and did.
func (rec *Recording) see(c *Caller, tx quipu.Tx) {
	rec.At = tx.Snapshot
	for _, name := range tx.Reads {
		key := c.keyOf(name)
		if key.View != Name { // of which the platform's part is another each time
			rec.read = append(rec.read, key.Key)
		}
	}
	for _, op := range tx.Ops {
		if what, value, ok := c.words(op.View).Effect(op.Body); ok {
			rec.effects = append(rec.effects, effect{what, value})
		}
	}
	slices.Sort(rec.read)
}

// before is the last record from before a call began, which has read nothing itself.
func (c *Caller) before(ctx context.Context, i quipu.CallInfo) (quipu.Seq, error) {
	at := i.Seq - 1
	for range recordsBackMax {
		rec, err := c.o.Log.Prev(ctx, c.o.LogBook, quipu.TagAll, at)
		if code := quipu.CodeOf(err); code == quipu.CodeNotFound || code == quipu.CodeTrimmed {
			return at, nil
		}
		if err != nil || rec.Stamp < i.Start.UnixNano() {
			return rec.Seq, err
		}
		at = rec.Seq - 1
	}
	return 0, &quipu.Error{Code: quipu.CodeTrimmed, Op: "call.replay",
		Text: fmt.Sprintf("more than %d records were written while call %s ran", recordsBackMax, i.ID)}
}

// Replay makes a call again, under its own id, and answers what it did this time. It is for a namespace that is as it was when
// the call began, and that nobody else uses.
func (c *Caller) Replay(ctx context.Context, rec Recording) (again Recording, err error) {
	r := rec.request
	r.Header = http.Header(r.Header).Clone()
	r.Body, r.ContentLength = bytes.NewReader(rec.body), int64(len(rec.body))
	reply, err := c.invoke(ctx, r, rec.Info.ID, 1)
	if err != nil {
		e := quipu.AsError(err)
		again.Info = quipu.CallInfo{ID: rec.Info.ID, Function: rec.Info.Function, Error: e.Code}
		again.status, again.reply = quipu.Codes[e.Code].Status, []byte(e.Text)
		return again, nil
	}
	again.status = reply.Status
	again.reply, err = io.ReadAll(io.LimitReader(reply.Body, quipu.AtomicBodyMax))
	if err = errors.Join(err, reply.Body.Close()); err != nil {
		return again, err
	}
	err = c.seeAgain(ctx, rec.Info.ID, &again)
	return again, err
}

// seeAgain adds what a replay did, if it has a record.
func (c *Caller) seeAgain(ctx context.Context, id string, again *Recording) error {
	look := c.o.Book.Look()
	r, _, err := c.o.Results.load(look, id)
	err = errors.Join(err, look.Close())
	if quipu.CodeOf(err) == quipu.CodeNotFound {
		again.Info, err = c.Call(ctx, id)
		return err
	}
	if err != nil {
		return err
	}
	again.Info = r.Info
	tx, err := c.recordOf(ctx, r.Info)
	if err == nil {
		again.see(c, tx)
	}
	return err
}

// Compare tells what a call and its replay did not do alike.
func Compare(was, is Recording) quipu.CallReplay {
	out := quipu.CallReplay{Call: was.Info, Again: is.Info, At: was.At, Note: was.Note, Differences: []quipu.CallDifference{}}
	add := func(what, was, is string) {
		if was != is {
			out.Differences = append(out.Differences, quipu.CallDifference{What: what, Was: shown(was), Is: shown(is)})
		}
	}
	add("status", fmt.Sprint(was.status), fmt.Sprint(is.status))
	add("reply", string(was.reply), string(is.reply))
	if was.Note == "" {
		add("keys read", strings.Join(was.read, " "), strings.Join(is.read, " "))
		for n := range max(len(was.effects), len(is.effects)) {
			a, b := at(was.effects, n), at(is.effects, n)
			if a.what == b.what {
				add(a.what, a.value, b.value)
				continue
			}
			add(fmt.Sprintf("effect %d", n+1), a.text(), b.text())
		}
	}
	out.Same = len(out.Differences) == 0
	return out
}

func at(list []effect, n int) effect {
	if n >= len(list) {
		return effect{}
	}
	return list[n]
}

func (e effect) text() string {
	if e.value == "" {
		return e.what
	}
	return e.what + ": " + e.value
}

// shownMax bounds each side of a difference.
const shownMax = 2 << 10

func shown(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= shownMax {
		return s
	}
	return strings.ToValidUTF8(s[:shownMax], "") + fmt.Sprintf("… (%d bytes)", len(s))
}

// effectWords: the one operation of this view that a function asks for is a call that nobody waits for.
func effectWords(op []byte) (what, value string, ok bool) {
	if len(op) == 0 || op[0] != opQueue {
		return "", "", false
	}
	p, err := decodePending(op[1:])
	if err != nil || p.Info.Trigger == triggerDestination {
		return "", "", false
	}
	return fmt.Sprintf("call %s later: %s %s", p.Info.Function, p.Info.Method, p.Info.Path), string(p.body), true
}
