package lock_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/component/lock"
	"github.com/quipu-run/quipu/internal/blob"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/kv"
	"github.com/quipu-run/quipu/view"
	"github.com/quipu-run/quipu/xtest"
)

// newStore makes a lock store on a log in memory.
func newStore(t *testing.T) (component.Lock, *xtest.Clock) {
	t.Helper()
	clock := xtest.NewClock(time.Date(2001, 1, 14, 12, 0, 0, 0, time.UTC))
	log := xtest.NewModel(clock)
	id, err := log.CreateBook(t.Context(), "quipu/default", quipu.BookOptions{})
	if err != nil {
		t.Fatal(err)
	}
	fs := vfs.NewMem()
	blobs, err := blob.Open(fs, "/blobs")
	if err != nil {
		t.Fatal(err)
	}
	store, err := view.OpenStore(view.Options{Dir: "/views", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	keys := kv.New(blobs)
	book, err := view.OpenBook(t.Context(), store, log, id, clock, keys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := book.Close(); err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	made, err := lock.New(t.Context(), component.Host{State: keys.State(book, "")}, component.Spec{Name: "lockstore", Type: lock.Type})
	if err != nil {
		t.Fatal(err)
	}
	return made.(component.Lock), clock
}

func take(t *testing.T, l component.Lock, resource, owner string, expiry time.Duration) (uint64, bool) {
	t.Helper()
	token, locked, err := l.TryLock(t.Context(), resource, owner, expiry)
	if err != nil {
		t.Fatal(err)
	}
	return token, locked
}

func want(t *testing.T, what string, is component.Unlocked, err error, want component.Unlocked) {
	t.Helper()
	if err != nil || is != want {
		t.Errorf("%s: %d, %v; want %d", what, is, err, want)
	}
}

// A lock is one owner's until it is given back or expires, and each has a greater token than those before.
func TestALockHasOneOwner(t *testing.T) {
	l, clock := newStore(t)
	first, locked := take(t, l, "r", "a", time.Minute)
	if !locked || first == 0 {
		t.Fatal("a free lock was not taken")
	}
	for _, owner := range []string{"b", "a"} {
		if _, locked := take(t, l, "r", owner, time.Minute); locked {
			t.Errorf("%s took a lock that a has", owner)
		}
	}
	is, err := l.Unlock(t.Context(), "r", "b")
	want(t, "unlock by another", is, err, component.UnlockOthers)
	is, err = l.Unlock(t.Context(), "nothing", "a")
	want(t, "unlock of nothing", is, err, component.UnlockMissing)
	is, err = l.Unlock(t.Context(), "r", "a")
	want(t, "unlock", is, err, component.UnlockDone)
	second, locked := take(t, l, "r", "b", time.Minute)
	if !locked || second <= first {
		t.Errorf("the second token is %d, the first %d", second, first)
	}
	clock.Move(time.Minute)
	third, locked := take(t, l, "r", "c", time.Minute)
	if !locked || third <= second {
		t.Errorf("after the expiry: %v with token %d, before %d", locked, third, second)
	}
	is, err = l.Unlock(t.Context(), "r", "b")
	want(t, "unlock by who had it before", is, err, component.UnlockOthers)
}

// A lock that is renewed in time does not end, and keeps its token.
func TestALockIsKeptAlive(t *testing.T) {
	l, clock := newStore(t)
	token, _ := take(t, l, "r", "a", time.Minute)
	for range 3 {
		clock.Move(50 * time.Second)
		is, err := l.Renew(t.Context(), "r", "a", time.Minute)
		want(t, "renew", is, err, component.UnlockDone)
	}
	if _, locked := take(t, l, "r", "b", time.Minute); locked {
		t.Fatal("a lock that is kept alive was taken")
	}
	is, err := l.Renew(t.Context(), "r", "b", time.Minute)
	want(t, "renew by another", is, err, component.UnlockOthers)
	clock.Move(time.Minute)
	is, err = l.Renew(t.Context(), "r", "a", time.Minute)
	want(t, "renew after the expiry", is, err, component.UnlockMissing)
	if next, _ := take(t, l, "r", "b", time.Minute); next <= token {
		t.Errorf("token %d after %d", next, token)
	}
}

// Of all who try at once one has the lock.
func TestOfManyOneLocks(t *testing.T) {
	l, _ := newStore(t)
	var owners atomic.Int32
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			_, locked, err := l.TryLock(context.Background(), "r", fmt.Sprint(i), time.Minute)
			if err != nil {
				t.Error(err)
			}
			if locked {
				owners.Add(1)
			}
		})
	}
	all.Wait()
	if owners.Load() != 1 {
		t.Errorf("%d have the lock", owners.Load())
	}
}

func TestWhatCanBeNoLockIsRefused(t *testing.T) {
	l, _ := newStore(t)
	for _, c := range []struct {
		resource, owner string
		expiry          time.Duration
	}{{"", "a", time.Second}, {"a||b", "a", time.Second}, {"r", "", time.Second}, {"r", "a", 0}, {"r", "a", -time.Second}, {"r", "a", 400 * 24 * time.Hour}} {
		if _, locked, err := l.TryLock(t.Context(), c.resource, c.owner, c.expiry); err == nil || locked {
			t.Errorf("%q by %q for %s was taken", c.resource, c.owner, c.expiry)
		}
	}
}
