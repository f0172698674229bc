package actor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/clock"
)

// world has an engine, one application that hosts cats in some instances, and leases in memory.
type world struct {
	*Engine
	t     *testing.T
	clock *clock.Skip

	mu        sync.Mutex
	of        quipu.ActorType
	atomic    bool
	instances []string
	woken     int
	held      map[string]int
	leases    map[string]quipu.Lease
	token     quipu.Seq
	happens   []string // in order
	inside    map[quipu.ActorKey]int
}

func newWorld(t *testing.T, change ...func(*world)) *world {
	w := &world{t: t, clock: clock.NewSkip(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), held: map[string]int{}, leases: map[string]quipu.Lease{}, inside: map[quipu.ActorKey]int{},
		of: quipu.ActorType{Type: "cat", Idle: quipu.Duration(time.Hour), Drain: quipu.Duration(time.Minute), Depth: 32}, instances: []string{"a"}}
	for _, c := range change {
		c(w)
	}
	w.Engine = New(Options{Find: w.find, Wake: w.wake, Hold: w.hold, Forget: w.forget, Invoke: w.invoke, Leases: w, Clock: w.clock})
	w.Start()
	t.Cleanup(func() {
		w.Close(context.Background())
		w.Wait()
		w.clock.Stop()
		if len(w.leases) > 0 {
			t.Errorf("leases are left: %v", w.leases)
		}
		for instance, n := range w.held {
			if n != 0 {
				t.Errorf("instance %s is held %d times", instance, n)
			}
		}
	})
	return w
}

func (w *world) find(actorType string) (Hosting, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if actorType != w.of.Type {
		return Hosting{}, &quipu.Error{Code: quipu.CodeNoActorHost}
	}
	return Hosting{Function: quipu.Function{Name: "zoo", Revision: "r1", Spec: quipu.Spec{Atomic: w.atomic}}, Type: w.of, Instances: slices.Clone(w.instances)}, nil
}

func (w *world) wake(context.Context, quipu.Function) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.woken++
	w.instances = []string{fmt.Sprint("woken", w.woken)}
	return w.instances[0], nil
}

func (w *world) hold(_ quipu.Function, instance string) (func(), bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.instances, instance) {
		return nil, false
	}
	w.held[instance]++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.held[instance]--
	}, true
}

func (w *world) forget(_ context.Context, _ quipu.Function, instance string, k quipu.ActorKey) error {
	w.note("forget %s at %s", k.ID, instance)
	return nil
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.happens = append(w.happens, fmt.Sprintf(format, args...))
}

func (w *world) happened() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.happens)
}

// invoke is a call that ends at once.
func (w *world) invoke(_ context.Context, r quipu.CallRequest) (*quipu.CallReply, error) {
	k := r.Turn.ActorKey
	w.mu.Lock()
	w.inside[k]++
	alone := w.inside[k] == 1
	lease, held := w.leases[LeaseName(k)]
	w.mu.Unlock()
	if !alone {
		w.t.Errorf("two turns of %s at a time", k)
	}
	if !held || lease.Token != r.Turn.Lease.Token {
		w.t.Errorf("a turn of %s without its lease", k)
	}
	w.note("%s %s at %s", strings.TrimPrefix(r.Path, Path(k)+"/method/"), k.ID, r.Turn.Instance)
	w.mu.Lock()
	w.inside[k]--
	w.mu.Unlock()
	return reply(200, r.Turn.Instance), nil
}

func reply(status int, body string) *quipu.CallReply {
	return &quipu.CallReply{Status: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

// TakeLease and the others are quipu.Leases.
func (w *world) TakeLease(_ context.Context, name, owner string, _ time.Duration) (quipu.Lease, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l, ok := w.leases[name]; ok && l.Owner != owner {
		return l, &quipu.Error{Code: quipu.CodeLeaseLost}
	}
	w.token++
	w.leases[name] = quipu.Lease{Name: name, Owner: owner, Token: w.token}
	return w.leases[name], nil
}

func (w *world) RenewLease(_ context.Context, l quipu.Lease, _ time.Duration) (quipu.Lease, error) {
	return l, nil
}

func (w *world) ReleaseLease(_ context.Context, l quipu.Lease) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.leases[l.Name].Token == l.Token {
		delete(w.leases, l.Name)
	}
	return nil
}

func cat(id, method string) quipu.ActorCall {
	return quipu.ActorCall{ActorKey: quipu.ActorKey{Type: "cat", ID: id}, Method: method}
}

func (w *world) turn(id, method string) string {
	w.t.Helper()
	r, err := w.Turn(w.t.Context(), cat(id, method), w.invoke)
	if err != nil {
		w.t.Fatal(err)
	}
	body, _ := io.ReadAll(r.Body) // it is a string
	return string(body)
}

func (w *world) await(what string, holds func() bool) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("not in time: %s; %v", what, w.happened())
		}
	}
}

func (w *world) pass(d time.Duration) { w.clock.Until(w.clock.Now().Add(d)) }

// However many call an actor at once, its turns are made one after another, in order, under its lease.
func TestTurnsAreOneAfterAnother(t *testing.T) {
	w := newWorld(t)
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() { w.turn(fmt.Sprint("c", rand.IntN(3)), "x") })
	}
	all.Wait()
	if got := len(w.happened()); got != 200 {
		t.Errorf("%d turns", got)
	}
	if got := w.Active("a")["cat"]; got != 3 {
		t.Errorf("%d actors are active", got)
	}
}

func TestWhoWaitsComesInOrder(t *testing.T) {
	l := newLock(32)
	first, err := l.enter(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	var all sync.WaitGroup
	for i := range 10 {
		f, err := l.stand("")
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			<-f.begin
			got = append(got, i)
			l.leave(f)
		})
	}
	first()
	all.Wait()
	if !slices.IsSorted(got) || len(got) != 10 {
		t.Errorf("%v", got)
	}
}

// The line before an actor has an end, and so has a chain that comes back to it.
func TestALineAndAChainHaveAnEnd(t *testing.T) {
	l := newLock(3)
	for range quipu.ActorTurnsMax + 1 {
		if _, err := l.stand("chain" + fmt.Sprint(rand.Uint64())); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.stand("one more"); quipu.CodeOf(err) != quipu.CodeBusy {
		t.Error(err)
	}
	l = newLock(3)
	for range 3 {
		if _, err := l.enter(t.Context(), "chain"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.enter(t.Context(), "chain"); quipu.CodeOf(err) != quipu.CodeActorDepth {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.enter(ctx, "other"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// An actor leaves when it was idle for the time of its type, not before, and its instance is free then. The next call has it anew.
func TestAnIdleActorLeaves(t *testing.T) {
	w := newWorld(t, func(w *world) { w.instances = nil })
	w.turn("tom", "one")
	w.pass(40 * time.Minute)
	w.turn("tom", "two")
	w.pass(40 * time.Minute)
	w.turn("tom", "three")
	if got := w.happened(); len(got) != 3 {
		t.Fatalf("it left early: %v", got)
	}
	w.pass(61 * time.Minute)
	w.await("it left", func() bool {
		return len(w.Active("woken1")) == 0 && slices.Contains(w.happened(), "forget tom at woken1")
	})
	w.mu.Lock()
	w.instances = nil
	w.mu.Unlock()
	w.await("its instance is free", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.held["woken1"] == 0 })
	if at := w.turn("tom", "four"); at != "woken2" {
		t.Errorf("it lives in %s", at)
	}
}

// When an instance has to go, the turn under way may end, those that wait are made where the actor lives then, and only after it has left.
func TestAnActorMovesBetweenTurns(t *testing.T) {
	w := newWorld(t)
	begun, end := make(chan struct{}), make(chan struct{})
	slow := func(ctx context.Context, r quipu.CallRequest) (*quipu.CallReply, error) {
		close(begun)
		<-end
		return w.invoke(ctx, r)
	}
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := w.Turn(t.Context(), cat("tom", "slow"), slow); err != nil {
			t.Error(err)
		}
	})
	<-begun
	all.Go(func() { w.turn("tom", "next") })
	w.await("the next waits", func() bool {
		p, _ := w.Actors(t.Context(), quipu.ActorList{})
		return p.Actors[0].Waiting == 1
	})
	w.mu.Lock()
	w.instances = []string{"b"}
	w.mu.Unlock()
	all.Go(func() { w.Leave("a") })
	w.await("it is to leave", func() bool {
		w.Engine.mu.Lock()
		defer w.Engine.mu.Unlock()
		return isClosed(w.active[quipu.ActorKey{Type: "cat", ID: "tom"}].lock.closed)
	})
	close(end)
	all.Wait()
	if got := w.happened(); !slices.Equal(got, []string{"slow tom at a", "forget tom at a", "next tom at b"}) {
		t.Errorf("%v", got)
	}
}

// A turn that does not end in the time of its type is cut.
func TestATurnThatTakesTooLongIsCut(t *testing.T) {
	w := newWorld(t)
	begun := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		_, err := w.Turn(t.Context(), cat("tom", "slow"), func(ctx context.Context, _ quipu.CallRequest) (*quipu.CallReply, error) {
			close(begun)
			<-ctx.Done()
			return nil, ctx.Err()
		})
		if quipu.CodeOf(err) != quipu.CodeCrashed {
			t.Error(err)
		}
	})
	<-begun
	left := make(chan struct{})
	all.Go(func() { w.Leave("a"); close(left) })
	w.await("it is cut after its time", func() bool {
		w.pass(10 * time.Second)
		return isClosed(left)
	})
	all.Wait()
}

// An instance that dies takes its actors with it: they live elsewhere at the next call, under another lease, and its lease is given back.
func TestActorsOfADeadInstanceLiveElsewhere(t *testing.T) {
	w := newWorld(t)
	w.turn("tom", "one")
	w.mu.Lock()
	before := w.leases[LeaseName(quipu.ActorKey{Type: "cat", ID: "tom"})]
	w.instances = []string{"b"}
	w.mu.Unlock()
	w.Gone("a")
	if at := w.turn("tom", "two"); at != "b" {
		t.Errorf("it lives in %s", at)
	}
	w.mu.Lock()
	after := w.leases[LeaseName(quipu.ActorKey{Type: "cat", ID: "tom"})]
	w.mu.Unlock()
	if after.Token <= before.Token {
		t.Errorf("the token went from %s to %s", before.Token, after.Token)
	}
	if got := w.happened(); slices.Contains(got, "forget tom at a") {
		t.Errorf("the dead were told: %v", got)
	}
}

// An instance that takes no calls any more, though nobody has said so, is left.
func TestAnInstanceThatTakesNoCallsIsLeft(t *testing.T) {
	w := newWorld(t)
	w.turn("tom", "one")
	r, err := w.Turn(t.Context(), cat("tom", "two"), func(ctx context.Context, r quipu.CallRequest) (*quipu.CallReply, error) {
		if r.Turn.Instance == "a" {
			w.mu.Lock()
			w.instances = []string{"b"}
			w.mu.Unlock()
			return nil, &quipu.Error{Code: quipu.CodeNoActorHost}
		}
		return w.invoke(ctx, r)
	})
	if err != nil || r.Status != 200 {
		t.Error(r, err)
	}
}

// A node that was killed has left leases; who called takes them over.
func TestTheLeaseOfADeadNodeIsTakenOver(t *testing.T) {
	w := newWorld(t)
	name := LeaseName(quipu.ActorKey{Type: "cat", ID: "tom"})
	w.mu.Lock()
	w.leases[name] = quipu.Lease{Name: name, Owner: "a@earlier", Token: 1}
	w.token = 1
	w.mu.Unlock()
	w.turn("tom", "one")
}

// What an atomic function has in memory of a run that did not count is forgotten before the next turn, and between two runs of one.
func TestARunThatDidNotCountIsForgotten(t *testing.T) {
	w := newWorld(t, func(w *world) { w.atomic = true })
	w.turn("tom", "one")
	failing := func(ctx context.Context, r quipu.CallRequest) (*quipu.CallReply, error) {
		w.note("failing")
		return reply(500, ""), nil
	}
	if _, err := w.Turn(t.Context(), cat("tom", "two"), failing); err != nil {
		t.Fatal(err)
	}
	w.turn("tom", "three")
	again := func(ctx context.Context, r quipu.CallRequest) (*quipu.CallReply, error) {
		r.Turn.Again(ctx)
		return w.invoke(ctx, r)
	}
	if _, err := w.Turn(t.Context(), cat("tom", "four"), again); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Turn(t.Context(), cat("kit", "five"), func(context.Context, quipu.CallRequest) (*quipu.CallReply, error) {
		return nil, &quipu.Error{Code: quipu.CodeBusy}
	}); quipu.CodeOf(err) != quipu.CodeBusy {
		t.Error(err)
	}
	w.turn("kit", "six") // which the instance never heard of
	want := []string{"one tom at a", "failing", "forget tom at a", "three tom at a", "forget tom at a", "four tom at a", "six kit at a"}
	if got := w.happened(); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// A turn that is part of another call's transaction lasts until that has ended: nobody sees what may not count.
func TestATurnLastsAsLongAsItsTransaction(t *testing.T) {
	w := newWorld(t, func(w *world) { w.atomic = true })
	for _, counts := range []bool{true, false} {
		var ended func(bool)
		if _, err := w.Turn(t.Context(), cat("tom", "part"), func(ctx context.Context, r quipu.CallRequest) (*quipu.CallReply, error) {
			ended = r.Turn.Joins()
			return w.invoke(ctx, r)
		}); err != nil {
			t.Fatal(err)
		}
		next := make(chan struct{})
		go func() { defer close(next); w.turn("tom", "next") }()
		w.await("the next waits", func() bool {
			p, _ := w.Actors(t.Context(), quipu.ActorList{})
			return p.Actors[0].Waiting == 1
		})
		ended(counts)
		<-next
	}
	want := []string{"part tom at a", "next tom at a", "part tom at a", "forget tom at a", "next tom at a"}
	if got := w.happened(); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// A timer fires while its actor is active: as often as its period says, within its time to live, until it is cancelled.
func TestTimersFire(t *testing.T) {
	w := newWorld(t)
	k := quipu.ActorKey{Type: "cat", ID: "tom"}
	set := func(name, due, period, ttl string) {
		t.Helper()
		if err := w.SetTimer(quipu.ActorTimer{ActorKey: k, Name: name, DueTime: due, Period: period, TTL: ttl, Callback: "cb"}); err != nil {
			t.Fatal(err)
		}
	}
	count := func(name string) (n int) {
		for _, what := range w.happened() {
			if what == "timer/"+name+" tom at a" {
				n++
			}
		}
		return n
	}
	w.turn("tom", "one")
	set("once", "10s", "", "")
	set("thrice", "10s", "R3/PT10S", "")
	set("short", "10s", "10s", "25s")
	set("never", "10s", "10s", "")
	set("never", "300h", "", "") // in place of the one before; at two hours it would be due when the actor leaves
	set("stopped", "10s", "10s", "")
	w.CancelTimer(k, "stopped")
	for i := range 6 {
		w.pass(10*time.Second + time.Millisecond)
		w.await("timers of this round", func() bool { return count("thrice") == min(i+1, 3) && count("short") == min(i+1, 3) })
	}
	if count("once") != 1 || count("never") != 0 || count("stopped") != 0 || w.Counts()["cat"].Timers != 1 {
		t.Errorf("%v, %+v", w.happened(), w.Counts())
	}
	w.pass(2 * time.Hour)
	w.await("the actor left, and its timers with it", func() bool { return w.Counts()["cat"].Active == 0 && w.Counts()["cat"].Timers == 0 })
}

func TestTimersThatCannotBe(t *testing.T) {
	w := newWorld(t)
	for _, c := range [][3]string{{"soon", "", ""}, {"", "often", ""}, {"", "R0/PT1S", ""}, {"", "-1s", ""}, {"10s", "", "late"}, {"R3/PT1S", "", ""}, {"", "1s", "2020-01-01T00:00:00Z"}} {
		err := w.SetTimer(quipu.ActorTimer{ActorKey: quipu.ActorKey{Type: "cat", ID: "tom"}, Name: "t", DueTime: c[0], Period: c[1], TTL: c[2]})
		if quipu.CodeOf(err) != quipu.CodeAlarm {
			t.Errorf("%v: %v", c, err)
		}
	}
}

// Instances that come and go move only the actors that have to move.
func TestRendezvousMovesAsFewAsItCan(t *testing.T) {
	before := []string{"a", "b", "c"}
	count := map[string]int{}
	for i := range 3000 {
		k := quipu.ActorKey{Type: "cat", ID: fmt.Sprint(i)}
		at := choose(before, k)
		count[at]++
		if now := choose([]string{"c", "a"}, k); at != "b" && now != at {
			t.Fatalf("%s moved from %s to %s though it is there", k, at, now)
		}
	}
	for _, one := range before {
		if count[one] < 800 || count[one] > 1200 {
			t.Errorf("not even: %v", count)
		}
	}
}

// Actors are told by type and id, a page at a time.
func TestAListHasPages(t *testing.T) {
	w := newWorld(t)
	for i := range 5 {
		w.turn(fmt.Sprint("c", i), "x")
	}
	var ids []string
	l := quipu.ActorList{Type: "cat", Limit: 2}
	for {
		p, err := w.Actors(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range p.Actors {
			ids = append(ids, a.ID)
		}
		if p.Next == nil {
			break
		}
		l.After = *p.Next
	}
	if !slices.Equal(ids, []string{"c0", "c1", "c2", "c3", "c4"}) {
		t.Errorf("%v", ids)
	}
	if _, err := w.Turn(t.Context(), quipu.ActorCall{ActorKey: quipu.ActorKey{Type: "dog", ID: "x"}}, w.invoke); quipu.CodeOf(err) != quipu.CodeNoActorHost {
		t.Error(err)
	}
	if _, err := w.Turn(t.Context(), quipu.ActorCall{}, w.invoke); quipu.CodeOf(err) != quipu.CodeUsage {
		t.Error(err)
	}
}

func BenchmarkTurn(b *testing.B) {
	w := &world{clock: clock.NewSkip(time.Now()), held: map[string]int{}, leases: map[string]quipu.Lease{}, of: quipu.ActorType{Type: "cat", Idle: quipu.Duration(time.Hour), Depth: 32}, instances: []string{"a"}}
	e := New(Options{Find: w.find, Wake: w.wake, Hold: w.hold, Forget: w.forget, Leases: w, Clock: w.clock})
	e.Start()
	do := func(context.Context, quipu.CallRequest) (*quipu.CallReply, error) { return reply(200, ""), nil }
	for b.Loop() {
		if _, err := e.Turn(b.Context(), cat("tom", "x"), do); err != nil {
			b.Fatal(err)
		}
	}
	e.Close(b.Context())
	e.Wait()
}
