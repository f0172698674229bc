package kv

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// watchers are told which keys were written. Without any, a write costs a load.
type watchers struct {
	count   atomic.Int32
	mu      sync.Mutex
	all     map[*watcher]struct{}
	written []string // by records that readers cannot see yet
}

// watcher collects the names of one space that have changed since it last looked: at most all that there are.
type watcher struct {
	space string
	news  chan struct{}
	mu    sync.Mutex
	dirty map[string]struct{}
}

// note is called while a record is applied.
func (w *watchers) note(name string) {
	if w.count.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.written = append(w.written, name)
}

// applied is called when readers see the record.
func (w *watchers) applied() error {
	if w.count.Load() == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for one := range w.all {
		one.take(w.written)
	}
	w.written = w.written[:0]
	return nil
}

func (w *watcher) take(written []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range written {
		if key, ours := strings.CutPrefix(name, w.space); ours && !strings.Contains(key, "||") { // else it is of a prefix of the store
			w.dirty[key] = struct{}{}
		}
	}
	if len(w.dirty) > 0 {
		select {
		case w.news <- struct{}{}:
		default: // it has been told, and has not looked yet
		}
	}
}

// changed is what has changed since the last time, in order of keys.
func (w *watcher) changed() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	keys := slices.Sorted(maps.Keys(w.dirty))
	clear(w.dirty)
	return keys
}

func (w *watchers) add(one *watcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = map[*watcher]struct{}{}
	}
	w.all[one] = struct{}{}
	w.count.Store(int32(len(w.all)))
}

func (w *watchers) remove(one *watcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, one)
	w.count.Store(int32(len(w.all)))
}

// Start follows book from now on, so that its stores can be watched.
func (s *Store) Start(book *view.Book) { book.OnApply(Name, s.watch.applied) }

// Watch tells of each key of a store that is written or deleted from when ready is called on, as it is when it is told: a
// key that is written often may be told once. A deleted key has no value. It returns when ctx ends, or with the error of
// changed.
func (s *State) Watch(ctx context.Context, store string, ready func(), changed func([]quipu.Item) error) error {
	space, err := keySpace(s.function, store)
	if err != nil {
		return err
	}
	one := &watcher{space: space, news: make(chan struct{}, 1), dirty: map[string]struct{}{}}
	s.store.watch.add(one)
	defer s.store.watch.remove(one)
	ready()
	for {
		select {
		case <-one.news:
		case <-ctx.Done():
			return ctx.Err()
		}
		items, err := s.Get(ctx, store, one.changed()...)
		if err == nil {
			err = changed(items)
		}
		if err != nil {
			return err
		}
	}
}
