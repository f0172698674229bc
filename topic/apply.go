package topic

import (
	"errors"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/delivery"
	"github.com/quipu-run/quipu/view"
)

// Operations: a byte that tells which, then its fields in the order in which the functions below read them.
const (
	opPublish   byte = iota + 1 // one event
	opDelay                     // a message for later
	opRelease                   // a delayed message is due: it becomes an event
	opCancel                    // a delayed message is taken back
	opDeclare                   // an application says how a topic is kept, or no more
	opDelete                    // a topic with all that belongs to it
	opSubscribe                 // a subscription is made or moved
	opUnsubscribe
	opSettle // deliveries of a subscription came to an outcome
	opTrim   // the oldest events of a topic go
)

// Apply writes what one operation does.
func (v *View) Apply(b *view.Batch, op []byte, at view.At) error {
	if len(op) == 0 {
		return errOp
	}
	r := &reader{rest: op[1:]}
	var err error
	switch op[0] {
	case opPublish:
		err = v.applyPublish(b, r.message(), at)
	case opDelay:
		err = v.applyDelay(b, r, at)
	case opRelease:
		due, m := r.uint(), r.message()
		err = errors.Join(dropDelayed(b, due, m.Topic, m.ID), v.applyPublish(b, m, at))
	case opCancel:
		err = dropDelayed(b, r.uint(), r.str(), r.str())
	case opDeclare:
		err = v.applyDeclare(b, r, at)
	case opDelete:
		err = v.applyDelete(b, r, at)
	case opSubscribe:
		err = v.applySubscribe(b, r, at)
	case opUnsubscribe:
		topic, name := r.str(), r.str()
		v.note(delivery.Subscription{Topic: topic, Name: name})
		err = dropSubscription(b, topic, name)
	case opSettle:
		err = applySettle(b, r, at)
	case opTrim:
		err = applyTrim(b, r)
	default:
		return errOp
	}
	return errors.Join(err, r.end())
}

// head is where topic ends, which the record at begins if it is new.
func (v *View) head(b *view.Batch, topic string, at view.At) (head, error) {
	h, ok := v.heads[topic]
	if ok {
		return h, nil
	}
	return head{born: at.Seq}, b.Set(Name, basePrefix+topic, base{first: 1}.encode())
}

func (v *View) applyPublish(b *view.Batch, m message, at view.At) error {
	h, err := v.head(b, m.Topic, at)
	if err != nil {
		return err
	}
	h.last++
	h.total.bytes += uint64(len(m.Data))
	if m.dead != nil {
		h.total.dead++
	}
	v.setHead(m.Topic, h)
	v.mu.Lock()
	v.news[m.Topic] = struct{}{}
	v.mu.Unlock()
	event := stored(position{at.Seq, at.N, at.Stamp}, h.total, m)
	return errors.Join(b.Set(Name, eventKey(m.Topic, h.last), event), b.Set(Name, headPrefix+m.Topic, h.encode()))
}

func (v *View) applyDelay(b *view.Batch, r *reader, at view.At) error {
	due := uint64(at.Stamp) + r.uint()
	m := r.message()
	select {
	case v.delayed <- struct{}{}:
	default:
	}
	return errors.Join(b.Set(Name, delayedPrefix+m.Topic+"\x00"+m.ID, writer(nil).uint(due).message(m)),
		b.Set(Name, dueKey(due, m.Topic, m.ID), nil))
}

func dueKey(due uint64, topic, id string) string {
	return duePrefix + ordered(due) + topic + "\x00" + id
}

func dropDelayed(b *view.Batch, due uint64, topic, id string) error {
	return errors.Join(b.Delete(Name, delayedPrefix+topic+"\x00"+id), b.Delete(Name, dueKey(due, topic, id)))
}

func (v *View) applyDeclare(b *view.Batch, r *reader, at view.At) error {
	topic, text := r.str(), r.take()
	if len(text) == 0 {
		return b.Delete(Name, declPrefix+topic)
	}
	h, err := v.head(b, topic, at)
	if err != nil {
		return err
	}
	v.setHead(topic, h)
	return errors.Join(b.Set(Name, headPrefix+topic, h.encode()), b.Set(Name, declPrefix+topic, text))
}

// applyDelete also takes the delayed messages; what is left of them under duePrefix finds nothing when it is due.
func (v *View) applyDelete(b *view.Batch, r *reader, at view.At) error {
	topic := r.str()
	v.dropHead(topic)
	v.mu.Lock()
	v.news[topic] = struct{}{} // who waits for events learns that the topic is gone
	v.mu.Unlock()
	err := errors.Join(b.Delete(Name, headPrefix+topic), b.Delete(Name, basePrefix+topic),
		b.DeleteRange(Name, eventPrefix+topic+"\x00", eventPrefix+topic+"\x01"),
		b.DeleteRange(Name, delayedPrefix+topic+"\x00", delayedPrefix+topic+"\x01"))
	for n := r.uint(); n > 0 && !r.bad && err == nil; n-- {
		name, function := r.str(), r.str()
		err = dropSubscription(b, topic, name)
		s := delivery.Subscription{Topic: topic, Name: name}
		if function != "" { // it subscribes to the name, whatever comes under it: the topic is there, empty
			s.Epoch = at.Seq
			h, headErr := v.head(b, topic, at)
			v.setHead(topic, h)
			err = errors.Join(err, headErr, b.Set(Name, headPrefix+topic, h.encode()), setSubscription(b, s, function, 0))
		}
		v.note(s)
	}
	return err
}

func (v *View) applySubscribe(b *view.Batch, r *reader, at view.At) error {
	s := delivery.Subscription{Topic: r.str(), Name: r.str(), Epoch: at.Seq}
	function, atEnd, floor := r.str(), r.uint() == 1, r.uint()
	h, err := v.head(b, s.Topic, at)
	if err != nil {
		return err
	}
	v.setHead(s.Topic, h)
	if atEnd {
		floor = h.last
	}
	v.note(s)
	return errors.Join(b.Set(Name, headPrefix+s.Topic, h.encode()), dropSubscription(b, s.Topic, s.Name), setSubscription(b, s, function, floor))
}

// note remembers a subscription that the record changes.
func (v *View) note(s delivery.Subscription) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.moved = append(v.moved, s)
}

func setSubscription(b *view.Batch, s delivery.Subscription, function string, floor uint64) error {
	name := subName(s.Topic, s.Name)
	return errors.Join(b.Set(Name, subPrefix+name, subscriptionValue(s.Epoch, function)),
		b.Set(Name, floorPrefix+name, writer(nil).uint(floor)))
}

func subscriptionValue(epoch quipu.Seq, function string) []byte {
	return writer(nil).uint(uint64(epoch)).str(function)
}

func dropSubscription(b *view.Batch, topic, name string) error {
	sub := subName(topic, name)
	return errors.Join(b.Delete(Name, subPrefix+sub), b.Delete(Name, floorPrefix+sub),
		b.DeleteRange(Name, donePrefix+sub+"\x00", donePrefix+sub+"\x01"),
		b.DeleteRange(Name, parkedPrefix+sub+"\x00", parkedPrefix+sub+"\x01"))
}

func applySettle(b *view.Batch, r *reader, at view.At) error {
	sub := subName(r.str(), r.str())
	done, forget := r.uints(), r.uints()
	floor, clear := r.uint(), r.uints()
	for _, offset := range done {
		if err := b.Set(Name, donePrefix+sub+"\x00"+ordered(offset), nil); err != nil {
			return err
		}
	}
	for prefix, offsets := range map[string][]uint64{parkedPrefix: forget, donePrefix: clear} {
		for _, offset := range offsets {
			if err := b.Delete(Name, prefix+sub+"\x00"+ordered(offset)); err != nil {
				return err
			}
		}
	}
	if floor > 0 {
		if err := b.Set(Name, floorPrefix+sub, writer(nil).uint(floor)); err != nil {
			return err
		}
	}
	return applyParked(b, r, sub+"\x00", at)
}

func applyParked(b *view.Batch, r *reader, sub string, at view.At) error {
	for n := r.uint(); n > 0 && !r.bad; n-- {
		p := r.parked()
		p.Due = time.Unix(0, at.Stamp).Add(time.Duration(r.uint()))
		value := writer(nil).uint(uint64(p.Attempts)).uint(uint64(p.Alone)).uint(uint64(p.Due.UnixNano())).str(p.Cause)
		if err := b.Set(Name, parkedPrefix+sub+ordered(p.Offset), value); err != nil {
			return err
		}
	}
	return nil
}

// parked is a parked event in an operation: without its due time, which follows as a delay.
func (r *reader) parked() delivery.Parked {
	return delivery.Parked{Offset: r.uint(), Attempts: int(r.uint()), Alone: int(r.uint()), Cause: r.str()}
}

func applyTrim(b *view.Batch, r *reader) error {
	topic, next := r.str(), base{first: r.uint(), before: r.sums()}
	return errors.Join(b.Set(Name, basePrefix+topic, next.encode()),
		b.DeleteRange(Name, eventPrefix+topic+"\x00", eventKey(topic, next.first)))
}
