package locallog

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
)

var everyByte = flag.Bool("every-byte", false, "damage every byte, not every few")

// files is a directory in memory, by path.
type files map[string][]byte

func (f files) fs(t *testing.T) vfs.FS {
	t.Helper()
	fs := vfs.NewMem()
	for path, data := range f {
		if err := fs.MkdirAll(fs.PathDir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := writeFile(fs, path, append([]byte(nil), data...)); err != nil {
			t.Fatal(err)
		}
	}
	return fs
}

func readFiles(t *testing.T, fs vfs.FS, dirs ...string) files {
	t.Helper()
	all := files{}
	for _, dir := range dirs {
		names, err := fs.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			path := fs.PathJoin(dir, name)
			info, err := fs.Stat(path)
			if err != nil || info.IsDir() {
				continue
			}
			file, err := fs.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if all[path], err = io.ReadAll(file); err != nil {
				t.Fatal(err)
			}
			if err := file.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return all
}

// smallLog is a closed log with several segments, tags, void records and a trim, and what it answers.
func smallLog(t *testing.T, pruned bool) (files, string) {
	t.Helper()
	fs := vfs.NewMem()
	o := small(fs)
	o.SegmentBytesMin, o.SegmentBytesMax = 8<<10, 8<<10
	l := mustOpen(t, o)
	ctx := context.Background()
	book, err := l.CreateBook(ctx, "b", quipu.BookOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 24 {
		d := quipu.Draft{Tags: []string{fmt.Sprint("t", i%3)}, Data: []byte(strings.Repeat(fmt.Sprint("data", i), 40))}
		if i%6 == 5 {
			d.Cond = &quipu.Cond{Tag: "t0"} // loses
		}
		if _, err := l.Append(ctx, book, d); err != nil && quipu.CodeOf(err) != quipu.CodeConflict {
			t.Fatal(err)
		}
	}
	if pruned {
		tail, err := l.Tail(ctx, book, quipu.Local)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Trim(ctx, book, quipu.TagAll, tail-4); err != nil {
			t.Fatal(err)
		}
	}
	want := answers(l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if pruned != l.manifest.Pruned {
		t.Fatalf("segments were deleted: %t, want %t", l.manifest.Pruned, pruned)
	}
	return readFiles(t, fs, "log", "log/index"), want
}

// answers is all that a reader can see, or the error that names the damage.
func answers(l *Log) string {
	ctx := context.Background()
	var out strings.Builder
	infos, err := l.Books(ctx)
	if err != nil || len(infos) != 1 {
		return fmt.Sprintf("books: %v, %v", infos, err)
	}
	fmt.Fprintf(&out, "%+v\n", infos)
	for _, tag := range []string{quipu.TagAll, "t0", "t1", "t2"} {
		for r, err := range l.Range(ctx, infos[0].ID, tag, infos[0].Trim+1, quipu.SeqMax) {
			if err != nil {
				return "error: " + err.Error()
			}
			fmt.Fprintf(&out, "%s %+v\n", tag, r)
		}
	}
	return out.String()
}

// verdictOn opens a damaged directory and answers how the damage showed; "" means that answers are wrong.
func verdictOn(fs vfs.FS, want string) (verdict, got string) {
	l, err := Open(small(fs))
	if err != nil {
		return "refused", err.Error()
	}
	defer l.Close() //nolint:errcheck // a damaged index may fail to close
	got = answers(l)
	_, err = l.Verify(context.Background(), nil)
	switch {
	case strings.HasPrefix(got, "error: "):
		return "named by a read", got
	case err != nil:
		return "named by Verify", err.Error()
	case got == want:
		return "harmless", ""
	}
	return "", got
}

// Flipping a bit of any byte, or cutting any file at any length, of a directory that was closed cleanly is either named,
// when opening, reading or verifying, or changes no answer.
func TestDamageIsNamedOrHarmless(t *testing.T) {
	for name, pruned := range map[string]bool{"all segments": false, "some deleted": true} {
		t.Run(name, func(t *testing.T) {
			whole, want := smallLog(t, pruned)
			counts := map[string]int{}
			damage := func(path, what string, data []byte) {
				broken := files{}
				for p, d := range whole {
					broken[p] = d
				}
				broken[path] = data
				verdict, got := verdictOn(broken.fs(t), want)
				counts[verdict]++
				if verdict == "" {
					t.Errorf("%s %s: nothing noticed, and readers see\n%.600s", what, path, got)
				}
			}
			for path, data := range whole {
				for at := 0; at < len(data); at += step(data, at) {
					flipped := append([]byte(nil), data...)
					flipped[at] ^= 1 << (at % 8)
					damage(path, fmt.Sprintf("bit %d of byte %d of", at%8, at), flipped)
				}
				for _, cut := range []int{0, 1, len(data) / 3, len(data) / 2, len(data) - 1} {
					if cut >= 0 && cut < len(data) {
						damage(path, fmt.Sprintf("cut at %d of %d:", cut, len(data)), data[:cut])
					}
				}
			}
			t.Log(counts)
			if counts["refused"] == 0 || counts["harmless"] == 0 {
				t.Errorf("the damage did not reach what it should: %v", counts)
			}
		})
	}
}

// step goes through headers and what follows them densely, and through zeros and payload in larger steps.
func step(data []byte, at int) int {
	switch {
	case *everyByte:
		return 1
	case at+64 < len(data) && strings.Trim(string(data[at:at+64]), "\x00") == "":
		return 61
	case len(data) < 1000:
		return 3
	}
	return 11
}
