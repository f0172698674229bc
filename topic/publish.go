package topic

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/cloudevent"
	"github.com/quipu-run/quipu/internal/delivery"
	"github.com/quipu-run/quipu/view"
)

// topicTagsMax leaves room among the tags of a record for those that are no topics'.
const topicTagsMax = quipu.TagsMax - 2

// Publish adds events to the transaction: all, or none and an error.
func (v *View) Publish(tx *view.Tx, ms []quipu.Message) error {
	mark := tx.Mark()
	for _, m := range ms {
		if err := v.publishOne(tx, m); err != nil {
			tx.Rollback(mark)
			return err
		}
	}
	tagTopics(tx, ms)
	return nil
}

// tagTopics makes the record part of its topics' streams, as far as a record can have tags.
func tagTopics(tx *view.Tx, ms []quipu.Message) {
	for _, m := range ms {
		if tag := "topic/" + m.Topic; len(tag) <= quipu.TagBytesMax {
			tx.TagUpTo(topicTagsMax, tag)
		}
	}
}

func (v *View) publishOne(tx *view.Tx, m quipu.Message) error {
	if err := v.check(m); err != nil {
		return err
	}
	if m.ID == "" {
		m.ID = cloudevent.NewID()
	}
	if m.Delay > 0 {
		return v.delay(tx, m)
	}
	return v.Put(tx, m)
}

// Put is Publish of one event without its checks: the platform's own topics are open to it.
func (v *View) Put(tx *view.Tx, m quipu.Message) error {
	return put(tx, message{Message: m})
}

func put(tx *view.Tx, m message) error {
	return tx.Do(quipu.Op{View: Name, Body: writer{opPublish}.message(m)})
}

func (v *View) check(m quipu.Message) error {
	if err := checkName(m.Topic); err != nil {
		return err
	}
	switch {
	case len(m.Data) > quipu.EventBytesMax:
		return &quipu.Error{Code: quipu.CodeEventSize, Op: "topic.publish",
			Text: fmt.Sprintf("the event for topic %s has %d bytes, the most is %d", m.Topic, len(m.Data), quipu.EventBytesMax),
			Hint: quipu.Codes[quipu.CodeEventSize].Next}
	case len(m.ID) > quipu.KeyBytesMax || strings.ContainsRune(m.ID, 0):
		return &quipu.Error{Code: quipu.CodeCloudEvent, Op: "topic.publish",
			Text: fmt.Sprintf("the id of the event has %d bytes or a NUL in it, the most is %d", len(m.ID), quipu.KeyBytesMax)}
	case m.Delay < 0 || m.Delay > quipu.DelayMax:
		return &quipu.Error{Code: quipu.CodeDelay, Op: "topic.publish",
			Text: fmt.Sprintf("the event cannot be delayed by %s", m.Delay), Hint: quipu.Codes[quipu.CodeDelay].Why}
	case m.TTL < 0:
		return &quipu.Error{Code: quipu.CodeTTL, Op: "topic.publish", Text: "the event's time to live is negative",
			Hint: "send a positive one, or none"}
	case !v.isKnown(m.Topic) && v.count.Load() >= quipu.TopicsMax:
		return &quipu.Error{Code: quipu.CodeTooMany, Op: "topic.publish",
			Text: fmt.Sprintf("the namespace has %d topics, which is the most", quipu.TopicsMax), Hint: "quipu rm topic NAME removes one"}
	}
	return nil
}

// delay keeps a message for later. One id can wait only once, so that Cancel means one message.
func (v *View) delay(tx *view.Tx, m quipu.Message) error {
	key := delayedPrefix + m.Topic + "\x00" + m.ID
	_, there, err := tx.Get(Name, key)
	if err != nil {
		return err
	}
	if there {
		return &quipu.Error{Code: quipu.CodeDelay, Op: "topic.publish",
			Text: fmt.Sprintf("a message %q for topic %s is waiting already", m.ID, m.Topic), Hint: "use another id, or cancel that one first"}
	}
	tx.Put(Name, key, writer(nil).uint(uint64(tx.Now()+int64(m.Delay))).message(message{Message: m}))
	return tx.Do(quipu.Op{View: Name, Body: writer{opDelay}.uint(uint64(m.Delay)).message(message{Message: m})})
}

// Cancel takes a delayed message back. CodeNotFound if none waits under the id.
func (v *View) Cancel(tx *view.Tx, topic, id string) error {
	key := delayedPrefix + topic + "\x00" + id
	value, there, err := tx.Get(Name, key)
	if err != nil {
		return err
	}
	if !there {
		return &quipu.Error{Code: quipu.CodeNotFound, Op: "topic.cancel",
			Text: fmt.Sprintf("no message %q waits for topic %s", id, topic),
			Hint: "only a delayed message that is not due yet can be cancelled"}
	}
	r := &reader{rest: value}
	tx.Put(Name, key, nil)
	return tx.Do(quipu.Op{View: Name, Body: writer{opCancel}.uint(r.uint()).str(topic).str(id)})
}

// releaseMax bounds the messages of one record of Release.
const releaseMax = 256

// Release publishes the delayed messages that are due, some of them, and answers how many and when to look again;
// the zero time means when one is delayed.
func (v *View) Release(ctx context.Context) (n int, next time.Time, err error) {
	_, err = v.book.Change(ctx, func(tx *view.Tx) error {
		n, next = 0, time.Time{}
		due, later, err := v.due(tx)
		if err != nil {
			return err
		}
		next = later
		for _, d := range due {
			if err := release(tx, d); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return n, next, err
}

// waiting is an entry of the index by due time.
type waiting struct {
	due       uint64
	topic, id string
}

// due lists messages whose time has come, up to releaseMax, and the time of the first that is later.
func (v *View) due(tx *view.Tx) (list []waiting, next time.Time, err error) {
	now := uint64(tx.Now())
	err = tx.Scan(Name, duePrefix, duePrefix+"\xff", func(key string, _ []byte) bool {
		key = key[len(duePrefix):]
		w := waiting{due: fromOrdered(key[:8])}
		if w.due > now || len(list) == releaseMax {
			next = time.Unix(0, int64(w.due))
			return false
		}
		w.topic, w.id, _ = strings.Cut(key[8:], "\x00")
		list = append(list, w)
		return true
	})
	return list, next, err
}

// release publishes one due message, or forgets an index entry that the deletion of its topic has left behind.
func release(tx *view.Tx, w waiting) error {
	key := delayedPrefix + w.topic + "\x00" + w.id
	value, there, err := tx.Get(Name, key)
	if err != nil {
		return err
	}
	tx.Put(Name, key, nil)
	r := &reader{rest: value}
	if !there || r.uint() != w.due {
		return tx.Do(quipu.Op{View: Name, Body: writer{opCancel}.uint(w.due).str(w.topic).str(w.id)})
	}
	m := r.message()
	if err := r.end(); err != nil {
		return err
	}
	return tx.Do(quipu.Op{View: Name, Body: writer{opRelease}.uint(w.due).message(m)})
}

// DeadLetter publishes a copy of an event that a subscription gave up.
func (v *View) DeadLetter(tx *view.Tx, topic string, e quipu.Event, d quipu.DeadLetter) error {
	d.Cause = delivery.Cause(d.Cause)
	return put(tx, message{Message: quipu.Message{Topic: topic, ID: e.ID, ContentType: e.ContentType, Data: e.Data}, dead: &d})
}

// Again publishes a dead letter once more, for the subscription that gave it up.
func (v *View) Again(tx *view.Tx, e quipu.Event) error {
	return put(tx, message{Message: quipu.Message{Topic: e.Dead.Topic, ID: e.ID, ContentType: e.ContentType, Data: e.Data},
		only: e.Dead.Subscription})
}

// declaration is how an application declares a topic.
type declaration struct {
	App  string          `json:"app"`
	Spec quipu.TopicSpec `json:"spec"`
}

// Declare makes the topics of an application those of specs: new ones are there from now on, those that it no
// longer names are kept as if they had been made on first use.
func (v *View) Declare(tx *view.Tx, app string, specs map[string]quipu.TopicSpec) error {
	old := map[string]declaration{}
	err := scanJSON(tx, declPrefix, func(topic string, d declaration) { old[topic] = d })
	if err != nil {
		return err
	}
	for topic, spec := range specs {
		if err := checkName(topic); err != nil {
			return err
		}
		d, there := old[topic]
		if there && d.App != app {
			return &quipu.Error{Code: quipu.CodeManifest, Op: "deploy",
				Text: fmt.Sprintf("the topic %q is declared by the application %q already", topic, d.App),
				Hint: "remove one of the two declarations"}
		}
		if there && d.Spec == spec {
			continue
		}
		if err := declare(tx, topic, &declaration{app, spec}); err != nil {
			return err
		}
	}
	for topic, d := range old {
		if _, kept := specs[topic]; d.App == app && !kept {
			if err := declare(tx, topic, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func declare(tx *view.Tx, topic string, d *declaration) (err error) {
	var text []byte
	if d != nil {
		if text, err = json.Marshal(d); err != nil {
			return err
		}
	}
	tx.Put(Name, declPrefix+topic, text)
	return tx.Do(quipu.Op{View: Name, Body: writer{opDeclare}.str(topic).bytes(text)})
}

// scanJSON visits what is kept as JSON under a prefix, by the rest of its key.
func scanJSON[T any](tx *view.Tx, prefix string, visit func(key string, v T)) error {
	var bad error
	err := tx.Scan(Name, prefix, prefix+"\xff", func(key string, text []byte) bool {
		var v T
		if bad = json.Unmarshal(text, &v); bad != nil {
			return false
		}
		visit(key[len(prefix):], v)
		return true
	})
	if err == nil && bad != nil {
		err = fmt.Errorf("%w: %w", errEntry, bad)
	}
	return err
}

// Outside publishes as commits of its own.
type Outside struct {
	View *View
	Book *view.Book
}

// Publish is quipu.Publisher.
func (o Outside) Publish(ctx context.Context, ms []quipu.Message) error {
	if len(ms) > quipu.PublishMax {
		return &quipu.Error{Code: quipu.CodeTooMany, Op: "topic.publish",
			Text: fmt.Sprintf("%d events at once; the most is %d", len(ms), quipu.PublishMax), Hint: "publish them in parts"}
	}
	_, err := o.Book.Change(ctx, func(tx *view.Tx) error { return o.View.Publish(tx, ms) })
	return err
}

// Cancel is quipu.Publisher.
func (o Outside) Cancel(ctx context.Context, topic, id string) error {
	_, err := o.Book.Change(ctx, func(tx *view.Tx) error { return o.View.Cancel(tx, topic, id) })
	return err
}
