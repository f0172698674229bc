package lease_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/lease"
	"github.com/quipu-run/quipu/view"
	"github.com/quipu-run/quipu/xtest"
	"pgregory.net/rapid"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is a log with the view of leases on it.
type world struct {
	clock *xtest.Clock
	log   *xtest.Model
	id    quipu.Book
	fs    *vfs.MemFS
	store *view.Store
	book  *view.Book
	lease.Outside
}

type tester interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func newWorld(t tester) *world {
	w := &world{clock: xtest.NewClock(noon), fs: vfs.NewCrashableMem()}
	w.log = xtest.NewModel(w.clock)
	var err error
	if w.id, err = w.log.CreateBook(context.Background(), "quipu/default", quipu.BookOptions{}); err != nil {
		t.Fatal(err)
	}
	w.open(t)
	return w
}

func (w *world) open(t tester) {
	t.Helper()
	var err error
	if w.store, err = view.OpenStore(view.Options{Dir: "/views", FS: w.fs}); err != nil {
		t.Fatal(err)
	}
	v := lease.New()
	if w.book, err = view.OpenBook(context.Background(), w.store, w.log, w.id, w.clock, v); err != nil {
		t.Fatal(err)
	}
	w.Outside = lease.Outside{View: v, Book: w.book}
}

func (w *world) close(t tester) {
	t.Helper()
	if err := w.book.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
}

// crash loses what the view had not written to disk.
func (w *world) crash(t tester) {
	t.Helper()
	crashed := w.fs.CrashClone(vfs.CrashCloneCfg{})
	w.close(t)
	w.fs = crashed
	w.open(t)
}

// keys counts all that the view has on disk.
func (w *world) keys(t tester) (n int) {
	t.Helper()
	tx := w.book.Look()
	defer tx.Close()
	if err := tx.Scan(lease.Name, "", "", func(string, []byte) bool { n++; return true }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAnOwnerThatWasReplacedChangesNothing(t *testing.T) {
	w := newWorld(t)
	defer w.close(t)
	ctx := t.Context()
	first, err := w.TakeLease(ctx, "n", "a", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	held, err := w.TakeLease(ctx, "n", "b", time.Minute)
	if quipu.CodeOf(err) != quipu.CodeLeaseLost || held.Owner != "a" || held.Token != first.Token {
		t.Fatalf("b got %+v, %v", held, err)
	}

	// a checks its lease, and while it is at its work its time passes and b takes over: the commit loses, and a second run is refused.
	tx := w.book.Begin(ctx, nil)
	if err := w.View.Check(tx, first); err != nil {
		t.Fatal(err)
	}
	w.clock.Move(time.Minute)
	second, err := w.TakeLease(ctx, "n", "b", 0)
	if err != nil || second.Token <= first.Token {
		t.Fatalf("b got %+v, %v", second, err)
	}
	if _, err := w.View.Take(tx, "of a", "a", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := w.book.Commit(ctx, tx); !view.Lost(err) {
		t.Fatalf("a committed after it was replaced: %v", err)
	}
	tx.Close()
	for name, err := range map[string]error{
		"check":   errOf(w.book.Change(ctx, func(tx *view.Tx) error { return w.View.Check(tx, first) })),
		"renewal": errOf(w.RenewLease(ctx, first, time.Hour)),
	} {
		if quipu.CodeOf(err) != quipu.CodeLeaseLost {
			t.Errorf("%s by the former owner: %v", name, err)
		}
	}
	if err := w.ReleaseLease(ctx, first); err != nil {
		t.Errorf("release of what is lost: %v", err)
	}
	w.crash(t)
	if _, err := w.book.Change(ctx, func(tx *view.Tx) error { return w.View.Check(tx, second) }); err != nil {
		t.Errorf("b lost its lease: %v", err)
	}
}

func errOf[T any](_ T, err error) error { return err }

// A lease that runs out between the check and the commit is no ground to commit on, even if nobody has taken it.
func TestACommitAfterTheEndOfALeaseLoses(t *testing.T) {
	w := newWorld(t)
	defer w.close(t)
	l, err := w.TakeLease(t.Context(), "n", "a", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	tx := w.book.Begin(t.Context(), nil)
	defer tx.Close()
	if err := w.View.Check(tx, l); err != nil {
		t.Fatal(err)
	}
	if _, err := w.View.Take(tx, "other", "a", 0); err != nil {
		t.Fatal(err)
	}
	w.clock.Move(time.Minute)
	if _, err := w.book.Commit(t.Context(), tx); !view.Lost(err) {
		t.Fatalf("it committed: %v", err)
	}
}

func TestOfManyOneTakesIt(t *testing.T) {
	w := newWorld(t)
	defer w.close(t)
	var mu sync.Mutex
	var owners []string
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			l, err := w.TakeLease(t.Context(), "n", fmt.Sprint(i), 0)
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				owners = append(owners, l.Owner)
			} else if quipu.CodeOf(err) != quipu.CodeLeaseLost {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(owners) != 1 {
		t.Errorf("owners: %v", owners)
	}
}

// Whoever looks sees what is held, by name and a page at a time, and nothing that was given back or has run out.
func TestWhatIsHeldIsListedByPages(t *testing.T) {
	w := newWorld(t)
	defer w.close(t)
	for i, name := range []string{"actor/a", "actor/b", "actor/c", "actor/d", "other"} {
		l, err := w.TakeLease(t.Context(), name, fmt.Sprint("owner", i), 0)
		if err == nil && name == "actor/b" {
			err = w.ReleaseLease(t.Context(), l)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.TakeLease(t.Context(), "actor/e", "late", time.Minute); err != nil {
		t.Fatal(err)
	}
	w.clock.Move(time.Hour)
	var names []string
	pages := 0
	for l := (quipu.LeaseList{Prefix: "actor/", Limit: 2}); ; pages++ {
		page, err := w.Leases(t.Context(), l)
		if err != nil || pages > 2 {
			t.Fatal(pages, err)
		}
		for _, one := range page.Leases {
			names = append(names, one.Name+" of "+one.Owner)
		}
		if l.After = page.Next; l.After == "" {
			break
		}
	}
	if want := []string{"actor/a of owner0", "actor/c of owner2", "actor/d of owner3"}; !slices.Equal(names, want) {
		t.Errorf("%v", names)
	}
}

func TestNamesAndTimesThatCannotBe(t *testing.T) {
	w := newWorld(t)
	defer w.close(t)
	long := string(make([]byte, lease.NameBytesMax+1))
	for _, c := range []struct {
		name, owner string
		ttl         time.Duration
	}{{"", "a", 0}, {long, "a", 0}, {"n", "", 0}, {"n", long, 0}, {"n", "a", -1}, {"n", "a", 1<<63 - 1}} {
		if _, err := w.TakeLease(t.Context(), c.name, c.owner, c.ttl); quipu.CodeOf(err) != quipu.CodeUsage {
			t.Errorf("%.10q by %.10q for %s: %v", c.name, c.owner, c.ttl, err)
		}
	}
}

// model is what leases are by their definition.
type model struct {
	now   time.Time
	held  map[string]quipu.Lease
	newer quipu.Seq // token that each new one is above
}

func (m *model) live(name string) (quipu.Lease, bool) {
	l, ok := m.held[name]
	return l, ok && (l.Until.IsZero() || l.Until.After(m.now))
}

func (m *model) until(ttl time.Duration) time.Time {
	if ttl == 0 {
		return time.Time{}
	}
	return m.now.Add(ttl)
}

// checker does things to leases and to their model.
type checker struct {
	*world
	*model
	known []quipu.Lease // all that anybody ever had
}

var (
	names  = rapid.SampledFrom([]string{"a", "ab", "b"})
	owners = rapid.SampledFrom([]string{"x", "y"})
	ttls   = rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute})
)

// Whatever is taken, renewed, released, waited for and crashed: there is one owner, and its token is above all before it.
func TestLeasesAreAsTheirModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &checker{world: newWorld(t), model: &model{now: noon, held: map[string]quipu.Lease{}}}
		defer c.close(t)
		t.Repeat(map[string]func(*rapid.T){
			"take": c.take, "renew": c.renew, "release": c.releaseOne, "wait": c.wait, "sweep": c.sweep, "": c.list,
			"crash": func(t *rapid.T) { c.crash(t) },
		})
	})
}

// anyKnown is a lease that somebody had once, or nobody ever.
func (c *checker) anyKnown(t *rapid.T) quipu.Lease {
	if len(c.known) == 0 {
		return quipu.Lease{Name: "a", Owner: "x", Token: 1}
	}
	return rapid.SampledFrom(c.known).Draw(t, "lease")
}

func (c *checker) take(t *rapid.T) {
	name, owner, ttl := names.Draw(t, "name"), owners.Draw(t, "owner"), ttls.Draw(t, "ttl")
	l, err := c.TakeLease(context.Background(), name, owner, ttl)
	if held, ok := c.live(name); ok && held.Owner != owner {
		if quipu.CodeOf(err) != quipu.CodeLeaseLost || l.Token != held.Token {
			t.Fatalf("took %+v of %+v: %v", l, held, err)
		}
		return
	}
	if err != nil || l.Token <= c.newer || !l.Until.Equal(c.until(ttl)) {
		t.Fatalf("took %+v, newest before %s: %v", l, c.newer, err)
	}
	c.newer, c.held[name], c.known = l.Token, l, append(c.known, l)
}

func (c *checker) renew(t *rapid.T) {
	l, ttl := c.anyKnown(t), ttls.Draw(t, "ttl")
	renewed, err := c.RenewLease(context.Background(), l, ttl)
	if held, ok := c.live(l.Name); !ok || held.Token != l.Token {
		if quipu.CodeOf(err) != quipu.CodeLeaseLost {
			t.Fatalf("renewed %+v: %v", l, err)
		}
		return
	}
	if err != nil || renewed.Token != l.Token || !renewed.Until.Equal(c.until(ttl)) {
		t.Fatalf("renewed %+v to %+v: %v", l, renewed, err)
	}
	c.held[l.Name] = renewed
}

func (c *checker) releaseOne(t *rapid.T) {
	l := c.anyKnown(t)
	if err := c.ReleaseLease(context.Background(), l); err != nil {
		t.Fatal(err)
	}
	if c.held[l.Name].Token == l.Token {
		delete(c.held, l.Name)
	}
}

func (c *checker) wait(t *rapid.T) {
	d := time.Duration(rapid.IntRange(1, 70).Draw(t, "seconds")) * time.Second
	c.clock.Move(d)
	c.now = c.now.Add(d)
}

// sweep leaves nothing but what is live.
func (c *checker) sweep(t *rapid.T) {
	if _, err := c.View.Sweep(context.Background(), c.book); err != nil {
		t.Fatal(err)
	}
	want := 0
	for name := range c.held {
		if l, ok := c.live(name); ok && l.Until.IsZero() {
			want++
		} else if ok {
			want += 2 // with its end in the index
		}
	}
	if n := c.keys(t); n != want {
		t.Fatalf("%d keys are left, want %d", n, want)
	}
}

func (c *checker) list(t *rapid.T) {
	tx := c.book.Look()
	defer tx.Close()
	list, err := c.View.List(tx, "", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	live := 0
	for name := range c.held {
		if _, ok := c.live(name); ok {
			live++
		}
	}
	for _, l := range list {
		if want, ok := c.live(l.Name); !ok || want.Token != l.Token || want.Owner != l.Owner || !want.Until.Equal(l.Until) {
			t.Fatalf("%+v is listed, want %+v", l, want)
		}
	}
	if len(list) != live {
		t.Fatalf("%d listed, %d are live", len(list), live)
	}
}
