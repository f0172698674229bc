package call

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
)

// line is a queue with hands: calls are named by their order.
type line struct {
	*queue
	t    *testing.T
	now  time.Time
	room room
}

func newLine(t *testing.T, calls int) *line {
	return &line{newQueue(), t, time.Unix(1000, 0), room{calls: calls}}
}

// accept adds calls of f that may wait an hour.
func (l *line) accept(ids ...string) {
	for _, id := range ids {
		p := &pending{Info: quipu.CallInfo{ID: id, Function: "f", Queued: l.now, Expires: l.now.Add(time.Hour)}}
		l.add(newWaiting(p))
	}
}

// starts is what is begun now.
func (l *line) starts() (ids []string) {
	for w := l.next("f", l.room, l.now); w != nil; w = l.next("f", l.room, l.now) {
		ids = append(ids, w.id)
	}
	return ids
}

func (l *line) want(what string, got []string, want ...string) {
	l.t.Helper()
	if !slices.Equal(got, want) {
		l.t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// over ends an attempt: that of an ended call, unless its record said otherwise before.
func (l *line) over(id string, lost int) {
	w := l.calls[id]
	l.remove(id)
	l.returned(w, w.attempt, l.room, lost)
}

func TestCallsAreBegunInTheirOrderAsManyAsThereIsRoom(t *testing.T) {
	l := newLine(t, 2)
	l.accept("a", "b", "c", "d")
	l.want("at first", l.starts(), "a", "b")
	l.over("b", 0)
	l.want("when one is over", l.starts(), "c")
	if l.room.gone = true; len(l.starts()) != 0 {
		t.Error("a function that is gone is called")
	}
}

// A call that waits for its next attempt lets those behind it pass, and does not lose its place among them afterwards.
func TestACallThatIsTriedAgainHasItsTurnAmongFreshOnes(t *testing.T) {
	l := newLine(t, 1)
	l.accept("a", "b")
	l.want("at first", l.starts(), "a")
	a := l.calls["a"]
	was := a.attempt
	l.park(tried{ID: "a", Attempts: 1, Due: l.now.Add(10 * time.Second)})
	l.returned(a, was, l.room, 0)
	l.want("meanwhile", l.starts(), "b")
	l.now = l.now.Add(20 * time.Second)
	l.accept("c")
	l.overAll("b")
	l.want("when its time has come", l.starts(), "a")
	if at := l.wake("f", l.room, l.now); !at.Equal(time.Unix(1000, 0).Add(time.Hour)) {
		t.Errorf("there is nothing to do before %s but to see what expires", at)
	}
}

func (l *line) overAll(ids ...string) {
	for _, id := range ids {
		l.over(id, 0)
	}
}

// An attempt whose record came before it was noted to be over does not hide the next one.
func TestTheNextAttemptMayBeginBeforeTheLastIsNoted(t *testing.T) {
	l := newLine(t, 2)
	l.accept("a")
	l.starts()
	w := l.calls["a"]
	first := w.attempt
	l.park(tried{ID: "a", Attempts: 1, Due: l.now})
	l.want("again", l.starts(), "a")
	cut := false
	w.attempt.cut = func() { cut = true }
	l.returned(w, first, l.room, 0)
	l.remove("a")
	if !cut {
		t.Error("the second attempt was not cut")
	}
	l.returned(w, w.attempt, l.room, 0)
	if len(l.lanes)+len(l.calls) != 0 {
		t.Errorf("%d lanes and %d calls are left", len(l.lanes), len(l.calls))
	}
}

func TestWhatStallsWaitsLongerEachTimeUntilTheFunctionIsReached(t *testing.T) {
	l := newLine(t, 10)
	l.accept("a")
	for _, wait := range []time.Duration{200, 400, 800} {
		l.want("its time has come", l.starts(), "a")
		w := l.calls["a"]
		was := w.attempt
		l.stalled(w, l.now)
		l.returned(w, was, l.room, 0)
		wait *= time.Millisecond
		if at := l.wake("f", l.room, l.now); !at.Equal(l.now.Add(wait)) {
			t.Errorf("it waits %s, want %s", at.Sub(l.now), wait)
		}
		l.now = l.now.Add(wait - 1)
		l.want("too early", l.starts())
		l.now = l.now.Add(1)
	}
	l.reached("f")
	l.want("then", l.starts(), "a")
	l.stalled(l.calls["a"], l.now)
	if at := l.wake("f", l.room, l.now); !at.Equal(l.now.Add(quipu.BackoffDefault)) {
		t.Errorf("after it was reached once it waits %s", at.Sub(l.now))
	}
}

// What is too old ends, unless an attempt is under way: that looks at the age itself.
func TestOldCallsAreHandedOutToEndOnce(t *testing.T) {
	l := newLine(t, 1)
	l.accept("runs", "a", "b", "c")
	l.starts()
	l.now = l.now.Add(time.Hour)
	expired, gone := l.queue.over("f", l.room, l.now, 2)
	if len(expired) != 2 || len(gone) != 0 {
		t.Fatalf("%d expired, %d gone", len(expired), len(gone))
	}
	again, _ := l.queue.over("f", l.room, l.now, 10)
	if len(again) != 1 {
		t.Errorf("then %d", len(again))
	}
	if more, _ := l.queue.over("f", l.room, l.now, 10); len(more) != 0 {
		t.Errorf("and once more %d", len(more))
	}
	runs := l.calls["runs"]
	l.stalled(runs, l.now) // it did not reach the function
	if late, _ := l.queue.over("f", l.room, l.now, 10); len(late) != 1 || late[0] != runs {
		t.Errorf("what ran too long: %d", len(late))
	}
}

func TestAFunctionThatMayComeBackKeepsItsCalls(t *testing.T) {
	l := newLine(t, 1)
	l.accept("a")
	l.add(newWaiting(&pending{Info: quipu.CallInfo{ID: "b", Function: "f", Revision: quipu.RevisionAttached, Queued: l.now, Expires: l.now.Add(time.Hour)}}))
	l.room.gone = true
	_, gone := l.queue.over("f", l.room, l.now, 10)
	if len(gone) != 1 || gone[0].id != "a" {
		t.Errorf("%d calls end", len(gone))
	}
	l.remove("a")
	l.room.gone = false
	l.want("when it is back", l.starts(), "b")
}

// The limit counts what waits, what runs and what is on its way into the log; a reservation that comes to nothing is given
// back.
func TestTheQueueHasALimit(t *testing.T) {
	l := newLine(t, 1)
	for i := range 3 {
		if err := l.reserve("f", 3); err != nil {
			t.Fatal(err)
		}
		if i < 2 {
			l.accept(fmt.Sprint(i))
			l.unreserve("f")
		}
	}
	l.starts()
	if err := l.reserve("f", 3); quipu.CodeOf(err) != quipu.CodeCallQueue {
		t.Errorf("a fourth was taken: %v", err)
	}
	if err := l.reserve("g", 3); err != nil {
		t.Errorf("another function has its own limit: %v", err)
	}
	l.unreserve("f") // it lost
	if err := l.reserve("f", 3); err != nil {
		t.Error(err)
	}
	l.unreserve("f")
	l.unreserve("g")
	l.over("0", 0)
	l.remove("1")
	if len(l.lanes)+len(l.calls) != 0 {
		t.Errorf("%d lanes and %d calls are left", len(l.lanes), len(l.calls))
	}
}

// Calls of an atomic function that lose to each other are made fewer at a time.
func TestAnAtomicFunctionIsCalledMoreOftenAtOnceWhileItDoesNotLose(t *testing.T) {
	l := newLine(t, 8)
	l.room.adaptive = true
	for i := range 50 {
		l.accept(fmt.Sprint(i))
	}
	l.want("at first", l.starts(), "0")
	l.over("0", 0)
	if got := l.starts(); len(got) != 2 {
		t.Errorf("after a win %v begin", got)
	}
	l.overAll("1", "2")
	if got := l.starts(); len(got) != 4 {
		t.Errorf("after more wins %v begin", got)
	}
	l.over("3", 1)
	if got := l.starts(); len(got) != 0 {
		t.Errorf("after a loss %v begin", got)
	}
}
