package locallog

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/xtest"
)

func infoOf(t *testing.T, l *Log, id quipu.Book) quipu.BookInfo {
	t.Helper()
	books, err := l.Books(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(books, func(b quipu.BookInfo) bool { return b.ID == id })
	if i < 0 {
		t.Fatalf("book %d is not in %+v", id, books)
	}
	return books[i]
}

// aged is a log with a book to which a record was appended in each of ten seconds.
func aged(t *testing.T, o quipu.BookOptions) (*Log, *xtest.Clock, quipu.Book, []quipu.Seq) {
	t.Helper()
	opts := small(vfs.NewCrashableMem())
	clock := opts.Clock.(*xtest.Clock)
	l := mustOpen(t, opts)
	book, err := l.CreateBook(t.Context(), "b", o)
	if err != nil {
		t.Fatal(err)
	}
	var seqs []quipu.Seq
	for i := range 10 {
		seq, err := l.Append(t.Context(), book, quipu.Draft{Data: make([]byte, 960), Tags: []string{fmt.Sprint("t", i%3)}})
		if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, seq)
		clock.Move(time.Second)
	}
	return l, clock, book, seqs
}

func mustRetain(t *testing.T, l *Log, book quipu.Book, wantTrim quipu.Seq) {
	t.Helper()
	if err := l.retain(t.Context(), book); err != nil {
		t.Fatal(err)
	}
	if at := infoOf(t, l, book).Trim; at != wantTrim {
		t.Fatalf("the trim point is %s, want %s", at, wantTrim)
	}
}

func TestRetentionByAge(t *testing.T) {
	l, clock, book, seqs := aged(t, quipu.BookOptions{MaxAge: 15 * time.Second})
	mustRetain(t, l, book, 0)
	clock.Move(5 * time.Second) // the first record is 15 seconds old now
	mustRetain(t, l, book, seqs[0])
	clock.Move(4 * time.Second)
	mustRetain(t, l, book, seqs[4])
	mustRetain(t, l, book, seqs[4])
	clock.Move(time.Hour)
	mustRetain(t, l, book, seqs[9])
	mustRetain(t, l, book, seqs[9])
	if held := infoOf(t, l, book); held.Records != 0 || held.Bytes != 0 {
		t.Errorf("an empty book holds %+v", held)
	}
}

func TestRetentionByBytes(t *testing.T) {
	l, _, book, seqs := aged(t, quipu.BookOptions{MaxBytes: 3100})
	mustRetain(t, l, book, seqs[6])
	if held := infoOf(t, l, book); held.Records != 3 || held.Bytes > 3100 || held.Bytes < 3*960 {
		t.Errorf("the book holds %+v", held)
	}
	l = reopened(t, l)
	mustRetain(t, l, book, seqs[6])
	if err := l.SetBook(t.Context(), book, quipu.BookOptions{MaxBytes: 1}); err != nil {
		t.Fatal(err)
	}
	mustRetain(t, l, book, seqs[9])
}

// Nobody has to ask: the log looks by itself.
func TestRetentionGoesOnByItself(t *testing.T) {
	l, clock, book, seqs := aged(t, quipu.BookOptions{MaxAge: time.Second})
	for deadline := time.Now().Add(20 * time.Second); infoOf(t, l, book).Trim != seqs[9]; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the trim point is %s, want %s", infoOf(t, l, book).Trim, seqs[9])
		}
		clock.Move(l.opts.RetainEvery)
	}
}

// What a deleted book had leaves the disk and the index, and what was on its way to it harms nobody.
func TestADeletedBookLeavesNothing(t *testing.T) {
	o := small(vfs.NewCrashableMem())
	l := mustOpen(t, o)
	keep := mustCreate(t, l)
	drop, err := l.CreateBook(t.Context(), "drop", quipu.BookOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		d := quipu.Draft{Tags: []string{fmt.Sprint("t", i)}, Data: make([]byte, 1000), Producer: quipu.Producer{ID: uint64(i + 1), N: 1}}
		if _, err := l.Append(t.Context(), drop, d); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Trim(t.Context(), drop, "t0", 5); err != nil {
		t.Fatal(err)
	}
	before := l.Stats().Segments
	if err := l.DeleteBook(t.Context(), drop); err != nil {
		t.Fatal(err)
	}
	l = reopened(t, l) // closing saves a checkpoint
	if after := l.Stats(); after.Segments > 3 || before < 6 || after.Books != 1 {
		t.Errorf("%d segments before, then %+v", before, after)
	}
	for _, space := range []byte{keyBook, keyTagTrim, keyProducer, keyPosting} {
		err := l.index().each([]byte{space}, []byte{space + 1}, func(key, _ []byte) error {
			if quipu.Book(be.Uint64(key[1:])) != keep {
				t.Errorf("the index still has % x", key)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	again, err := l.CreateBook(t.Context(), "drop", quipu.BookOptions{})
	if err != nil || again <= drop {
		t.Errorf("the name got id %d again, %v; it was %d", again, err, drop)
	}
}

// A record that was queued behind the deletion of its book is refused, whether the two share a batch or not, and also
// when the log is entered again after a crash.
func TestAnAppendBehindTheDeletionOfItsBookIsRefused(t *testing.T) {
	fs := vfs.NewCrashableMem()
	o := small(fs)
	l := mustOpen(t, o)
	book := mustCreate(t, l)
	ctx := context.Background()
	enqueue := func(id quipu.Book, d quipu.Draft, system bool) *request {
		r := &request{buf: appendRecord(nil, id, &d, false), count: 1, book: id, system: system, done: make(chan struct{}, 1)}
		l.queue.items = append(l.queue.items, r)
		l.queue.bytes += int64(len(r.buf))
		return r
	}
	l.queue.mu.Lock()
	drop := enqueue(0, quipu.Draft{Kind: quipu.KindSystem, Version: 1, Data: le.AppendUint64([]byte{systemDelete}, uint64(book))}, true)
	late := enqueue(book, quipu.Draft{Kind: quipu.KindRaw, Data: []byte("late")}, false)
	l.queue.signal()
	l.queue.mu.Unlock()
	<-drop.done
	<-late.done
	if drop.err != nil || drop.res.code != "" || late.err != nil || late.res.code != quipu.CodeNoBook {
		t.Fatalf("the deletion got %v %v, the append behind it %v %v", drop.res, drop.err, late.res, late.err)
	}
	o.FS = fs.CrashClone(vfs.CrashCloneCfg{})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, o)
	if _, err := l.OpenBook(ctx, "b"); quipu.CodeOf(err) != quipu.CodeNoBook {
		t.Errorf("after a crash: %v", err)
	}
	if _, err := l.Verify(ctx, nil); err != nil {
		t.Error(err)
	}
}

// A book with little to write does not wait behind all that another has queued, and each keeps its own order.
func TestBooksTakeTurns(t *testing.T) {
	o := small(vfs.NewMem())
	o.SegmentBytesMin, o.SegmentBytesMax = 16<<20, 16<<20
	l := mustOpen(t, o)
	loud := mustCreate(t, l)
	quiet, err := l.CreateBook(t.Context(), "quiet", quipu.BookOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var all []*request
	l.queue.mu.Lock()
	for i := range 102 {
		id, d := loud, quipu.Draft{Kind: quipu.KindRaw, Data: make([]byte, 64<<10)}
		if i > 99 {
			id, d.Data = quiet, d.Data[:100]
		}
		r := &request{buf: appendRecord(nil, id, &d, false), count: 1, book: id, done: make(chan struct{}, 1)}
		l.queue.items, l.queue.bytes = append(l.queue.items, r), l.queue.bytes+int64(len(r.buf))
		all = append(all, r)
	}
	l.queue.signal()
	l.queue.mu.Unlock()
	for i, r := range all {
		<-r.done
		if r.err != nil || r.res.code != "" {
			t.Fatal(r.err, r.res)
		}
		if i > 0 && i != 100 && r.res.first < all[i-1].res.first {
			t.Errorf("append %d of a book got a seq before that of the one queued before it", i)
		}
	}
	if after := all[100].res.first - all[0].res.first; after > 16 {
		t.Errorf("the quiet book's first append comes %d records after the loud one's", after)
	}
}

func TestAWriterThatStartsAnewLearnsItsNumber(t *testing.T) {
	l := mustOpen(t, small(vfs.NewCrashableMem()))
	book := mustCreate(t, l)
	for n := range uint64(20) {
		d := quipu.Draft{Producer: quipu.Producer{ID: 7, Epoch: 3, N: n + 1}}
		if n%2 == 1 {
			d.Cond = &quipu.Cond{Tag: "none", Last: 1} // loses
		}
		if _, err := l.Append(t.Context(), book, d); err != nil && quipu.CodeOf(err) != quipu.CodeConflict {
			t.Fatal(err)
		}
	}
	l = reopened(t, l)
	if p, err := l.Producer(t.Context(), book, 7); err != nil || p != (quipu.Producer{ID: 7, Epoch: 3, N: 20}) {
		t.Errorf("got %+v, %v", p, err)
	}
	if p, err := l.Producer(t.Context(), book, 8); err != nil || p != (quipu.Producer{ID: 8}) {
		t.Errorf("of one that is not known: %+v, %v", p, err)
	}
}
