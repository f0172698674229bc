package taskhub

import (
	"container/list"
	"sync"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/quipu-run/quipu"
)

// app is one application with its workers and the work that none of them has.
type app struct {
	name       string
	streams    map[*stream]struct{}
	turns      list.List // of *item
	activities list.List
	news       *sync.Cond          // on the hub's mu: there may be work for a stream
	wanted     []quipu.WorkflowKey // instances to be loaded
	more       bool                // there were too many to note
}

func (h *Hub) app(name string) *app {
	a := h.apps[name]
	if a == nil {
		h.tidy()
		a = &app{name: name, streams: map[*stream]struct{}{}, news: sync.NewCond(&h.mu)}
		h.apps[name] = a
	}
	return a
}

// tidy forgets applications that have neither workers nor work, once there are many.
func (h *Hub) tidy() {
	if len(h.apps) < appsMax {
		return
	}
	for name, a := range h.apps {
		if len(a.streams)+a.turns.Len()+a.activities.Len()+len(a.wanted) == 0 && !a.more {
			delete(h.apps, name)
		}
	}
}

// stream is a worker's stream of work items.
type stream struct {
	app        *app
	id         string
	items      map[*item]struct{} // that its worker has not answered
	turns      int
	activities int
	ended      bool
	leaving    bool      // it gets no more items
	rested     bool      // it had no items when it was last looked at, and has got none since
	sending    time.Time // since when; zero if it is not
}

// item is a work item: a turn, or an activity of an instance.
type item struct {
	app   *app // whose workers do it
	live  *live
	turn  *turn // nil for an activity
	task  *task
	token string
	since time.Time
	wire  func() mem.BufferSlice // what is sent

	place  *list.Element // in the queue of its app; nil if it is not there
	stream *stream       // that has it; nil for none
	lost   int           // streams that ended with it
	dead   bool          // nobody wants it any more
}

func (i *item) queue() *list.List {
	if i.turn != nil {
		return &i.app.turns
	}
	return &i.app.activities
}

// enqueue has the item given to a stream. One that was given before goes first.
func (h *Hub) enqueue(i *item) {
	if i.lost > 0 {
		i.place = i.queue().PushFront(i)
	} else {
		i.place = i.queue().PushBack(i)
	}
	i.app.news.Signal()
	h.wake(i.app)
}

// wake has a worker come if there is none. The lock is held.
func (h *Hub) wake(a *app) {
	if len(a.streams) == 0 {
		h.o.Wake(a.name)
	}
}

// kill takes an item off, wherever it is.
func (i *item) kill() {
	i.dead = true
	if i.place != nil {
		i.queue().Remove(i.place)
		i.place = nil
	}
	i.leave()
}

// leave takes an item from its stream, which has room for another then.
func (i *item) leave() {
	s := i.stream
	if s == nil {
		return
	}
	i.stream = nil
	delete(s.items, i)
	if i.turn != nil {
		s.turns--
	} else {
		s.activities--
	}
	if s.turns == turnsMax-1 || s.activities == activitiesMax-1 {
		s.app.news.Broadcast()
	}
}

// take gives a stream its next items; none if there are none, or it has as many as it may have.
func (s *stream) take(into []*item) []*item {
	for len(into) < cap(into) && !s.leaving {
		var next *list.Element
		if s.turns < turnsMax {
			next = s.app.turns.Front()
		}
		if next == nil && s.activities < activitiesMax {
			next = s.app.activities.Front()
		}
		if next == nil {
			return into
		}
		i := next.Value.(*item)
		i.queue().Remove(next)
		i.place, i.stream = nil, s
		s.items[i] = struct{}{}
		if i.turn != nil {
			s.turns++
		} else {
			s.activities++
		}
		into = append(into, i)
	}
	return into
}

// attach adds a stream, and has what waits for it loaded.
func (h *Hub) attach(name, id string) *stream {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &stream{app: h.app(name), id: id, items: map[*item]struct{}{}}
	s.app.streams[s] = struct{}{}
	h.scan(s.app)
	close(h.came)
	h.came = make(chan struct{})
	return s
}

// detach gives the work of a stream to others.
func (h *Hub) detach(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.ended = true
	h.retire(s)
	for i := range s.items {
		i.leave()
		i.lost++
		if i.turn != nil {
			i.live.doubtful = true
		}
		if i.lost <= lostMax {
			h.enqueue(i)
			continue
		}
		time.AfterFunc(min(lostWaitMax, time.Second<<min(i.lost-lostMax, 10)), func() { h.again(i) })
	}
	s.app.news.Broadcast()
}

// retire gives a stream no more items. The lock is held.
func (h *Hub) retire(s *stream) {
	s.leaving = true
	delete(s.app.streams, s)
	if s.app.turns.Len()+s.app.activities.Len() > 0 {
		s.app.news.Broadcast() // what it was told of is others' to do
		h.wake(s.app)
	}
}

// again queues an item whose streams ended again and again.
func (h *Hub) again(i *item) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !i.dead && i.place == nil && i.stream == nil {
		i.app = h.app(i.app.name)
		h.enqueue(i)
	}
}

// next waits for items for a stream; none says that it has ended.
func (h *Hub) next(s *stream, into []*item) []*item {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.sending = time.Time{}
	for {
		if s.ended || h.ctx.Err() != nil {
			return nil
		}
		if into = s.take(into[:0]); len(into) > 0 {
			s.rested = false
			s.sending = h.o.Clock.Now()
			return into
		}
		s.app.news.Wait()
	}
}
