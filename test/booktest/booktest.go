// Package booktest is where parts that live on a book are tested: a book of the model log, its views on a file system in memory, and a
// clock. It is stopped and started as a node is, and crashes as one does.
package booktest

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/clock"
	"github.com/quipu-run/quipu/view"
	"github.com/quipu-run/quipu/xtest"
)

// Noon is when the time of a World begins.
var Noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// patience is how long Eventually waits on a busy machine.
const patience = 20 * time.Second

// World is a book with views, and what a test runs on them.
type World struct {
	T     testing.TB
	Clock *xtest.Clock // that the test moves; nil by the machine's time
	Log   *xtest.Model
	ID    quipu.Book // of the book on the log
	Store *view.Store
	Book  *view.Book

	clock       quipu.Clock
	fs          *vfs.MemFS
	start, stop func()
}

// New makes a world whose time the test moves. Nothing of it runs before Run.
func New(t testing.TB) *World {
	t.Helper()
	c := xtest.NewClock(Noon)
	w := on(t, c)
	w.Clock = c
	return w
}

// NewOnWall makes one by the machine's time.
func NewOnWall(t testing.TB) *World {
	t.Helper()
	return on(t, &clock.Wall{})
}

func on(t testing.TB, c quipu.Clock) *World {
	t.Helper()
	w := &World{T: t, Log: xtest.NewModel(c), clock: c, fs: vfs.NewCrashableMem()}
	var err error
	if w.ID, err = w.Log.CreateBook(context.Background(), "quipu/default", quipu.BookOptions{}); err != nil {
		t.Fatal(err)
	}
	return w
}

// Run starts the world, and stops it when the test ends. start calls Open with new views and starts what is on them; stop stops that and
// calls Close.
func (w *World) Run(start, stop func()) {
	w.T.Helper()
	w.start, w.stop = start, stop
	w.Start()
	w.T.Cleanup(w.Stop)
}

// Start goes on with what the log and the file system have.
func (w *World) Start() {
	w.T.Helper()
	var err error
	if w.Store, err = view.OpenStore(view.Options{Dir: "/views", FS: w.fs}); err != nil {
		w.T.Fatal(err)
	}
	w.start()
}

// Open opens the book.
func (w *World) Open(views ...view.Machine) {
	w.T.Helper()
	var err error
	if w.Book, err = view.OpenBook(context.Background(), w.Store, w.Log, w.ID, w.clock, views...); err != nil {
		w.T.Fatal(err)
	}
}

// Close closes the book.
func (w *World) Close() {
	w.T.Helper()
	if err := w.Book.Close(); err != nil {
		w.T.Error(err)
	}
}

// Stop ends everything, in order.
func (w *World) Stop() {
	w.T.Helper()
	w.stop()
	if err := w.Store.Close(); err != nil {
		w.T.Error(err)
	}
}

// Crash loses what the views had not made durable, as far as rng says, and starts again.
func (w *World) Crash(rng *rand.Rand) {
	w.T.Helper()
	w.again(w.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(100), RNG: rng}))
}

// Lose loses all that the views had on disk, and starts again from the log alone.
func (w *World) Lose() {
	w.T.Helper()
	w.again(vfs.NewCrashableMem())
}

func (w *World) again(fs *vfs.MemFS) {
	w.T.Helper()
	w.Stop()
	w.fs = fs
	w.Start()
}

// Commit makes a change, which must succeed.
func (w *World) Commit(change func(tx *view.Tx) error) {
	w.T.Helper()
	if _, err := w.Book.Change(context.Background(), change); err != nil {
		w.T.Fatal(err)
	}
}

// Tail is the seq of the newest record.
func (w *World) Tail() quipu.Seq {
	w.T.Helper()
	tail, err := w.Log.Tail(context.Background(), w.ID, quipu.Linearizable)
	if err != nil {
		w.T.Fatal(err)
	}
	return tail
}

// Eventually waits until something is so.
func (w *World) Eventually(what string, is func() bool) {
	w.T.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !is(); <-tick.C {
		if time.Now().After(end) {
			w.T.Fatalf("not in %s: %s", patience, what)
		}
	}
}

// Passing has time pass in steps until something is so.
func (w *World) Passing(step time.Duration, what string, is func() bool) {
	w.T.Helper()
	w.Eventually(what, func() bool {
		if is() {
			return true
		}
		w.Clock.Move(step)
		return false
	})
}
