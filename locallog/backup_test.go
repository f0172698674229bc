package locallog

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
)

// backedUp puts the files of a backup of l into the folder of a new file system, and answers options to open it.
func backedUp(t *testing.T, l *Log, meanwhile func()) (Options, quipu.Seq) {
	t.Helper()
	b, err := l.Backup("staging")
	if err != nil {
		t.Fatal(err)
	}
	meanwhile()
	o := l.opts
	o.FS = vfs.NewMem()
	err = b.Each(func(path string, size int64, r io.Reader) error {
		path = "log/" + path
		if err := o.FS.MkdirAll(o.FS.PathDir(path), 0o700); err != nil {
			return err
		}
		text, err := io.ReadAll(r)
		if err != nil || int64(len(text)) != size {
			return fmt.Errorf("%s has %d bytes, not %d: %w", path, len(text), size, err)
		}
		return writeFile(o.FS, path, text)
	})
	if err != nil {
		t.Fatal(err)
	}
	tail := b.Tail
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.fs.Stat("staging"); err == nil {
		t.Error("the staging folder is still there")
	}
	return o, tail
}

// dump is everything that readers see.
func dump(t *testing.T, l *Log, upto quipu.Seq) string {
	t.Helper()
	ctx := context.Background()
	books, err := l.Books(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, b := range books {
		fmt.Fprintf(&out, "%d %q trim %s\n", b.ID, b.Name, b.Trim)
		for _, tag := range []string{quipu.TagAll, "t0", "t1", "t2", "t3", "t4"} {
			for r, err := range l.Range(ctx, b.ID, tag, b.Trim+1, upto) {
				if quipu.CodeOf(err) == quipu.CodeTrimmed {
					fmt.Fprintf(&out, "%q from %s\n", tag, quipu.AsError(err).Seq)
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&out, "%q %s %q %08x\n", tag, r.Seq, r.Tags, checksum(r.Data))
			}
		}
	}
	return out.String()
}

// busy appends to a book and trims it, over many segments.
func busy(t *testing.T, l *Log, book quipu.Book, n int) (seqs []quipu.Seq) {
	t.Helper()
	for i := range n {
		d := quipu.Draft{Tags: []string{fmt.Sprint("t", i%5)}, Data: fmt.Appendf(nil, "%2000d", i), Producer: quipu.Producer{ID: 1 + uint64(i%3), N: 1 + uint64(i/3)}}
		seq, err := l.Append(t.Context(), book, d)
		if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, seq)
		if i%50 == 49 {
			if err := l.Trim(t.Context(), book, quipu.TagAll, seqs[i-20]); err != nil {
				t.Fatal(err)
			}
		}
	}
	return seqs
}

// A backup is the log as it was when it was begun, whatever is appended, trimmed, deleted and written over while it is copied.
func TestABackupIsTheLogAtOneMoment(t *testing.T) {
	l := mustOpen(t, small(vfs.NewCrashableMem()))
	book := mustCreate(t, l)
	other, err := l.CreateBook(t.Context(), "other", quipu.BookOptions{})
	if err != nil {
		t.Fatal(err)
	}
	busy(t, l, book, 230)
	want := dump(t, l, quipu.SeqMax)
	o, tail := backedUp(t, l, func() {
		busy(t, l, other, 200)
		if err := l.DeleteBook(t.Context(), book); err != nil {
			t.Fatal(err)
		}
		busy(t, l, other, 0)
	})
	if end, err := Restore(o, 0); err != nil || end != tail {
		t.Fatalf("restored up to %s, %v; want %s", end, err, tail)
	}
	restored := mustOpen(t, o)
	if got := dump(t, restored, quipu.SeqMax); got != want {
		t.Errorf("got\n%.2000s\nwant\n%.2000s", got, want)
	}
	if _, err := restored.Verify(t.Context(), nil); err != nil {
		t.Error(err)
	}
	p, err := restored.Producer(t.Context(), book, 1)
	if err != nil || p.N != 77 {
		t.Errorf("the producer is at %+v, %v", p, err)
	}
}

// A log that is restored up to a seq is what it was then, but for what was trimmed and deleted later.
func TestALogIsRestoredUpToASeq(t *testing.T) {
	l := mustOpen(t, small(vfs.NewCrashableMem()))
	book := mustCreate(t, l)
	seqs := busy(t, l, book, 130)
	want := dump(t, l, seqs[110])
	late, err := l.CreateBook(t.Context(), "late", quipu.BookOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), late, quipu.Draft{Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	o, tail := backedUp(t, l, func() {})
	if _, err := Restore(o, tail+1); quipu.CodeOf(err) != quipu.CodeUsage {
		t.Errorf("up to what is not in it: %v", err)
	}
	if _, err := Restore(o, seqs[110]); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		restored := mustOpen(t, o)
		if got := dump(t, restored, quipu.SeqMax); got != want {
			t.Fatalf("got\n%.3000s\nwant\n%.3000s", got, want)
		}
		if at, err := restored.Tail(t.Context(), book, quipu.Local); err != nil || at != seqs[110] {
			t.Errorf("the tail is %s, %v; want %s", at, err, seqs[110])
		}
		if held := infoOf(t, restored, book); held.Records != 31 || held.Bytes < 31*2000 {
			t.Errorf("the book holds %+v", held) // 100 was trimmed up to 79
		}
		if _, err := restored.Verify(t.Context(), nil); err != nil {
			t.Error(err)
		}
		if err := restored.Close(); err != nil {
			t.Fatal(err)
		}
	}
	restored := mustOpen(t, o)
	seq, err := restored.Append(t.Context(), book, quipu.Draft{Tags: []string{"t1"}, Cond: &quipu.Cond{Tag: "t1", Last: seqs[106]}})
	if err != nil || seq <= tail {
		t.Errorf("it goes on with %s, %v", seq, err)
	}
}
