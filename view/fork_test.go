package view_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/kv"
	"github.com/quipu-run/quipu/view"
)

// forked is a fork of a world's book, opened.
type forked struct {
	*view.Book
	kv    *kv.Store
	store *view.Store
	id    quipu.Book
	dir   string
	keys  quipu.Book
}

func (w *world) fork(at quipu.Seq) (*forked, error) {
	w.t.Helper()
	f := &forked{dir: fmt.Sprintf("/fork-%d", rand.Uint64())}
	made, err := w.store.Fork(context.Background(), w.book, at, f.dir, kv.New(w.blobs))
	if err != nil {
		return nil, err
	}
	if f.keys = made.Keys; at != 0 && made.At != at {
		w.t.Errorf("it is as of %s, not %s", made.At, at)
	}
	if f.id, err = w.log.CreateBook(context.Background(), "quipu"+f.dir, quipu.BookOptions{}); err != nil {
		return nil, err
	}
	if err := f.open(w); err != nil {
		return nil, err
	}
	w.t.Cleanup(func() { f.close(w.t) })
	return f, nil
}

func (f *forked) open(w *world) (err error) {
	if f.store, err = view.OpenStore(view.Options{Dir: f.dir, FS: w.fs, Keys: f.keys}); err != nil {
		return err
	}
	f.kv = kv.New(w.blobs)
	f.Book, err = view.OpenBook(context.Background(), f.store, w.log, f.id, w.clock, f.kv)
	return err
}

func (f *forked) close(t testing.TB) {
	t.Helper()
	if err := f.Book.Close(); err != nil {
		t.Error(err)
	}
	if err := f.store.Close(); err != nil {
		t.Error(err)
	}
}

// contents are the keys of the store shared.
func contents(t testing.TB, s quipu.State) map[string]string {
	t.Helper()
	found := map[string]string{}
	items, err := s.List(context.Background(), quipu.StoreShared, quipu.ListRequest{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range items.Items {
		found[item.Key] = string(item.Value)
	}
	return found
}

// At every record since the older snapshot a fork is what its parent was, whatever the parent did since. Before that it is refused.
func TestAForkIsWhatItsParentWas(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	type moment struct {
		at   quipu.Seq
		want map[string]string
	}
	var moments []moment
	now := map[string]string{}
	rng := rand.New(rand.NewPCG(1, 2))
	var trimmed quipu.Seq
	for n := range 60 {
		key, value := fmt.Sprintf("k%d", rng.IntN(8)), fmt.Sprint(n)
		change := quipu.Change{Key: key, Value: []byte(value)}
		if now[key] = value; n%7 == 0 {
			change = quipu.Change{Key: key, Delete: true}
			delete(now, key)
		}
		seq := w.apply(change)
		moments = append(moments, moment{seq, maps.Clone(now)})
		if n%20 == 19 {
			if err := w.store.Snapshot(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if n == 39 {
			trimmed = moments[19].at
		}
	}
	trimmed = max(trimmed, moments[39].at) // three snapshots were made, two are kept
	for _, i := range []int{0, 19, 38, 39, 40, 47, 58, 59} {
		f, err := w.fork(moments[i].at)
		if moments[i].at < trimmed {
			if quipu.CodeOf(err) != quipu.CodeTrimmed {
				t.Errorf("a fork from before the log: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := contents(t, f.kv.State(f.Book, "")); !maps.Equal(got, moments[i].want) {
			t.Errorf("at %s: %v, want %v", moments[i].at, got, moments[i].want)
		}
	}
	if _, err := w.fork(moments[59].at + 1000); quipu.CodeOf(err) != quipu.CodeUsage {
		t.Errorf("a fork of what is to come: %v", err)
	}
}

// Parent and fork go their own ways, also after both were opened again.
func TestAForkAndItsParentDoNotSeeEachOther(t *testing.T) {
	w := newWorld(t)
	w.apply(quipu.Change{Key: "before", Value: []byte("1")})
	f, err := w.fork(0)
	if err != nil {
		t.Fatal(err)
	}
	w.apply(quipu.Change{Key: "parent", Value: []byte("2")})
	w.apply(quipu.Change{Key: "before", Delete: true})
	if err := f.kv.State(f.Book, "").Apply(context.Background(), quipu.StoreShared, []quipu.Change{{Key: "fork", Value: []byte("3")}}); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		if got := slices.Sorted(maps.Keys(contents(t, f.kv.State(f.Book, "")))); !slices.Equal(got, []string{"before", "fork"}) {
			t.Errorf("the fork has %v", got)
		}
		if got := slices.Sorted(maps.Keys(contents(t, w.kv.State(w.book, "")))); !slices.Equal(got, []string{"parent"}) {
			t.Errorf("the parent has %v", got)
		}
	}
	check()
	f.close(t)
	w.close()
	w.open(view.Options{})
	if err := f.open(w); err != nil {
		t.Fatal(err)
	}
	check()
	again, err := f.store.Fork(context.Background(), f.Book, 0, "/again", kv.New(w.blobs))
	if err != nil || again.Keys != f.keys {
		t.Errorf("a fork of the fork: %+v, %v", again, err)
	}
}

// apply changes the store shared of the parent.
func (w *world) apply(c quipu.Change) quipu.Seq {
	w.t.Helper()
	if err := w.kv.State(w.book, "").Apply(context.Background(), quipu.StoreShared, []quipu.Change{c}); err != nil {
		w.t.Fatal(err)
	}
	return w.book.Applied()
}
