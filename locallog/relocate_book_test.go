package locallog

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
)

// A deleted book gives its space back although others have records in all of its segments, and counts nothing any more.
func TestADeletedBookGivesItsSpaceBack(t *testing.T) {
	o := small(vfs.NewCrashableMem())
	o.SpareBytesMax = -1
	l := mustOpen(t, o)
	keep := mustCreate(t, l)
	drop, err := l.CreateBook(t.Context(), "drop", quipu.BookOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 600 {
		appendKB(t, l, drop, 'd')
		if i%20 == 0 {
			want = append(want, fmt.Sprint("keep ", i))
			if _, err := l.Append(t.Context(), keep, quipu.Draft{Tags: []string{"k"}, Data: []byte(want[len(want)-1])}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.DeleteBook(t.Context(), drop); err != nil {
		t.Fatal(err)
	}
	l = reopened(t, l)
	mustClean(t, l)
	if s := l.Stats(); s.SegmentBytes > 4*o.SegmentBytesMax || s.Moved == 0 {
		t.Errorf("%+v", s)
	}
	if got := dataOf(t, l, keep, "k"); !slices.Equal(got, want) {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
	if _, err := l.Verify(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// A book holds what can be read: what is trimmed in all of its tags counts no more at once, and is taken away once, also when it was left
// behind by a move and the book's own trim passes it.
func TestWhatIsGoneCountsNoMore(t *testing.T) {
	o := small(vfs.NewMem())
	o.SpareBytesMax = -1
	l := mustOpen(t, o)
	book := mustCreate(t, l)
	var seqs []quipu.Seq
	for range 500 {
		seq, err := l.Append(t.Context(), book, quipu.Draft{Tags: []string{"a"}, Data: make([]byte, 950)})
		if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, seq)
	}
	full := infoOf(t, l, book)
	if err := l.Trim(t.Context(), book, "a", seqs[479]); err != nil {
		t.Fatal(err)
	}
	before := infoOf(t, l, book)
	if before.Records != 20 || before.Bytes != full.Bytes/25 {
		t.Errorf("the book holds %+v, before the trim %+v", before, full)
	}
	l = reopened(t, l)
	mustClean(t, l)
	if s := l.Stats(); s.Relocated == 0 || s.SegmentBytes > 4*o.SegmentBytesMax {
		t.Errorf("%+v", s)
	}
	if after := infoOf(t, l, book); after != before {
		t.Errorf("the book holds %+v, before %+v", after, before)
	}
	if r, err := l.Next(t.Context(), book, quipu.TagAll, 0); err != nil || r.Seq != seqs[480] {
		t.Errorf("the first record is %s, %v", r.Seq, err)
	}
	if _, err := l.Prev(t.Context(), book, quipu.TagAll, seqs[479]); quipu.CodeOf(err) != quipu.CodeNotFound {
		t.Errorf("before it: %v", err)
	}
	entries := 0
	if err := l.index().each(postingKey(nil, book, quipu.TagAll, 0), streamEnd(book, quipu.TagAll), func(_, _ []byte) error {
		entries++
		return nil
	}); err != nil || entries > 12 {
		t.Errorf("%d entries of the index for 20 records, %v", entries, err)
	}
	if err := l.Trim(t.Context(), book, quipu.TagAll, seqs[489]); err != nil {
		t.Fatal(err)
	}
	if held := infoOf(t, l, book); held.Records != 10 || held.Bytes != before.Bytes/2 {
		t.Errorf("after the trim of the book it holds %+v, before %+v", held, before)
	}
}

// A backup has the kept segments too, also when they are moved out of while it is read.
func TestABackupHasWhatWasMoved(t *testing.T) {
	o := small(vfs.NewMem())
	o.SpareBytesMax = -1
	l := mustOpen(t, o)
	keep := mustCreate(t, l)
	busy, err := l.CreateBook(t.Context(), "busy", quipu.BookOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	last := quipu.Seq(0)
	for i := range 300 {
		last = appendKB(t, l, busy, 'b')
		if i%20 == 0 {
			want = append(want, string(bytes.Repeat(fmt.Append(nil, "keep ", i), 30)))
			if _, err := l.Append(t.Context(), keep, quipu.Draft{Tags: []string{"k"}, Data: []byte(want[len(want)-1])}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Trim(t.Context(), busy, quipu.TagAll, last); err != nil {
		t.Fatal(err)
	}
	l = reopened(t, l)
	mustClean(t, l)
	if l.Stats().Kept == 0 {
		t.Fatalf("%+v", l.Stats())
	}
	b, err := l.Backup("staging")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 { // what the backup holds is moved out of meanwhile
		appendKB(t, l, busy, byte('c'+i%3))
	}
	tail, err := l.Tail(t.Context(), keep, quipu.Local)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Trim(t.Context(), keep, quipu.TagAll, tail); err != nil {
		t.Fatal(err)
	}
	copied := vfs.NewMem()
	err = b.Each(func(path string, _ int64, r io.Reader) error {
		data, err := io.ReadAll(r)
		if err == nil {
			err = copied.MkdirAll("log/index", 0o755)
		}
		if err == nil {
			err = writeFile(copied, "log/"+path, data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(withFS(o, copied), 0); err != nil {
		t.Fatal(err)
	}
	restored := mustOpen(t, withFS(o, copied))
	if got := dataOf(t, restored, keep, "k"); !slices.Equal(got, want) {
		t.Errorf("%d records in the restored log, want %d", len(got), len(want))
	}
	if _, err := restored.Verify(t.Context(), nil); err != nil {
		t.Error(err)
	}
}
