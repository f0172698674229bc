package actor

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
)

// agenda calls what is due, in one goroutine: due must not wait.
type agenda struct {
	clock quipu.Clock
	wake  chan struct{} // capacity 1: something is due earlier than was known

	mu    sync.Mutex
	items items
}

// item is something to be done at a time. Its fields are the agenda's.
type item struct {
	at    time.Time
	index int // in the heap, from 1; 0 means that it is in none
	due   func()
}

func newAgenda(clock quipu.Clock) *agenda { return &agenda{clock: clock, wake: make(chan struct{}, 1)} }

// set puts an item on the agenda, or moves it.
func (a *agenda) set(i *item, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i.at = at
	if i.index == 0 {
		heap.Push(&a.items, i)
	} else {
		heap.Fix(&a.items, i.index-1)
	}
	if i.index == 1 {
		select {
		case a.wake <- struct{}{}:
		default:
		}
	}
}

// drop takes an item away, if it is there.
func (a *agenda) drop(i *item) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if i.index != 0 {
		heap.Remove(&a.items, i.index-1)
	}
}

// next takes what is due now, or tells for how long nothing is; 0 for ever.
func (a *agenda) next() (i *item, wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.items) == 0 {
		return nil, 0
	}
	if wait = a.items[0].at.Sub(a.clock.Now()); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&a.items).(*item), 0
}

func (a *agenda) run(ctx context.Context) {
	for ctx.Err() == nil {
		i, wait := a.next()
		if i != nil {
			i.due()
			continue
		}
		var later <-chan time.Time
		if wait > 0 {
			later = a.clock.After(wait)
		}
		select {
		case <-later:
		case <-a.wake:
		case <-ctx.Done():
		}
	}
}

// items is a heap by time.
type items []*item

func (h items) Len() int           { return len(h) }
func (h items) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h items) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i+1, j+1
}

// Push is heap.Interface.
func (h *items) Push(x any) {
	i := x.(*item)
	*h = append(*h, i)
	i.index = len(*h)
}

// Pop is heap.Interface.
func (h *items) Pop() any {
	last := (*h)[len(*h)-1]
	(*h)[len(*h)-1] = nil
	*h = (*h)[:len(*h)-1]
	last.index = 0
	return last
}
