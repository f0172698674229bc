package pool

import (
	"fmt"
	"slices"
	"time"

	"github.com/quipu-run/quipu"
)

// Limits of a plan.
const (
	waitersMax   = 1000                   // calls of a revision that wait for a place, unless scale.queue says otherwise
	backoffFirst = 100 * time.Millisecond // after the first failure; doubles
	backoffMost  = 30 * time.Second
	provenAfter  = 10 * time.Second       // of being ready without a call, an instance counts as sound
	lingerMax    = time.Second            // an instance of a retired revision waits so long for a call
	patienceMax  = 200 * time.Millisecond // a call waits so long for a place that others leave, where an instance takes many
)

// Role is what a revision is to its function.
type Role string

// Roles of a revision. Any of them may be called.
const (
	Live    Role = "live"    // it takes traffic: scale.min and scale.warm count
	Named   Role = "named"   // callers can name it: it scales from zero
	Trial   Role = "trial"   // it is looked at: one instance runs, and is kept
	Retired Role = "retired" // it ends what it has
)

// State is where an instance is in its life. What is gone is in no list.
type State string

// States of an instance, in order.
const (
	Starting State = "starting"
	Ready    State = "ready"
	Draining State = "draining" // takes no new call; being stopped once inflight is 0
)

// unit is an instance as the plan sees it.
type unit struct {
	id       int64
	state    State
	inflight int
	proven   bool      // it served a call to its end, or stood for a while
	started  time.Time // when its start was asked for
	ready    time.Time
	used     time.Time // when it last became idle
	ending   bool      // Stop or Kill was given out
	yielded  bool      // it goes because others wait for its place
	held     int       // how often it is held: something lives in it that ends before it does
	told     bool      // whoever holds it knows that it is to end
}

// takes tells whether the unit takes a call that is for it alone.
func (u *unit) takes() bool {
	return u.state == Ready || u.state == Draining && u.held > 0 && !u.ending
}

// waiter is a call that waits for a place.
type waiter struct {
	id     int64
	since  time.Time
	joined bool
	unit   int64 // that it wants a place in; 0 any
}

// kinds of actions.
type kind string

const (
	doStart kind = "start"
	doStop  kind = "stop" // ask, then kill
	doKill  kind = "kill"
	doGrant kind = "grant"
	doFail  kind = "fail"
	doTell  kind = "tell" // whoever holds the unit that it is to end
)

// action is what the loop has to do. Start, stop and kill name a unit, grant and fail a waiter.
type action struct {
	kind   kind
	unit   int64
	waiter int64
	err    error
	waited time.Duration // of start: how long a call has waited for it, 0 if none does
}

// plan decides about the instances of one revision. It is values in, values out: events change it, and
// estate is what a revision takes over: whether there are instances that serve, and how many calls wait or run.
type estate struct {
	serving bool
	calls   int
}

// instances is how many fn needs for it.
func (e estate) instances(fn quipu.Function) int {
	n := (e.calls + slots(fn) - 1) / slots(fn)
	if e.serving {
		n = max(n, 1)
	}
	return n
}

// step says what to do. It is not safe for concurrent use.
type plan struct {
	fn       quipu.Function
	role     Role // "" is Live
	eager    int  // so many are wanted although nobody has called yet
	removed  bool
	stopping bool
	units    []*unit  // in order of their start
	queue    []waiter // those of joined calls, then the others, each oldest first
	bound    []waiter // those that want a place in a certain unit, oldest first
	nextUnit int64
	joined   int // joined calls that wait or run
	stepped  time.Time
	load     load // of a function whose instances take many calls at a time

	bounds  bounds // of the namespace
	crowded bool   // a call waits for others of the namespace, though there is room in an instance
	rooms   int    // for instances, that were offered

	failures int
	retryAt  time.Time
	cause    error // of the newest failure
}

// bounds is what the namespace allows. The zero bounds allow everything.
type bounds struct {
	place func(force bool) bool // a call may run
	room  func(force bool) bool // an instance may start
	press func() bool           // somebody waits for room
	yield func() bool           // an instance that is not used is wanted by others; then it has to go
}

func (b bounds) mayRun(force bool) bool   { return b.place == nil || b.place(force) }
func (b bounds) mayStart(force bool) bool { return b.room == nil || b.room(force) }

// acquire answers a unit if one is free, otherwise it queues the waiter. CodeBusy if the queue is
// full; CodeNoFunction, CodeStopping.
//
// A joined call is part of another, which may hold up the very calls that occupy all instances. So it goes
// before them, and if need be gets an instance beyond scale.max.
func (p *plan) acquire(now time.Time, id int64, joined bool) (*unit, error) {
	switch {
	case p.removed:
		return nil, noFunction(p.fn.Name)
	case p.stopping:
		return nil, &quipu.Error{Code: quipu.CodeStopping, Op: "instance.acquire"}
	}
	if len(p.queue) == 0 || joined {
		if u := p.pick(); u != nil && p.bounds.mayRun(joined) {
			u.inflight++
			p.join(joined)
			p.observe(now)
			return u, nil
		}
	}
	if most := queueMax(p.fn); len(p.queue) >= most {
		return nil, &quipu.Error{
			Code: quipu.CodeBusy, Op: "instance.acquire",
			Text: fmt.Sprintf("%d calls of function %s wait already", most, p.fn.Name),
		}
	}
	at := len(p.queue)
	if joined {
		at = p.joinedWaiting()
	}
	p.queue = slices.Insert(p.queue, at, waiter{id: id, since: now, joined: joined})
	p.join(joined)
	return nil, nil
}

func queueMax(fn quipu.Function) int {
	if n := fn.Spec.Scale.Queue; n > 0 {
		return n
	}
	return waitersMax
}

// joinedWaiting is how many waiters are of joined calls.
func (p *plan) joinedWaiting() (n int) {
	for n < len(p.queue) && p.queue[n].joined {
		n++
	}
	return n
}

func (p *plan) join(joined bool) {
	if joined {
		p.joined++
	}
}

// part says that a joined call ended, or never began.
func (p *plan) part(joined bool) {
	if joined {
		p.joined--
	}
}

func noFunction(name string) error {
	return &quipu.Error{Code: quipu.CodeNoFunction, Op: "instance.acquire", Text: fmt.Sprintf("no function %q is deployed", name)}
}

// cancel takes a waiter out of the queue; false if it was granted or failed before.
func (p *plan) cancel(id int64) bool {
	n := slices.IndexFunc(p.queue, func(w waiter) bool { return w.id == id })
	if n < 0 {
		return p.cancelBound(id)
	}
	p.part(p.queue[n].joined)
	p.queue = slices.Delete(p.queue, n, n+1)
	return true
}

// release ends a call. A call that ended well proves the instance.
func (p *plan) release(now time.Time, id int64) {
	if u := p.giveBack(now, id); u != nil && !u.ending {
		p.prove(u)
	}
}

// giveBack ends a place that may never have been used.
func (p *plan) giveBack(now time.Time, id int64) *unit {
	u := p.unit(id)
	if u == nil {
		return nil
	}
	u.inflight--
	if u.inflight < 0 {
		panic(fmt.Sprintf("instance %d of %s: released more often than acquired", id, p.fn.Name))
	}
	u.used = now
	return u
}

// condemn ends a call whose instance must not be used again.
func (p *plan) condemn(id int64) {
	if u := p.unit(id); u != nil {
		u.inflight--
		u.state = Draining
	}
}

// readied says that a unit listens.
func (p *plan) readied(now time.Time, id int64) {
	if u := p.unit(id); u != nil && u.state == Starting {
		u.state, u.ready, u.used = Ready, now, now
		p.eager = 0 // the others are under way
	}
}

// exited says that a unit is gone, for cause. If nobody asked for it, that is a failure, unless it was a
// sound instance: such a one is replaced at once.
func (p *plan) exited(now time.Time, id int64, cause error) {
	u := p.unit(id)
	if u == nil {
		return
	}
	p.units = slices.DeleteFunc(p.units, func(o *unit) bool { return o == u })
	if !u.ending && !u.proven {
		p.failed(now, cause)
	}
}

func (p *plan) failed(now time.Time, cause error) {
	pause := backoffMost
	if p.failures < 16 {
		pause = min(backoffFirst<<p.failures, backoffMost)
	}
	p.failures++
	p.retryAt, p.cause, p.eager = now.Add(pause), cause, 0
}

// prove resets the back-off.
func (p *plan) prove(u *unit) {
	u.proven = true
	p.forgive()
}

func (p *plan) forgive() { p.failures, p.retryAt, p.cause = 0, time.Time{}, nil }

// assign gives the revision a role. One that becomes live is tried again at once, whatever happened before, and with
// an estate does not wait for its first calls: another revision has served until now.
func (p *plan) assign(fn quipu.Function, role Role, e estate) {
	if role == Live && p.role != Live {
		p.forgive()
		if n := e.instances(fn); n > p.current() {
			p.eager = n
		}
	}
	if role != Live {
		p.eager = 0
	}
	p.fn, p.role = fn, role
	if role == Retired {
		p.load = load{}
	}
}

// step says what to do now, and assumes that it is done.
func (p *plan) step(now time.Time) []action {
	var todo []action
	p.stepped = now
	p.consult(now)
	todo = p.judge(now, todo)
	todo = p.grant(todo)
	todo = p.grow(now, todo)
	todo = p.refuse(now, todo)
	todo = p.shrink(now, todo)
	return p.end(p.tell(todo))
}

// judge finds starts that took too long or are for nobody, sound instances, and those of what is to end.
func (p *plan) judge(now time.Time, todo []action) []action {
	over := p.removed || p.stopping
	for _, u := range p.units {
		switch {
		case u.state == Starting && (over || p.role == Retired && len(p.queue) == 0):
			todo = append(todo, p.kill(u))
		case u.state == Starting && !now.Before(u.started.Add(startTimeout(p.fn))):
			p.failed(now, &quipu.Error{
				Code: quipu.CodeStart, Op: "instance.start",
				Text: fmt.Sprintf("function %s was not ready within its startTimeout of %v", p.fn.Name, startTimeout(p.fn)),
			})
			todo = append(todo, p.kill(u))
		case u.state == Ready && over:
			u.state = Draining
		case u.state == Ready && !u.proven && !now.Before(u.ready.Add(provenAfter)):
			p.prove(u)
		}
	}
	return todo
}

func (p *plan) kill(u *unit) action {
	u.state, u.ending = Draining, true
	return action{kind: doKill, unit: u.id}
}

// grant gives free slots to waiters, oldest first.
func (p *plan) grant(todo []action) []action {
	p.crowded = false
	todo = p.grantBound(todo)
	for len(p.queue) > 0 {
		u := p.pick()
		if u == nil {
			break
		}
		if !p.bounds.mayRun(p.queue[0].joined) {
			p.crowded = true // more instances would not help
			break
		}
		u.inflight++
		todo = append(todo, action{kind: doGrant, unit: u.id, waiter: p.queue[0].id})
		p.queue = p.queue[1:]
	}
	return todo
}

// pick fills instances up to what they should have, and spreads what is more. It prefers the busy, so that idle ones stay
// idle, and then the instance that became idle last, so that the others can age out.
func (p *plan) pick() *unit {
	var best *unit
	most := slots(p.fn)
	share := share(most)
	for _, u := range p.units {
		if u.state != Ready || u.inflight >= most {
			continue
		}
		if best == nil || better(u, best, share) {
			best = u
		}
	}
	return best
}

func better(a, b *unit, share int) bool {
	switch over := a.inflight >= share; {
	case over != (b.inflight >= share):
		return !over
	case over:
		return a.inflight < b.inflight
	case (a.inflight > 0) != (b.inflight > 0):
		return a.inflight > 0
	}
	return a.used.After(b.used)
}

// share is how many calls at a time an instance should have, of those that it can take: the scaler's target, in whole calls.
func share(slots int) int { return (slots*7 + 9) / 10 }

// grow starts what is wanted and not there, unless failures ask for a pause.
func (p *plan) grow(now time.Time, todo []action) []action {
	if p.removed || p.stopping || now.Before(p.retryAt) {
		return todo
	}
	for range p.wanted(now) - p.current() {
		if !p.mayStart() {
			break
		}
		p.nextUnit++
		u := &unit{id: p.nextUnit, state: Starting, started: now}
		p.units = append(p.units, u)
		todo = append(todo, action{kind: doStart, unit: u.id, waited: p.waited(now)})
	}
	return todo
}

// waited is for how long the oldest call has waited.
func (p *plan) waited(now time.Time) time.Duration {
	var longest time.Duration
	for _, n := range []int{0, p.joinedWaiting()} { // each of the two parts of the queue has its oldest first
		if n < len(p.queue) {
			longest = max(longest, now.Sub(p.queue[n].since))
		}
	}
	return longest
}

// mayStart uses what was offered first. An instance for a joined call never waits for others, nor does a deploy.
func (p *plan) mayStart() bool {
	if p.rooms > 0 {
		p.rooms--
		return true
	}
	return p.bounds.mayStart(p.role == Trial || p.joinedWaiting() > 0)
}

// wanted is how many instances there should be. Those that drain do not count: they take no calls, and a call must not
// wait for the end of one.
func (p *plan) wanted(now time.Time) int {
	if p.removed || p.stopping {
		return 0
	}
	scale, least, want := p.fn.Spec.Scale, 0, max(p.needed(now), p.load.wish)
	switch {
	case p.isLive():
		least, want = scale.Min, want+scale.Warm
	case p.role == Trial:
		least = 1
	}
	least = max(least, p.eager)
	return min(max(least, want), p.most())
}

// needed is how many instances the calls need that wait or run now. Where an instance takes many, a place gets free
// often, so that a waiting call counts from the end of its patience only, unless there is no instance at all.
func (p *plan) needed(now time.Time) int {
	waiting := len(p.queue) + len(p.bound)
	switch {
	case p.crowded:
		waiting = 0
	case waiting > 0 && p.isShared():
		waiting = p.overdue(now)
	}
	calls := waiting
	for _, u := range p.units {
		if u.state == Ready {
			calls += u.inflight
		}
	}
	return max((calls+slots(p.fn)-1)/slots(p.fn), min(len(p.queue), 1))
}

// most is how many instances may serve or start.
func (p *plan) most() int { return max(p.fn.Spec.Scale.Max, 1) + p.joined }

func (p *plan) isLive() bool { return p.role == Live || p.role == "" }

// startTimeout is how long a start may take; a spec without one gets the manifest's default.
func startTimeout(fn quipu.Function) time.Duration {
	if d := fn.Spec.StartTimeout.Std(); d > 0 {
		return d
	}
	return 30 * time.Second
}

func slots(fn quipu.Function) int { return max(fn.Spec.Concurrency, 1) }

// current counts the instances that serve or will.
func (p *plan) current() int {
	return p.count(func(u *unit) bool { return u.state != Draining })
}

func (p *plan) ready() int {
	return p.count(func(u *unit) bool { return u.state == Ready })
}

func (p *plan) count(match func(*unit) bool) (n int) {
	for _, u := range p.units {
		if match(u) {
			n++
		}
	}
	return n
}

// refuse fails all waiters if there is nothing they could wait for.
func (p *plan) refuse(now time.Time, todo []action) []action {
	var err error
	switch {
	case p.removed:
		err = noFunction(p.fn.Name)
	case p.stopping:
		err = &quipu.Error{Code: quipu.CodeStopping, Op: "instance.acquire"}
	case now.Before(p.retryAt) && !p.hope():
		err = p.startFailed(now)
	default:
		return todo
	}
	for _, w := range p.queue {
		todo = append(todo, action{kind: doFail, waiter: w.id, err: err})
		p.part(w.joined)
	}
	p.queue = nil
	p.observe(now)
	return todo
}

// hope tells whether some instance serves or starts.
func (p *plan) hope() bool {
	return slices.ContainsFunc(p.units, func(u *unit) bool { return u.state != Draining })
}

func (p *plan) startFailed(now time.Time) error {
	return &quipu.Error{
		Code: quipu.CodeStart, Op: "instance.acquire", Err: p.cause,
		Text: fmt.Sprintf("function %s failed to start %d times in a row; the next try is in %v", p.fn.Name, p.failures, p.retryAt.Sub(now)),
	}
}

// shrink drains what was idle for long and is not wanted, the longest idle first.
func (p *plan) shrink(now time.Time, todo []action) []action {
	for p.current() > p.wanted(now) {
		u := p.longestIdle()
		if u == nil || now.Before(p.idleEnd(u)) {
			break
		}
		u.state = Draining
	}
	p.yield(now)
	return todo
}

// yield drains an instance that waits for calls only, if another function waits for its room.
func (p *plan) yield(now time.Time) {
	if p.bounds.press == nil || !p.bounds.press() {
		return
	}
	least := p.needed(now)
	if p.isLive() {
		least = max(least, p.fn.Spec.Scale.Min)
	}
	for p.role != Trial && p.current() > least {
		u := p.longestIdle()
		if u == nil || !p.bounds.yield() {
			return
		}
		u.state, u.yielded = Draining, true
	}
}

func (p *plan) longestIdle() *unit {
	var best *unit
	for _, u := range p.units {
		if u.state == Ready && u.inflight == 0 && !p.keeps(u) && (best == nil || u.used.Before(best.used)) {
			best = u
		}
	}
	return best
}

// idleEnd is when an instance has been idle for long enough. One of a retired revision still waits a moment: calls that
// were given to it before may be on their way.
func (p *plan) idleEnd(u *unit) time.Time {
	idle := p.fn.Spec.Scale.Idle.Std()
	if p.role == Retired {
		idle = min(idle, lingerMax)
	}
	return u.used.Add(idle)
}

// end stops what drained.
func (p *plan) end(todo []action) []action {
	for _, u := range p.units {
		if u.state == Draining && u.inflight == 0 && u.held == 0 && !u.ending {
			u.ending = true
			todo = append(todo, action{kind: doStop, unit: u.id})
		}
	}
	return todo
}

// wake is when step has something to do though nothing happens; zero for never. It follows from what the last step saw.
func (p *plan) wake() time.Time {
	var at time.Time
	now := p.stepped
	soonest := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	current, wanted := p.current(), p.wanted(now)
	surplus := current > wanted
	for _, u := range p.units {
		switch {
		case u.state == Starting:
			soonest(u.started.Add(startTimeout(p.fn)))
		case u.state != Ready:
		case u.inflight == 0 && surplus && !p.keeps(u):
			soonest(p.idleEnd(u))
		}
		if u.state == Ready && !u.proven {
			soonest(u.ready.Add(provenAfter))
		}
	}
	if wanted > current {
		soonest(p.retryAt)
	}
	soonest(p.consultAt())
	soonest(p.impatientAt(now))
	return at
}

func (p *plan) unit(id int64) *unit {
	for _, u := range p.units {
		if u.id == id {
			return u
		}
	}
	return nil
}
