package trigger

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/delivery"
)

// plan decides which events of one subscription are delivered when, in which company, and what becomes of them. It
// is pure: it knows the time only as an argument and does nothing itself.
//
// An event is fresh, held back behind an earlier one of its key, in a group that waits for another attempt, flying in
// a call, giving up (on its way to the dead letters), or done. What is known here is a window: everything up to the
// floor is done or parked durably, what is above loaded has not been read yet.
type plan struct {
	o      planOptions
	items  map[uint64]*item    // outstanding: loaded and not done
	keys   map[string][]uint64 // of the outstanding items with a key, ascending
	fresh  offsets             // neither tried nor held back
	held   map[string][]*item  // fresh ones whose key has an earlier one outstanding
	retry  groups              // by due time
	done   map[uint64]bool     // above the floor
	floor  uint64
	loaded uint64
	bytes  int // of the outstanding events
	calls  int
	pace   delivery.Pace // of an adaptive subscription
	places int           // for calls, that consumers have
	expiry uint64        // up to this offset the topic keeps nothing any more
	stalls int
	pause  time.Time // before it nothing is delivered
}

type planOptions struct {
	name     string // of the subscription, which events may be meant for alone
	batch    int
	calls    int  // at once
	adaptive bool // fewer calls at once while they lose to each other
	retry    quipu.RetrySpec
	key      func(quipu.Event) string // "" or nil: no order
	keepDead bool                     // there is a dead-letter topic for what is dropped or expires by itself
}

// item is one outstanding event.
type item struct {
	event    quipu.Event
	key      string
	attempts int
	alone    int
	flying   bool
	parked   bool // durably; it does not hold the floor
	carrying bool // it is being parked as it is
	settling bool // what makes it done is on its way
}

// group is what goes together in one call.
type group struct {
	items []*item
	due   time.Time
	floor uint64 // that its settlement raises the view's to; 0 if it does not
}

// attempt is the number of the call that a group makes, from 1.
func (g *group) attempt() int {
	most := 0
	for _, it := range g.items {
		most = max(most, it.attempts)
	}
	return most + 1
}

// end is an event that left the plan by not being delivered.
type end struct {
	item  *item
	cause string
	keep  bool // as a dead letter
}

// Bounds of a call, and of what is known at once: outstanding and done events, and bytes of the outstanding.
const (
	batchBytesMax  = 4 << 20 // of one call; an event alone may have what the topic takes
	windowMax      = 10_000
	windowBytesMax = 32 << 20
)

// Causes of dead letters that no attempt failed with.
const (
	causeExpired = "expired"
	causeDropped = "dropped"
)

func newPlan(o planOptions, s delivery.State) *plan {
	p := &plan{o: o, items: map[uint64]*item{}, keys: map[string][]uint64{}, held: map[string][]*item{}, done: map[uint64]bool{},
		floor: s.Floor, loaded: s.Floor}
	for _, offset := range s.Done {
		p.done[offset] = true
	}
	return p
}

// room is how many more events may be loaded.
func (p *plan) room() int {
	if p.bytes >= windowBytesMax {
		return 0
	}
	return windowMax - len(p.items) - len(p.done)
}

// park takes an event up that was tried before the start.
func (p *plan) park(e quipu.Event, was delivery.Parked) {
	it := p.add(e)
	it.attempts, it.alone, it.parked = was.Attempts, was.Alone, true
	heap.Push(&p.retry, &group{items: []*item{it}, due: was.Due})
}

// load takes up the next events of the topic, in order; parked ones must come before.
func (p *plan) load(events []quipu.Event) {
	for _, e := range events {
		p.loaded = max(p.loaded, e.Offset)
		if p.done[e.Offset] || p.items[e.Offset] != nil {
			continue
		}
		if e.Only != "" && e.Only != p.o.name {
			p.done[e.Offset] = true // after a redrive, for another subscription
			continue
		}
		heap.Push(&p.fresh, p.add(e))
	}
	p.rise()
}

func (p *plan) add(e quipu.Event) *item {
	it := &item{event: e}
	p.items[e.Offset] = it
	p.bytes += len(e.Data)
	if p.o.key == nil {
		return it
	}
	if it.key = p.o.key(e); it.key != "" {
		list := p.keys[it.key]
		i, _ := slices.BinarySearch(list, e.Offset)
		p.keys[it.key] = slices.Insert(list, i, e.Offset)
	}
	return it
}

// setPlaces says how many more calls consumers take.
func (p *plan) setPlaces(calls int) { p.places = calls }

// next answers the group to call for now, nil if there is none, and the events found to be at their end.
func (p *plan) next(now time.Time) (g *group, ends []end) {
	ends = p.expired(now)
	if p.calls >= p.limit() || p.places <= 0 || now.Before(p.pause) {
		return nil, ends
	}
	if g = p.dueGroup(now); g == nil {
		g = p.freshGroup(now, &ends)
	}
	if g == nil {
		return nil, ends
	}
	for _, it := range g.items {
		it.flying = true
	}
	p.calls++
	return g, ends
}

// dueGroup is the first group whose time has come and whose keys are free.
func (p *plan) dueGroup(now time.Time) *group {
	var blocked []*group
	defer func() {
		for _, g := range blocked {
			heap.Push(&p.retry, g)
		}
	}()
	for len(p.retry) > 0 && !p.retry[0].due.After(now) {
		g := heap.Pop(&p.retry).(*group)
		if p.isFree(g.items) {
			return g
		}
		blocked = append(blocked, g)
	}
	return nil
}

// isFree tells whether no earlier event of the items' keys is outstanding elsewhere.
func (p *plan) isFree(items []*item) bool {
	taken := map[string]int{}
	for _, it := range items {
		if it.key == "" {
			continue
		}
		if p.keys[it.key][taken[it.key]] != it.event.Offset {
			return false
		}
		taken[it.key]++
	}
	return true
}

// freshGroup takes up to a batch of fresh events in order, leaving out those that must wait for their key.
func (p *plan) freshGroup(now time.Time, ends *[]end) *group {
	g := &group{}
	taken, bytes := map[string]int{}, 0
	for len(p.fresh) > 0 && len(g.items) < p.o.batch {
		it := p.fresh[0]
		if bytes += len(it.event.Data); bytes > batchBytesMax && len(g.items) > 0 {
			break
		}
		heap.Pop(&p.fresh)
		if p.isOver(it, now) {
			*ends = append(*ends, p.expire(it))
			continue
		}
		if it.key != "" {
			if p.keys[it.key][taken[it.key]] != it.event.Offset {
				p.held[it.key] = append(p.held[it.key], it)
				continue
			}
			taken[it.key]++
		}
		g.items = append(g.items, it)
	}
	if len(g.items) == 0 {
		return nil
	}
	return g
}

func (p *plan) isOver(it *item, now time.Time) bool {
	return it.event.Offset <= p.expiry || !it.event.Expires.IsZero() && !now.Before(it.event.Expires)
}

// expire gives an event up because of its age. What the topic no longer keeps becomes a dead letter; what its
// publisher gave a time to live only where dead letters were asked for.
func (p *plan) expire(it *item) end {
	it.flying, it.settling = true, true // until it is durable
	return end{it, causeExpired, it.event.Offset <= p.expiry || p.o.keepDead}
}

// expired takes out what waits although the topic no longer keeps it.
func (p *plan) expired(now time.Time) (ends []end) {
	if p.floor >= p.expiry && !slices.ContainsFunc(p.retry, func(g *group) bool { return p.overIn(g, now) }) {
		return nil
	}
	for _, g := range slices.Clone(p.retry) {
		if !p.overIn(g, now) {
			continue
		}
		p.retry = slices.DeleteFunc(p.retry, func(x *group) bool { return x == g })
		rest := &group{due: g.due}
		for _, it := range g.items {
			if p.isOver(it, now) {
				ends = append(ends, p.expire(it))
			} else {
				rest.items = append(rest.items, it)
			}
		}
		if len(rest.items) > 0 {
			p.retry = append(p.retry, rest)
		}
	}
	heap.Init(&p.retry)
	for len(p.fresh) > 0 && p.fresh[0].event.Offset <= p.expiry {
		ends = append(ends, p.expire(heap.Pop(&p.fresh).(*item)))
	}
	for key, list := range p.held {
		p.held[key] = slices.DeleteFunc(list, func(it *item) bool {
			over := it.event.Offset <= p.expiry
			if over {
				ends = append(ends, p.expire(it))
			}
			return over
		})
	}
	return ends
}

func (p *plan) overIn(g *group, now time.Time) bool {
	return slices.ContainsFunc(g.items, func(it *item) bool { return p.isOver(it, now) })
}

// wake is when next may answer more without anything happening before; zero for never.
func (p *plan) wake() time.Time {
	if len(p.retry) == 0 {
		if len(p.fresh) > 0 {
			return p.pause
		}
		return time.Time{}
	}
	return later(p.retry[0].due, p.pause)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// limit is how many calls are made at once.
func (p *plan) limit() int {
	if p.o.adaptive {
		return min(p.pace.Limit(), p.o.calls)
	}
	return p.o.calls
}

// returned notes that a call is over; lost is how often it lost to others before it committed.
func (p *plan) returned(lost int) {
	p.calls--
	if p.o.adaptive {
		p.pace.Returned(lost, p.o.calls)
	}
}

// settled forgets events that are done, durably. Their keys are free.
func (p *plan) settled(items []*item) {
	p.stalls = 0
	for _, it := range items {
		offset := it.event.Offset
		if p.items[offset] != it {
			continue
		}
		delete(p.items, offset)
		p.bytes -= len(it.event.Data)
		if offset > p.floor { // a parked one too: it may be done before it comes up among those that are read
			p.done[offset] = true
		}
		if it.key == "" {
			continue
		}
		list := p.keys[it.key]
		if i, found := slices.BinarySearch(list, offset); found {
			list = slices.Delete(list, i, i+1)
		}
		if len(list) == 0 {
			delete(p.keys, it.key)
		} else {
			p.keys[it.key] = list
		}
		for _, waiting := range p.held[it.key] {
			heap.Push(&p.fresh, waiting)
		}
		delete(p.held, it.key)
	}
	p.rise()
}

// rise moves the floor up over what is done or parked.
func (p *plan) rise() {
	for next := p.floorWith(nil); p.floor < next; {
		p.floor++
		delete(p.done, p.floor)
	}
}

// floorWith is where the floor would be if some more events, that are outstanding now, were done or parked.
func (p *plan) floorWith(more map[uint64]bool) uint64 {
	floor := p.floor
	for floor < p.loaded {
		if it := p.items[floor+1]; it != nil && !it.parked && !more[floor+1] {
			break
		}
		floor++
	}
	return floor
}

// setback is what follows a failure. Nothing of it is delivered again before it is durable: an event that was done
// meanwhile could otherwise be parked afterwards.
type setback struct {
	parked []delivery.Parked
	groups []*group // that wait for their time from then on
	ends   []end
}

// failed plans what follows a call that went wrong as a whole: a batch is halved, an event alone waits longer each
// time and is at its end when it has used its retries alone.
func (p *plan) failed(g *group, cause string, now time.Time) (s setback) {
	if len(g.items) == 1 {
		return p.failedAlone(g.items[0], cause, now)
	}
	half := (len(g.items) + 1) / 2
	for _, items := range [][]*item{g.items[:half], g.items[half:]} {
		again := &group{items: items, due: now.Add(p.o.retry.Backoff.Std())}
		for _, it := range items {
			it.attempts++
			s.parked = append(s.parked, p.parkedEntry(it, again.due, cause))
		}
		s.groups = append(s.groups, again)
	}
	return s
}

// failedAlone is failed for one event, be it that it was alone or that its consumer told events apart.
func (p *plan) failedAlone(it *item, cause string, now time.Time) (s setback) {
	it.attempts++
	it.alone++
	if it.alone > p.o.retry.Max || p.isOver(it, now) { // attempts in company were perhaps its neighbours' fault
		it.settling = true
		s.ends = []end{{it, cause, true}}
		return s
	}
	g := &group{items: []*item{it}, due: now.Add(delivery.Backoff(p.o.retry.Backoff.Std(), it.alone))}
	s.groups, s.parked = []*group{g}, []delivery.Parked{p.parkedEntry(it, g.due, cause)}
	return s
}

func (p *plan) parkedEntry(it *item, due time.Time, cause string) delivery.Parked {
	return delivery.Parked{Offset: it.event.Offset, Attempts: it.attempts, Alone: it.alone, Due: due, Cause: cause}
}

// again has a group wait for its time.
func (p *plan) again(g *group) {
	for _, it := range g.items {
		it.flying, it.settling = false, false
	}
	heap.Push(&p.retry, g)
}

// stalled takes back a group whose call did not reach the function, which is no attempt. The whole subscription
// waits, longer each time.
func (p *plan) stalled(g *group, now time.Time) {
	p.stalls++
	p.pause = now.Add(delivery.Backoff(quipu.BackoffDefault, p.stalls))
	g.due = p.pause
	p.again(g)
}

// parkedDurably notes that events are parked in the view, so that groups may be delivered when they are due.
func (p *plan) parkedDurably(parked []delivery.Parked, groups []*group) {
	for _, entry := range parked {
		if it := p.items[entry.Offset]; it != nil {
			it.parked, it.carrying = true, false
		}
	}
	for _, g := range groups {
		p.again(g)
	}
	p.rise()
}

// carry lists the events that hold the floor although much above it is done: they are to be parked as they are, but
// for those whose end is on its way.
func (p *plan) carry(now time.Time) (parked []delivery.Parked) {
	if len(p.done) < windowMax/2 {
		return nil
	}
	for _, it := range p.items {
		if !it.parked && !it.settling && !it.carrying && it.event.Offset < p.floor+windowMax/2 {
			it.carrying = true
			parked = append(parked, p.parkedEntry(it, now, ""))
		}
	}
	slices.SortFunc(parked, func(a, b delivery.Parked) int { return cmp.Compare(a.Offset, b.Offset) })
	return parked
}

// notCarried takes back what carry has said, when it cannot be made durable.
func (p *plan) notCarried() {
	for _, it := range p.items {
		it.carrying = false
	}
}

// needed is the lowest offset that is still to be delivered; one above the loaded if none is known.
func (p *plan) needed() uint64 {
	lowest := p.loaded + 1
	for offset := range p.items {
		lowest = min(lowest, offset)
	}
	return lowest
}

// retrying counts the events that were tried without success.
func (p *plan) retrying() (n int) {
	for _, g := range p.retry {
		n += len(g.items)
	}
	return n
}

// offsets are items by offset.
type offsets []*item

func (h offsets) Len() int           { return len(h) }
func (h offsets) Less(i, j int) bool { return h[i].event.Offset < h[j].event.Offset }
func (h offsets) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *offsets) Push(x any)        { *h = append(*h, x.(*item)) }
func (h *offsets) Pop() any          { return pop((*[]*item)(h)) }

// groups are by due time, then by the first offset.
type groups []*group

func (h groups) Len() int { return len(h) }
func (h groups) Less(i, j int) bool {
	if !h[i].due.Equal(h[j].due) {
		return h[i].due.Before(h[j].due)
	}
	return h[i].items[0].event.Offset < h[j].items[0].event.Offset
}
func (h groups) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *groups) Push(x any)   { *h = append(*h, x.(*group)) }
func (h *groups) Pop() any     { return pop((*[]*group)(h)) }

func pop[T any](list *[]T) T {
	old := *list
	last := old[len(old)-1]
	*list = old[:len(old)-1]
	return last
}
