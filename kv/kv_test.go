package kv_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/blob"
	"github.com/quipu-run/quipu/kv"
	"github.com/quipu-run/quipu/view"
	"github.com/quipu-run/quipu/xtest"
)

type world struct {
	*kv.State
	t     testing.TB
	ctx   context.Context
	clock *xtest.Clock
	log   *xtest.Model
	id    quipu.Book
	kv    *kv.Store
	book  *view.Book
}

func newWorld(t testing.TB) *world {
	t.Helper()
	ctx := context.Background()
	w := &world{t: t, ctx: ctx, clock: xtest.NewClock(time.Date(2001, 1, 14, 12, 0, 0, 0, time.UTC))}
	w.log = xtest.NewModel(w.clock)
	var err error
	if w.id, err = w.log.CreateBook(ctx, "quipu/default", quipu.BookOptions{}); err != nil {
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
	w.kv = kv.New(blobs)
	if w.book, err = view.OpenBook(ctx, store, w.log, w.id, w.clock, w.kv); err != nil {
		t.Fatal(err)
	}
	w.State = w.kv.State(w.book, "stats")
	t.Cleanup(func() {
		if err := w.book.Close(); err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) apply(store string, changes ...quipu.Change) {
	w.t.Helper()
	if err := w.Apply(w.ctx, store, changes); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) one(store, key string) quipu.Item {
	w.t.Helper()
	items, err := w.Get(w.ctx, store, key)
	if err != nil {
		w.t.Fatal(err)
	}
	return items[0]
}

// records counts the visible records of the book.
func (w *world) records() (n int) {
	w.t.Helper()
	for _, err := range w.log.Range(w.ctx, w.id, quipu.TagAll, 0, quipu.SeqMax) {
		if err != nil {
			w.t.Fatal(err)
		}
		n++
	}
	return n
}

func set(key, value string) quipu.Change { return quipu.Change{Key: key, Value: []byte(value)} }

func TestSetGetDelete(t *testing.T) {
	w := newWorld(t)
	if w.one(quipu.StoreDefault, "a").Exists() {
		t.Error("a key exists that nobody wrote")
	}
	w.apply(quipu.StoreDefault, set("a", "1"))
	first := w.one(quipu.StoreDefault, "a")
	w.apply(quipu.StoreDefault, set("a", ""))
	second := w.one(quipu.StoreDefault, "a")
	if string(first.Value) != "1" || len(second.Value) != 0 || !second.Exists() || first.ETag == second.ETag {
		t.Errorf("first %+v, second %+v", first, second)
	}
	w.apply(quipu.StoreDefault, quipu.Change{Key: "a", Delete: true})
	if w.one(quipu.StoreDefault, "a").Exists() {
		t.Error("a deleted key exists")
	}
}

func TestTheBlobsOfAStoreAreThoseOfItsLargeValues(t *testing.T) {
	w := newWorld(t)
	large := func(c string) string { return strings.Repeat(c, quipu.InlineBytesMax+1) }
	w.apply(quipu.StoreShared, set("a", large("a")), set("b", large("b")), set("c", large("c")), set("d", "small"))
	w.apply(quipu.StoreDefault, set("a", large("a")), set("e", large("e")))
	w.apply(quipu.StoreShared, set("b", "small now"), quipu.Change{Key: "c", Delete: true}, set("d", large("d")))
	tx := w.book.Look()
	defer tx.Close()
	var got []quipu.BlobRef
	if err := w.kv.Blobs(tx, func(ref quipu.BlobRef) { got = append(got, ref) }); err != nil {
		t.Fatal(err)
	}
	var want []quipu.BlobRef // by store and key
	for _, c := range []string{"a", "d", "a", "e"} {
		want = append(want, blob.Ref([]byte(large(c))))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestStoresAndFunctionsDoNotSeeEachOther(t *testing.T) {
	w := newWorld(t)
	other := w.kv.State(w.book, "other")
	w.apply(quipu.StoreDefault, set("k", "mine"))
	w.apply(quipu.StoreShared, set("k", "everybody's"))
	items, err := other.Get(w.ctx, quipu.StoreDefault, "k")
	if err != nil || items[0].Exists() {
		t.Errorf("another function reads %+v, %v", items, err)
	}
	items, err = other.Get(w.ctx, quipu.StoreShared, "k")
	if err != nil || string(items[0].Value) != "everybody's" {
		t.Errorf("another function reads %+v, %v from the shared store", items, err)
	}
}

func TestConditions(t *testing.T) {
	w := newWorld(t)
	w.apply(quipu.StoreShared, set("k", "1"))
	etag := w.one(quipu.StoreShared, "k").ETag
	w.apply(quipu.StoreShared, set("k", "2"))
	now := w.one(quipu.StoreShared, "k").ETag
	for _, c := range []struct {
		name   string
		change quipu.Change
		want   quipu.Code
	}{
		{"old etag", quipu.Change{Key: "k", ETag: etag}, quipu.CodeETag},
		{"old etag, delete", quipu.Change{Key: "k", ETag: etag, Delete: true}, quipu.CodeETag},
		{"etag of a missing key", quipu.Change{Key: "none", ETag: etag}, quipu.CodeETag},
		{"malformed etag", quipu.Change{Key: "k", ETag: "x"}, quipu.CodeETagForm},
		{"short etag", quipu.Change{Key: "k", ETag: "1"}, quipu.CodeETagForm},
		{"first write of an existing key", quipu.Change{Key: "k", FirstWrite: true}, quipu.CodeETag},
		{"first write of a new key", quipu.Change{Key: "new", FirstWrite: true}, ""},
		{"current etag", quipu.Change{Key: "k", Value: []byte("3"), ETag: now, FirstWrite: true}, ""},
	} {
		if err := w.Apply(w.ctx, quipu.StoreShared, []quipu.Change{c.change}); quipu.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestManyKeysAllOrNone(t *testing.T) {
	w := newWorld(t)
	w.apply(quipu.StoreShared, set("a", "1"))
	before := w.records()
	err := w.Apply(w.ctx, quipu.StoreShared, []quipu.Change{set("b", "2"), {Key: "a", FirstWrite: true}})
	if quipu.CodeOf(err) != quipu.CodeETag || w.one(quipu.StoreShared, "b").Exists() || w.records() != before {
		t.Errorf("half a change happened: %v", err)
	}
	w.apply(quipu.StoreShared, set("a", "2"), set("b", "2"), quipu.Change{Key: "a", Delete: true})
	if w.one(quipu.StoreShared, "a").Exists() || !w.one(quipu.StoreShared, "b").Exists() || w.records() != before+1 {
		t.Error("changes of one request are not one record in order")
	}
}

func TestBadInputChangesNothing(t *testing.T) {
	w := newWorld(t)
	before := w.records()
	for _, c := range []struct {
		name, store, key string
		value            []byte
		want             quipu.Code
	}{
		{"empty key", quipu.StoreShared, "", nil, quipu.CodeKey},
		{"key with ||", quipu.StoreShared, "a||b", nil, quipu.CodeKey},
		{"long key", quipu.StoreShared, strings.Repeat("k", quipu.KeyBytesMax+1), nil, quipu.CodeKey},
		{"unknown store", "redis", "k", nil, quipu.CodeNoStore},
		{"huge value", quipu.StoreShared, "k", make([]byte, quipu.ValueBytesMax+1), quipu.CodeValueSize},
	} {
		if err := w.Apply(w.ctx, c.store, []quipu.Change{{Key: c.key, Value: c.value}}); quipu.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
		if c.value == nil {
			if _, err := w.Get(w.ctx, c.store, c.key); quipu.CodeOf(err) != c.want {
				t.Errorf("%s, get: %v, want %s", c.name, err, c.want)
			}
		}
	}
	if w.records() != before {
		t.Error("bad input left a record")
	}
}

func TestLargeValuesAreWholeAndOutsideTheLog(t *testing.T) {
	w := newWorld(t)
	big := bytes.Repeat([]byte("knots "), 400_000)
	w.apply(quipu.StoreShared, quipu.Change{Key: "big", Value: big})
	if !bytes.Equal(w.one(quipu.StoreShared, "big").Value, big) {
		t.Error("a large value came back changed")
	}
	rec, err := w.log.Prev(w.ctx, w.id, quipu.TagAll, quipu.SeqMax)
	if err != nil || len(rec.Data) > 1000 {
		t.Errorf("its record has %d bytes, %v", len(rec.Data), err)
	}
}

func TestListPages(t *testing.T) {
	w := newWorld(t)
	var want []string
	for i := range 25 {
		key := fmt.Sprintf("p/%02d", i)
		want = append(want, key)
		w.apply(quipu.StoreDefault, set(key, key))
	}
	w.apply(quipu.StoreDefault, set("o", ""), set("q", ""), set("p0", ""))
	var got []string
	r := quipu.ListRequest{Prefix: "p/", Limit: 10}
	for pages := 1; ; pages++ {
		page, err := w.List(w.ctx, quipu.StoreDefault, r)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range page.Items {
			if string(item.Value) != item.Key {
				t.Errorf("key %q has value %q", item.Key, item.Value)
			}
			got = append(got, item.Key)
		}
		if page.Next == "" {
			if pages != 3 {
				t.Errorf("%d pages", pages)
			}
			break
		}
		r.After = page.Next
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got %v", got)
	}
}

func TestTimeToLive(t *testing.T) {
	w := newWorld(t)
	w.apply(quipu.StoreShared, quipu.Change{Key: "k", Value: []byte("1"), TTL: time.Minute}, set("stays", ""))
	w.clock.Move(time.Minute - 1)
	if !w.one(quipu.StoreShared, "k").Exists() {
		t.Error("gone too early")
	}
	w.clock.Move(1)
	if w.one(quipu.StoreShared, "k").Exists() {
		t.Error("there although its time has passed")
	}
	if page, err := w.List(w.ctx, quipu.StoreShared, quipu.ListRequest{}); err != nil || len(page.Items) != 1 {
		t.Errorf("listed %+v, %v", page, err)
	}
	w.apply(quipu.StoreShared, quipu.Change{Key: "k", Value: []byte("2"), FirstWrite: true})
	if n, err := w.kv.Sweep(w.ctx, w.book); n != 1 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	if got := w.one(quipu.StoreShared, "k"); string(got.Value) != "2" {
		t.Errorf("the sweeper took a key that was written again: %+v", got)
	}
	if n, err := w.kv.Sweep(w.ctx, w.book); n != 0 || err != nil {
		t.Errorf("swept %d again, %v", n, err)
	}
}

func TestSweepDeletesByRecord(t *testing.T) {
	w := newWorld(t)
	for i := range 10 {
		w.apply(quipu.StoreShared, quipu.Change{Key: fmt.Sprint(i), TTL: time.Second})
	}
	w.clock.Move(time.Hour)
	before := w.records()
	if n, err := w.kv.Sweep(w.ctx, w.book); n != 10 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	if w.records() != before+1 {
		t.Errorf("%d records for one sweep", w.records()-before)
	}
}

// What a transaction read may expire before it commits; then it has to run again.
func TestExpiryBetweenReadAndCommitIsAConflict(t *testing.T) {
	w := newWorld(t)
	w.apply(quipu.StoreShared, quipu.Change{Key: "lease", Value: []byte("mine"), TTL: time.Second})
	runs := 0
	_, err := w.book.Change(w.ctx, func(tx *view.Tx) error {
		runs++
		items, err := w.kv.Get(tx, "", quipu.StoreShared, []string{"lease"})
		if err != nil {
			return err
		}
		w.clock.Move(time.Second)
		return w.kv.Change(tx, "", quipu.StoreShared, []quipu.Change{set("owner", string(items[0].Value))})
	})
	if err != nil || runs != 2 {
		t.Fatalf("%d runs, %v", runs, err)
	}
	if got := w.one(quipu.StoreShared, "owner"); string(got.Value) != "" {
		t.Errorf("acted on an expired lease: %q", got.Value)
	}
}

// A clock that is set back brings nothing expired back to life.
func TestClockSetBack(t *testing.T) {
	w := newWorld(t)
	w.apply(quipu.StoreShared, quipu.Change{Key: "k", TTL: time.Second})
	w.clock.Move(2 * time.Second)
	w.apply(quipu.StoreShared, set("other", ""))
	w.clock.Move(-time.Hour)
	if w.one(quipu.StoreShared, "k").Exists() {
		t.Error("an expired key came back")
	}
}
