package alarm

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/timers"
	"github.com/quipu-run/quipu/view"
)

// definition is what an alarm is, as it was set. Its byte form is JSON with its length as varint before it, then the data.
type definition struct {
	quipu.Alarm
	Created time.Time `json:"set"`
	Expires time.Time `json:"goes,omitzero"`
}

// state is how far an alarm is; it is the body of its timer.
type state struct {
	Tick     time.Time `json:"t"` // that is due, or being tried; the timer's own time may be that of another attempt
	Fired    int       `json:"f,omitempty"`
	Attempts int       `json:"a,omitempty"`
	Cause    string    `json:"c,omitempty"`
}

func (s state) encode() []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("alarm: state %+v: %v", s, err)) // a time after the year 9999, which parseTiming lets nobody set
	}
	return b
}

func decodeState(b []byte) (s state, err error) {
	err = json.Unmarshal(b, &s)
	return s, err
}

var errDefinition = errors.New("malformed alarm")

func (d definition) encode() ([]byte, error) {
	data := d.Data
	d.AlarmKey, d.Data = quipu.AlarmKey{}, nil
	head, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	b := append(binary.AppendUvarint(nil, uint64(len(head))), head...)
	return append(b, data...), nil
}

func decodeDefinition(b []byte) (d definition, err error) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return d, errDefinition
	}
	if err := json.Unmarshal(b[n:n+int(size)], &d); err != nil {
		return d, errors.Join(errDefinition, err)
	}
	if d.Data = b[n+int(size):]; len(d.Data) == 0 {
		d.Data = nil
	}
	return d, nil
}

// nameOf is the key of an alarm in the view: kind, owner and id with NUL between them. The definition is its value.
func nameOf(k timers.Key) string { return k.Kind + "\x00" + k.Owner + "\x00" + k.ID }

// scope starts all names that a listing is about, but for what the name of an alarm starts with.
func scope(k quipu.AlarmKey) string {
	s := string(k.Kind) + "\x00"
	if ownerOf(k) == "" {
		return s
	}
	s += ownerOf(k) + "\x00"
	if k.ActorID != "" || k.Kind != quipu.AlarmReminder {
		s += idStart(k)
	}
	return s
}

// placeIn is where an alarm stands in a listing.
func placeIn(k quipu.AlarmKey, key timers.Key) string { return nameOf(key)[len(scope(k)):] }

// keys lists alarms by name, at most limit. A name to start with counts only where one owner is meant.
func (v *View) keys(tx *view.Tx, k quipu.AlarmKey, after string, limit int) (keys []timers.Key, err error) {
	start := scope(k)
	from := start
	if ownerOf(k) != "" && (k.Kind != quipu.AlarmReminder || k.ActorID != "") {
		from += k.Name
	}
	to := view.After(from)
	if next := start + after + "\x00"; after != "" && next > from {
		from = next
	}
	if from >= to {
		return nil, nil
	}
	err = tx.Scan(Name, from, to, func(name string, _ []byte) bool {
		kind, rest, _ := strings.Cut(name, "\x00")
		owner, id, _ := strings.Cut(rest, "\x00")
		keys = append(keys, timers.Key{Kind: kind, Owner: owner, ID: id})
		return len(keys) < limit
	})
	return keys, err
}

// definition reads what an alarm is.
func (v *View) definition(tx *view.Tx, k timers.Key) (d definition, ok bool, err error) {
	value, ok, err := tx.Get(Name, nameOf(k))
	if err != nil || !ok {
		return d, false, err
	}
	if d, err = decodeDefinition(value); err != nil {
		return d, false, fmt.Errorf("%s %q: %w", k.Kind, k.ID, err)
	}
	return d, true, nil
}

// Operations: a byte that tells which, then
//
//	define    length of the name as varint, name, definition
//	undefine  name
const (
	opDefine byte = iota + 1
	opUndefine
)

func (v *View) define(tx *view.Tx, k timers.Key, d definition) error {
	value, err := d.encode()
	if err != nil {
		return err
	}
	name := nameOf(k)
	tx.Put(Name, name, value)
	body := append(binary.AppendUvarint([]byte{opDefine}, uint64(len(name))), name...)
	return tx.Do(quipu.Op{View: Name, Body: append(body, value...)})
}

func (v *View) undefine(tx *view.Tx, k timers.Key) error {
	tx.Put(Name, nameOf(k), nil)
	return tx.Do(quipu.Op{View: Name, Body: append([]byte{opUndefine}, nameOf(k)...)})
}

var errOp = errors.New("malformed operation")

// parse takes an operation apart.
func parse(op []byte) (name string, value []byte, err error) {
	if len(op) == 0 {
		return "", nil, errOp
	}
	switch op[0] {
	case opUndefine:
		return string(op[1:]), nil, nil
	case opDefine:
		size, n := binary.Uvarint(op[1:])
		if n <= 0 || size > uint64(len(op)-1-n) {
			return "", nil, errOp
		}
		rest := op[1+n:]
		return string(rest[:size]), rest[size:], nil
	}
	return "", nil, errOp
}

// Apply writes what one operation does; it is the view.Machine of this package.
func (v *View) Apply(b *view.Batch, op []byte, _ view.At) error {
	name, value, err := parse(op)
	if err != nil {
		return err
	}
	kind, rest, _ := strings.Cut(name, "\x00")
	owner, id, _ := strings.Cut(rest, "\x00")
	v.wait(timers.Key{Kind: kind, Owner: owner, ID: id}, "") // it is another now
	if op[0] == opUndefine {
		return b.Delete(Name, name)
	}
	return b.Set(Name, name, value)
}

// DescribeOp is what an operation does, in words.
func DescribeOp(op []byte) string {
	name, _, err := parse(op)
	if err != nil {
		return err.Error()
	}
	what := strings.ReplaceAll(name, "\x00", " ")
	if op[0] == opUndefine {
		return what + " is gone"
	}
	return what + " is set"
}

// DescribeKey is a key of the view as people know it: kind, owner and id.
func DescribeKey(key string) string {
	return strings.ReplaceAll(strings.TrimSuffix(key, "\x00"), "\x00", " ")
}
