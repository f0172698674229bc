package locallog

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/xtest"
)

// mustClean returns when the cleaner has done all that there is to do by it.
func mustClean(t testing.TB, l *Log) {
	t.Helper()
	done := make(chan struct{})
	select {
	case l.cleaner.asked <- done:
		<-done
	case <-l.done:
		t.Fatal("the log has stopped")
	}
}

// What every segment has a little of stays, and the rest of the segment goes. hold names who holds on to it.
func TestNobodyPinsTheSpaceOfOthers(t *testing.T) {
	const rounds = 1200
	for name, hold := range map[string]func(t *testing.T, l *Log) (kept, busy quipu.Book, d quipu.Draft, trim func(quipu.Seq) error){
		"a forgotten book": func(t *testing.T, l *Log) (quipu.Book, quipu.Book, quipu.Draft, func(quipu.Seq) error) {
			busy := mustCreate(t, l)
			forgotten, err := l.CreateBook(t.Context(), "forgotten", quipu.BookOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return forgotten, busy, quipu.Draft{Tags: []string{"busy"}}, func(at quipu.Seq) error { return l.Trim(t.Context(), busy, quipu.TagAll, at) }
		},
		"a forgotten tag": func(t *testing.T, l *Log) (quipu.Book, quipu.Book, quipu.Draft, func(quipu.Seq) error) {
			book := mustCreate(t, l)
			return book, book, quipu.Draft{Tags: []string{"busy"}}, func(at quipu.Seq) error { return l.Trim(t.Context(), book, "busy", at) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewCrashableMem()
			o := small(fs)
			o.SpareBytesMax = -1
			l := mustOpen(t, o)
			kept, busy, d, trim := hold(t, l)
			var want []string
			for i := range rounds {
				d.Data = make([]byte, 1000)
				seq, err := l.Append(t.Context(), busy, d)
				if err == nil && i%25 == 7 {
					want = append(want, fmt.Sprint("keep ", i))
					_, err = l.Append(t.Context(), kept, quipu.Draft{Tags: []string{"forgotten"}, Data: []byte(want[len(want)-1])})
				}
				if err == nil && i%100 == 99 {
					err = trim(seq)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			l = reopened(t, l)
			mustClean(t, l)
			s := l.Stats()
			if held := s.SegmentBytes; held > 5*o.SegmentBytesMax {
				t.Errorf("%d records of a few bytes hold %d bytes, of %d that were written", len(want), held, rounds*1000)
			}
			if s.Kept == 0 || s.Kept > 6 {
				t.Errorf("%d kept segments", s.Kept)
			}
			for _, after := range []*Log{l, mustOpen(t, withFS(o, fs.CrashClone(vfs.CrashCloneCfg{})))} {
				if got := dataOf(t, after, kept, "forgotten"); !slices.Equal(got, want) {
					t.Errorf("%d records of what was forgotten, want %d", len(got), len(want))
				}
				if _, err := after.Verify(t.Context(), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func withFS(o Options, fs vfs.FS) Options {
	o.FS = fs
	return o
}

// dataOf is what is readable of a stream.
func dataOf(t *testing.T, l *Log, book quipu.Book, tag string) (all []string) {
	t.Helper()
	from := quipu.Seq(0)
	if _, err := l.Next(t.Context(), book, tag, 0); quipu.CodeOf(err) == quipu.CodeTrimmed {
		from = quipu.AsError(err).Seq + 1
	}
	for r, err := range l.Range(t.Context(), book, tag, from, quipu.SeqMax) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(r.Data))
	}
	return all
}

// A trim gives space back by itself, also when nothing is appended any more: after trimDelay, not after the next 8 MiB of index.
func TestATrimAloneGivesSpaceBack(t *testing.T) {
	o := small(vfs.NewMem())
	o.CheckpointBytes, o.SpareBytesMax = 1<<20, -1
	clock := o.Clock.(*xtest.Clock)
	l := mustOpen(t, o)
	book := mustCreate(t, l)
	tail := quipu.Seq(0)
	for range 200 {
		tail = appendKB(t, l, book, 'x')
	}
	before := l.Stats().Segments
	if err := l.Trim(t.Context(), book, quipu.TagAll, tail); err != nil {
		t.Fatal(err)
	}
	// Whoever waits for the clock is found only by moving it again and again.
	for deadline := time.Now().Add(20 * time.Second); l.Stats().Segments > 2; clock.Move(trimDelay) {
		if time.Now().After(deadline) {
			t.Fatalf("%d segments of %d are left", l.Stats().Segments, before)
		}
		mustClean(t, l)
	}
}

// What moved reads, follows conditions and answers neighbours as before, and moves again when most of what it moved with is
// trimmed.
func TestAMovedRecordIsTheSameRecord(t *testing.T) {
	o := small(vfs.NewMem())
	o.SpareBytesMax = -1
	l := mustOpen(t, o)
	book := mustCreate(t, l)
	busy, err := l.CreateBook(t.Context(), "busy", quipu.BookOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var want []quipu.Record
	last := quipu.Seq(0)
	for i := range 30 {
		seq, err := l.Append(t.Context(), book, quipu.Draft{Version: 3, Tags: []string{"a", fmt.Sprint("t", i%3)}, Data: bytes.Repeat(fmt.Append(nil, "record ", i), 35)})
		if err != nil {
			t.Fatal(err)
		}
		r, err := l.Next(t.Context(), book, quipu.TagAll, seq)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, r)
		for range 40 {
			last = appendKB(t, l, busy, 'b')
		}
	}
	if err := l.Trim(t.Context(), busy, quipu.TagAll, last); err != nil {
		t.Fatal(err)
	}
	for _, upto := range []int{0, 20, 28} {
		if upto > 0 {
			if err := l.Trim(t.Context(), book, quipu.TagAll, want[upto-1].Seq); err != nil {
				t.Fatal(err)
			}
		}
		l = reopened(t, l)
		mustClean(t, l)
		if s := l.Stats(); s.Moved != uint64(30-upto) || s.Kept != 1 {
			t.Fatalf("with %d trimmed: %+v", upto, s)
		}
		checkSame(t, l, book, want, upto)
	}
}

// checkSame compares all ways to read what is not trimmed.
func checkSame(t *testing.T, l *Log, book quipu.Book, want []quipu.Record, upto int) {
	t.Helper()
	for i, r := range want[upto:] {
		got, err := l.Next(t.Context(), book, quipu.TagAll, r.Seq)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(r) {
			t.Fatalf("%v, %v, want %v", got, err, r)
		}
		if got, err = l.Prev(t.Context(), book, r.Tags[1], r.Seq); err != nil || got.Seq != r.Seq {
			t.Fatalf("by tag: %v, %v, want %v", got, err, r)
		}
		if got, err = l.Prev(t.Context(), book, "a", r.Seq-1); i > 0 && (err != nil || got.Seq != want[upto+i-1].Seq) {
			t.Fatalf("before %s is %v, %v", r.Seq, got, err)
		}
	}
	newest := want[len(want)-1].Seq
	if _, err := l.Append(t.Context(), book, quipu.Draft{Cond: &quipu.Cond{Tag: "a", Last: newest}}); err != nil {
		t.Fatalf("a condition on a record that moved: %v", err)
	}
	if _, err := l.Append(t.Context(), book, quipu.Draft{Cond: &quipu.Cond{Tag: "a", Last: newest - 1}}); quipu.CodeOf(err) != quipu.CodeConflict {
		t.Fatalf("a condition that is not met: %v", err)
	}
	if _, err := l.Verify(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
}

// A condition on a stream that was trimmed and deleted long ago still finds its last record, and that is all the index keeps.
func TestATrimmedStreamLeavesOneEntry(t *testing.T) {
	o := small(vfs.NewMem())
	l := mustOpen(t, o)
	book := mustCreate(t, l)
	last := quipu.Seq(0)
	for range 400 {
		seq, err := l.Append(t.Context(), book, quipu.Draft{Tags: []string{"a"}, Data: make([]byte, 500)})
		if err != nil {
			t.Fatal(err)
		}
		last = seq
	}
	if err := l.Trim(t.Context(), book, "a", last); err != nil {
		t.Fatal(err)
	}
	l = reopened(t, l)
	mustClean(t, l)
	entries, bytes := 0, 0
	err := l.index().each(postingKey(nil, book, "a", 0), streamEnd(book, "a"), func(_, value []byte) error {
		entries, bytes = entries+1, bytes+len(value)
		return nil
	})
	if err != nil || entries != 1 || bytes != postingEncoded {
		t.Errorf("%d entries of %d bytes, %v", entries, bytes, err)
	}
	if _, err := l.Append(t.Context(), book, quipu.Draft{Cond: &quipu.Cond{Tag: "a", Last: last}}); err != nil {
		t.Errorf("a condition on the trimmed stream: %v", err)
	}
	if _, err := l.Append(t.Context(), book, quipu.Draft{Cond: &quipu.Cond{Tag: "a"}}); quipu.CodeOf(err) != quipu.CodeConflict {
		t.Errorf("a condition that the stream is new: %v", err)
	}
}

// plan is a pure function of estimates.
func TestPlan(t *testing.T) {
	const mb = 1 << 20
	for name, c := range map[string]struct {
		all        []holding
		max        int64
		dead, move []uint32
	}{
		"nothing to do":                   {all: []holding{{id: 1, size: 64 * mb, live: 60 * mb}, {id: 2, size: 64 * mb, live: 40 * mb}}, max: 32 * mb},
		"what is dead is deleted":         {all: []holding{{id: 1, size: 64 * mb, dead: true}, {id: 2, size: 64 * mb, live: 40 * mb}}, max: 32 * mb, dead: []uint32{1}},
		"little is live in one":           {all: []holding{{id: 1, size: 64 * mb, live: 10 * mb}, {id: 2, size: 64 * mb, live: 60 * mb}}, max: 32 * mb, move: []uint32{1}},
		"the least first, up to a bound":  {all: []holding{{id: 1, size: 64 * mb, live: 19 * mb}, {id: 2, size: 64 * mb, live: 18 * mb}, {id: 3, size: 64 * mb, live: 10 * mb}}, max: 32 * mb, move: []uint32{3, 2}},
		"one alone may exceed the bound":  {all: []holding{{id: 1, size: 128 * mb, live: 36 * mb}}, max: 32 * mb, move: []uint32{1}},
		"less than half live in all":      {all: []holding{{id: 1, size: 64 * mb, live: 20 * mb}, {id: 2, size: 64 * mb, live: 31 * mb}}, max: 32 * mb, move: []uint32{1}},
		"small kept segments go along":    {all: []holding{{id: 1, size: 64 * mb, live: 10 * mb}, {id: keptBit | 1, size: 8 * mb, live: 7 * mb}, {id: keptBit | 2, size: 20 * mb, live: 20 * mb}}, max: 32 * mb, move: []uint32{1, keptBit | 1}},
		"a header page is no reason":      {all: []holding{{id: keptBit | 1, size: segmentHeaderBytes + 64 + 48, live: 48}}, max: 32 * mb},
		"two header pages are":            {all: []holding{{id: keptBit | 1, size: segmentHeaderBytes + 64 + 48, live: 48}, {id: keptBit | 2, size: segmentHeaderBytes + 64 + 48, live: 48}}, max: 32 * mb, move: []uint32{keptBit | 1, keptBit | 2}},
		"trimmed by tag, nothing is left": {all: []holding{{id: 1, size: 64 * mb}}, max: 32 * mb, move: []uint32{1}},
	} {
		dead, move := plan(c.all, c.max)
		if !slices.Equal(ids(dead), c.dead) || !slices.Equal(ids(move), c.move) {
			t.Errorf("%s: delete %v, move %v; want %v, %v", name, ids(dead), ids(move), c.dead, c.move)
		}
	}
}

// A record that cannot be read keeps its segment where it is: whoever reads it is told, and nobody else is disturbed.
func TestADamagedRecordIsNotMoved(t *testing.T) {
	fs := vfs.NewMem()
	o := small(fs)
	o.SpareBytesMax = -1
	l := mustOpen(t, o)
	book := mustCreate(t, l)
	busy, err := l.CreateBook(t.Context(), "busy", quipu.BookOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rare := appendKB(t, l, book, 'r')
	at, _, err := lastPosting(l, book)
	if err != nil {
		t.Fatal(err)
	}
	last := quipu.Seq(0)
	for range 200 {
		last = appendKB(t, l, busy, 'b')
	}
	l = reopened(t, l)
	flip(t, fs, "log/"+segmentName(at.segment), int64(at.offset)+100)
	if err := l.Trim(t.Context(), busy, quipu.TagAll, last); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); l.Stats().Deleted == 0; o.Clock.(*xtest.Clock).Move(trimDelay) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", l.Stats())
		}
		mustClean(t, l)
	}
	if _, err := l.Next(t.Context(), book, quipu.TagAll, rare); quipu.CodeOf(err) != quipu.CodeCorrupt || !strings.Contains(err.Error(), segmentName(at.segment)) {
		t.Errorf("the damaged record reads: %v", err)
	}
	appendKB(t, l, busy, 'b')
	if s := l.Stats(); s.Segments > 3 || s.Kept > 0 {
		t.Errorf("%+v", s)
	}
}

// Whatever is written and trimmed, by book and by tag, with restarts and power cuts in between: everything that is live is there,
// and the disk holds at most twice that, with the constants: the active segment and the next, and what is not worth a
// move, a header page and a half of a segment.
func TestTheDiskFollowsWhatIsLive(t *testing.T) {
	moved := uint64(0)
	eachSeed(t, 3, func(t *testing.T, seed uint64) {
		c := churn{rng: rand.New(rand.NewPCG(seed, 9)), fs: vfs.NewCrashableMem(), books: map[quipu.Book]*churnBook{}}
		c.open(t)
		for i := range 4 {
			book, err := c.log.CreateBook(t.Context(), fmt.Sprint("book", i), quipu.BookOptions{})
			if err != nil {
				t.Fatal(err)
			}
			c.books[book], c.ids = &churnBook{trims: map[string]quipu.Seq{}}, append(c.ids, book)
		}
		for i := range 2500 {
			c.step(t)
			if i%500 == 499 {
				c.check(t)
			}
		}
		moved += c.moved
	})
	if moved == 0 && *seedFlag == 0 {
		t.Error("nothing was moved")
	}
}

type churn struct {
	rng   *rand.Rand
	fs    *vfs.MemFS
	log   *Log
	ids   []quipu.Book
	books map[quipu.Book]*churnBook
	moved uint64
}

type churnBook struct {
	live  []quipu.Record // those of trimmed tags may be among them
	trims map[string]quipu.Seq
}

func (c *churn) open(t *testing.T) {
	t.Helper()
	o := small(c.fs)
	o.SpareBytesMax = -1
	c.log = mustOpen(t, o)
}

func (c *churn) step(t *testing.T) {
	t.Helper()
	book := c.ids[c.rng.IntN(len(c.ids))]
	b := c.books[book]
	switch n := c.rng.IntN(200); {
	case n == 0:
		c.moved += c.log.Stats().Moved
		if c.rng.IntN(2) == 0 {
			c.fs = c.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: c.rng.IntN(101), RNG: c.rng})
		}
		if err := c.log.Close(); err != nil {
			t.Fatal(err)
		}
		c.open(t)
	case n < 12 && len(b.live) > 0:
		tag := []string{quipu.TagAll, "t0", "t1", "t2"}[c.rng.IntN(4)]
		upto := b.live[c.rng.IntN(len(b.live))].Seq
		if book == c.ids[0] {
			return // nobody ever trims this one
		}
		if err := c.log.Trim(t.Context(), book, tag, upto); err != nil {
			t.Fatal(err)
		}
		b.trims[tag] = max(b.trims[tag], upto)
		b.live = slices.DeleteFunc(b.live, func(r quipu.Record) bool { return !b.readable(r) })
	default:
		d := quipu.Draft{Tags: []string{fmt.Sprint("t", c.rng.IntN(3)), fmt.Sprint("t", c.rng.IntN(3))}, Data: make([]byte, c.rng.IntN(2000))}
		if book == c.ids[0] {
			d.Data = d.Data[:len(d.Data)/50]
		}
		seq, err := c.log.Append(t.Context(), book, d)
		if err != nil {
			t.Fatal(err)
		}
		b.live = append(b.live, quipu.Record{Seq: seq, Tags: d.Tags, Data: d.Data})
	}
}

func (b *churnBook) readable(r quipu.Record) bool {
	kept := func(tag string) bool { return b.trims[tag] < r.Seq }
	return b.trims[quipu.TagAll] < r.Seq && slices.ContainsFunc(r.Tags, kept)
}

// check compares every stream by tag, and the disk, after a restart and a run of the cleaner.
func (c *churn) check(t *testing.T) {
	t.Helper()
	c.moved += c.log.Stats().Moved
	if err := c.log.Close(); err != nil {
		t.Fatal(err)
	}
	c.open(t)
	mustClean(t, c.log)
	live := int64(0)
	for id, b := range c.books {
		for _, tag := range []string{"t0", "t1", "t2"} {
			var want, got []quipu.Seq
			for _, r := range b.live {
				if slices.Contains(r.Tags, tag) && r.Seq > max(b.trims[tag], b.trims[quipu.TagAll]) {
					want = append(want, r.Seq)
				}
			}
			for r, err := range c.log.Range(t.Context(), id, tag, max(b.trims[tag], b.trims[quipu.TagAll])+1, quipu.SeqMax) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, r.Seq)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("book %d has %d records of %s, want %d", id, len(got), tag, len(want))
			}
		}
		for _, r := range b.live {
			live += int64(recordBytes(&quipu.Draft{Tags: r.Tags, Data: r.Data}))
		}
	}
	s := c.log.Stats()
	if most := 2*live + 4*c.log.opts.SegmentBytesMax; s.SegmentBytes > most {
		t.Errorf("%d bytes on the disk for %d that are live; at most %d", s.SegmentBytes, live, most)
	}
	if _, err := c.log.Verify(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
}
