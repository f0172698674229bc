package workflow

import (
	"maps"
	"sync"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
)

// watchers are told what records did: runners what arrives at their instances, and those who wait for an instance that its
// status is another.
type watchers struct {
	mu      sync.Mutex // guards below
	runners map[string]func(flow.Arrival)
	waiting map[quipu.WorkflowKey]*waiters
	news    []news // of records that readers cannot see yet
}

// news is what one operation did.
type news struct {
	kind string
	flow.Arrival
	status bool // it is another
}

// waiters of one instance share a channel, which is closed when there is news.
type waiters struct {
	ch chan struct{}
	n  int
}

// note is called while a record is applied. What tells nobody anything is not kept: a turn alone, mostly.
func (w *watchers) note(kind string, status bool, a flow.Arrival) {
	w.mu.Lock()
	defer w.mu.Unlock()
	arrived := w.runners[kind] != nil && (a.Started || a.Purged || len(a.Messages) > 0)
	if arrived || status { // who begins to wait before readers see the record has to hear of it too
		w.news = append(w.news, news{kind, a, status})
	}
}

func (w *watchers) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.news = nil
}

// applied is called when readers see the record.
func (w *watchers) applied() error {
	w.mu.Lock()
	list := w.news
	w.news = nil
	for _, n := range list {
		if of := w.waiting[n.WorkflowKey]; of != nil && n.status {
			close(of.ch)
			delete(w.waiting, n.WorkflowKey)
		}
	}
	runners := w.runners
	w.mu.Unlock()
	for _, n := range list {
		if arrived := runners[n.kind]; arrived != nil && (n.Started || n.Purged || len(n.Messages) > 0) {
			arrived(n.Arrival)
		}
	}
	return nil
}

// wait answers a channel that is closed with the next news of an instance. leave must be called.
func (w *watchers) wait(k quipu.WorkflowKey) (ch <-chan struct{}, leave func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	of := w.waiting[k]
	if of == nil {
		of = &waiters{ch: make(chan struct{})}
		w.waiting[k] = of
	}
	of.n++
	return of.ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if of.n--; of.n == 0 && w.waiting[k] == of {
			delete(w.waiting, k)
		}
	}
}

// Watch implements flow.Store.
func (s *Store) Watch(kind string, arrived func(flow.Arrival)) {
	w := &s.view.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.runners[kind] != nil {
		panic("workflow: two runners of kind " + kind)
	}
	more := map[string]func(flow.Arrival){kind: arrived}
	maps.Copy(more, w.runners)
	w.runners = more
}
