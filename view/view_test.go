package view_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/blob"
	"github.com/quipu-run/quipu/kv"
	"github.com/quipu-run/quipu/view"
	"github.com/quipu-run/quipu/xtest"
)

var noon = time.Date(2001, 1, 14, 12, 0, 0, 0, time.UTC)

// world is a log, a disk for views, and a book with the kv view on it.
type world struct {
	t     testing.TB
	clock *xtest.Clock
	log   quipu.Log
	id    quipu.Book
	fs    *vfs.MemFS
	blobs *blob.Store
	store *view.Store
	kv    *kv.Store
	book  *view.Book
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, clock: xtest.NewClock(noon), fs: vfs.NewCrashableMem()}
	w.log = xtest.NewModel(w.clock)
	var err error
	if w.id, err = w.log.CreateBook(context.Background(), "quipu/default", quipu.BookOptions{}); err != nil {
		t.Fatal(err)
	}
	if w.blobs, err = blob.Open(vfs.NewMem(), "/blobs"); err != nil {
		t.Fatal(err)
	}
	w.open(view.Options{})
	t.Cleanup(w.close)
	return w
}

func (w *world) open(o view.Options) {
	w.t.Helper()
	if err := w.tryOpen(o); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) tryOpen(o view.Options) (err error) {
	o.Dir, o.FS = "/views", w.fs
	if w.store, err = view.OpenStore(o); err != nil {
		return err
	}
	w.kv = kv.New(w.blobs)
	w.book = nil
	w.book, err = view.OpenBook(context.Background(), w.store, w.log, w.id, w.clock, w.kv)
	if err != nil {
		w.store.Close()
	}
	return err
}

func (w *world) close() {
	w.t.Helper()
	if w.book == nil {
		return // it never opened
	}
	if err := w.book.Close(); err != nil {
		w.t.Error(err)
	}
	if err := w.store.Close(); err != nil {
		w.t.Error(err)
	}
}

func (w *world) set(key, value string) {
	w.t.Helper()
	err := w.kv.State(w.book, "").Apply(context.Background(), quipu.StoreShared, []quipu.Change{{Key: key, Value: []byte(value)}})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) get(key string) string {
	w.t.Helper()
	items, err := w.kv.State(w.book, "").Get(context.Background(), quipu.StoreShared, key)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(items[0].Value)
}

func (w *world) digest() string {
	w.t.Helper()
	d, err := w.book.Digest()
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func TestCommittedIsVisibleAtOnce(t *testing.T) {
	w := newWorld(t)
	for i := range 100 {
		value := fmt.Sprint(i)
		w.set("k", value)
		if got := w.get("k"); got != value {
			t.Fatalf("read %q after writing %q", got, value)
		}
	}
}

// Readers see a record before its hooks have run. Who waits for it, as a committer does, waits for the hooks too: a
// deploy that returned has its routes.
func TestWhoWaitsForARecordWaitsForItsHooks(t *testing.T) {
	w := newWorld(t)
	inHook, leave := make(chan struct{}), make(chan struct{})
	w.book.OnApply(kv.Name, func() error {
		close(inHook)
		<-leave
		return nil
	})
	var set sync.WaitGroup
	set.Go(func() { w.set("a", "1") })
	<-inHook
	if got := w.get("a"); got != "1" {
		t.Errorf("a reader sees %q, want 1", got)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.book.Wait(gone, w.book.Applied()); !errors.Is(err, context.Canceled) {
		t.Errorf("a wait while the hook runs: %v, want one that only its context ends", err)
	}
	close(leave)
	set.Wait()
	if err := w.book.Wait(t.Context(), w.book.Applied()); err != nil {
		t.Error(err)
	}
}

func TestTransactionReadsOneSnapshotAndItsOwnWrites(t *testing.T) {
	w := newWorld(t)
	w.set("a", "old")
	w.set("b", "old")
	tx := w.book.Begin(context.Background(), nil)
	defer tx.Close()
	read := func(key string) string {
		items, err := w.kv.Get(tx, "", quipu.StoreShared, []string{key})
		if err != nil {
			t.Fatal(err)
		}
		return string(items[0].Value)
	}
	if got := read("a"); got != "old" {
		t.Fatal(got)
	}
	w.set("a", "new")
	w.set("b", "new")
	if a, b := read("a"), read("b"); a != "old" || b != "old" {
		t.Fatalf("the snapshot moved: a=%s b=%s", a, b)
	}
	if err := w.kv.Change(tx, "", quipu.StoreShared, []quipu.Change{{Key: "c", Value: []byte("mine")}, {Key: "b", Delete: true}}); err != nil {
		t.Fatal(err)
	}
	if c, b := read("c"), read("b"); c != "mine" || b != "" {
		t.Fatalf("own writes are not seen: c=%q b=%q", c, b)
	}
	page, err := w.kv.List(tx, "", quipu.StoreShared, quipu.ListRequest{})
	if err != nil || len(page.Items) != 2 || page.Items[0].Key != "a" || page.Items[1].Key != "c" {
		t.Fatalf("listing %+v, %v", page, err)
	}
	if _, err := w.book.Commit(context.Background(), tx); quipu.CodeOf(err) != quipu.CodeConflict {
		t.Fatalf("a transaction that read what changed committed: %v", err)
	}
	if got := w.get("c"); got != "" {
		t.Fatalf("a lost transaction wrote %q", got)
	}
}

func TestRollbackForgetsWritesAndKeepsReads(t *testing.T) {
	w := newWorld(t)
	tx := w.book.Begin(context.Background(), nil)
	defer tx.Close()
	put := func(key, value string) {
		if err := w.kv.Change(tx, "", quipu.StoreShared, []quipu.Change{{Key: key, Value: []byte(value)}}); err != nil {
			t.Fatal(err)
		}
	}
	put("a", "1")
	mark := tx.Mark()
	put("a", "2")
	put("b", "2")
	tx.Rollback(mark)
	if _, err := w.book.Commit(context.Background(), tx); err != nil {
		t.Fatal(err)
	}
	if a, b := w.get("a"), w.get("b"); a != "1" || b != "" {
		t.Fatalf("a=%q b=%q after rollback", a, b)
	}
}

func TestListedRangeIsRead(t *testing.T) {
	w := newWorld(t)
	w.set("p1", "x")
	tx := w.book.Begin(context.Background(), nil)
	defer tx.Close()
	if _, err := w.kv.List(tx, "", quipu.StoreShared, quipu.ListRequest{Prefix: "p"}); err != nil {
		t.Fatal(err)
	}
	w.set("p0", "a phantom")
	if err := w.kv.Change(tx, "", quipu.StoreShared, []quipu.Change{{Key: "count", Value: []byte("1")}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.book.Commit(context.Background(), tx); quipu.CodeOf(err) != quipu.CodeConflict {
		t.Fatalf("a phantom went unnoticed: %v", err)
	}
}

// A view rebuilt from a snapshot and the log after it equals one rebuilt from zero (promise 12), and
// the one that never stopped.
func TestRebuildFromSnapshotEqualsRebuildFromZero(t *testing.T) {
	w := newWorld(t)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 500 {
		w.set(fmt.Sprintf("k%d", rng.IntN(50)), fmt.Sprint(i))
		if i == 200 {
			if err := w.store.Snapshot(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := w.digest()
	w.close()

	if err := w.fs.RemoveAll("/views/db"); err != nil {
		t.Fatal(err)
	}
	snapshots, _ := w.fs.List("/views/snap")
	if ok, err := vfs.Clone(w.fs, w.fs, "/views/snap/"+snapshots[0], "/views/db"); err != nil || !ok {
		t.Fatal(err)
	}
	w.open(view.Options{})
	if got := w.digest(); got != want {
		t.Error("snapshot and suffix give another state")
	}
	w.close()

	if err := w.fs.RemoveAll("/views"); err != nil {
		t.Fatal(err)
	}
	w.open(view.Options{})
	if got := w.digest(); got != want {
		t.Error("the whole log gives another state")
	}
}

func TestCrashReplaysTheSuffixOnce(t *testing.T) {
	for seed := range uint64(20) {
		w := newWorld(t)
		rng := rand.New(rand.NewPCG(seed, 0))
		for i := range 300 {
			w.set(fmt.Sprintf("k%d", rng.IntN(20)), fmt.Sprint(i))
			if rng.IntN(100) == 0 {
				if err := w.store.Snapshot(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
		}
		want := w.digest()
		crashed := w.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(100), RNG: rng})
		w.close()
		w.fs = crashed
		w.open(view.Options{})
		if got := w.digest(); got != want {
			t.Fatalf("seed %d: another state after the crash", seed)
		}
	}
}

func TestSnapshotsTrimTheLogBehindTheOlder(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	marks := []quipu.Seq{}
	for i := range 3 {
		w.set("k", fmt.Sprint(i))
		marks = append(marks, w.book.Applied())
		if err := w.store.Snapshot(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.log.Next(ctx, w.id, quipu.TagAll, marks[1]); quipu.CodeOf(err) != quipu.CodeTrimmed {
		t.Errorf("what both snapshots cover is still there: %v", err)
	}
	if _, err := w.log.Next(ctx, w.id, quipu.TagAll, marks[1]+1); err != nil {
		t.Errorf("what only the newer snapshot covers is gone: %v", err)
	}
	want := w.digest()
	w.close()
	if err := w.fs.RemoveAll("/views/db"); err != nil {
		t.Fatal(err)
	}
	if f, err := w.fs.Create("/views/db", "test"); err != nil || f.Close() != nil { // not a store any more
		t.Fatal(err)
	}
	w.open(view.Options{})
	if got := w.digest(); got != want {
		t.Error("another state after going back to a snapshot")
	}
}

func TestMissingLogIsNamed(t *testing.T) {
	w := newWorld(t)
	w.set("k", "v")
	w.close()
	other := xtest.NewModel(w.clock)
	id, err := other.CreateBook(context.Background(), "quipu/default", quipu.BookOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kept := w.log
	w.log, w.id = other, id
	if err := w.tryOpen(view.Options{}); quipu.CodeOf(err) != quipu.CodeCorrupt {
		t.Errorf("views ahead of their log opened: %v", err)
	}
	w.log = kept
	w.open(view.Options{})
}

func TestForgedSessionTokenIsRefused(t *testing.T) {
	w := newWorld(t)
	w.set("k", "v")
	if err := w.book.Wait(context.Background(), w.book.Applied()); err != nil {
		t.Error(err)
	}
	if err := w.book.Wait(context.Background(), quipu.SeqMax); quipu.CodeOf(err) != quipu.CodeUsage {
		t.Errorf("a token from the future answered %v", err)
	}
}

// Contention becomes serial: nobody fails, and nobody's increment is lost.
func TestContendedCounterIsExact(t *testing.T) {
	w := newWorld(t)
	const callers, times = 32, 20
	runs := 0
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range times {
				_, err := w.book.Change(context.Background(), func(tx *view.Tx) error {
					mu.Lock()
					runs++
					mu.Unlock()
					return increment(w.kv, tx, "n")
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := w.get("n"); got != fmt.Sprint(callers*times) {
		t.Errorf("the counter is %s, not %d", got, callers*times)
	}
	t.Logf("%.2f runs per commit", float64(runs)/(callers*times))
}

func increment(s *kv.Store, tx *view.Tx, key string) error {
	items, err := s.Get(tx, "", quipu.StoreShared, []string{key})
	if err != nil {
		return err
	}
	var n int
	fmt.Sscan(string(items[0].Value), &n)
	return s.Change(tx, "", quipu.StoreShared, []quipu.Change{{Key: key, Value: fmt.Append(nil, n+1)}})
}
