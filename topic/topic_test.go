package topic_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/delivery"
	"github.com/quipu-run/quipu/topic"
	"github.com/quipu-run/quipu/view"
	"github.com/quipu-run/quipu/xtest"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is the view on a log, and what it ought to hold.
type world struct {
	t     *testing.T
	clock *xtest.Clock
	log   *xtest.Model
	id    quipu.Book
	fs    *vfs.MemFS
	store *view.Store
	book  *view.Book
	view  *topic.View
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, clock: xtest.NewClock(noon), fs: vfs.NewCrashableMem()}
	w.log = xtest.NewModel(w.clock)
	var err error
	if w.id, err = w.log.CreateBook(t.Context(), "quipu/default", quipu.BookOptions{}); err != nil {
		t.Fatal(err)
	}
	w.open()
	t.Cleanup(w.close)
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	if w.store, err = view.OpenStore(view.Options{Dir: "/views", FS: w.fs}); err != nil {
		w.t.Fatal(err)
	}
	w.view = topic.New()
	if w.book, err = view.OpenBook(context.Background(), w.store, w.log, w.id, w.clock, w.view); err != nil {
		w.t.Fatal(err)
	}
	w.view.Start(w.book, func(delivery.Subscription) {})
}

func (w *world) close() {
	w.t.Helper()
	if err := w.book.Close(); err != nil {
		w.t.Error(err)
	}
	if err := w.store.Close(); err != nil {
		w.t.Error(err)
	}
}

func (w *world) try(change func(tx *view.Tx) error) error {
	_, err := w.book.Change(context.Background(), change)
	return err
}

func (w *world) do(change func(tx *view.Tx) error) {
	w.t.Helper()
	if err := w.try(change); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) publish(name string, ids ...string) {
	w.t.Helper()
	w.do(func(tx *view.Tx) error {
		var ms []quipu.Message
		for _, id := range ids {
			ms = append(ms, quipu.Message{Topic: name, ID: id, ContentType: "text/plain", Data: []byte("data of " + id)})
		}
		return w.view.Publish(tx, ms)
	})
}

func (w *world) ids(name string) (ids []string) {
	w.t.Helper()
	events, err := w.view.Read(name, 1, 1_000_000)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range events {
		ids = append(ids, e.ID)
	}
	return ids
}

func (w *world) state(name, sub string) delivery.State {
	w.t.Helper()
	var s delivery.State
	err := w.view.Look(func(tx *view.Tx) (err error) {
		s, err = w.view.State(tx, name, sub)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func TestOffsetsAreDenseWhateverIsPublishedInARecord(t *testing.T) {
	w := newWorld(t)
	w.publish("a", "1", "2")
	w.do(func(tx *view.Tx) error {
		return w.view.Publish(tx, []quipu.Message{{Topic: "a", ID: "3"}, {Topic: "b", ID: "x"}, {Topic: "a", ID: "4"}})
	})
	w.publish("a", "5")
	events, err := w.view.Read("a", 1, 100)
	if err != nil {
		t.Fatal(err)
	}
	var last quipu.Event
	for i, e := range events {
		if e.Offset != uint64(i+1) || e.ID != fmt.Sprint(i+1) || e.Seq < last.Seq || e.Seq == last.Seq && e.N <= last.N || e.Time.Before(last.Time) {
			t.Errorf("event %d is %+v after %+v", i, e, last)
		}
		last = e
	}
	if len(events) != 5 {
		t.Errorf("%d events", len(events))
	}
}

// A record has 32 tags at most; a transaction may publish to more topics than that, one after the other.
func TestATransactionMayPublishToMoreTopicsThanARecordHasTags(t *testing.T) {
	w := newWorld(t)
	w.do(func(tx *view.Tx) error {
		for i := range 2 * quipu.TagsMax {
			if err := w.view.Publish(tx, []quipu.Message{{Topic: fmt.Sprint("t", i), ID: "1"}}); err != nil {
				return err
			}
		}
		return nil
	})
	if ids := w.ids(fmt.Sprint("t", 2*quipu.TagsMax-1)); len(ids) != 1 {
		t.Errorf("the last topic has %v", ids)
	}
}

func TestATransactionThatLosesPublishesNothing(t *testing.T) {
	w := newWorld(t)
	w.do(func(tx *view.Tx) error { return w.view.Subscribe(tx, "a", "s", "", quipu.Position{}) })
	tx := w.book.Begin(context.Background(), nil)
	defer tx.Close()
	if err := w.view.Settle(tx, w.state("a", "s").Subscription, delivery.Settlement{Done: []uint64{1}}); err != nil {
		t.Fatal(err)
	}
	if err := w.view.Publish(tx, []quipu.Message{{Topic: "a", ID: "lost"}}); err != nil {
		t.Fatal(err)
	}
	w.do(func(tx *view.Tx) error { return w.view.Seek(tx, "a", "s", quipu.Position{Earliest: true}) })
	if _, err := w.book.Commit(context.Background(), tx); !view.Lost(err) {
		t.Fatalf("a settlement under a subscription that was moved meanwhile: %v", err)
	}
	if ids := w.ids("a"); len(ids) != 0 {
		t.Errorf("it published %v", ids)
	}
	err := w.try(func(tx *view.Tx) error {
		return w.view.Settle(tx, delivery.Subscription{Topic: "a", Name: "s", Epoch: 1}, delivery.Settlement{Done: []uint64{1}})
	})
	if quipu.CodeOf(err) != quipu.CodeSuperseded {
		t.Errorf("a settlement under an old epoch answered %v", err)
	}
}

func TestASettlementIsWhatTheStateSays(t *testing.T) {
	w := newWorld(t)
	w.publish("a", "1", "2", "3", "4", "5", "6")
	w.do(func(tx *view.Tx) error { return w.view.Subscribe(tx, "a", "s", "f", quipu.Position{Earliest: true}) })
	sub := w.state("a", "s").Subscription
	settle := func(s delivery.Settlement) {
		t.Helper()
		w.do(func(tx *view.Tx) error { return w.view.Settle(tx, sub, s) })
	}
	due := noon.Add(time.Minute)
	settle(delivery.Settlement{Done: []uint64{2, 5}, Parked: []delivery.Parked{{Offset: 1, Attempts: 3, Alone: 1, Due: due, Cause: "it failed"}}})
	settle(delivery.Settlement{Floor: 2, Clear: []uint64{2}})
	s := w.state("a", "s")
	if s.Floor != 2 || !slices.Equal(s.Done, []uint64{5}) || len(s.Parked) != 1 || s.Function != "f" {
		t.Fatalf("the state is %+v", s)
	}
	if p := s.Parked[0]; p.Offset != 1 || p.Attempts != 3 || p.Alone != 1 || !p.Due.Equal(due) || p.Cause != "it failed" {
		t.Errorf("parked is %+v", p)
	}
	for what, open := range map[string][]uint64{"one below the floor": {2}, "one above it that is done": {4, 5}} {
		err := w.try(func(tx *view.Tx) error { return w.view.Settle(tx, sub, delivery.Settlement{Open: open, Done: open}) })
		if quipu.CodeOf(err) != quipu.CodeSuperseded {
			t.Errorf("%s was settled again: %v", what, err)
		}
	}
	settle(delivery.Settlement{Open: []uint64{1, 3}, Done: []uint64{3}, Forget: []uint64{1}})
	if s := w.state("a", "s"); len(s.Parked) != 0 || !slices.Equal(s.Done, []uint64{3, 5}) {
		t.Errorf("the state is %+v", s)
	}
}

func TestPlacesAreFoundBySeqTimeAndOffset(t *testing.T) {
	w := newWorld(t)
	for i := range 20 {
		w.publish("a", fmt.Sprint(2*i), fmt.Sprint(2*i+1))
		w.clock.Move(time.Minute)
	}
	w.do(func(tx *view.Tx) error { return w.view.Trim(tx, "a", 4) })
	events, err := w.view.Read("a", 1, 100)
	if err != nil || events[0].Offset != 5 {
		t.Fatalf("%v, %v", events, err)
	}
	for what, c := range map[string]struct {
		p    quipu.Position
		want uint64
	}{
		"the end":            {quipu.Position{}, 41},
		"the oldest":         {quipu.Position{Earliest: true}, 5},
		"an offset":          {quipu.Position{Offset: 7}, 7},
		"a trimmed offset":   {quipu.Position{Offset: 2}, 5},
		"an offset to come":  {quipu.Position{Offset: 100}, 41},
		"a seq":              {quipu.Position{Seq: events[3].Seq}, 7},
		"between seqs":       {quipu.Position{Seq: events[3].Seq + 1}, 9},
		"a time":             {quipu.Position{Time: noon.Add(5 * time.Minute)}, 11},
		"between times":      {quipu.Position{Time: noon.Add(5*time.Minute + time.Second)}, 13},
		"a time long ago":    {quipu.Position{Time: noon.Add(-time.Hour)}, 5},
		"a time in a future": {quipu.Position{Time: noon.Add(time.Hour)}, 41},
	} {
		if got, err := w.view.Find("a", c.p); got != c.want || err != nil {
			t.Errorf("%s is at %d, %v; want %d", what, got, err, c.want)
		}
	}
	if got, err := w.view.Find("nothing", quipu.Position{Earliest: true}); got != 1 || err != nil {
		t.Errorf("a topic that is not there begins at %d, %v", got, err)
	}
}

// Random operations give the same state however the view is rebuilt: never stopped, from what a crash left, and from
// nothing but the log.
func TestRebuildGivesTheSameState(t *testing.T) {
	for seed := range uint64(10) {
		w := newWorld(t)
		rng := rand.New(rand.NewPCG(seed, 7))
		for i := range 300 {
			w.randomly(rng, i)
			w.clock.Move(time.Duration(rng.IntN(1000)) * time.Millisecond)
		}
		want, err := w.book.Digest()
		if err != nil {
			t.Fatal(err)
		}
		crashed := w.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(100), RNG: rng})
		for what, fs := range map[string]*vfs.MemFS{"after a crash": crashed, "from the log alone": vfs.NewCrashableMem()} {
			w.close()
			w.fs = fs
			w.open()
			if got, err := w.book.Digest(); got != want || err != nil {
				t.Fatalf("seed %d, %s: another state (%v)", seed, what, err)
			}
		}
	}
}

// randomly does one of the view's operations; what cannot be is refused, and changes nothing.
func (w *world) randomly(rng *rand.Rand, i int) {
	w.t.Helper()
	name, sub := fmt.Sprintf("t%d", rng.IntN(4)), fmt.Sprintf("s%d", rng.IntN(3))
	message := quipu.Message{Topic: name, ID: fmt.Sprint(i), Data: make([]byte, rng.IntN(200)), TTL: time.Duration(rng.IntN(3)) * time.Hour}
	err := w.try(func(tx *view.Tx) error {
		switch rng.IntN(12) {
		case 0, 1, 2:
			return w.view.Publish(tx, []quipu.Message{message, message})
		case 3:
			message.Delay = time.Duration(1+rng.IntN(60)) * time.Second
			return w.view.Publish(tx, []quipu.Message{message})
		case 4:
			return w.view.Cancel(tx, name, fmt.Sprint(rng.IntN(i+1)))
		case 5:
			return w.view.Subscribe(tx, name, sub, []string{"", "f"}[rng.IntN(2)], quipu.Position{Earliest: rng.IntN(2) == 0})
		case 6:
			return w.view.Unsubscribe(tx, name, sub)
		case 7:
			return w.view.Seek(tx, name, sub, quipu.Position{Offset: uint64(rng.IntN(30))})
		case 8:
			s, err := w.view.State(tx, name, sub)
			if err != nil {
				return err
			}
			at := s.Floor + 1 + uint64(rng.IntN(9))
			return w.view.Settle(tx, s.Subscription, delivery.Settlement{Done: []uint64{at}, Floor: s.Floor + uint64(rng.IntN(2)),
				Parked: []delivery.Parked{{Offset: at + 1, Attempts: rng.IntN(5), Due: noon, Cause: "x"}}})
		case 9:
			return w.view.Trim(tx, name, uint64(rng.IntN(20)))
		case 10:
			if rng.IntN(4) > 0 {
				return nil
			}
			return w.view.Delete(tx, name)
		}
		return w.view.Declare(tx, "app", map[string]quipu.TopicSpec{name: {Retention: quipu.Duration(1 + rng.IntN(5))}})
	})
	if err != nil && quipu.CodeOf(err) == quipu.CodeInternal {
		w.t.Fatal(err)
	}
	if rng.IntN(20) == 0 {
		if _, _, err := w.view.Release(context.Background()); err != nil {
			w.t.Fatal(err)
		}
	}
}

func TestATopicBelongsToOneApplication(t *testing.T) {
	w := newWorld(t)
	specs := map[string]quipu.TopicSpec{"a": {Retention: quipu.Duration(time.Hour)}}
	w.do(func(tx *view.Tx) error { return w.view.Declare(tx, "one", specs) })
	err := w.try(func(tx *view.Tx) error { return w.view.Declare(tx, "two", specs) })
	if quipu.CodeOf(err) != quipu.CodeManifest {
		t.Errorf("a second declaration answered %v", err)
	}
	w.do(func(tx *view.Tx) error { return w.view.Declare(tx, "one", nil) })
	w.do(func(tx *view.Tx) error { return w.view.Declare(tx, "two", specs) })
}
