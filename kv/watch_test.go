package kv_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
)

const watched = "configuration:configstore"

// A watcher is told of every key of its store that is written or deleted once it is ready, with what it is then, and of no
// other store's.
func TestAWatcherIsToldOfWhatIsWritten(t *testing.T) {
	w := newWorld(t)
	w.kv.Start(w.book)
	w.apply(watched, quipu.Change{Key: "before", Value: []byte("0")})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ready, told, ended := make(chan struct{}), make(chan quipu.Item), make(chan error)
	go func() {
		ended <- w.Watch(ctx, watched, func() { close(ready) }, func(items []quipu.Item) error {
			for _, item := range items {
				told <- item
			}
			return nil
		})
	}()
	<-ready
	w.apply(quipu.StoreShared, quipu.Change{Key: "elsewhere", Value: []byte("1")})
	w.apply(watched+":app", quipu.Change{Key: "a", Value: []byte("1")})
	w.apply(watched, quipu.Change{Key: "a", Value: []byte("2")})
	if item := <-told; item.Key != "a" || string(item.Value) != "2" {
		t.Errorf("told of %q = %q, want a = 2", item.Key, item.Value)
	}
	w.apply(watched, quipu.Change{Key: "a", Delete: true})
	if item := <-told; item.Key != "a" || item.Exists() {
		t.Errorf("told of %q = %q, want a deleted", item.Key, item.Value)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}

func TestAWatcherThatFailsEnds(t *testing.T) {
	w := newWorld(t)
	w.kv.Start(w.book)
	ready, ended, broken := make(chan struct{}), make(chan error), errors.New("broken")
	go func() {
		ended <- w.Watch(t.Context(), watched, func() { close(ready) }, func([]quipu.Item) error { return broken })
	}()
	<-ready
	w.apply(watched, quipu.Change{Key: "a", Value: []byte("1")})
	if err := <-ended; !errors.Is(err, broken) {
		t.Errorf("it ended with %v", err)
	}
}

// Stores of components, and the prefixes of one, do not see each other.
func TestStoresOfComponentsAreApart(t *testing.T) {
	w := newWorld(t)
	stores := []string{quipu.StoreDefault, quipu.StoreShared, "state:orders", "state:orders:a", "state:orders:b", "state:other", "lock:orders"}
	for _, store := range stores {
		w.apply(store, quipu.Change{Key: "k", Value: []byte(store)})
	}
	for _, store := range stores {
		if item := w.one(store, "k"); string(item.Value) != store {
			t.Errorf("%s has %q", store, item.Value)
		}
	}
	for _, store := range []string{"", "orders", ":", "state:", ":orders", "state:or\x00ders", "state:a||b"} {
		if _, err := w.Get(w.ctx, store, "k"); quipu.CodeOf(err) != quipu.CodeNoStore {
			t.Errorf("store %q: %v", store, err)
		}
	}
}
