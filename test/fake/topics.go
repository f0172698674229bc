package fake

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/quipu-run/quipu"
)

// Broker has topics in memory. What is delayed waits until it is cancelled; what is to be delivered again is,
// at once and without end.
type Broker struct {
	lock    sync.Mutex
	changed chan struct{} // closed and replaced by each publish
	events  map[string][]quipu.Event
	delayed []quipu.Message
	groups  map[string]map[string]uint64 // topic, subscription: offset of the next event
	seq     uint64
}

func newBroker() *Broker {
	return &Broker{changed: make(chan struct{}), events: map[string][]quipu.Event{}, groups: map[string]map[string]uint64{}}
}

// Publish is quipu.Publisher.
func (t *Broker) Publish(_ context.Context, ms []quipu.Message) error {
	t.lock.Lock()
	defer t.lock.Unlock()
	for _, m := range ms {
		if !isTopicName(m.Topic) {
			return &quipu.Error{Code: quipu.CodeTopicName, Text: fmt.Sprintf("%q cannot be the name of a topic", m.Topic)}
		}
		if len(m.Data) > quipu.EventBytesMax {
			return &quipu.Error{Code: quipu.CodeEventSize, Text: fmt.Sprintf("the event has %d bytes", len(m.Data))}
		}
		if m.Delay > quipu.DelayMax {
			return &quipu.Error{Code: quipu.CodeDelay, Text: fmt.Sprintf("the delay is %s", m.Delay)}
		}
	}
	t.seq++
	for n, m := range ms {
		if m.Delay > 0 {
			t.delayed = append(t.delayed, m)
			continue
		}
		e := quipu.Event{Topic: m.Topic, Offset: uint64(len(t.events[m.Topic]) + 1), Seq: quipu.MakeSeq(1, t.seq), N: n,
			ID: m.ID, Time: Epoch, ContentType: m.ContentType, Data: m.Data}
		if m.TTL > 0 {
			e.Expires = Epoch.Add(m.TTL)
		}
		t.events[m.Topic] = append(t.events[m.Topic], e)
	}
	close(t.changed)
	t.changed = make(chan struct{})
	return nil
}

func isTopicName(name string) bool {
	return name != "" && len(name) <= quipu.TopicNameMax && !strings.HasPrefix(name, quipu.PlatformTopicStart) &&
		utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

// Cancel is quipu.Publisher.
func (t *Broker) Cancel(_ context.Context, topic, id string) error {
	t.lock.Lock()
	defer t.lock.Unlock()
	before := len(t.delayed)
	t.delayed = slices.DeleteFunc(t.delayed, func(m quipu.Message) bool { return m.Topic == topic && m.ID == id })
	if len(t.delayed) == before {
		return &quipu.Error{Code: quipu.CodeNotFound, Text: fmt.Sprintf("no delayed message %q", id)}
	}
	return nil
}

// PutDead adds a dead letter to a topic.
func (t *Broker) PutDead(topic string, data string, d quipu.DeadLetter) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.seq++
	t.events[topic] = append(t.events[topic], quipu.Event{Topic: topic, Offset: uint64(len(t.events[topic]) + 1),
		Seq: quipu.MakeSeq(1, t.seq), ID: fmt.Sprint(t.seq), Time: Epoch, ContentType: quipu.MediaCloudEvent, Data: []byte(data), Dead: &d})
}

// PutSubscription gives a topic a durable subscription, to which nothing was delivered yet.
func (t *Broker) PutSubscription(topic, name string) {
	t.lock.Lock()
	defer t.lock.Unlock()
	if t.groups[topic] == nil {
		t.groups[topic] = map[string]uint64{}
	}
	t.groups[topic][name] = 1
}

func noTopic(name string) error {
	return &quipu.Error{Code: quipu.CodeNoTopic, Text: fmt.Sprintf("there is no topic %q", name)}
}

// Topic is quipu.Topics.
func (t *Broker) Topic(_ context.Context, name string) (quipu.TopicInfo, error) {
	t.lock.Lock()
	defer t.lock.Unlock()
	return t.info(name)
}

func (t *Broker) info(name string) (quipu.TopicInfo, error) {
	if t.events[name] == nil && t.groups[name] == nil {
		return quipu.TopicInfo{}, noTopic(name)
	}
	last := uint64(len(t.events[name]))
	i := quipu.TopicInfo{Name: name, TopicSpec: quipu.TopicSpec{Retention: quipu.Duration(quipu.TopicKept)}, First: 1, Last: last}
	for _, e := range t.events[name] {
		i.Bytes += uint64(len(e.Data))
		if e.Dead != nil {
			i.DeadLetters++
		}
	}
	for group, next := range t.groups[name] {
		i.Subscriptions = append(i.Subscriptions, quipu.SubscriptionInfo{Name: group, Done: next - 1, Lag: last - (next - 1), DeadLetter: group + "-dead"})
	}
	slices.SortFunc(i.Subscriptions, func(a, b quipu.SubscriptionInfo) int { return strings.Compare(a.Name, b.Name) })
	return i, nil
}

// Topics is quipu.Topics.
func (t *Broker) Topics(context.Context) (all []quipu.TopicInfo, err error) {
	t.lock.Lock()
	defer t.lock.Unlock()
	for name := range t.events {
		i, err := t.info(name)
		if err != nil {
			return nil, err
		}
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b quipu.TopicInfo) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// DeleteTopic is quipu.Topics.
func (t *Broker) DeleteTopic(_ context.Context, name string) error {
	t.lock.Lock()
	defer t.lock.Unlock()
	if t.events[name] == nil {
		return noTopic(name)
	}
	delete(t.events, name)
	delete(t.groups, name)
	return nil
}

// next waits for the event at offset.
func (t *Broker) next(ctx context.Context, topic string, offset uint64, follow bool) (e quipu.Event, ok bool) {
	for {
		t.lock.Lock()
		all, changed := t.events[topic], t.changed
		t.lock.Unlock()
		if offset <= uint64(len(all)) {
			return all[offset-1], true
		}
		if !follow {
			return e, false
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return e, false
		}
	}
}

// Events is quipu.Topics.
func (t *Broker) Events(ctx context.Context, topic string, from quipu.Position, follow bool) iter.Seq2[quipu.Event, error] {
	return func(yield func(quipu.Event, error) bool) {
		for offset := t.offset(topic, from); ; offset++ {
			e, ok := t.next(ctx, topic, offset, follow)
			if !ok {
				if ctx.Err() != nil {
					yield(quipu.Event{}, ctx.Err())
				}
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (t *Broker) offset(topic string, p quipu.Position) uint64 {
	t.lock.Lock()
	defer t.lock.Unlock()
	if p == (quipu.Position{}) {
		return uint64(len(t.events[topic]) + 1)
	}
	for _, e := range t.events[topic] {
		if p.Earliest || p.Offset != 0 && e.Offset >= p.Offset || p.Seq != 0 && e.Seq >= p.Seq || !p.Time.IsZero() && !e.Time.Before(p.Time) {
			return e.Offset
		}
	}
	return uint64(len(t.events[topic]) + 1)
}

// Subscribe is quipu.Topics.
func (t *Broker) Subscribe(ctx context.Context, r quipu.SubscribeRequest, deliver func(context.Context, quipu.Event) quipu.Outcome) error {
	t.lock.Lock()
	if t.groups[r.Topic] == nil {
		t.groups[r.Topic] = map[string]uint64{}
	}
	if t.groups[r.Topic][r.Name] == 0 {
		t.groups[r.Topic][r.Name] = uint64(len(t.events[r.Topic]) + 1)
	}
	offset := t.groups[r.Topic][r.Name]
	t.lock.Unlock()
	if r.Ready != nil {
		r.Ready()
	}
	for {
		e, ok := t.next(ctx, r.Topic, offset, true)
		if !ok || ctx.Err() != nil {
			return ctx.Err()
		}
		if deliver(ctx, e) == quipu.Retry {
			continue
		}
		offset++
		t.lock.Lock()
		t.groups[r.Topic][r.Name] = offset
		t.lock.Unlock()
	}
}

// Unsubscribe is quipu.Topics.
func (t *Broker) Unsubscribe(_ context.Context, topic, name string) error {
	t.lock.Lock()
	defer t.lock.Unlock()
	if t.groups[topic][name] == 0 {
		return &quipu.Error{Code: quipu.CodeNoSubscription, Text: fmt.Sprintf("topic %q has no subscription %q", topic, name)}
	}
	delete(t.groups[topic], name)
	return nil
}

// Seek is quipu.Topics.
func (t *Broker) Seek(_ context.Context, topic, name string, to quipu.Position) error {
	offset := t.offset(topic, to)
	t.lock.Lock()
	defer t.lock.Unlock()
	if t.groups[topic][name] == 0 {
		return &quipu.Error{Code: quipu.CodeNoSubscription, Text: fmt.Sprintf("topic %q has no subscription %q", topic, name)}
	}
	t.groups[topic][name] = offset
	return nil
}

// Redrive takes the dead letters of a topic away.
func (t *Broker) Redrive(_ context.Context, topic string) (int, error) {
	t.lock.Lock()
	defer t.lock.Unlock()
	if t.events[topic] == nil {
		return 0, noTopic(topic)
	}
	n := 0
	for i := range t.events[topic] {
		if t.events[topic][i].Dead != nil {
			t.events[topic][i].Dead = nil
			n++
		}
	}
	return n, nil
}
