package trigger

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/delivery"
	"github.com/quipu-run/quipu/view"
)

// Topic describes a topic: what the view has of it, and what its runners know.
func (e *Engine) Topic(_ context.Context, name string) (info quipu.TopicInfo, err error) {
	tx := e.o.Book.Look()
	defer func() { err = errors.Join(err, tx.Close()) }()
	return e.info(tx, name)
}

// Topics lists all topics but the platform's own.
func (e *Engine) Topics(context.Context) (list []quipu.TopicInfo, err error) {
	tx := e.o.Book.Look()
	defer func() { err = errors.Join(err, tx.Close()) }()
	names, err := e.o.Store.Names(tx, false)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		info, err := e.info(tx, name)
		if err != nil {
			return nil, err
		}
		list = append(list, info)
	}
	return list, nil
}

func (e *Engine) info(tx *view.Tx, name string) (quipu.TopicInfo, error) {
	info, err := e.o.Store.Info(tx, name)
	if err != nil {
		return info, err
	}
	subs, err := e.o.Store.Subscriptions(tx, name)
	if err != nil {
		return info, err
	}
	info.Subscriptions = []quipu.SubscriptionInfo{}
	for _, s := range subs {
		if s.Name == redriver {
			if info.DeadLetters, err = e.notRedriven(tx, name); err != nil {
				return info, err
			}
			continue
		}
		one, err := e.subscriptionInfo(tx, s, info)
		if err != nil {
			return info, err
		}
		info.Subscriptions = append(info.Subscriptions, one)
	}
	return info, nil
}

// subscriptionInfo asks the runner, and the view where there is none.
func (e *Engine) subscriptionInfo(tx *view.Tx, s delivery.State, topic quipu.TopicInfo) (info quipu.SubscriptionInfo, err error) {
	oldest := uint64(0)
	if r := e.runner(s.Topic, s.Name); r != nil {
		info, oldest = r.info(topic.Last)
	} else {
		if s, err = e.o.Store.State(tx, s.Topic, s.Name); err != nil {
			return info, err
		}
		info, oldest = storedInfo(s, topic.Last)
	}
	if info.Lag == 0 {
		return info, nil
	}
	events, err := e.o.Store.Read(s.Topic, oldest, 1)
	if len(events) > 0 {
		info.Oldest = events[0].Time
	}
	return info, err
}

// storedInfo is what the view knows of a subscription, and the offset of the oldest event that is not done.
func storedInfo(s delivery.State, last uint64) (info quipu.SubscriptionInfo, oldest uint64) {
	info = quipu.SubscriptionInfo{Name: s.Name, Done: s.Floor, Retrying: len(s.Parked), DeadLetter: quipu.DeadLetterTopic(s.Name),
		Lag: last - s.Floor - uint64(len(s.Done))}
	oldest = s.Floor + 1
	for _, p := range s.Parked {
		oldest = min(oldest, p.Offset)
		if p.Offset <= s.Floor {
			info.Lag++
		}
	}
	return info, oldest
}

// info is what the runner knows. last is the newest event of the topic.
func (r *runner) info(last uint64) (info quipu.SubscriptionInfo, oldest uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	info = quipu.SubscriptionInfo{Name: r.sub.Name, Done: r.plan.floor, Retrying: r.plan.retrying(), DeadLetter: r.dead,
		Consumers: len(r.consumers),
		Lag:       last - min(last, r.plan.loaded) + uint64(len(r.plan.items))}
	for _, it := range r.plan.items {
		if it.flying {
			info.InFlight++
		}
	}
	if info.Retrying > 0 || r.plan.stalls > 0 { // else it is over
		info.LastError = r.lastError
	}
	return info, r.plan.needed()
}

func (e *Engine) change(ctx context.Context, do func(tx *view.Tx) error) error {
	_, err := e.o.Book.Change(ctx, do)
	return err
}

// DeleteTopic removes a topic.
func (e *Engine) DeleteTopic(ctx context.Context, name string) error {
	return e.change(ctx, func(tx *view.Tx) error { return e.o.Store.Delete(tx, name) })
}

// Unsubscribe removes a subscription that no function has.
func (e *Engine) Unsubscribe(ctx context.Context, topic, name string) error {
	return e.change(ctx, func(tx *view.Tx) error {
		s, err := e.o.Store.State(tx, topic, name)
		if err == nil && s.Function != "" {
			err = served(topic, name)
		}
		if err != nil {
			return err
		}
		return e.o.Store.Unsubscribe(tx, topic, name)
	})
}

func served(topic, name string) error {
	return &quipu.Error{Code: quipu.CodeSubscribed, Op: "topic.subscription",
		Text: fmt.Sprintf("the subscription %s of topic %s belongs to a function's trigger", name, topic),
		Hint: quipu.Codes[quipu.CodeSubscribed].Next}
}

// Seek moves a subscription.
func (e *Engine) Seek(ctx context.Context, topic, name string, to quipu.Position) error {
	return e.change(ctx, func(tx *view.Tx) error { return e.o.Store.Seek(tx, topic, name, to) })
}

// readMax is how many events are read at once for who reads along.
const readMax = 256

// Events yields the events of a topic from a position on.
func (e *Engine) Events(ctx context.Context, topic string, from quipu.Position, follow bool) iter.Seq2[quipu.Event, error] {
	return func(yield func(quipu.Event, error) bool) {
		news := e.o.Store.Wait(topic)
		next, err := e.o.Store.Find(topic, from)
		for err == nil {
			var events []quipu.Event
			if events, err = e.o.Store.Read(topic, next, readMax); err != nil {
				break
			}
			for _, event := range events {
				if !yield(event, nil) {
					return
				}
				next = event.Offset + 1
			}
			switch {
			case len(events) > 0:
				continue
			case !follow:
				return
			}
			select {
			case <-news:
				news = e.o.Store.Wait(topic)
				next, err = e.again(topic, next)
			case <-ctx.Done():
				err = ctx.Err()
			case <-e.ctx.Done():
				err = &quipu.Error{Code: quipu.CodeStopping, Op: "topic.events"}
			}
		}
		yield(quipu.Event{}, err)
	}
}

// again is where a reader goes on: where it was, or at the beginning if the topic was deleted and made anew.
func (e *Engine) again(topic string, next uint64) (uint64, error) {
	end, err := e.o.Store.Find(topic, quipu.Position{})
	if err == nil && end < next {
		return 1, nil
	}
	return next, err
}

// Subscribe hands events to deliver until ctx ends.
func (e *Engine) Subscribe(ctx context.Context, req quipu.SubscribeRequest, deliver func(context.Context, quipu.Event) quipu.Outcome) error {
	inFlight := req.InFlight
	if inFlight == 0 {
		inFlight = inFlightDefault
	}
	c := &consumer{max: min(inFlight, callsMax), deliver: func(_ context.Context, g *group) result {
		outcome := deliver(ctx, g.items[0].event)
		if ctx.Err() != nil && outcome == quipu.Retry {
			return result{gone: true}
		}
		return result{each: []quipu.Outcome{outcome}, cause: "the consumer asked for it again"}
	}}
	o := planOptions{batch: 1, retry: req.Retry, keepDead: req.DeadLetter != ""}
	return e.consume(ctx, key{req.Topic, req.Name}, quipu.Position{Earliest: req.Earliest}, req.Ready, func(r *runner) *consumer {
		r.adopt(o, req.DeadLetter)
		return c
	})
}

// Serve makes a function that comes and goes the consumer of its subscription, in the way that t says, until ctx ends.
// ready is called once, when the subscription is there.
func (e *Engine) Serve(ctx context.Context, f quipu.Function, t quipu.TopicTrigger, ready func()) error {
	return e.consume(ctx, key{t.Name, f.Name}, quipu.Position{Earliest: t.From == quipu.FromEarliest}, ready, func(r *runner) *consumer {
		c := &functionConsumer{r: r, f: f, t: t}
		o, err := e.optionsFor(c)
		if err != nil { // whoever attached it has checked its routes
			return &consumer{}
		}
		r.adopt(o, t.DeadLetter)
		return &consumer{max: o.calls, deliver: c.deliver}
	})
}

// inFlightDefault is how many events a consumer gets before it has said what became of the first.
const inFlightDefault = 100

// consume makes sure of a subscription and attaches a consumer to each of its runners in turn, until ctx ends.
func (e *Engine) consume(ctx context.Context, k key, from quipu.Position, ready func(), attach func(*runner) *consumer) error {
	err := e.change(ctx, func(tx *view.Tx) error {
		s, err := e.o.Store.State(tx, k.topic, k.name)
		if err == nil && s.Function != "" {
			return served(k.topic, k.name)
		}
		if quipu.CodeOf(err) == quipu.CodeNoSubscription {
			return e.o.Store.Subscribe(tx, k.topic, k.name, "", from)
		}
		return err
	})
	if err != nil {
		return err
	}
	if ready != nil {
		ready()
	}
	for ctx.Err() == nil && e.ctx.Err() == nil {
		e.consumeRunner(ctx, k, attach)
	}
	if ctx.Err() == nil {
		return &quipu.Error{Code: quipu.CodeStopping, Op: "topic.subscribe"}
	}
	return ctx.Err()
}

// consumeRunner attaches a consumer to the runner of a subscription until that ends, or ctx.
func (e *Engine) consumeRunner(ctx context.Context, k key, attach func(*runner) *consumer) {
	e.mu.Lock()
	r, changed := e.runners[k], e.changed
	e.mu.Unlock()
	if r == nil || r.ctx.Err() != nil {
		select {
		case <-changed:
		case <-ctx.Done():
		case <-e.ctx.Done():
		}
		return
	}
	c := attach(r)
	r.attach(c)
	defer r.detach(c)
	select {
	case <-r.ctx.Done():
	case <-ctx.Done():
	}
}

// adopt takes over how the newest consumer wants its events.
func (r *runner) adopt(o planOptions, dead string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o.retry == (quipu.RetrySpec{}) {
		o.retry = r.plan.o.retry
	}
	o.name, o.key, o.adaptive, o.calls = r.plan.o.name, nil, false, callsMax
	r.plan.o = o
	if dead != "" {
		r.dead = dead
	}
}

// redriver is the subscription of a dead-letter topic that knows which letters Redrive has returned.
const redriver = "$redrive"

// redriveMax bounds one record of Redrive.
const redriveMax = 256

// notRedriven counts the dead letters of a topic with a redriver.
func (e *Engine) notRedriven(tx *view.Tx, topic string) (uint64, error) {
	state, err := e.o.Store.State(tx, topic, redriver)
	if err != nil {
		return 0, err
	}
	n, err := e.o.Store.DeadAfter(tx, topic, state.Floor)
	return n - min(n, uint64(len(state.Done))), err
}

// Redrive publishes dead letters again.
func (e *Engine) Redrive(ctx context.Context, topic string) (n int, err error) {
	info, err := e.Topic(ctx, topic)
	if err != nil {
		return 0, err
	}
	if n, err = e.redrive(ctx, topic, ""); n > 0 || err != nil {
		return n, err
	}
	for _, s := range info.Subscriptions {
		if s.DeadLetter == topic {
			continue
		}
		some, err := e.redrive(ctx, s.DeadLetter, topic)
		n += some
		if err != nil && quipu.CodeOf(err) != quipu.CodeNoTopic {
			return n, err
		}
	}
	return n, nil
}

// redrive returns the dead letters of one dead-letter topic, those of one topic unless origin is "".
func (e *Engine) redrive(ctx context.Context, dead, origin string) (n int, err error) {
	if err := e.makeRedriver(ctx, dead); err != nil {
		return 0, err
	}
	for from := uint64(1); ; {
		some := 0
		err := e.change(ctx, func(tx *view.Tx) (err error) {
			from, some, err = e.redriveSome(tx, dead, origin, from)
			return err
		})
		n += some
		if err != nil || from == 0 {
			return n, err
		}
	}
}

func (e *Engine) makeRedriver(ctx context.Context, dead string) error {
	return e.change(ctx, func(tx *view.Tx) error {
		if _, err := e.o.Store.Info(tx, dead); err != nil {
			return err
		}
		return e.o.Store.Subscribe(tx, dead, redriver, "", quipu.Position{Earliest: true})
	})
}

// redriveSome is one record of redrive: letters from an offset on, with the note that they were returned. It answers
// where the next record begins, 0 for the end.
func (e *Engine) redriveSome(tx *view.Tx, dead, origin string, from uint64) (next uint64, n int, err error) {
	state, err := e.o.Store.State(tx, dead, redriver)
	if err != nil {
		return 0, 0, err
	}
	events, err := e.o.Store.Read(dead, max(from, state.Floor+1), redriveMax)
	if err != nil || len(events) == 0 {
		return 0, 0, err
	}
	var returned delivery.Settlement
	for _, event := range events {
		next = event.Offset + 1
		if event.Dead == nil || origin != "" && event.Dead.Topic != origin || slices.Contains(state.Done, event.Offset) {
			continue
		}
		if err := e.o.Store.Again(tx, event); err != nil {
			return 0, 0, err
		}
		returned.Done = append(returned.Done, event.Offset)
	}
	n = len(returned.Done)
	if origin == "" && from <= state.Floor+1 { // all up to here are
		passed, _ := slices.BinarySearch(state.Done, next)
		returned = delivery.Settlement{Floor: next - 1, Clear: state.Done[:passed]}
	}
	if n == 0 && returned.Floor == 0 {
		return next, 0, nil
	}
	return next, n, e.o.Store.Settle(tx, state.Subscription, returned)
}
