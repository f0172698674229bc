package view

import (
	"container/heap"
	"sync"

	"github.com/quipu-run/quipu"
)

// waiters are those who wait for a seq to be applied, the lowest first. A waiter that gave up stays in
// the list until its seq comes, so the list is bounded by the appends under way.
type waiters struct {
	mu   sync.Mutex
	list waitHeap
}

type waiter struct {
	seq quipu.Seq
	ch  chan struct{}
}

func (w *waiters) add(seq quipu.Seq) <-chan struct{} {
	ch := make(chan struct{})
	w.mu.Lock()
	heap.Push(&w.list, waiter{seq, ch})
	w.mu.Unlock()
	return ch
}

func (w *waiters) wake(applied quipu.Seq) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.list) > 0 && w.list[0].seq <= applied {
		close(heap.Pop(&w.list).(waiter).ch)
	}
}

type waitHeap []waiter

func (h waitHeap) Len() int           { return len(h) }
func (h waitHeap) Less(i, j int) bool { return h[i].seq < h[j].seq }
func (h waitHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *waitHeap) Push(x any)        { *h = append(*h, x.(waiter)) }
func (h *waitHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
