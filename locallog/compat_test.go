package locallog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/xtest"
)

// contents is every stream of book b as readers see it, data by length and checksum, with the points where streams begin.
func contents(l *Log, tags ...string) (string, error) {
	ctx := context.Background()
	infos, err := l.Books(ctx)
	if err != nil || len(infos) != 1 {
		return "", fmt.Errorf("books: %v, %w", infos, err)
	}
	var out strings.Builder
	b := infos[0]
	fmt.Fprintf(&out, "[{Name:%s ID:%d Tail:%s Trim:%s}]\n", b.Name, b.ID, b.Tail, b.Trim)
	for _, tag := range append([]string{quipu.TagAll}, tags...) {
		_, err := l.Next(ctx, infos[0].ID, tag, 1)
		from := quipu.Seq(1)
		if quipu.CodeOf(err) == quipu.CodeTrimmed {
			from = quipu.AsError(err).Seq + 1
		}
		fmt.Fprintf(&out, "stream %q from %s\n", tag, from)
		for r, err := range l.Range(ctx, infos[0].ID, tag, from, quipu.SeqMax) {
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&out, "%s kind %d.%d at %d %q %d bytes %08x\n", r.Seq, r.Kind, r.Version, r.Stamp, r.Tags, len(r.Data), checksum(r.Data))
		}
	}
	return out.String(), nil
}

// A directory written by an older version opens with all its records, verdicts, trim points and producers, whether it was
// closed or killed, and goes on. The first had one posting an entry and zeros behind every end; the second did not know
// what a book has in a segment, and no kept segments.
func TestADirectoryOfAnOlderVersionOpens(t *testing.T) {
	for _, name := range []string{"v1/closed", "v1/killed", "v2/closed", "v2/killed"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "log")
			if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", name))); err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			o := Options{Dir: dir, SegmentBytesMin: 8 << 10, SegmentBytesMax: 16 << 10, CheckpointBytes: 4 << 10, Clock: xtest.NewClock(time.Unix(1.8e9, 0))}
			checkContents(t, mustOpen(t, o), string(want))
			l := reopened(t, mustGoOn(t, o))
			if _, err := l.Verify(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func checkContents(t *testing.T, l *Log, want string) {
	t.Helper()
	got, err := contents(l, "t0", "t1", "t2")
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
	if err := checkHeld(l); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Verify(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// mustGoOn appends to an old directory until its segments were rolled, trimmed and deleted, and compares what a
// producer is told.
func mustGoOn(t *testing.T, o Options) *Log {
	t.Helper()
	l := mustOpen(t, o)
	book, err := l.OpenBook(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), book, quipu.Draft{Data: []byte("again"), Producer: quipu.Producer{ID: 9, Epoch: 1, N: 1 << 20}}); quipu.CodeOf(err) != quipu.CodeFenced {
		t.Fatalf("the old producer's numbers are forgotten: %v", err)
	}
	for i := range 60 {
		seq, err := l.Append(t.Context(), book, quipu.Draft{Tags: []string{"t1"}, Data: make([]byte, 1500)})
		if err != nil {
			t.Fatal(err)
		}
		if i%20 == 19 {
			if err := l.Trim(t.Context(), book, quipu.TagAll, seq-1); err != nil {
				t.Fatal(err)
			}
		}
	}
	return l
}
