package topic

import (
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// Bounds are where a topic's events begin and end at one snapshot.
type Bounds struct {
	Born        quipu.Seq // changes when a topic is deleted and made anew
	First, Last uint64    // offsets; there are no events if First is Last+1
	total       sums      // up to Last
	before      sums      // before First
}

// Bytes of the events kept.
func (b Bounds) Bytes() uint64 { return b.total.bytes - b.before.bytes }

// Bounds of a topic. CodeNoTopic.
func (v *View) Bounds(tx *view.Tx, topic string) (b Bounds, err error) {
	value, ok, err := tx.Get(Name, headPrefix+topic)
	if err != nil {
		return b, err
	}
	if !ok {
		return b, noTopic(topic)
	}
	h, err := readHead(value)
	if err != nil {
		return b, err
	}
	if value, _, err = tx.Get(Name, basePrefix+topic); err != nil {
		return b, err
	}
	from, err := readBase(value)
	return Bounds{Born: h.born, First: from.first, Last: h.last, total: h.total, before: from.before}, err
}

func noTopic(topic string) error {
	return &quipu.Error{Code: quipu.CodeNoTopic, Op: "topic.find",
		Text: fmt.Sprintf("there is no topic %q", topic), Hint: quipu.Codes[quipu.CodeNoTopic].Next}
}

// readBytesMax ends a Read early rather than hold more.
const readBytesMax = 4 << 20

// Read answers up to limit events from an offset on, without acknowledging anything.
func (v *View) Read(topic string, from uint64, limit int) (events []quipu.Event, err error) {
	err = v.look(func(tx *view.Tx) error {
		events, err = readEvents(tx, topic, from, limit)
		return err
	})
	return events, err
}

func (v *View) look(read func(*view.Tx) error) error {
	tx := v.book.Look()
	return errors.Join(read(tx), tx.Close())
}

// Look reads at one snapshot.
func (v *View) Look(read func(*view.Tx) error) error { return v.look(read) }

func readEvents(tx *view.Tx, topic string, from uint64, limit int) (events []quipu.Event, err error) {
	size, bad := 0, error(nil)
	err = tx.Scan(Name, eventKey(topic, from), eventPrefix+topic+"\x01", func(key string, value []byte) bool {
		offset := fromOrdered(key[len(key)-8:])
		var e quipu.Event
		if e, _, bad = readStored(topic, offset, append([]byte(nil), value...)); bad != nil {
			return false
		}
		events = append(events, e)
		size += len(value)
		return len(events) < limit && size < readBytesMax
	})
	if err == nil {
		err = bad
	}
	return events, err
}

// one reads a single event and the bytes of all up to it.
func one(tx *view.Tx, topic string, offset uint64) (e quipu.Event, total sums, err error) {
	value, ok, err := tx.Get(Name, eventKey(topic, offset))
	if err == nil && !ok {
		err = fmt.Errorf("%w: event %d of topic %s is missing", errEntry, offset, topic)
	}
	if err != nil {
		return e, total, err
	}
	return readStored(topic, offset, value)
}

// floorFor is the floor from which what comes next is the given position.
func (v *View) floorFor(tx *view.Tx, topic string, p quipu.Position) (floor uint64, atEnd bool, err error) {
	if p == (quipu.Position{}) {
		return 0, true, nil
	}
	b, err := v.Bounds(tx, topic)
	if quipu.CodeOf(err) == quipu.CodeNoTopic {
		return 0, true, nil
	}
	if err != nil {
		return 0, false, err
	}
	first, err := find(tx, topic, b, p)
	return first - 1, false, err
}

// Find is the offset of the first event at or after a position; that of the next to come if there is none.
func (v *View) Find(topic string, p quipu.Position) (offset uint64, err error) {
	err = v.look(func(tx *view.Tx) error {
		b, err := v.Bounds(tx, topic)
		if quipu.CodeOf(err) == quipu.CodeNoTopic {
			offset = 1
			return nil
		}
		if err == nil {
			offset, err = find(tx, topic, b, p)
		}
		return err
	})
	return offset, err
}

// find searches by halving: seqs and times never fall within a topic.
func find(tx *view.Tx, topic string, b Bounds, p quipu.Position) (uint64, error) {
	switch {
	case p.Earliest:
		return b.First, nil
	case p.Offset != 0:
		return min(max(p.Offset, b.First), b.Last+1), nil
	case p.Seq == 0 && p.Time.IsZero():
		return b.Last + 1, nil
	}
	var bad error
	n := sort.Search(int(b.Last+1-b.First), func(i int) bool {
		e, _, err := one(tx, topic, b.First+uint64(i))
		bad = errors.Join(bad, err)
		if p.Seq != 0 {
			return e.Seq >= p.Seq
		}
		return !e.Time.Before(p.Time)
	})
	return b.First + uint64(n), bad
}

// Spec is how long a topic keeps its events, and who declared that; "" for nobody.
func (v *View) Spec(tx *view.Tx, topic string) (spec quipu.TopicSpec, app string, err error) {
	spec.Retention = quipu.Duration(quipu.TopicKept)
	text, ok, err := tx.Get(Name, declPrefix+topic)
	if err != nil || !ok {
		return spec, "", err
	}
	var d declaration
	if err := json.Unmarshal(text, &d); err != nil {
		return spec, "", fmt.Errorf("%w: %w", errEntry, err)
	}
	if d.Spec.Retention == 0 {
		d.Spec.Retention = spec.Retention
	}
	return d.Spec, d.App, nil
}

// Names lists the topics, by name; own ones of the platform only if all is set.
func (v *View) Names(tx *view.Tx, all bool) (names []string, err error) {
	err = tx.Scan(Name, headPrefix, headPrefix+"\xff", func(key string, _ []byte) bool {
		if name := key[len(headPrefix):]; all || !strings.HasPrefix(name, quipu.PlatformTopicStart) {
			names = append(names, name)
		}
		return true
	})
	return names, err
}

// delayedShown bounds what CountDelayed counts.
const delayedShown = 100_000

// CountDelayed counts the messages that wait for their time.
func (v *View) CountDelayed(tx *view.Tx, topic string) (n int, err error) {
	from := delayedPrefix + topic + "\x00"
	err = tx.Scan(Name, from, delayedPrefix+topic+"\x01", func(string, []byte) bool {
		n++
		return n < delayedShown
	})
	return n, err
}

// Info describes a topic but for its subscriptions. CodeNoTopic.
func (v *View) Info(tx *view.Tx, topic string) (info quipu.TopicInfo, err error) {
	b, err := v.Bounds(tx, topic)
	if err != nil {
		return info, err
	}
	info = quipu.TopicInfo{Name: topic, First: b.First, Last: b.Last, Bytes: b.Bytes(), DeadLetters: b.total.dead - b.before.dead}
	if info.TopicSpec, info.App, err = v.Spec(tx, topic); err != nil {
		return info, err
	}
	info.Delayed, err = v.CountDelayed(tx, topic)
	return info, err
}

// DeadAfter counts the dead letters of a topic above an offset.
func (v *View) DeadAfter(tx *view.Tx, topic string, offset uint64) (uint64, error) {
	b, err := v.Bounds(tx, topic)
	if err != nil || offset >= b.Last {
		return 0, err
	}
	before := b.before
	if offset >= b.First {
		if _, before, err = one(tx, topic, offset); err != nil {
			return 0, err
		}
	}
	return b.total.dead - before.dead, nil
}

// Over is the offset up to which events of a topic are older, or more, than it is to keep; 0 if none are.
func (v *View) Over(tx *view.Tx, topic string, now time.Time) (uint64, error) {
	b, err := v.Bounds(tx, topic)
	if err != nil || b.First > b.Last {
		return 0, err
	}
	spec, _, err := v.Spec(tx, topic)
	if err != nil {
		return 0, err
	}
	next, err := find(tx, topic, b, quipu.Position{Time: now.Add(-spec.Retention.Std())})
	if err != nil || spec.MaxBytes == 0 || b.Bytes() <= uint64(spec.MaxBytes) {
		return next - 1, err
	}
	surplus, bad := b.total.bytes-uint64(spec.MaxBytes), error(nil)
	n := sort.Search(int(b.Last+1-b.First), func(i int) bool {
		_, total, err := one(tx, topic, b.First+uint64(i))
		bad = errors.Join(bad, err)
		return total.bytes >= surplus
	})
	return max(next-1, b.First+uint64(n)), bad
}

// Trim removes the events of a topic up to an offset.
func (v *View) Trim(tx *view.Tx, topic string, upto uint64) error {
	b, err := v.Bounds(tx, topic)
	if upto = min(upto, b.Last); err != nil || upto < b.First {
		return err
	}
	_, total, err := one(tx, topic, upto)
	if err != nil {
		return err
	}
	tx.Put(Name, basePrefix+topic, base{first: upto + 1, before: total}.encode())
	return tx.Do(quipu.Op{View: Name, Body: writer{opTrim}.str(topic).uint(upto + 1).sums(total)})
}

// Delete removes a topic with all that belongs to it. Subscriptions of functions begin anew. CodeNoTopic.
func (v *View) Delete(tx *view.Tx, topic string) error {
	b, err := v.Bounds(tx, topic)
	if err != nil {
		return err
	}
	subs, err := v.Subscriptions(tx, topic)
	if err != nil {
		return err
	}
	w := writer{opDelete}.str(topic).uint(uint64(len(subs)))
	for _, s := range subs {
		tx.Put(Name, subPrefix+subName(topic, s.Name), nil)
		w = w.str(s.Name).str(s.Function)
	}
	if b.First <= b.Last { // what is being trimmed or read by its bounds must not find them gone
		tx.Put(Name, basePrefix+topic, nil)
	}
	tx.Put(Name, headPrefix+topic, nil)
	return tx.Do(quipu.Op{View: Name, Body: w})
}
