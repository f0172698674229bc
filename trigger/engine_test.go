package trigger_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/cloudevent"
	"github.com/quipu-run/quipu/internal/delivery"
	"github.com/quipu-run/quipu/view"
)

type subscription = delivery.Subscription

// log is what a function was called with.
type log struct {
	mu    sync.Mutex
	calls [][]string // ids
}

func (l *log) add(events []event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []string
	for _, e := range events {
		ids = append(ids, e.ID)
	}
	l.calls = append(l.calls, ids)
}

func (l *log) ids() (all []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Concat(l.calls...)
}

func (l *log) len() int { return len(l.ids()) }

func numbered(prefix string, n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("%s%04d", prefix, i))
	}
	return ids
}

func TestEachSubscriptionGetsEachEventInBatches(t *testing.T) {
	w := newWorld(t)
	var one, batch log
	w.deploy(on("one", quipu.TopicTrigger{Name: "t"}), func(e []event, _ int) int { one.add(e); return 200 })
	w.deploy(on("batch", quipu.TopicTrigger{Name: "t", Batch: 10}), func(e []event, _ int) int { batch.add(e); return 200 })
	want := numbered("e", 300)
	w.publish("t", want...)
	w.Eventually("all are delivered to both", func() bool { return one.len() >= 300 && batch.len() >= 300 })
	for name, l := range map[string]*log{"one": &one, "batch": &batch} {
		got := l.ids()
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s got %d events, not each of the %d once", name, len(got), len(want))
		}
	}
	w.Eventually("the lag is 0", func() bool {
		return !slices.ContainsFunc(w.info("t").Subscriptions, func(s quipu.SubscriptionInfo) bool { return s.Lag > 0 })
	})
}

// Functions fail, and the node crashes again and again: effects of an atomic function happen exactly once, a plain
// one gets every event at least once.
func TestEffectsHappenExactlyOnceThroughCrashes(t *testing.T) {
	const events = 400
	for seed := range uint64(6) {
		w := newWorld(t)
		rng := rand.New(rand.NewPCG(seed, 1))
		var mu sync.Mutex
		flaky := func(p int) bool {
			mu.Lock()
			defer mu.Unlock()
			return rng.IntN(100) < p
		}
		var plain log
		w.deploy(atomically(on("sum", quipu.TopicTrigger{Name: "t", Batch: 7, Retry: quipu.RetrySpec{Max: 50, Backoff: 1}})), func([]event, int) int {
			if flaky(20) {
				return 500
			}
			return 200
		})
		w.deploy(on("mail", quipu.TopicTrigger{Name: "t", Retry: quipu.RetrySpec{Max: 50, Backoff: 1}}), func(e []event, _ int) int {
			if flaky(10) {
				return 500
			}
			plain.add(e)
			return 200
		})
		for _, ids := range slices.Collect(slices.Chunk(numbered("e", events), 40)) {
			w.publish("t", ids...)
			w.Clock.Move(time.Second)
			w.Crash(rand.New(rand.NewPCG(seed, 2)))
		}
		w.Passing(time.Second, "everything is done", func() bool {
			return !slices.ContainsFunc(w.info("t").Subscriptions, func(s quipu.SubscriptionInfo) bool { return s.Lag > 0 })
		})
		if all, twice := w.effects.count(); all != events || twice != 0 {
			t.Errorf("seed %d: %d of %d events had an effect, %d of them more than once", seed, all, events, twice)
		}
		got := plain.ids()
		slices.Sort(got)
		if n := len(slices.Compact(got)); n != events {
			t.Errorf("seed %d: the plain function got %d of %d events", seed, n, events)
		}
	}
}

func TestEventsOfAKeyComeInOrder(t *testing.T) {
	w := newWorld(t)
	var got log
	failed := map[string]bool{}
	f := on("f", quipu.TopicTrigger{Name: "t", Key: "data.key", Retry: quipu.RetrySpec{Max: 5, Backoff: quipu.Duration(time.Second)}})
	w.deploy(f, func(e []event, _ int) int {
		got.mu.Lock()
		first := !failed[e[0].ID] && strings.HasSuffix(e[0].ID, "3")
		failed[e[0].ID] = true
		got.mu.Unlock()
		if first {
			return 503
		}
		got.add(e)
		return 200
	})
	var ids []string
	for i := range 50 {
		ids = append(ids, fmt.Sprintf("a%04d", i), fmt.Sprintf("b%04d", i), fmt.Sprintf("c%04d", i))
	}
	w.publish("t", ids...)
	w.Passing(time.Second, "all are done", func() bool { return got.len() >= len(ids) })
	last := map[byte]string{}
	for _, id := range got.ids() {
		if id <= last[id[0]] {
			t.Fatalf("%s came after %s", id, last[id[0]])
		}
		last[id[0]] = id
	}
}

// One poisoned event in a batch of 100: it ends in the dead-letter topic, the others are done once.
func TestAPoisonedEventIsIsolatedAndItsNeighboursAreDoneOnce(t *testing.T) {
	w := newWorld(t)
	isPoison := func(e event) bool { return e.ID == "e0042" }
	w.deploy(atomically(on("f", quipu.TopicTrigger{Name: "t", Batch: 100, Retry: quipu.RetrySpec{Max: 9, Backoff: quipu.Duration(time.Second)}})),
		func(e []event, _ int) int {
			if slices.ContainsFunc(e, isPoison) {
				return 500
			}
			return 200
		})
	w.publish("t", numbered("e", 100)...)
	w.Passing(time.Second, "nothing is left", func() bool { return w.info("t").Subscriptions[0].Lag == 0 })
	if all, twice := w.effects.count(); all != 99 || twice != 0 {
		t.Errorf("%d events had an effect, %d more than once; want 99 and 0", all, twice)
	}
	dead := w.dead("f-dead")
	if len(dead) != 1 || dead[0].ID != "e0042" || dead[0].Dead.Topic != "t" || dead[0].Dead.Offset != 43 || dead[0].Dead.Attempts != 17 {
		t.Fatalf("dead letters: %+v", dead)
	}
	if info := w.info("f-dead"); info.DeadLetters != 1 {
		t.Errorf("%d dead letters are counted", info.DeadLetters)
	}
}

func (w *world) dead(topic string) (list []quipu.Event) {
	w.T.Helper()
	for e, err := range w.engine.Events(context.Background(), topic, quipu.Position{Earliest: true}, false) {
		if err != nil {
			w.T.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

// Attempts count across restarts, and a dead letter can be returned to the subscription that gave it up, and only to
// that.
func TestDeadLettersAreRedrivenToTheirSubscriptionAlone(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	broken, attempts := true, 0
	var other log
	failing := func([]event, int) int {
		mu.Lock()
		defer mu.Unlock()
		attempts++
		if broken {
			return 500
		}
		return 200
	}
	w.deploy(on("f", quipu.TopicTrigger{Name: "t"}), failing)
	w.deploy(on("g", quipu.TopicTrigger{Name: "t"}), func(e []event, _ int) int { other.add(e); return 200 })
	w.publish("t", "e0001")
	w.Eventually("it was tried", func() bool { mu.Lock(); defer mu.Unlock(); return attempts > 0 })
	w.Eventually("that is known", func() bool { return w.info("t").Subscriptions[0].Retrying == 1 })
	w.Crash(rand.New(rand.NewPCG(1, 1)))
	w.Passing(time.Second, "it is a dead letter", func() bool {
		_, err := w.engine.Topic(context.Background(), "f-dead")
		return err == nil
	})
	if attempts != 4 {
		t.Errorf("%d attempts, want the first and 3 retries", attempts)
	}
	mu.Lock()
	broken = false
	mu.Unlock()
	if n, err := w.engine.Redrive(context.Background(), "t"); n != 1 || err != nil {
		t.Fatalf("redrive answered %d, %v", n, err)
	}
	w.Eventually("it is done", func() bool { mu.Lock(); defer mu.Unlock(); return attempts == 5 })
	w.Eventually("nothing lags", func() bool {
		return !slices.ContainsFunc(w.info("t").Subscriptions, func(s quipu.SubscriptionInfo) bool { return s.Lag > 0 })
	})
	if n, err := w.engine.Redrive(context.Background(), "f-dead"); n != 0 || err != nil {
		t.Errorf("a second redrive answered %d, %v", n, err)
	}
	if info := w.info("f-dead"); info.DeadLetters != 0 {
		t.Errorf("%d dead letters are counted after the redrive", info.DeadLetters)
	}
	if other.len() != 1 {
		t.Errorf("the other function got it %d times", other.len())
	}
}

// Hours go by while one subscriber is dead and another slow: the log is trimmed, the topic keeps what it is to keep,
// and what was not delivered in time is a dead letter, not lost.
func TestADeadSubscriberPinsNothing(t *testing.T) {
	w := newWorld(t)
	w.Commit(func(tx *view.Tx) error {
		return w.topics.Declare(tx, "app", map[string]quipu.TopicSpec{"t": {Retention: quipu.Duration(time.Hour)}})
	})
	if err := w.engine.Subscribe(canceled(), quipu.SubscribeRequest{Topic: "t", Name: "nobody"}, nil); err == nil {
		t.Fatal("a subscription ended without reason")
	}
	var got log
	w.deploy(on("f", quipu.TopicTrigger{Name: "t"}), func(e []event, _ int) int { got.add(e); return 200 })
	const hours = 8
	for hour := range hours {
		w.publish("t", numbered(fmt.Sprintf("h%d-", hour), 50)...)
		w.Eventually("f is done", func() bool { return got.len() == 50*(hour+1) })
		if err := w.Store.Snapshot(context.Background()); err != nil {
			t.Fatal(err)
		}
		for range 60 {
			w.Clock.Move(time.Minute)
		}
	}
	w.Passing(10*time.Second, "what is old is gone", func() bool { return w.info("t").First > 50*(hours-1) })
	if _, err := w.Log.Next(context.Background(), w.ID, quipu.TagAll, 1); quipu.CodeOf(err) != quipu.CodeTrimmed {
		t.Errorf("the log still has its first record: %v", err)
	}
	if dead := w.dead("nobody-dead"); len(dead) < 50*(hours-1) || dead[0].ID != "h0-0000" || dead[0].Dead.Cause != "expired" {
		t.Errorf("%d dead letters, the first %+v", len(dead), dead[0])
	}
	if _, err := w.engine.Topic(context.Background(), "f-dead"); err == nil {
		t.Error("the living function has dead letters")
	}
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestATopicKeepsNoMoreBytesThanItIsTo(t *testing.T) {
	w := newWorld(t)
	w.Commit(func(tx *view.Tx) error {
		return w.topics.Declare(tx, "app", map[string]quipu.TopicSpec{"t": {MaxBytes: 10_000}})
	})
	w.publish("t", numbered("e", 500)...)
	w.Passing(10*time.Second, "it has shrunk", func() bool { return w.info("t").Bytes <= 10_000 })
	if info := w.info("t"); info.Last != 500 || info.First < 300 || info.Bytes < 9_000 {
		t.Errorf("it keeps %+v", info)
	}
}

// A delayed message comes when it is due and not before, even across a crash; one that is taken back never comes.
func TestDelayedMessagesComeWhenDueUnlessTakenBack(t *testing.T) {
	w := newWorld(t)
	var got log
	w.deploy(on("f", quipu.TopicTrigger{Name: "t"}), func(e []event, _ int) int { got.add(e); return 200 })
	in := func(d time.Duration) func(*quipu.Message) { return func(m *quipu.Message) { m.Delay = d } }
	w.publishWith("t", in(time.Hour), "late")
	w.publishWith("t", in(time.Minute), "soon", "never")
	w.publish("t", "now")
	ctx := context.Background()
	if err := w.engine.Cancel(ctx, "t", "never"); err != nil {
		t.Fatal(err)
	}
	if err := w.engine.Publish(ctx, []quipu.Message{{Topic: "t", ID: "late", Delay: time.Second}}); quipu.CodeOf(err) != quipu.CodeDelay {
		t.Errorf("a second message of that id answered %v", err)
	}
	w.Eventually("the first is there", func() bool { return got.len() == 1 })
	w.Crash(rand.New(rand.NewPCG(3, 3)))
	w.Clock.Move(59 * time.Second)
	if info := w.info("t"); info.Delayed != 2 || info.Last != 1 {
		t.Errorf("before it is due: %+v", info)
	}
	w.Passing(time.Second, "the next is there", func() bool { return got.len() == 2 })
	if err := w.engine.Cancel(ctx, "t", "soon"); quipu.CodeOf(err) != quipu.CodeNotFound {
		t.Errorf("taking back what was delivered answered %v", err)
	}
	w.Clock.Move(time.Hour)
	w.Eventually("the last is there", func() bool { return got.len() == 3 })
	if ids := got.ids(); !slices.Equal(ids, []string{"now", "soon", "late"}) {
		t.Errorf("they came as %v", ids)
	}
}

func TestSeekDeliversAgainFromAPlaceOrATime(t *testing.T) {
	w := newWorld(t)
	var got log
	w.deploy(on("f", quipu.TopicTrigger{Name: "t"}), func(e []event, _ int) int { got.add(e); return 200 })
	w.publish("t", "a0001")
	w.Clock.Move(time.Hour)
	w.publish("t", "b0001", "b0002")
	w.Eventually("all are done", func() bool { return got.len() == 3 })
	second := w.dead("t")[1]
	for what, p := range map[string]quipu.Position{"a time": {Time: noon.Add(time.Minute)}, "a seq": {Seq: second.Seq}, "an offset": {Offset: 2}} {
		before := got.len()
		if err := w.engine.Seek(context.Background(), "t", "f", p); err != nil {
			t.Fatal(err)
		}
		w.Eventually("two are delivered again after "+what, func() bool { return got.len() == before+2 })
	}
	if err := w.engine.Seek(context.Background(), "t", "nobody", quipu.Position{}); quipu.CodeOf(err) != quipu.CodeNoSubscription {
		t.Errorf("moving what is not there answered %v", err)
	}
}

// A topic is deleted while its subscriber is at work: nothing hangs, and the function gets what is published anew.
func TestATopicDeletedMeanwhileBeginsAnew(t *testing.T) {
	w := newWorld(t)
	var got log
	enter, leave := make(chan struct{}, 10), make(chan struct{}, 10)
	w.deploy(atomically(on("f", quipu.TopicTrigger{Name: "t"})), func(e []event, _ int) int {
		enter <- struct{}{}
		<-leave
		got.add(e)
		return 200
	})
	w.publish("t", "a0001", "a0002")
	<-enter
	if err := w.engine.DeleteTopic(context.Background(), "t"); err != nil {
		t.Fatal(err)
	}
	leave <- struct{}{}
	w.publish("t", "b0001")
	leave <- struct{}{}
	w.Eventually("the new one is done", func() bool { all, _ := w.effects.count(); return all == 1 })
	if _, ok := w.effects.seen["b0001"]; !ok {
		t.Errorf("the effects are %v", w.effects.seen)
	}
	if info := w.info("t"); info.Last != 1 {
		t.Errorf("the topic is %+v", info)
	}
	if err := w.engine.DeleteTopic(context.Background(), "none"); quipu.CodeOf(err) != quipu.CodeNoTopic {
		t.Errorf("deleting what is not there answered %v", err)
	}
}

// Consumers of one name share the events; what one leaves undone another gets; the name outlives them.
func TestConsumersShareADurableSubscription(t *testing.T) {
	w := newWorld(t)
	request := quipu.SubscribeRequest{Topic: "t", Name: "workers", InFlight: 2}
	var mu sync.Mutex
	by := map[string][]string{}
	join := func(who string, outcome func(quipu.Event) quipu.Outcome) (leave func()) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = w.engine.Subscribe(ctx, request, func(ctx context.Context, e quipu.Event) quipu.Outcome { // it ends with ctx
				o := outcome(e)
				if o == quipu.Ack {
					mu.Lock()
					by[who] = append(by[who], e.ID)
					mu.Unlock()
				} else {
					<-ctx.Done()
				}
				return o
			})
		}()
		return func() { cancel(); <-done }
	}
	total := func() int { mu.Lock(); defer mu.Unlock(); return len(by["good"]) + len(by["other"]) }
	leaveGood := join("good", func(quipu.Event) quipu.Outcome { return quipu.Ack })
	w.Eventually("it is subscribed", func() bool {
		info, err := w.engine.Topic(context.Background(), "t")
		return err == nil && len(info.Subscriptions) == 1 || err != nil && subscribed(w, "t")
	})
	leaveStuck := join("stuck", func(quipu.Event) quipu.Outcome { return quipu.Retry })
	w.publish("t", numbered("e", 100)...)
	w.Eventually("one does all but what the other holds", func() bool { return total() >= 96 })
	leaveStuck()
	w.Eventually("the rest is done too", func() bool { return total() == 100 })
	leaveGood()
	w.publish("t", "later")
	join("other", func(quipu.Event) quipu.Outcome { return quipu.Ack })
	w.Eventually("what came meanwhile is done", func() bool { return total() == 101 })
	if info := w.info("t"); info.Subscriptions[0].Name != "workers" {
		t.Errorf("the topic is %+v", info)
	}
}

func subscribed(w *world, topic string) bool {
	tx := w.Book.Look()
	defer tx.Close()
	subs, err := w.topics.Subscriptions(tx, topic)
	return err == nil && len(subs) == 1
}

// One call takes very long while thousands of later events are done: the floor passes it, so that what is remembered
// of them stays bounded, and a crash does not lose it.
func TestALongCallDoesNotHoldTheFloor(t *testing.T) {
	const events = 8_000
	w := newWorld(t)
	hang := make(chan struct{})
	release := sync.OnceFunc(func() { close(hang) })
	t.Cleanup(release)
	f := on("f", quipu.TopicTrigger{Name: "t", Batch: 100}) // not atomic: more than one call at once from the start
	w.deploy(f, func(e []event, _ int) int {
		if e[0].ID == "e0000" {
			<-hang
		}
		return 200
	})
	w.publish("t", "e0000")
	w.Eventually("it is under way", func() bool { return w.info("t").Subscriptions[0].InFlight == 1 })
	for part := range slices.Chunk(numbered("e", events)[1:], 1000) {
		w.publish("t", part...)
	}
	w.Passing(time.Second, "the floor has passed it", func() bool {
		s := w.info("t").Subscriptions[0]
		return s.Done > events/2 && s.Lag == 1
	})
	w.Eventually("it is parked in the view", func() bool {
		tx := w.Book.Look()
		defer tx.Close()
		s, err := w.topics.State(tx, "t", "f")
		return err == nil && len(s.Parked) == 1 && s.Parked[0].Offset == 1
	})
	release()
	w.Passing(time.Second, "it is done", func() bool { return w.info("t").Subscriptions[0].Lag == 0 })
	w.Crash(rand.New(rand.NewPCG(9, 9)))
	if s := w.info("t").Subscriptions[0]; s.Lag != 0 {
		t.Errorf("after a crash it is to be done again: %+v", s)
	}
}

// Events of a key wait behind one that is to be tried again. Those of other keys do not wait, however many they are
// behind.
func TestAKeyThatWaitsDoesNotHoldOthers(t *testing.T) {
	w := newWorld(t)
	var got log
	f := on("f", quipu.TopicTrigger{Name: "t", Key: "data.key", Retry: quipu.RetrySpec{Max: 5, Backoff: quipu.Duration(time.Hour)}})
	w.deploy(f, func(e []event, _ int) int {
		if e[0].ID == "a0000" {
			return 503
		}
		got.add(e)
		return 200
	})
	w.publish("t", append(numbered("a", 5_000), "b")...)
	w.Eventually("the one of the other key is done, and no time passes", func() bool { return slices.Equal(got.ids(), []string{"b"}) })
}

// A batch is also bounded by its bytes: large events come in several calls.
func TestABatchHasABoundInBytes(t *testing.T) {
	w := newWorld(t)
	var got log
	w.deploy(on("f", quipu.TopicTrigger{Name: "t", Batch: 1000, From: "earliest"}), func(e []event, _ int) int { got.add(e); return 200 })
	large := fmt.Appendf(nil, `{"pad":%q}`, strings.Repeat("x", 300<<10))
	w.publishWith("t", func(m *quipu.Message) {
		_, m.Data, _ = cloudevent.Wrap(cloudevent.Attributes{ID: m.ID, DataContentType: "application/json"}, large) // it cannot fail
	}, numbered("e", 40)...)
	w.Eventually("all are delivered", func() bool { return got.len() == 40 })
	got.mu.Lock()
	defer got.mu.Unlock()
	for _, ids := range got.calls {
		if len(ids) > 13 {
			t.Errorf("%d events of 300 KiB came in one call", len(ids))
		}
	}
}
