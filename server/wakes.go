package server

import (
	"context"
	"sync"

	"github.com/quipu-run/quipu"
)

// wakes has one instance started for all who wake a function at a time. Each by itself would get one beyond scale.max: after a
// restart as many as there are actors with a reminder that is due.
type wakes struct {
	mu sync.Mutex
	of map[revisionKey]*waking // guarded by mu
}

type revisionKey struct{ function, revision string }

// waking is read by others than its first one when done is closed.
type waking struct {
	done     chan struct{}
	instance string
	err      error
	gaveUp   bool // the first one's context ended, which says nothing about the function
}

// wake answers what start does, or did for someone who came before. start runs in the goroutine of who came first.
func (w *wakes) wake(ctx context.Context, f quipu.Function, start func(context.Context) (string, error)) (string, error) {
	k := revisionKey{f.Name, f.Revision}
	for ctx.Err() == nil {
		one, first := w.join(k)
		if first {
			one.instance, one.err = start(ctx)
			one.gaveUp = one.err != nil && ctx.Err() != nil
			w.leave(k, one)
			return one.instance, one.err
		}
		select {
		case <-one.done:
			if !one.gaveUp {
				return one.instance, one.err
			}
		case <-ctx.Done():
		}
	}
	return "", ctx.Err()
}

func (w *wakes) join(k revisionKey) (one *waking, first bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if one := w.of[k]; one != nil {
		return one, false
	}
	if w.of == nil {
		w.of = map[revisionKey]*waking{}
	}
	one = &waking{done: make(chan struct{})}
	w.of[k] = one
	return one, true
}

func (w *wakes) leave(k revisionKey, one *waking) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.of, k)
	close(one.done)
}
