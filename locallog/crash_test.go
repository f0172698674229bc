package locallog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/quipu-run/quipu"
)

// witness knows what callers were told, and what was asked and not answered yet.
type witness struct {
	mu     sync.Mutex // guards below
	acked  map[quipu.Seq][]byte
	asked  [][][]byte // all appends so far, answered or not
	trim   quipu.Seq  // highest that was asked for
	booked bool       // the book's creation was answered
	last   quipu.Seq
	kept   []quipu.Record // of the book that is never trimmed
	stats  Stats          // of the sessions so far, only what went over segments
}

func newWitness() *witness { return &witness{acked: map[quipu.Seq][]byte{}} }

func (w *witness) copy() *witness {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := &witness{acked: map[quipu.Seq][]byte{}, asked: w.asked, trim: w.trim, booked: w.booked, last: w.last, kept: w.kept}
	for seq, data := range w.acked {
		c.acked[seq] = data
	}
	return c
}

// script is a history that rolls, saves, trims, deletes, closes and opens. It stops at the first error.
func (w *witness) script(o Options, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 2 {
		l, err := Open(o)
		if err != nil {
			return err
		}
		err = w.session(l, rng)
		w.stats.Recycled, w.stats.Relocated = w.stats.Recycled+l.Stats().Recycled, w.stats.Relocated+l.Stats().Relocated
		if e := l.Close(); err == nil {
			err = e
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *witness) session(l *Log, rng *rand.Rand) error {
	ctx := context.Background()
	book, err := l.OpenBook(ctx, "b")
	if quipu.CodeOf(err) == quipu.CodeNoBook {
		book, err = l.CreateBook(ctx, "b", quipu.BookOptions{})
	}
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.booked = true
	w.mu.Unlock()
	for i := range 14 {
		ds := make([]quipu.Draft, 1+rng.IntN(3))
		for j := range ds {
			ds[j] = quipu.Draft{Tags: []string{fmt.Sprint("t", i%3)}, Data: make([]byte, 1+rng.IntN(6000))}
			for k := range ds[j].Data {
				ds[j].Data[k] = byte(rng.Uint32()) | 1
			}
		}
		if err := w.append(l, book, ds); err != nil {
			return err
		}
		if i%3 == 1 {
			if err := w.remember(l); err != nil {
				return err
			}
		}
		if i%5 == 4 {
			w.mu.Lock()
			w.trim = w.last
			w.mu.Unlock()
			if err := l.Trim(ctx, book, quipu.TagAll, w.trim); err != nil {
				return err
			}
			if err := w.settle(l); err != nil {
				return err
			}
		}
	}
	return nil
}

// settle saves a checkpoint, as the time after a trim does, and lets the cleaner finish, so that seeds repeat.
func (w *witness) settle(l *Log) error {
	l.keeper.overdue.Store(true)
	l.queue.nudge()
	for {
		l.mu.RLock()
		saved := !l.state.moved && l.state.frozen == nil
		l.mu.RUnlock()
		if saved {
			break
		}
		select {
		case <-l.done:
			return errors.New("the log has stopped")
		default:
			runtime.Gosched()
		}
	}
	done := make(chan struct{})
	select {
	case l.cleaner.asked <- done:
		<-done
		return nil
	case <-l.done:
		return errors.New("the log has stopped")
	}
}

// remember adds a record to a book that is never trimmed: it stays in segments of which nothing else is left.
func (w *witness) remember(l *Log) error {
	ctx := context.Background()
	book, err := l.OpenBook(ctx, "kept")
	if quipu.CodeOf(err) == quipu.CodeNoBook {
		book, err = l.CreateBook(ctx, "kept", quipu.BookOptions{})
	}
	if err != nil {
		return err
	}
	data := fmt.Appendf(nil, "kept %d", len(w.kept))
	seq, err := l.Append(ctx, book, quipu.Draft{Tags: []string{"k"}, Data: data})
	if err == nil {
		w.mu.Lock()
		w.kept = append(w.kept, quipu.Record{Seq: seq, Data: data})
		w.mu.Unlock()
	}
	return err
}

// checkKept reads the book that is never trimmed.
func (w *witness) checkKept(l *Log) error {
	if len(w.kept) == 0 {
		return nil
	}
	book, err := l.OpenBook(context.Background(), "kept")
	if err != nil {
		return err
	}
	for _, want := range w.kept {
		r, err := l.Next(context.Background(), book, "k", want.Seq)
		if err != nil || r.Seq != want.Seq || !bytes.Equal(r.Data, want.Data) {
			return fmt.Errorf("kept %s is lost or changed: found %s, %w", want.Seq, r.Seq, err)
		}
	}
	return nil
}

func (w *witness) append(l *Log, book quipu.Book, ds []quipu.Draft) error {
	var all [][]byte
	for _, d := range ds {
		all = append(all, d.Data)
	}
	w.mu.Lock()
	w.asked = append(w.asked, all)
	w.mu.Unlock()
	seqs, err := l.AppendBatch(context.Background(), book, ds)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		for i, seq := range seqs {
			w.acked[seq], w.last = ds[i].Data, seq
		}
	}
	return err
}

// check opens what a crash left, and compares it with what callers had been told before, and had asked for
// right after it.
func (w *witness) check(fs vfs.FS, later *witness) error {
	o := small(fs)
	l, err := Open(o)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	err = w.checkOpen(l, later)
	if e := l.Close(); err == nil && e != nil {
		err = fmt.Errorf("close: %w", e)
	}
	return err
}

func (w *witness) checkOpen(l *Log, later *witness) error {
	ctx := context.Background()
	book, err := l.OpenBook(ctx, "b")
	if quipu.CodeOf(err) == quipu.CodeNoBook && !w.booked {
		return nil
	}
	if err != nil {
		return err
	}
	for seq, data := range w.acked {
		r, err := l.Next(ctx, book, quipu.TagAll, seq)
		if quipu.CodeOf(err) == quipu.CodeTrimmed && seq <= later.trim {
			continue
		}
		if err != nil || r.Seq != seq || !bytes.Equal(r.Data, data) {
			return fmt.Errorf("acknowledged %s is lost or changed: found %s, %w", seq, r.Seq, err)
		}
	}
	if err := w.checkKept(l); err != nil {
		return err
	}
	if err := later.checkWhole(l, book); err != nil {
		return err
	}
	if err := checkHeld(l); err != nil {
		return err
	}
	if _, err := l.Verify(ctx, nil); err != nil {
		return err
	}
	seq, err := l.Append(ctx, book, quipu.Draft{Data: []byte("after")})
	if err != nil || seq <= w.last {
		return fmt.Errorf("append after recovery: %s after %s, %w", seq, w.last, err)
	}
	return nil
}

// checkHeld compares what each book says that it holds with what is read.
func checkHeld(l *Log) error {
	infos, err := l.Books(context.Background())
	if err != nil {
		return err
	}
	for _, b := range infos {
		found := int64(0)
		for _, err := range l.Range(context.Background(), b.ID, quipu.TagAll, b.Trim+1, quipu.SeqMax) {
			if err != nil {
				return err
			}
			found++
		}
		if found != b.Records || (found == 0) != (b.Bytes == 0) {
			return fmt.Errorf("book %q says that it holds %d records in %d bytes, and has %d", b.Name, b.Records, b.Bytes, found)
		}
	}
	return nil
}

// checkWhole reads everything: appends that were asked for, in their order, each as a whole.
func (w *witness) checkWhole(l *Log, book quipu.Book) error {
	infos, err := l.Books(context.Background())
	if err != nil {
		return err
	}
	asked, rest := w.asked, [][]byte(nil)
	for r, err := range l.Range(context.Background(), book, quipu.TagAll, infos[slices.IndexFunc(infos, func(b quipu.BookInfo) bool { return b.ID == book })].Trim+1, quipu.SeqMax) {
		if err != nil {
			return err
		}
		for len(rest) == 0 && len(asked) > 0 {
			if bytes.Equal(asked[0][0], r.Data) {
				rest = asked[0]
			}
			asked = asked[1:]
		}
		if len(rest) == 0 || !bytes.Equal(rest[0], r.Data) {
			return fmt.Errorf("record %s is none that was asked for, or out of order", r.Seq)
		}
		rest = rest[1:]
	}
	if len(rest) > 0 {
		return fmt.Errorf("the last %d records of an append are missing", len(rest))
	}
	return nil
}

// At every file operation of a history, a power cut (any part of what was not synced is lost) or a kill -9
// (nothing is lost) leaves a directory with every acknowledged record, and no half of any other.
func TestACrashAtAnyFileOperationLosesNothingAcknowledged(t *testing.T) {
	eachSeed(t, 2, func(t *testing.T, seed uint64) {
		fs := vfs.NewCrashableMem()
		w := newWitness()
		rng := rand.New(rand.NewPCG(seed, 2))
		var mu sync.Mutex // one crash at a time, so that seeds repeat as far as Pebble's threads allow
		points := 0
		hook := errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			points++
			percent := []int{0, 30, 70, 100}[rng.IntN(4)]
			// What is acknowledged before the clone is taken must be in it.
			told := w.copy()
			left := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
			if err := told.check(left, w.copy()); err != nil {
				t.Errorf("crash point %d, before %v of %s, %d %% of unsynced blocks kept: %v", points, op.Kind, op.Path, percent, err)
			}
			return nil
		})
		if err := w.script(small(errorfs.Wrap(fs, hook)), seed); err != nil {
			t.Fatal(err)
		}
		if err := w.check(fs, w); err != nil {
			t.Fatal(err)
		}
		if w.stats.Recycled == 0 {
			t.Error("no deleted segment was written over")
		}
		if w.stats.Relocated == 0 {
			t.Error("no record was moved")
		}
		t.Logf("%d crash points, %d segments written over", points, w.stats.Recycled)
	})
}

// An error of any single file operation, reads and background work included, is never answered with a lie: what
// was acknowledged is there after a power cut right behind it.
func TestAnErrorOfAnyFileOperationLosesNothingAcknowledged(t *testing.T) {
	for name, failure := range map[string]error{"io": errorfs.ErrInjected, "no space": syscall.ENOSPC} {
		t.Run(name, func(t *testing.T) {
			step := 1
			if testing.Short() {
				step = 5 // the race detector is slow
			}
			for n := 0; ; n += step {
				if fired := failAt(t, n, failure); !fired {
					t.Logf("%d operations", n)
					return
				}
				if t.Failed() {
					return
				}
			}
		})
	}
}

// failAt runs the script with the nth operation failing, and answers whether there were that many.
func failAt(t *testing.T, n int, failure error) bool {
	t.Helper()
	fs := vfs.NewCrashableMem()
	w := newWitness()
	var mu sync.Mutex
	count, fired := 0, ""
	hook := errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		count++
		if count-1 != n || panics(op) {
			return nil
		}
		fired = fmt.Sprintf("operation %d: %v of %s", n, op.Kind, op.Path)
		return &errorfsFailure{failure}
	})
	err := w.script(small(errorfs.Wrap(fs, hook)), 7)
	left := fs.CrashClone(vfs.CrashCloneCfg{})
	mu.Lock() // the index may still be at work in the background
	defer mu.Unlock()
	if e := w.check(left, w); e != nil {
		t.Errorf("%s, script ended with %v: %v", fired, err, e)
	}
	return count > n
}

// panics tells whether Pebble ends the process when the operation fails: then the test would end too. That a crash
// there loses nothing is shown above.
func panics(op errorfs.Op) bool {
	return op.Kind == errorfs.OpFileSync && (op.Path == "log/index" || strings.HasPrefix(op.Path, "log/index/marker"))
}

// errorfsFailure is what a file operation fails with.
type errorfsFailure struct{ cause error }

func (e *errorfsFailure) Error() string { return "injected: " + e.cause.Error() }
func (e *errorfsFailure) Unwrap() error { return e.cause }

// With SyncOS a power cut may take the newest acknowledged records, but only those: what is left is a beginning of
// the log without a gap, and never taken for damage. Kill -9 takes nothing.
func TestSyncOSLosesOnlyTheNewestRecordsInAPowerCut(t *testing.T) {
	eachSeed(t, 20, func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 3))
		fs := vfs.NewCrashableMem()
		o := small(fs)
		o.Sync = SyncOS
		l := mustOpen(t, o)
		book := mustCreate(t, l)
		for i := range 40 {
			if _, err := l.Append(t.Context(), book, quipu.Draft{Data: append(make([]byte, 1+rng.IntN(5000)), byte(i))}); err != nil {
				t.Fatal(err)
			}
		}
		for _, percent := range []int{0, 50, 90, 100} {
			o.FS = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
			after := mustOpen(t, o)
			if _, err := after.OpenBook(t.Context(), "b"); quipu.CodeOf(err) == quipu.CodeNoBook && percent < 100 {
				continue
			}
			records := all(t, after, book)
			for i, r := range records {
				if r.Data[len(r.Data)-1] != byte(i) {
					t.Fatalf("%d %% kept: record %d is %d", percent, i, r.Data[len(r.Data)-1])
				}
			}
			if percent == 100 && len(records) != 40 {
				t.Fatalf("kill -9 took %d records", 40-len(records))
			}
			if _, err := after.Verify(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
		}
	})
}
