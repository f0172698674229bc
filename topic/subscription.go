package topic

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/delivery"
	"github.com/quipu-run/quipu/view"
)

// Subscribe makes a durable subscription that starts at the given position, for a function or, if that is "", for
// consumers that come and go. One that is there already stays as it is, but for the function.
func (v *View) Subscribe(tx *view.Tx, topic, name, function string, from quipu.Position) error {
	there, function2, err := subscription(tx, topic, name)
	if err != nil || there.Epoch != 0 && function2 == function {
		return err
	}
	return v.place(tx, there, topic, name, function, from)
}

// place writes where a subscription stands. there is what it was before; one without an epoch is new.
func (v *View) place(tx *view.Tx, there delivery.Subscription, topic, name, function string, from quipu.Position) error {
	floor, atEnd, err := v.floorFor(tx, topic, from)
	if err != nil {
		return err
	}
	if there.Epoch == 0 {
		if err := v.checkRoom(tx, topic); err != nil {
			return err
		}
	}
	tx.Put(Name, subPrefix+subName(topic, name), subscriptionValue(quipu.SeqMax, function))
	end := uint64(0)
	if atEnd {
		end = 1
	}
	return tx.Do(quipu.Op{View: Name, Body: writer{opSubscribe}.str(topic).str(name).str(function).uint(end).uint(floor)})
}

func (v *View) checkRoom(tx *view.Tx, topic string) error {
	subs, err := v.Subscriptions(tx, topic)
	if err == nil && len(subs) >= quipu.SubscriptionsMax {
		err = &quipu.Error{Code: quipu.CodeTooMany, Op: "topic.subscribe",
			Text: fmt.Sprintf("topic %s has %d subscriptions, which is the most", topic, len(subs)), Hint: "quipu topics unsubscribe removes one"}
	}
	return err
}

// Unsubscribe removes a subscription with all that is known of it. CodeNoSubscription.
func (v *View) Unsubscribe(tx *view.Tx, topic, name string) error {
	if _, _, err := mustSubscription(tx, topic, name); err != nil {
		return err
	}
	tx.Put(Name, subPrefix+subName(topic, name), nil)
	return tx.Do(quipu.Op{View: Name, Body: writer{opUnsubscribe}.str(topic).str(name)})
}

// Seek moves a subscription. CodeNoSubscription.
func (v *View) Seek(tx *view.Tx, topic, name string, to quipu.Position) error {
	there, function, err := mustSubscription(tx, topic, name)
	if err != nil {
		return err
	}
	return v.place(tx, there, topic, name, function, to)
}

// subscription finds one; its Epoch is 0 if there is none.
func subscription(tx *view.Tx, topic, name string) (s delivery.Subscription, function string, err error) {
	value, ok, err := tx.Get(Name, subPrefix+subName(topic, name))
	if err != nil || !ok {
		return s, "", err
	}
	r := &reader{rest: value}
	s = delivery.Subscription{Topic: topic, Name: name, Epoch: quipu.Seq(r.uint())}
	function = r.str()
	return s, function, r.end()
}

func mustSubscription(tx *view.Tx, topic, name string) (delivery.Subscription, string, error) {
	s, function, err := subscription(tx, topic, name)
	if err == nil && s.Epoch == 0 {
		err = &quipu.Error{Code: quipu.CodeNoSubscription, Op: "topic.subscription",
			Text: fmt.Sprintf("topic %s has no subscription %q", topic, name), Hint: quipu.Codes[quipu.CodeNoSubscription].Next}
	}
	return s, function, err
}

// Subscriptions lists those of a topic, by name; of all topics if topic is "".
func (v *View) Subscriptions(tx *view.Tx, topic string) (subs []delivery.State, err error) {
	from := subPrefix
	if topic != "" {
		from += topic + "\x00"
	}
	var bad error
	err = tx.Scan(Name, from, from+"\xff", func(key string, value []byte) bool {
		r := &reader{rest: value}
		var s delivery.State
		s.Topic, s.Name, _ = strings.Cut(key[len(subPrefix):], "\x00")
		s.Epoch, s.Function = quipu.Seq(r.uint()), r.str()
		bad = r.end()
		subs = append(subs, s)
		return bad == nil
	})
	if err == nil {
		err = bad
	}
	return subs, err
}

// SetFunctions makes the subscriptions of functions those of want: by function, topic and where a new one starts.
func (v *View) SetFunctions(tx *view.Tx, want map[string]map[string]quipu.Position) error {
	subs, err := v.Subscriptions(tx, "")
	if err != nil {
		return err
	}
	for _, s := range subs {
		if s.Function == "" {
			continue
		}
		if _, kept := want[s.Function][s.Topic]; !kept {
			if err := v.Unsubscribe(tx, s.Topic, s.Name); err != nil {
				return err
			}
		}
	}
	for function, topics := range want {
		for topic, from := range topics {
			if err := v.Subscribe(tx, topic, function, function, from); err != nil {
				return err
			}
		}
	}
	return nil
}

// State reads how far a subscription has come. CodeNoSubscription.
func (v *View) State(tx *view.Tx, topic, name string) (s delivery.State, err error) {
	if s.Subscription, s.Function, err = mustSubscription(tx, topic, name); err != nil {
		return s, err
	}
	sub := subName(topic, name)
	value, ok, err := tx.Get(Name, floorPrefix+sub)
	r := &reader{rest: value}
	if s.Floor = r.uint(); err == nil && (!ok || r.end() != nil) {
		err = errEntry
	}
	if err != nil {
		return s, err
	}
	prefix := donePrefix + sub + "\x00"
	err = tx.Scan(Name, prefix+ordered(s.Floor+1), prefix+"\xff\xff\xff\xff\xff\xff\xff\xff\xff", func(key string, _ []byte) bool {
		s.Done = append(s.Done, fromOrdered(key[len(prefix):]))
		return true
	})
	if err == nil {
		s.Parked, err = parked(tx, sub)
	}
	return s, err
}

func parked(tx *view.Tx, sub string) (list []delivery.Parked, err error) {
	prefix, bad := parkedPrefix+sub+"\x00", error(nil)
	err = tx.Scan(Name, prefix, prefix+"\xff\xff\xff\xff\xff\xff\xff\xff\xff", func(key string, value []byte) bool {
		r := &reader{rest: value}
		list = append(list, delivery.Parked{Offset: fromOrdered(key[len(prefix):]), Attempts: int(r.uint()), Alone: int(r.uint()),
			Due: time.Unix(0, int64(r.uint())), Cause: r.str()})
		bad = r.end()
		return bad == nil
	})
	if err == nil {
		err = bad
	}
	return list, err
}

// guard makes the transaction lose if the subscription is moved or removed before it commits. CodeSuperseded if it
// was already.
func guard(tx *view.Tx, s delivery.Subscription) error {
	now, _, err := subscription(tx, s.Topic, s.Name)
	if err == nil && now.Epoch != s.Epoch {
		err = &quipu.Error{Code: quipu.CodeSuperseded, Op: "topic.settle",
			Text: fmt.Sprintf("the subscription %s of topic %s was moved or removed", s.Name, s.Topic)}
	}
	return err
}

// Settle records outcomes of deliveries. CodeSuperseded if one of them is done already, or the subscription was moved or
// removed.
func (v *View) Settle(tx *view.Tx, s delivery.Subscription, o delivery.Settlement) error {
	if err := errors.Join(guard(tx, s), checkOpen(tx, s, o.Open)); err != nil {
		return err
	}
	w := writer{opSettle}.str(s.Topic).str(s.Name).uints(o.Done).uints(o.Forget).uint(o.Floor).uints(o.Clear).uint(uint64(len(o.Parked)))
	now := tx.Now()
	for _, p := range o.Parked {
		w = w.uint(p.Offset).uint(uint64(p.Attempts)).uint(uint64(p.Alone)).str(delivery.Cause(p.Cause)).
			uint(uint64(max(0, p.Due.UnixNano()-now)))
	}
	return tx.Do(quipu.Op{View: Name, Body: w})
}

// checkOpen refuses deliveries that are done already. Two that are under way at once cannot be told apart here, since
// looking is no read; that is the runner's part, and there is one.
func checkOpen(tx *view.Tx, s delivery.Subscription, offsets []uint64) error {
	if len(offsets) == 0 {
		return nil
	}
	sub := subName(s.Topic, s.Name)
	floor, err := peekFloor(tx, sub)
	if err != nil {
		return err
	}
	below := sort.Search(len(offsets), func(i int) bool { return offsets[i] > floor })
	parked, err := marked(tx, parkedPrefix+sub+"\x00", offsets[:below])
	if err == nil && len(parked) < below {
		return doneAlready(s)
	}
	if err != nil {
		return err
	}
	done, err := marked(tx, donePrefix+sub+"\x00", offsets[below:])
	if err == nil && len(done) > 0 {
		return doneAlready(s)
	}
	return err
}

func doneAlready(s delivery.Subscription) error {
	return &quipu.Error{Code: quipu.CodeSuperseded, Op: "topic.settle",
		Text: fmt.Sprintf("a delivery of topic %s to %s is done already", s.Topic, s.Name)}
}

func peekFloor(tx *view.Tx, sub string) (floor uint64, err error) {
	key := floorPrefix + sub
	err = tx.Peek(Name, key, key+"\x00", func(_ string, value []byte) bool {
		r := &reader{rest: value}
		floor = r.uint()
		return false
	})
	return floor, err
}

// marked lists those of some offsets, ascending, that have a key under prefix.
func marked(tx *view.Tx, prefix string, offsets []uint64) (found []uint64, err error) {
	if len(offsets) == 0 {
		return nil, nil
	}
	err = tx.Peek(Name, prefix+ordered(offsets[0]), prefix+ordered(offsets[len(offsets)-1]+1), func(key string, _ []byte) bool {
		if offset := fromOrdered(key[len(prefix):]); contains(offsets, offset) {
			found = append(found, offset)
		}
		return true
	})
	return found, err
}

func contains(offsets []uint64, offset uint64) bool {
	_, found := slices.BinarySearch(offsets, offset)
	return found
}
