package call

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/codec"
)

// Words say what a view's part of a record is. Without one of them, keys are shown with a slash for NUL, and
// operations by their size.
type Words struct {
	// Key is a key of the view as people know it. It is also given the ends of spans, and answers "" for one that
	// is after all that belongs together.
	Key func(key string) string
	// Op is what an operation does, in a few words and without values.
	Op func(op []byte) string
	// Effect is what an operation of a user does and the value that it leaves, without what is another each time it is done;
	// false for one of the platform's own.
	Effect func(op []byte) (what, value string, ok bool)
	// Events are those that an operation publishes.
	Events func(op []byte) []quipu.CallEvent
}

// Slice shows all that is known of a call: its result, and what its record in the log says. CodeNotFound. A record
// that is not there any more is no error: Missing tells of it.
func (c *Caller) Slice(ctx context.Context, id string) (quipu.CallSlice, error) {
	if found, ok := c.remembered(id); ok {
		return withoutRecord(found), nil
	}
	p, err := c.load(id)
	if err != nil {
		return quipu.CallSlice{}, err
	}
	if p != nil {
		return c.sliceOfWaiting(p), nil
	}
	tx := c.o.Book.Look()
	r, _, err := c.o.Results.load(tx, id)
	if err = errors.Join(err, tx.Close()); err != nil {
		return quipu.CallSlice{}, err
	}
	s := sliceOf(r)
	if r.Info.Execution != "" { // which may share its record with others
		s.Missing = fmt.Sprintf("the record of its end is that of its execution: quipu workflow history %s --app %s shows what that did", r.Info.Execution, r.Info.Function)
		return s, nil
	}
	return s, c.addRecord(ctx, &s)
}

// withoutRecord is a call that this node only remembers.
func withoutRecord(info quipu.CallInfo) quipu.CallSlice {
	s := quipu.CallSlice{CallInfo: info, End: endOf(info)}
	s.Missing = "the call has no record: it changed nothing, or its function is plain and each of its operations was a commit of its own"
	if i := strings.LastIndexByte(info.ID, '/'); i >= 0 {
		s.Missing = fmt.Sprintf("the call has no record of its own: call %s made it, whose record has what it did if both functions are atomic", info.ID[:i])
	}
	return s
}

// sliceOfWaiting is a call that has not ended.
func (c *Caller) sliceOfWaiting(p *pending) quipu.CallSlice {
	return quipu.CallSlice{CallInfo: c.waits.standing(p), Query: p.Query, Request: bodyOf(p.body, int64(len(p.body))),
		Missing: "the call has not ended"}
}

func endOf(info quipu.CallInfo) time.Time {
	return info.Start.Add(time.Duration(info.Micros) * time.Microsecond)
}

func sliceOf(r *result) quipu.CallSlice {
	s := quipu.CallSlice{CallInfo: r.Info, End: endOf(r.Info), Query: r.Query, Header: r.Header,
		Request: bodyOf(r.input, int64(r.Sent)), Reply: bodyOf(r.body, int64(len(r.body)))}
	if r.Blob != nil {
		s.Reply = quipu.CallBody{Size: r.Blob.Size, Truncated: true}
	}
	return s
}

// bodyOf shows the start of a body of size bytes.
func bodyOf(start []byte, size int64) quipu.CallBody {
	return bodyUpTo(quipu.CallBodyKept, start, size)
}

func bodyUpTo(most int, start []byte, size int64) quipu.CallBody {
	start = start[:min(len(start), most)]
	b := quipu.CallBody{Size: size, Truncated: int64(len(start)) < size}
	whole := start
	for cut := 1; b.Truncated && cut < utf8.UTFMax && cut < len(start) && !utf8.Valid(whole); cut++ {
		whole = start[:len(start)-cut] // it was cut within a character
	}
	if utf8.Valid(whole) {
		b.Text = string(whole)
	} else {
		b.Base64 = start
	}
	return b
}

// addRecord reads the call's record.
func (c *Caller) addRecord(ctx context.Context, s *quipu.CallSlice) error {
	if c.o.Log == nil {
		s.Missing = "the node does not read its log for this"
		return nil
	}
	tx, err := c.recordOf(ctx, s.CallInfo)
	if quipu.CodeOf(err) == quipu.CodeTrimmed {
		s.Missing = quipu.AsError(err).Text
		return nil
	}
	if err == nil {
		c.addTx(s, tx)
	}
	return err
}

// recordOf reads the record of a call. CodeTrimmed.
func (c *Caller) recordOf(ctx context.Context, i quipu.CallInfo) (tx quipu.Tx, err error) {
	rec, err := c.o.Log.Next(ctx, c.o.LogBook, quipu.TagAll, i.Seq)
	switch code := quipu.CodeOf(err); {
	case code == quipu.CodeTrimmed, code == quipu.CodeNotFound, err == nil && rec.Seq != i.Seq:
		return tx, &quipu.Error{Code: quipu.CodeTrimmed, Op: "call.record",
			Text: fmt.Sprintf("the record %s of the call was trimmed away; its result is kept %s", i.Seq, quipu.ResultKept)}
	case err != nil:
		return tx, fmt.Errorf("record of call %s: %w", i.ID, err)
	}
	if tx, err = codec.DecodeTx(rec.Data); err != nil {
		return tx, fmt.Errorf("record %s of call %s: %w", i.Seq, i.ID, err)
	}
	for _, l := range tx.Later { // nothing that it read changed until then, or it would have lost
		tx.Reads, tx.Snapshot = append(tx.Reads, l.Key), max(tx.Snapshot, l.At)
	}
	return tx, nil
}

func (c *Caller) addTx(s *quipu.CallSlice, tx quipu.Tx) {
	s.Snapshot = tx.Snapshot
	for _, name := range tx.Reads {
		s.Read = append(s.Read, c.keyOf(name))
	}
	for _, r := range tx.Ranges {
		s.Ranges = append(s.Ranges, c.rangeOf(r))
	}
	for _, name := range tx.Writes {
		s.Written = append(s.Written, c.keyOf(name))
	}
	for _, op := range tx.Ops {
		words := c.words(op.View)
		s.Ops = append(s.Ops, quipu.CallOp{View: op.View, Text: words.Op(op.Body), Size: int64(len(op.Body))})
		s.Events = append(s.Events, words.Events(op.Body)...)
	}
	slices.SortFunc(s.Read, func(a, b quipu.CallKey) int {
		return cmp.Or(cmp.Compare(a.View, b.View), cmp.Compare(a.Key, b.Key))
	})
}

// keyOf takes a conflict key apart: view, NUL, key.
func (c *Caller) keyOf(name string) quipu.CallKey {
	view, key, _ := strings.Cut(name, "\x00")
	return quipu.CallKey{View: view, Key: c.words(view).Key(key)}
}

// rangeOf knows the two ends that package view writes besides keys: the end of the view, and a NUL after the last
// key that was visited.
func (c *Caller) rangeOf(r quipu.KeyRange) quipu.CallRange {
	from := c.keyOf(r.From)
	out := quipu.CallRange{View: from.View, From: from.Key}
	to, inView := strings.CutPrefix(r.To, from.View+"\x00")
	if !inView {
		return out
	}
	if last, visited := strings.CutSuffix(to, "\x00"); visited {
		to, out.Through = last, true
	}
	out.To = c.words(from.View).Key(to)
	return out
}

// words are those of a view, with none left out.
func (c *Caller) words(view string) Words {
	w := c.o.Describe[view]
	if view == Name {
		w = Words{Key: keyWords, Op: opWords, Effect: effectWords}
	}
	if w.Key == nil {
		w.Key = func(key string) string { return strings.ReplaceAll(key, "\x00", "/") }
	}
	if w.Op == nil {
		w.Op = func(op []byte) string { return fmt.Sprintf("an operation of %d bytes", len(op)) }
	}
	if w.Effect == nil {
		w.Effect = func([]byte) (string, string, bool) { return "", "", false }
	}
	if w.Events == nil {
		w.Events = func([]byte) []quipu.CallEvent { return nil }
	}
	return w
}

// keyWords: the keys of this view that a transaction names are idempotency keys, calls that wait, and those of an execution.
func keyWords(key string) string {
	for _, prefix := range []string{byPending, byTried} {
		if id, ok := strings.CutPrefix(key, prefix); ok {
			return "waiting call " + id
		}
	}
	if rest, ok := strings.CutPrefix(key, byExecution); ok {
		function, execution, _ := strings.Cut(rest, "\x00")
		execution, id, _ := strings.Cut(execution, "\x00")
		return strings.TrimSpace(fmt.Sprintf("calls of execution %s of function %s %s", execution, function, id))
	}
	function, idempotency, ok := strings.Cut(strings.TrimPrefix(key, byKey), "\x00")
	if !ok {
		return key
	}
	return fmt.Sprintf("%s %q of function %s", quipu.HeaderIdempotency, idempotency, function)
}

func opWords(op []byte) string {
	switch {
	case len(op) > 0 && (op[0] == opKeep || op[0] == opAnswer):
		return "keep the result"
	case len(op) > 0 && op[0] == opForget:
		return "forget old results"
	case len(op) > 0 && op[0] == opQueue:
		return "accept a call"
	case len(op) > 0 && op[0] == opPark:
		return "have a call wait for its next attempt"
	case len(op) > 0 && op[0] == opBegin:
		return "have a call wait for the end of its execution"
	}
	return "an unknown operation"
}
