package locallog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/quipu-run/quipu"
)

// tagged appends n records with one or two of three tags.
func tagged(t *testing.T, l *Log, book quipu.Book, rng *rand.Rand, n int) (seqs []quipu.Seq) {
	t.Helper()
	for range n {
		d := quipu.Draft{Tags: []string{fmt.Sprint("t", rng.IntN(3)), fmt.Sprint("t", rng.IntN(3))}, Data: make([]byte, rng.IntN(900))}
		seq, err := l.Append(t.Context(), book, d)
		if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, seq)
	}
	return seqs
}

func mustTrim(t *testing.T, l *Log, book quipu.Book, tag string, upto quipu.Seq) {
	t.Helper()
	if err := l.Trim(t.Context(), book, tag, upto); err != nil {
		t.Fatal(err)
	}
}

func mustHold(t *testing.T, l *Log, when string) {
	t.Helper()
	if err := checkHeld(l); err != nil {
		t.Fatalf("%s: %v", when, err)
	}
}

// After any mix of trims by tag and of the book, of cleaning, restarts and power cuts, a book holds what can be read, and
// nothing when all of it is trimmed.
func TestABookHoldsWhatCanBeRead(t *testing.T) {
	eachSeed(t, 4, func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 3))
		o := small(vfs.NewCrashableMem())
		l := mustOpen(t, o)
		book := mustCreate(t, l)
		var seqs []quipu.Seq
		for step := range 60 {
			seqs = append(seqs, tagged(t, l, book, rng, rng.IntN(40)+1)...)
			upto := seqs[len(seqs)-1-rng.IntN(min(len(seqs), 60))]
			what := fmt.Sprint("trim of t0 to t2 up to ", upto)
			switch tag := rng.IntN(6); {
			case tag < 5:
				mustTrim(t, l, book, fmt.Sprint("t", tag%3), upto)
			default:
				what = fmt.Sprint("trim up to ", upto)
				mustTrim(t, l, book, quipu.TagAll, upto)
			}
			mustHold(t, l, fmt.Sprintf("step %d, %s", step, what))
			switch rng.IntN(6) {
			case 0:
				l = reopened(t, l)
				mustClean(t, l)
			case 1:
				o.FS = o.FS.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				l = mustOpen(t, o)
			}
			mustHold(t, l, fmt.Sprintf("step %d, later", step))
		}
		for i := range 3 {
			mustTrim(t, l, book, fmt.Sprint("t", i), seqs[len(seqs)-1])
		}
		if held := infoOf(t, l, book); held.Records != 0 || held.Bytes != 0 {
			t.Errorf("with every tag trimmed the book holds %+v", held)
		}
		mustTrim(t, l, book, quipu.TagAll, seqs[len(seqs)-1])
		seqs = tagged(t, l, book, rng, 1)
		if held := infoOf(t, l, book); held.Records != 1 || held.Bytes < 40 {
			t.Errorf("after %s it holds %+v", seqs[0], held)
		}
	})
}

// An older version did not say in a trim of a tag what is gone with it, nor keep account of it: Open counts, once, whether the trim is
// in the index already or has to be entered again.
func TestWhatAnOlderVersionTrimmedIsCountedOnOpen(t *testing.T) {
	fs := vfs.NewCrashableMem()
	o := small(fs)
	l := mustOpen(t, o)
	book := mustCreate(t, l)
	rng := rand.New(rand.NewPCG(1, 2))
	seqs := tagged(t, l, book, rng, 100)
	old := func(tag string, upto quipu.Seq) {
		t.Helper()
		data := le.AppendUint64(le.AppendUint64([]byte{systemTrimV2}, uint64(book)), uint64(upto))
		if err := l.changeBook(t.Context(), "log.trim", book, append(append(data, make([]byte, 16)...), tag...)); err != nil {
			t.Fatal(err)
		}
	}
	old("t0", seqs[70])
	old("t1", seqs[60])
	crashed := withFS(o, fs.CrashClone(vfs.CrashCloneCfg{}))
	again := mustOpen(t, crashed)
	mustHold(t, again, "after a power cut")
	want := infoOf(t, again, book)
	if want.Records == 100 {
		t.Fatal("nothing is gone")
	}

	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	forgetGone(t, crashed, book)
	again = mustOpen(t, crashed)
	if got := infoOf(t, again, book); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	mustTrim(t, again, book, "t2", seqs[50])
	mustTrim(t, again, book, quipu.TagAll, seqs[40])
	mustHold(t, again, "after more trims")
	mustHold(t, reopened(t, again), "after a restart")
}

// forgetGone takes the account of what is gone out of a closed log.
func forgetGone(t *testing.T, o Options, book quipu.Book) {
	t.Helper()
	x, err := openIndex(o.FS, "log/"+indexName, o.Logger)
	if err != nil {
		t.Fatal(err)
	}
	b := x.db.NewBatch()
	err = errors.Join(b.Delete(be.AppendUint64([]byte{keyGone}, uint64(book)), nil), x.apply(b), x.flush(), x.close())
	if err != nil {
		t.Fatal(err)
	}
}

// A trim whose caller gives up while it is written is seen through, so that the next counts from what it left.
func TestATrimThatWasBegunIsSeenThrough(t *testing.T) {
	s := &stuck{entered: make(chan struct{}), leave: make(chan struct{})}
	l := mustOpen(t, small(errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(s.before))))
	book := mustCreate(t, l)
	seq, err := l.Append(t.Context(), book, quipu.Draft{Tags: []string{"a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.on = true
	s.mu.Unlock()
	ctx, giveUp := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- l.Trim(ctx, book, "a", seq) }()
	<-s.entered
	giveUp()
	go func() { second <- l.Trim(t.Context(), book, "b", seq) }()
	close(s.leave)
	if err := errors.Join(<-first, <-second); err != nil {
		t.Fatal(err)
	}
	if held := infoOf(t, l, book); held.Records != 0 || held.Bytes != 0 {
		t.Errorf("the book holds %+v", held)
	}
}

// A record that cannot be read hinders no trim. It counts until the book's own point passes it.
func TestADamagedRecordCountsUntilTheBookIsTrimmed(t *testing.T) {
	o := small(vfs.NewMem())
	o.HotBytesMax = 1
	l := mustOpen(t, o)
	book := mustCreate(t, l)
	seqs := tagged(t, l, book, rand.New(rand.NewPCG(1, 1)), 20)
	p, err := l.findLast(t.Context(), book, quipu.TagAll, seqs[9])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.segments[p.segment].file.WriteAt([]byte("damage"), int64(p.offset)+40); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Prev(t.Context(), book, quipu.TagAll, seqs[9]); quipu.CodeOf(err) != quipu.CodeCorrupt {
		t.Fatalf("the damaged record is read: %v", err)
	}
	for i := range 3 {
		mustTrim(t, l, book, fmt.Sprint("t", i), seqs[14])
	}
	if held := infoOf(t, l, book); held.Records != 6 {
		t.Errorf("with 15 of 20 trimmed by tag, one of them damaged, the book holds %+v", held)
	}
	mustTrim(t, l, book, quipu.TagAll, seqs[9])
	if held := infoOf(t, l, book); held.Records != 5 {
		t.Errorf("with the damaged one trimmed it holds %+v", held)
	}
}

// Retention by bytes goes by what can be read.
func TestRetentionByBytesLeavesOutWhatIsGone(t *testing.T) {
	l, _, book, seqs := aged(t, quipu.BookOptions{MaxBytes: 3100})
	mustTrim(t, l, book, "t0", seqs[9]) // the first, fourth, seventh and last
	mustRetain(t, l, book, seqs[4])
	if held := infoOf(t, l, book); held.Records != 3 || held.Bytes > 3100 {
		t.Errorf("the book holds %+v", held)
	}
	mustHold(t, l, "after retention")
}

// A log that is restored up to a seq holds what can be read then, with the points of tags that were moved before the backup.
func TestARestoredBookHoldsWhatCanBeRead(t *testing.T) {
	l := mustOpen(t, small(vfs.NewCrashableMem()))
	book := mustCreate(t, l)
	seqs := tagged(t, l, book, rand.New(rand.NewPCG(4, 1)), 60)
	mustTrim(t, l, book, "t0", seqs[50])
	mustTrim(t, l, book, "t1", seqs[30])
	o, _ := backedUp(t, l, func() {})
	if _, err := Restore(o, seqs[40]); err != nil {
		t.Fatal(err)
	}
	restored := mustOpen(t, o)
	mustHold(t, restored, "after the restore")
	mustTrim(t, restored, book, "t2", seqs[40])
	mustHold(t, restored, "after a trim")
}
