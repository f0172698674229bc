package topic

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"time"

	"github.com/quipu-run/quipu"
)

// errEntry is what malformed bytes of this view get.
var errEntry = errors.New("malformed entry of a topic")

// writer appends fields; reader takes them off again in the same order. Integers are varints.
type writer []byte

func (w writer) uint(v uint64) writer { return binary.AppendUvarint(w, v) }
func (w writer) str(s string) writer  { return append(w.uint(uint64(len(s))), s...) }
func (w writer) bytes(b []byte) writer {
	return append(w.uint(uint64(len(b))), b...)
}
func (w writer) uints(vs []uint64) writer { // ascending: the first, then differences
	w = w.uint(uint64(len(vs)))
	last := uint64(0)
	for _, v := range vs {
		w = w.uint(v - last)
		last = v
	}
	return w
}

type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.rest, r.bad = nil, true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) take() []byte {
	n := r.uint()
	if n > uint64(len(r.rest)) {
		r.rest, r.bad = nil, true
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) str() string { return string(r.take()) }

func (r *reader) uints() []uint64 {
	n := r.uint()
	if n > uint64(len(r.rest)) {
		r.bad = true
		return nil
	}
	vs := make([]uint64, n)
	last := uint64(0)
	for i := range vs {
		last += r.uint()
		vs[i] = last
	}
	return vs
}

// end is an error unless everything was read and was well formed.
func (r *reader) end() error {
	if r.bad || len(r.rest) > 0 {
		return errEntry
	}
	return nil
}

// message is an event as operations and delayed messages carry it.
type message struct {
	quipu.Message
	only string
	dead *quipu.DeadLetter
}

func (w writer) message(m message) writer {
	w = w.str(m.Topic).str(m.ID).str(m.ContentType).uint(uint64(m.TTL)).str(m.only)
	var dead []byte
	if m.dead != nil {
		var err error
		if dead, err = json.Marshal(m.dead); err != nil {
			panic("topic: a dead letter cannot be written: " + err.Error()) // strings and numbers
		}
	}
	return w.bytes(dead).bytes(m.Data)
}

func (r *reader) message() (m message) {
	m.Topic, m.ID, m.ContentType, m.TTL, m.only = r.str(), r.str(), r.str(), time.Duration(r.uint()), r.str()
	m.dead = r.dead()
	m.Data = r.take()
	return m
}

func (r *reader) dead() *quipu.DeadLetter {
	text := r.take()
	if len(text) == 0 {
		return nil
	}
	var d quipu.DeadLetter
	if json.Unmarshal(text, &d) != nil {
		r.bad = true
	}
	return &d
}

// sums are over all events of a topic up to and with one.
type sums struct {
	bytes uint64
	dead  uint64 // how many are dead letters
}

func (w writer) sums(s sums) writer { return w.uint(s.bytes).uint(s.dead) }

func (r *reader) sums() sums { return sums{bytes: r.uint(), dead: r.uint()} }

// stored is an event as the view keeps it: its record, its stamp, when it expires (0 never), the sums up to it, and
// the message without its topic.
func stored(at position, total sums, m message) []byte {
	expires := uint64(0)
	if m.TTL > 0 {
		expires = uint64(at.stamp + int64(m.TTL))
	}
	w := writer(make([]byte, 0, len(m.Data)+len(m.ID)+len(m.ContentType)+64))
	w = w.uint(uint64(at.seq)).uint(uint64(at.n)).uint(uint64(at.stamp)).uint(expires).sums(total)
	m.Topic = ""
	return w.message(m)
}

type position struct {
	seq   quipu.Seq
	n     int
	stamp int64
}

// readStored is the reverse of stored. Data shares memory with value.
func readStored(topic string, offset uint64, value []byte) (e quipu.Event, total sums, err error) {
	r := &reader{rest: value}
	e = quipu.Event{Topic: topic, Offset: offset, Seq: quipu.Seq(r.uint()), N: int(r.uint())}
	e.Time = time.Unix(0, int64(r.uint())).UTC()
	if expires := int64(r.uint()); expires != 0 {
		e.Expires = time.Unix(0, expires).UTC()
	}
	total = r.sums()
	m := r.message()
	e.ID, e.ContentType, e.Only, e.Dead, e.Data = m.ID, m.ContentType, m.only, m.dead, m.Data
	return e, total, r.end()
}
