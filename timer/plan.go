package timer

import (
	"cmp"
	"container/heap"
	"math"
	"slices"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/delivery"
	"github.com/quipu-run/quipu/internal/timers"
)

// Bounds of what is in memory and on its way.
const (
	flightsMax     = 1024 // besides one of each lane
	laneFlightsMax = 64
	pageMax        = 128 // timers that are read at once
	itemsMax       = 512 // of a lane; when there are more, the latest are left to the disk
	backoffFirst   = 200 * time.Millisecond
)

// plan decides which timers are handled when. It is pure: it knows the time only as an argument and does nothing itself.
//
// It follows the view by its news. Of each lane it knows all timers up to a place, and none after it: those are read when the
// ones before are handled.
type plan struct {
	lanes   map[laneKey]*lane
	soonest byWake
	flights int
	listed  bool // all lanes of the disk are known
}

type laneKey struct{ kind, owner string }

// place is where a timer stands in its lane.
type place struct {
	due int64
	id  string
}

// everything is after all places.
var everything = place{due: math.MaxInt64}

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.due, q.due), cmp.Compare(p.id, q.id))
}

// lane is the timers of one kind and owner.
type lane struct {
	laneKey
	items   map[string]*item // by id
	ready   byTime           // those of items that are not on their way
	fresh   int              // those of ready that are not held back
	known   place            // up to it all that is on disk is in items
	flights int
	reading bool
	late    []news // while reading: they may be before or after what is read
	inHeap  int    // place in soonest; -1 for none
}

// item is a timer in memory.
type item struct {
	place
	seq     quipu.Seq
	after   int64 // it is held back until then, because it failed
	tries   int
	flying  bool
	changed bool // since it flies
	heard   bool // since it flies, something happened to it that is among late
	gone    bool
	inReady int
}

// time is when the item may be handled.
func (i *item) time() int64 { return max(i.due, i.after) }

func newPlan() *plan { return &plan{lanes: map[laneKey]*lane{}} }

// lane finds a lane, or makes one. When those of the disk are listed, another one has nothing there.
func (p *plan) lane(k laneKey) *lane {
	l := p.lanes[k]
	if l == nil {
		l = &lane{laneKey: k, items: map[string]*item{}, inHeap: -1}
		if p.listed {
			l.known = everything
		}
		p.lanes[k] = l
	}
	return l
}

// add makes sure that a lane of the disk is known.
func (p *plan) add(k laneKey) { p.settle(p.lane(k)) }

// hear takes in what a record did to a timer.
func (p *plan) hear(n news) {
	l := p.lane(laneKey{n.key.Kind, n.key.Owner})
	if l.reading {
		l.late = append(l.late, n)
		if i := l.items[n.key.ID]; i != nil {
			i.heard = true
		}
	} else {
		l.hear(n)
	}
	p.settle(l)
}

func (l *lane) hear(n news) {
	i := l.items[n.key.ID]
	at := place{n.due, n.key.ID}
	switch {
	case i != nil && i.place == at && i.seq == n.seq:
		i.gone = false // it was read before it was heard of, and older news may have taken it off
	case n.due == 0 || at.compare(l.known) > 0:
		l.forget(i)
	case i == nil:
		l.put(&item{place: at, seq: n.seq})
	case i.flying:
		i.place, i.seq, i.changed, i.gone = at, n.seq, true, false
	default:
		l.take(i)
		l.put(&item{place: at, seq: n.seq})
	}
}

// forget takes an item off that is gone, or is left to the disk; nil is none. One on its way is forgotten when that is over.
func (l *lane) forget(i *item) {
	switch {
	case i == nil:
	case i.flying:
		i.gone = true
	default:
		l.take(i)
		delete(l.items, i.id)
	}
}

// put has an item wait for its time.
func (l *lane) put(i *item) {
	l.items[i.id] = i
	heap.Push(&l.ready, i)
	if i.after == 0 {
		l.fresh++
	}
	if len(l.items) > 2*itemsMax { // not while it is read: nothing is added then
		l.shed()
	}
}

// take takes an item off those that wait.
func (l *lane) take(i *item) {
	heap.Remove(&l.ready, i.inReady)
	if i.after == 0 {
		l.fresh--
	}
}

// shed leaves the latest items to the disk, except those that failed: they are not to be tried again early.
func (l *lane) shed() {
	var fresh []*item
	for _, i := range l.ready {
		if i.after == 0 {
			fresh = append(fresh, i)
		}
	}
	slices.SortFunc(fresh, func(a, b *item) int { return a.compare(b.place) })
	keep := min(len(fresh), max(0, itemsMax-(len(l.items)-len(fresh))))
	if keep == len(fresh) {
		return
	}
	for _, i := range fresh[keep:] {
		l.forget(i)
	}
	l.known = place{due: fresh[0].due - 1}
	if keep > 0 {
		l.known = fresh[keep-1].place
	}
}

// page is what was read of a lane: its timers after a place, up to another.
type page struct {
	timers []news
	to     place // everything if there are no more
}

// wantsPage tells whether a lane has nothing to wait for any more but what is on disk.
func (l *lane) wantsPage() bool {
	return !l.reading && l.known != everything && l.fresh == 0 && len(l.items) <= itemsMax
}

// read takes in a page, and what was heard while it was read.
func (p *plan) read(l *lane, pg page, err error) {
	l.reading = false
	if err == nil {
		l.known = pg.to
		for _, n := range pg.timers {
			l.hear(n)
		}
	}
	for _, n := range l.late {
		l.hear(n)
	}
	l.late = nil
	p.settle(l)
}

// hasten has timers of a lane that failed handled again without waiting any longer.
func (p *plan) hasten(k laneKey) {
	l := p.lanes[k]
	if l == nil {
		return
	}
	for _, i := range slices.Clone(l.ready) {
		if i.after > 0 {
			l.take(i)
			i.after, i.tries = 0, 0
			l.put(i)
		}
	}
	p.settle(l)
}

// limit is how many of a lane may be on their way: the less there is left of flightsMax, the fewer, but always one. So each lane goes
// on, whatever others do, and there are never more on their way than flightsMax and the lanes.
func (p *plan) limit() int { return min(laneFlightsMax, max(1, (flightsMax-p.flights)/4)) }

// wake is when a lane has something to do; ok is false if that is not up to time.
func (l *lane) wake() (at int64, ok bool) {
	switch {
	case l.wantsPage():
		return 0, true
	case len(l.ready) > 0:
		return l.ready[0].time(), true
	}
	return 0, false
}

// settle puts a lane where it belongs among the others, or forgets it if it is empty.
func (p *plan) settle(l *lane) {
	_, wakes := l.wake()
	if l.inHeap >= 0 {
		heap.Remove(&p.soonest, l.inHeap)
	}
	switch {
	case len(l.items) == 0 && !l.reading && l.known == everything:
		delete(p.lanes, l.laneKey)
	case wakes && (l.wantsPage() || l.flights < p.limit()):
		heap.Push(&p.soonest, l)
	}
}

// flight is a timer on its way to its handler.
type flight struct {
	lane *lane
	item *item
	key  timers.Key
	seq  quipu.Seq
}

// reading is a lane to read, from what follows a place on.
type reading struct {
	lane  *lane
	after place
}

// step says what is to be done now: lanes to read, timers to handle, and when to look again; 0 for never.
func (p *plan) step(now int64) (reads []reading, flights []flight, next int64) {
	for len(p.soonest) > 0 {
		l := p.soonest[0]
		at, _ := l.wake()
		switch {
		case l.wantsPage():
			l.reading = true
			reads = append(reads, reading{l, l.known})
		case at > now:
			return reads, flights, at
		case l.flights < p.limit():
			flights = append(flights, p.start(l))
		}
		p.settle(l)
	}
	return reads, flights, 0
}

// start puts the first item of a lane on its way.
func (p *plan) start(l *lane) flight {
	i := l.ready[0]
	l.take(i)
	i.flying, i.changed, i.heard = true, false, false
	l.flights++
	p.flights++
	return flight{l, i, timers.Key{Kind: l.kind, Owner: l.owner, ID: i.id}, i.seq}
}

// returned notes that a handler is over, and tells whether it, or somebody else, has changed the timer. If not, it is handled again
// after a back-off.
func (p *plan) returned(f flight, now int64) (changed bool) {
	l, i := f.lane, f.item
	l.flights--
	p.flights--
	i.flying = false
	switch {
	case i.gone:
		delete(l.items, i.id)
	case i.changed && i.compare(l.known) > 0: // it was set to a time that is not known yet
		delete(l.items, i.id)
	case i.changed:
		i.tries, i.after = 0, 0
		l.put(i)
	default:
		i.tries++
		i.after = now + int64(delivery.Backoff(backoffFirst, i.tries))
		l.put(i)
	}
	p.settle(l)
	return i.gone || i.changed || i.heard
}

// byTime are items by when they may be handled.
type byTime []*item

func (h byTime) Len() int { return len(h) }
func (h byTime) Less(i, j int) bool {
	a, b := h[i], h[j]
	return cmp.Or(cmp.Compare(a.time(), b.time()), cmp.Compare(a.id, b.id)) < 0
}
func (h byTime) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].inReady, h[j].inReady = i, j
}

// Push implements heap.Interface.
func (h *byTime) Push(x any) {
	x.(*item).inReady = len(*h)
	*h = append(*h, x.(*item))
}

// Pop implements heap.Interface.
func (h *byTime) Pop() any { return cutLast((*[]*item)(h)) }

// byWake are lanes by when they have something to do.
type byWake []*lane

func (h byWake) Len() int { return len(h) }
func (h byWake) Less(i, j int) bool {
	a, _ := h[i].wake()
	b, _ := h[j].wake()
	return a < b
}
func (h byWake) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].inHeap, h[j].inHeap = i, j
}

// Push implements heap.Interface.
func (h *byWake) Push(x any) {
	x.(*lane).inHeap = len(*h)
	*h = append(*h, x.(*lane))
}

// Pop implements heap.Interface.
func (h *byWake) Pop() any {
	l := cutLast((*[]*lane)(h))
	l.inHeap = -1
	return l
}

func cutLast[T any](list *[]*T) *T {
	last := (*list)[len(*list)-1]
	(*list)[len(*list)-1] = nil // it is not to be kept
	*list = (*list)[:len(*list)-1]
	return last
}
