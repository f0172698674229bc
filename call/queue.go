package call

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/delivery"
)

// queue decides which calls that wait are tried when. It is pure: it knows the time only as an argument and does nothing
// itself.
//
// It follows the view: a call is in it from the record that accepted it until the record that ended it. One that is on
// its way (an attempt, or its end) is in no heap; it comes back by park, retry or stalled. One of a function that is gone
// for good is handed out to be ended.
type queue struct {
	lanes map[string]*lane // by function; none that is empty
	calls map[string]*waiting
	n     uint64 // calls ever added
}

// lane is the calls of one function.
type lane struct {
	ready    byDue
	expiring byAge
	size     int // calls that have not ended
	reserved int // calls on their way into the log
	running  int
	pace     delivery.Pace
	stalls   int
	pause    time.Time // before it nothing is tried
}

// waiting is one call in the queue.
type waiting struct {
	id, function string
	revision     string // that the call is bound to; "" for none
	n            uint64 // calls are tried in this order, but for those that failed before
	due, expires time.Time
	inReady      int // place there; -1 for none
	inExpiring   int
	busy         bool     // an attempt, or its end, is on its way
	attempt      *attempt // that runs
	ended        bool
	stays        bool  // its function may come back
	why          error // the last attempt did not reach the function
}

// attempt is one attempt of a call; cut ends it.
type attempt struct{ cut func() }

// room is how a function takes calls now.
type room struct {
	calls    int  // at once
	adaptive bool // fewer, while they lose to each other
	gone     bool // there is no such function
}

func newQueue() *queue { return &queue{lanes: map[string]*lane{}, calls: map[string]*waiting{}} }

func newWaiting(p *pending) *waiting {
	return &waiting{id: p.Info.ID, function: p.Info.Function, revision: p.Revision, due: p.due(), expires: p.Info.Expires, inReady: -1, inExpiring: -1,
		stays: p.Info.Revision == quipu.RevisionAttached}
}

func (q *queue) lane(function string) *lane {
	l := q.lanes[function]
	if l == nil {
		l = &lane{}
		q.lanes[function] = l
	}
	return l
}

// tidy forgets a lane with nothing in it.
func (q *queue) tidy(function string) {
	if l := q.lanes[function]; l != nil && l.size == 0 && l.reserved == 0 && l.running == 0 {
		delete(q.lanes, function)
	}
}

// reserve makes sure of a place for a call that is on its way into the log. CodeCallQueue.
func (q *queue) reserve(function string, most int) error {
	l := q.lane(function)
	if l.size+l.reserved >= most {
		q.tidy(function)
		return &quipu.Error{Code: quipu.CodeCallQueue, Op: "call.async",
			Text: fmt.Sprintf("%d calls of function %s wait or run, which is the most", most, function), Hint: quipu.Codes[quipu.CodeCallQueue].Next}
	}
	l.reserved++
	return nil
}

// unreserve ends a reservation: the call is in the queue now, or will never be.
func (q *queue) unreserve(function string) {
	q.lane(function).reserved--
	q.tidy(function)
}

// add takes in a call; one that is there already stays as it is.
func (q *queue) add(w *waiting) {
	if q.calls[w.id] != nil {
		return
	}
	q.n++
	w.n = q.n
	q.calls[w.id] = w
	l := q.lane(w.function)
	l.size++
	heap.Push(&l.ready, w)
	heap.Push(&l.expiring, w)
}

// park has a call wait for its next attempt, as its record says.
func (q *queue) park(t tried) {
	if w := q.calls[t.ID]; w != nil {
		w.due = t.Due
		q.retry(w)
	}
}

// retry has a call that was on its way wait again.
func (q *queue) retry(w *waiting) {
	if w.ended {
		return
	}
	w.busy = false
	if l := q.lanes[w.function]; w.inReady >= 0 {
		heap.Fix(&l.ready, w.inReady)
	} else {
		heap.Push(&l.ready, w)
	}
}

// remove takes a call off that has ended, and cuts its attempt.
func (q *queue) remove(id string) {
	w := q.calls[id]
	if w == nil {
		return
	}
	delete(q.calls, id)
	w.ended = true
	l := q.lanes[w.function]
	l.size--
	if w.inReady >= 0 {
		heap.Remove(&l.ready, w.inReady)
	}
	if w.inExpiring >= 0 {
		heap.Remove(&l.expiring, w.inExpiring)
	}
	if w.attempt != nil {
		w.attempt.cut()
	}
	q.tidy(w.function)
}

// over lists calls of a function that are to end without another attempt: too old, or all of them if there is no such
// function any more. They are on their way then.
func (q *queue) over(function string, r room, now time.Time, most int) (expired, gone []*waiting) {
	l := q.lanes[function]
	if l == nil {
		return nil, nil
	}
	for len(l.expiring) > 0 && len(expired) < most && !l.expiring[0].expires.After(now) {
		w := heap.Pop(&l.expiring).(*waiting)
		if w.busy { // its age is looked at when it fails
			continue
		}
		l.take(w)
		expired = append(expired, w)
	}
	for i := 0; r.gone && i < len(l.ready) && len(gone) < most; {
		w := l.ready[i]
		if w.stays {
			i++
			continue
		}
		l.take(w)
		gone = append(gone, w)
	}
	return expired, gone
}

func (l *lane) take(w *waiting) {
	w.busy = true
	heap.Remove(&l.ready, w.inReady)
}

// next is the call of a function to try now; nil if none is to be.
func (q *queue) next(function string, r room, now time.Time) *waiting {
	l := q.lanes[function]
	if l == nil || r.gone || l.running >= l.limit(r) || len(l.ready) == 0 || now.Before(l.pause) {
		return nil
	}
	w := l.ready[0]
	if w.due.After(now) {
		return nil
	}
	l.take(w)
	w.attempt = &attempt{cut: func() {}}
	l.running++
	return w
}

func (l *lane) limit(r room) int {
	if r.adaptive {
		return min(l.pace.Limit(), r.calls)
	}
	return r.calls
}

// returned notes that an attempt is over, which lost so often to other commits, and that what came of it is durable.
func (q *queue) returned(w *waiting, a *attempt, r room, lost int) {
	l := q.lanes[w.function]
	l.running--
	if w.attempt == a { // not the next one already
		w.attempt = nil
	}
	if r.adaptive {
		l.pace.Returned(lost, r.calls)
	}
	q.tidy(w.function)
}

// stalled takes back a call whose attempt did not reach the function. All of its calls wait, longer each time.
func (q *queue) stalled(w *waiting, now time.Time) {
	l := q.lanes[w.function]
	if l == nil {
		return
	}
	l.stalls++
	l.pause = now.Add(delivery.Backoff(quipu.BackoffDefault, l.stalls))
	if w.ended {
		return
	}
	if w.inExpiring < 0 { // it was passed over while it was busy
		heap.Push(&l.expiring, w)
	}
	q.retry(w)
}

// reached notes that an attempt got as far as the function.
func (q *queue) reached(function string) {
	if l := q.lanes[function]; l != nil {
		l.stalls = 0
	}
}

// wake is when a function's calls have something to do by themselves, looking from now; zero for never. What waits for
// room only is woken by who makes it.
func (q *queue) wake(function string, r room, now time.Time) (at time.Time) {
	l := q.lanes[function]
	if l == nil {
		return at
	}
	if len(l.expiring) > 0 {
		at = l.expiring[0].expires
	}
	if len(l.ready) == 0 || r.gone || l.running >= l.limit(r) {
		return at
	}
	due := l.ready[0].due
	if due.Before(l.pause) {
		due = l.pause
	}
	if due.After(now) && (at.IsZero() || due.Before(at)) {
		at = due
	}
	return at
}

// newest lists calls, of one function unless it is "", the newest first.
func (q *queue) newest(function string, limit int) (ids []string) {
	var found []*waiting
	for _, w := range q.calls {
		if function == "" || w.function == function {
			found = append(found, w)
		}
	}
	slices.SortFunc(found, func(a, b *waiting) int { return cmp.Compare(b.n, a.n) })
	for _, w := range found[:min(limit, len(found))] {
		ids = append(ids, w.id)
	}
	return ids
}

// byDue are calls by the time of their next attempt, then by arrival.
type byDue []*waiting

func (h byDue) Len() int { return len(h) }
func (h byDue) Less(i, j int) bool {
	if !h[i].due.Equal(h[j].due) {
		return h[i].due.Before(h[j].due)
	}
	return h[i].n < h[j].n
}

func (h byDue) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].inReady, h[j].inReady = i, j
}

func (h *byDue) Push(x any) {
	x.(*waiting).inReady = len(*h)
	*h = append(*h, x.(*waiting))
}

func (h *byDue) Pop() any {
	w := cutLast((*[]*waiting)(h))
	w.inReady = -1
	return w
}

// byAge are calls by the time after which they are not tried any more.
type byAge []*waiting

func (h byAge) Len() int           { return len(h) }
func (h byAge) Less(i, j int) bool { return h[i].expires.Before(h[j].expires) }
func (h byAge) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].inExpiring, h[j].inExpiring = i, j
}

func (h *byAge) Push(x any) {
	x.(*waiting).inExpiring = len(*h)
	*h = append(*h, x.(*waiting))
}

func (h *byAge) Pop() any {
	w := cutLast((*[]*waiting)(h))
	w.inExpiring = -1
	return w
}

func cutLast(list *[]*waiting) *waiting {
	last := (*list)[len(*list)-1]
	(*list)[len(*list)-1] = nil // it is not to be kept
	*list = (*list)[:len(*list)-1]
	return last
}
