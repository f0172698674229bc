package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/view"
)

// foreignTopics starts the names of the topics that hold what a pub/sub that is not on the log has delivered to an application.
func foreignTopics(pubsub, app string) string {
	return quipu.PlatformTopicStart + "pubsub/" + pubsub + "/" + app + "/"
}

// isForeign tells whether a subscription is to a pub/sub that is not on the log.
func isForeign(t quipu.TopicTrigger, app string) bool {
	return strings.HasPrefix(t.Name, foreignTopics(t.PubSub, app))
}

// inputTopic holds what came in by a binding that is not on the log, until the application has taken it.
func inputTopic(function, binding string) string {
	return quipu.PlatformTopicStart + "binding/" + function + "/" + binding
}

// feedAgain is how long it takes before what failed to bring events is tried again, at first.
const feedAgain = time.Second

// feed brings what comes from elsewhere to the log, where it is delivered from as all events are, until ctx ends. An event is
// acknowledged to where it came from when it is durable.
func (ns *namespace) feed(ctx context.Context, f quipu.Function, u *uses) error {
	var all sync.WaitGroup
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	run := func(from string, read func(context.Context) error) {
		all.Go(func() {
			if err := read(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s of %s: %w", from, f.Name, err)) // the others end with it
			}
		})
	}
	for _, t := range f.Topics() {
		if in, ok := component.Of[component.InputBinding](u.Set, t.Binding); ok && t.Binding != "" && t.Name == inputTopic(f.Name, t.Binding) {
			run("input binding "+t.Binding, func(ctx context.Context) error { return ns.feedBinding(ctx, t, in) })
		}
		if p, ok := component.Of[component.PubSub](u.Set, t.PubSub); ok && p.Foreign != nil {
			run("pub/sub "+t.PubSub, func(ctx context.Context) error { return ns.feedTopic(ctx, f, t, p.Foreign) })
		}
	}
	all.Wait()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

func (ns *namespace) feedBinding(ctx context.Context, t quipu.TopicTrigger, in component.InputBinding) error {
	return in.Read(ctx, func(ctx context.Context, e component.BindingEvent) ([]byte, error) {
		return nil, ns.publishInside(ctx, quipu.Message{Topic: t.Name, ID: newToken(), ContentType: e.ContentType, Data: e.Data})
	})
}

func (ns *namespace) feedTopic(ctx context.Context, f quipu.Function, t quipu.TopicTrigger, from component.ForeignPubSub) error {
	topic := strings.TrimPrefix(t.Name, foreignTopics(t.PubSub, f.Name))
	return from.Subscribe(ctx, topic, nil, func(ctx context.Context, m component.ForeignMessage) error {
		return ns.publishInside(ctx, quipu.Message{Topic: t.Name, ID: newToken(), ContentType: m.ContentType, Data: m.Data})
	})
}

// publishInside publishes to a topic that may be the platform's own.
func (ns *namespace) publishInside(ctx context.Context, m quipu.Message) error {
	_, err := ns.book.Change(ctx, func(tx *view.Tx) error { return ns.topic.Put(tx, m) })
	return err
}

// feeders bring events from elsewhere to deployed functions.
type feeders struct {
	mu sync.Mutex
	of map[string]feeder // by function
}

type feeder struct {
	revision string
	stop     context.CancelFunc
	done     chan struct{}
}

// follow starts and stops feeders as functions change.
func (s *feeders) follow(ns *namespace, live []quipu.Function) {
	if ns.quiet() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := map[string]quipu.Function{}
	for _, f := range live {
		if fed(f) {
			wanted[f.Name] = f
		}
	}
	for name, one := range s.of {
		if wanted[name].Revision != one.revision {
			one.stop()
			<-one.done
			delete(s.of, name)
		}
	}
	for name, f := range wanted {
		if _, there := s.of[name]; there {
			continue
		}
		ctx, stop := context.WithCancel(context.Background())
		one := feeder{revision: f.Revision, stop: stop, done: make(chan struct{})}
		if s.of == nil {
			s.of = map[string]feeder{}
		}
		s.of[name] = one
		go func() {
			defer close(one.done)
			ns.keepFeeding(ctx, f)
		}()
	}
}

// close stops all.
func (s *feeders) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, one := range s.of {
		one.stop()
		<-one.done
		delete(s.of, name)
	}
}

// fed tells whether a function gets events from elsewhere.
func fed(f quipu.Function) bool {
	for _, t := range f.Topics() {
		if t.Binding != "" && t.Name == inputTopic(f.Name, t.Binding) || t.PubSub != "" && isForeign(t, f.Name) {
			return true
		}
	}
	return false
}

// keepFeeding feeds until ctx ends; what fails is tried again, less and less often.
func (ns *namespace) keepFeeding(ctx context.Context, f quipu.Function) {
	for pause := feedAgain; ; pause = min(2*pause, quipu.BackoffMax) {
		began := ns.node.clock.Now()
		err := ns.feedOnce(ctx, f)
		if ctx.Err() != nil || err == nil {
			return
		}
		ns.node.cfg.Logger.Error("events from elsewhere do not come; trying again", "fn", f.Name, "err", err)
		if ns.node.clock.Now().Sub(began) > quipu.BackoffMax {
			pause = feedAgain
		}
		select {
		case <-ns.node.clock.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

func (ns *namespace) feedOnce(ctx context.Context, f quipu.Function) error {
	dir, err := ns.folderOf(ctx, f)
	if err != nil {
		return err
	}
	u, give, err := ns.takeUses(ctx, f, dir)
	if err != nil {
		return err
	}
	defer give()
	return ns.feed(ctx, f, u)
}
