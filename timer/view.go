// Package timer has things done at their time: a view of what is to be done when, and a runner that calls a handler for each
// timer that is due.
//
// A timer is in the log from the record that set it. Its handler changes it (cancels it, or sets it to a later time) in the record of
// what it does, after it has seen in that transaction that nobody else did: so what is to be done at a time happens once,
// whatever is killed when, and what was missed while no node ran happens once when one runs again. A handler that is killed, or returns
// without a change, is called again: after the next start, or after a back-off.
//
// Timers lie on disk, in the order of their times within a lane: those of one kind and owner. Memory follows the lanes and what is
// about to be due. Handlers that take long, or fail, hold up their own lane and no other.
//
// Times are compared with the node's clock. When it jumps ahead, what it jumped over is due, once; when it was set back while no
// node ran, what was done stays done, and the rest waits until it is time.
package timer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/timers"
	"github.com/quipu-run/quipu/view"
)

// Name is the name of the view.
const Name = "timer"

// Limits of one timer and of one listing.
const (
	NameBytesMax = 4 << 10 // kind, owner and id
	BodyBytesMax = 1 << 20
	ListMax      = 1000
)

// Keys of the view.
const (
	byName  = "t" // kind NUL owner NUL id: due, seq (8 bytes big-endian each), body
	byDue   = "d" // kind NUL owner NUL due id: seq
	countOf = "n" // kind: how many there are
)

// View is the view of timers. Its methods work inside a transaction.
type View struct {
	mu     sync.Mutex // guards the fields below
	counts map[string]int64
	news   []news // of the record that is being applied
}

// news is what a record does to one timer.
type news struct {
	key timers.Key
	due int64 // 0: it is gone
	seq quipu.Seq
}

// New makes the view.
func New() *View { return &View{counts: map[string]int64{}} }

// Name is the constant Name.
func (v *View) Name() string { return Name }

// Count is how many timers of a kind there are.
func (v *View) Count(kind string) int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.counts[kind]
}

// Counts is how many timers there are, by kind.
func (v *View) Counts() map[string]int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := make(map[string]int64, len(v.counts))
	for kind, n := range v.counts {
		all[kind] = n
	}
	return all
}

// Get reads a timer.
func (v *View) Get(tx *view.Tx, k timers.Key) (t timers.Timer, ok bool, err error) {
	value, ok, err := tx.Get(Name, byName+name(k))
	if err != nil || !ok {
		return t, false, err
	}
	t, err = decode(k, value)
	return t, err == nil, err
}

// Stands tells whether a timer stands in the log as t, and whether this transaction has changed it already itself. That it looked is
// part of the transaction.
func (v *View) Stands(tx *view.Tx, t timers.Timer) (stands, changed bool, err error) {
	own, ok, err := v.Get(tx, t.Key)
	if err != nil {
		return false, false, err
	}
	key := byName + name(t.Key)
	var bad error
	err = tx.Peek(Name, key, key+"\x00", func(_ string, value []byte) bool {
		var there timers.Timer
		there, bad = decode(t.Key, value)
		stands = bad == nil && there.Seq == t.Seq
		return false
	})
	return stands, !ok || own.Seq != t.Seq, errors.Join(err, bad)
}

// Set adds a timer, in place of one of the same key. Its time may be in the past. CodeUsage if its name or body is over the limits.
func (v *View) Set(tx *view.Tx, t timers.Timer) error {
	if err := check(t); err != nil {
		return err
	}
	old, _, err := v.Get(tx, t.Key)
	if err != nil {
		return err
	}
	_, ops := tx.Size()
	t.Seq = quipu.SeqMax - quipu.Seq(ops) // until it has a record
	tx.Put(Name, byName+name(t.Key), encode(t))
	return tx.Do(quipu.Op{View: Name, Body: encodeSet(t, old)})
}

// Cancel removes a timer, and tells whether there was one.
func (v *View) Cancel(tx *view.Tx, k timers.Key) (bool, error) {
	old, ok, err := v.Get(tx, k)
	if err != nil || !ok {
		return false, err
	}
	tx.Put(Name, byName+name(k), nil)
	return true, tx.Do(quipu.Op{View: Name, Body: encodeCancel(old)})
}

// List reads timers of a lane whose ids start with prefix, in order of their ids, from the one after after on. limit 0 means
// ListMax, which is also the most.
func (v *View) List(tx *view.Tx, kind, owner, prefix, after string, limit int) (list []timers.Timer, err error) {
	if limit <= 0 || limit > ListMax {
		limit = ListMax
	}
	lane := byName + name(timers.Key{Kind: kind, Owner: owner})
	from, to := lane+prefix, view.After(lane+prefix)
	if start := lane + after + "\x00"; after != "" && start > from {
		from = start
	}
	if from >= to {
		return nil, nil
	}
	var bad error
	err = tx.Scan(Name, from, to, func(key string, value []byte) bool {
		var t timers.Timer
		if t, bad = decode(timers.Key{Kind: kind, Owner: owner, ID: key[len(lane):]}, bytes.Clone(value)); bad == nil {
			list = append(list, t)
		}
		return bad == nil && len(list) < limit
	})
	return list, errors.Join(err, bad)
}

// check refuses what cannot be told apart, or is too large.
func check(t timers.Timer) error {
	switch {
	case t.Kind == "" || strings.Contains(t.Kind, "\x00") || strings.Contains(t.Owner, "\x00"):
		return &quipu.Error{Code: quipu.CodeUsage, Op: "timer.set", Text: fmt.Sprintf("%.40q of %.80q cannot be the kind and owner of a timer", t.Kind, t.Owner)}
	case len(t.Kind)+len(t.Owner)+len(t.ID) > NameBytesMax:
		return &quipu.Error{Code: quipu.CodeUsage, Op: "timer.set", Text: fmt.Sprintf("the name of timer %.80q has over %d bytes", t.ID, NameBytesMax)}
	case len(t.Body) > BodyBytesMax:
		return &quipu.Error{Code: quipu.CodeUsage, Op: "timer.set", Text: fmt.Sprintf("timer %.80q has %d bytes, the most is %d", t.ID, len(t.Body), BodyBytesMax)}
	}
	return nil
}

// name is kind, owner and id with NUL between them. An id may have NULs itself: it is the last.
func name(k timers.Key) string { return k.Kind + "\x00" + k.Owner + "\x00" + k.ID }

func parseName(s string) (k timers.Key, ok bool) {
	kind, rest, ok := strings.Cut(s, "\x00")
	owner, id, more := strings.Cut(rest, "\x00")
	return timers.Key{Kind: kind, Owner: owner, ID: id}, ok && more
}

// dueMax is about the year 2262.
const dueMax = math.MaxInt64 - 1

// dueOf is a time as the view has it: at least 1, so that 0 is no time.
func dueOf(t time.Time) int64 {
	switch {
	case t.Before(time.Unix(0, 1)):
		return 1
	case t.After(time.Unix(0, dueMax)):
		return dueMax
	}
	return t.UnixNano()
}

const headBytes = 16

func encode(t timers.Timer) []byte {
	b := make([]byte, 0, headBytes+len(t.Body))
	b = binary.BigEndian.AppendUint64(b, uint64(dueOf(t.Due)))
	b = binary.BigEndian.AppendUint64(b, uint64(t.Seq))
	return append(b, t.Body...)
}

func decode(k timers.Key, b []byte) (timers.Timer, error) {
	if len(b) < headBytes {
		return timers.Timer{}, fmt.Errorf("timer %q of %d bytes", name(k), len(b))
	}
	return timers.Timer{Key: k, Due: time.Unix(0, int64(binary.BigEndian.Uint64(b))),
		Seq: quipu.Seq(binary.BigEndian.Uint64(b[8:])), Body: b[headBytes:]}, nil
}

// indexKey is where a timer stands among those of its lane.
func indexKey(k timers.Key, due int64) string {
	return byDue + name(timers.Key{Kind: k.Kind, Owner: k.Owner}) + string(binary.BigEndian.AppendUint64(nil, uint64(due))) + k.ID
}

// Operations: a byte that tells which, the due time of the timer that is replaced or removed in 8 bytes (0 none), then
//
//	set     8 bytes due time, length of the name as varint, name, body
//	cancel  name
const (
	opSet byte = iota + 1
	opCancel
)

func encodeSet(t, old timers.Timer) []byte {
	n := name(t.Key)
	b := make([]byte, 0, 20+len(n)+len(t.Body))
	b = binary.BigEndian.AppendUint64(append(b, opSet), uint64(oldDue(old)))
	b = binary.BigEndian.AppendUint64(b, uint64(dueOf(t.Due)))
	b = append(binary.AppendUvarint(b, uint64(len(n))), n...)
	return append(b, t.Body...)
}

func encodeCancel(old timers.Timer) []byte {
	b := binary.BigEndian.AppendUint64([]byte{opCancel}, uint64(oldDue(old)))
	return append(b, name(old.Key)...)
}

func oldDue(t timers.Timer) int64 {
	if t.Kind == "" {
		return 0
	}
	return dueOf(t.Due)
}

// change is an operation taken apart.
type change struct {
	key      timers.Key
	old, due int64
	body     []byte
}

var errOp = errors.New("malformed operation")

func parse(op []byte) (c change, err error) {
	if len(op) < 9 {
		return c, errOp
	}
	c.old = int64(binary.BigEndian.Uint64(op[1:]))
	rest, ok := op[9:], true
	switch op[0] {
	case opSet:
		if len(rest) < 9 {
			return c, errOp
		}
		c.due = int64(binary.BigEndian.Uint64(rest))
		size, n := binary.Uvarint(rest[8:])
		rest = rest[8+max(n, 0):]
		if n <= 0 || size > uint64(len(rest)) {
			return c, errOp
		}
		rest, c.body = rest[:size], rest[size:]
	case opCancel:
	default:
		return c, errOp
	}
	if c.key, ok = parseName(string(rest)); !ok {
		return c, errOp
	}
	return c, nil
}

// Apply writes what one operation does; it is the view.Machine of this package.
func (v *View) Apply(b *view.Batch, op []byte, at view.At) error {
	c, err := parse(op)
	if err != nil {
		return err
	}
	if c.old != 0 {
		err = b.Delete(Name, indexKey(c.key, c.old))
	}
	if op[0] == opCancel {
		err = errors.Join(err, b.Delete(Name, byName+name(c.key)))
	} else {
		seq := binary.BigEndian.AppendUint64(nil, uint64(at.Seq))
		t := timers.Timer{Due: time.Unix(0, c.due), Seq: at.Seq, Body: c.body}
		err = errors.Join(err, b.Set(Name, indexKey(c.key, c.due), seq), b.Set(Name, byName+name(c.key), encode(t)))
	}
	return errors.Join(err, v.note(b, c, at))
}

// note counts the timer, and remembers what happened to it for when readers can see it.
func (v *View) note(b *view.Batch, c change, at view.At) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.news = append(v.news, news{c.key, c.due, at.Seq})
	was := v.counts[c.key.Kind]
	n := was
	if c.old != 0 {
		n--
	}
	if c.due != 0 {
		n++
	}
	if n == was {
		return nil
	}
	v.counts[c.key.Kind] = n
	return b.Set(Name, countOf+c.key.Kind, binary.BigEndian.AppendUint64(nil, uint64(n)))
}

// Load implements view.Loader.
func (v *View) Load(r view.Reader) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return r.Scan(Name, countOf, func(key string, value []byte) error {
		if len(value) != 8 {
			return fmt.Errorf("count of %d bytes", len(value))
		}
		v.counts[key[len(countOf):]] = int64(binary.BigEndian.Uint64(value))
		return nil
	})
}

// takeNews is what was noted since it was last called.
func (v *View) takeNews() (all []news) {
	v.mu.Lock()
	defer v.mu.Unlock()
	all, v.news = v.news, nil
	return all
}

// DescribeOp is what an operation does, in words.
func DescribeOp(op []byte) string {
	c, err := parse(op)
	if err != nil {
		return err.Error()
	}
	what := fmt.Sprintf("timer %s %s %q", c.key.Kind, c.key.Owner, c.key.ID)
	if c.due == 0 {
		return what + " cancelled"
	}
	return what + " at " + time.Unix(0, c.due).UTC().Format(time.RFC3339Nano)
}

// DescribeKey is a key of the view as people know it; "" for the end of what belongs together.
func DescribeKey(key string) string {
	kind, rest, _ := strings.Cut(strings.TrimPrefix(key, byName), "\x00")
	owner, id, ok := strings.Cut(rest, "\x00")
	switch {
	case !strings.HasPrefix(key, byName) || !ok:
		return ""
	case id == "":
		return fmt.Sprintf("timers %s %s", kind, owner)
	}
	return fmt.Sprintf("timer %s %s %q", kind, owner, id)
}
