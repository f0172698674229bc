package linelog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

func open(t *testing.T, dir string, fileBytes int64) *Writer {
	t.Helper()
	w, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	w.fileBytesMax = fileBytes
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func say(t *testing.T, w *Writer, function, text string) {
	t.Helper()
	if err := w.Write(Line{Time: epoch, Function: function, Instance: "i1", Stream: "stdout", Text: text}); err != nil {
		t.Fatal(err)
	}
}

// texts are the last lines of a function, joined.
func texts(t *testing.T, w *Writer, function string, tail int) string {
	t.Helper()
	var all []string
	for line, err := range w.Read(t.Context(), function, tail, false) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, line.Text)
	}
	return strings.Join(all, " ")
}

func files(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestALineComesBackAsItWasPrinted(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, fileBytesMax)
	want := Line{Time: epoch, Function: "f", Instance: "i1", Call: "c1", Stream: "stderr", Text: `<a href="x">&\ ` + "\x00\t"}
	if err := w.Write(want); err != nil {
		t.Fatal(err)
	}
	for got, err := range w.Read(t.Context(), "f", 10, false) {
		if err != nil || got != want {
			t.Fatalf("%+v, %v; wrote %+v", got, err, want)
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, "f.000001.log"))
	if err != nil {
		t.Fatal(err)
	}
	const form = `{"time":"2026-01-02T03:04:05.000000006Z","function":"f","instance":"i1","call":"c1","stream":"stderr","line":"<a href=\"x\">&\\ \u0000\t"}` + "\n"
	if string(raw) != form {
		t.Fatalf("on disk: %s", raw)
	}
}

func TestBytesThatAreNoTextAreReplacedAndHurtNobody(t *testing.T) {
	w := open(t, t.TempDir(), fileBytesMax)
	say(t, w, "f", "a\xff\xfeb")
	say(t, w, "f", "next")
	if got := texts(t, w, "f", -1); got != "a\uFFFD\uFFFDb next" {
		t.Fatalf("%q", got)
	}
}

func TestOutputIsBoundedAndTheNewestIsKept(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, 430) // 4 lines of about 103 bytes
	for n := range 22 {
		say(t, w, "f", fmt.Sprint(n))
	}
	if got := files(t, dir); got != "f.000003.log f.000004.log f.000005.log f.000006.log" {
		t.Fatal(got)
	}
	if got := texts(t, w, "f", -1); got != "8 9 10 11 12 13 14 15 16 17 18 19 20 21" {
		t.Fatal(got)
	}
	for tail, want := range map[int]string{0: "", 1: "21", 3: "19 20 21", 6: "16 17 18 19 20 21", 100: texts(t, w, "f", -1)} {
		if got := texts(t, w, "f", tail); got != want {
			t.Errorf("tail %d: %s", tail, got)
		}
	}
}

func TestTheTailOfALargeFileNeedsItsEndOnly(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, fileBytesMax)
	for n := range 3000 { // 5 times what is looked at first
		say(t, w, "f", fmt.Sprint(n))
	}
	for _, tail := range []int{1, 700, 2999, 3000} {
		if got := strings.Fields(texts(t, w, "f", tail)); len(got) != tail || got[0] != fmt.Sprint(3000-tail) {
			t.Fatalf("tail %d: %d lines", tail, len(got))
		}
	}
	// A reader that looked at what lies before would trip over this.
	if err := os.Mkdir(filepath.Join(dir, "f.000000.log"), 0o700); err != nil {
		t.Fatal(err)
	}
	f := w.rolls["f"]
	f.numbers = append([]int{0}, f.numbers...)
	if got := texts(t, w, "f", 2); got != "2998 2999" {
		t.Fatal(got)
	}
	for _, err := range w.Read(t.Context(), "f", 3001, false) {
		if err == nil {
			t.Fatal("the trap is none")
		}
		break
	}
}

func TestOneWhoFollowsSeesEveryLineAcrossFiles(t *testing.T) {
	w := open(t, t.TempDir(), 300)
	say(t, w, "f", "0")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	next := 0
	var end error
	for line, err := range w.Read(ctx, "f", 1, true) {
		if err != nil {
			end = err
			continue
		}
		if line.Text != fmt.Sprint(next) {
			t.Fatalf("line %s, expected %d", line.Text, next)
		}
		next++
		if next == 50 {
			cancel()
			continue
		}
		say(t, w, "f", fmt.Sprint(next)) // two of them fill a file
	}
	if next != 50 || !errors.Is(end, context.Canceled) {
		t.Fatal(next, end)
	}
	if newest := w.rolls["f"].numbers; newest[len(newest)-1] < 10 {
		t.Fatal("the files did not change: ", newest)
	}
}

func TestFollowersOfOneFunctionWaitTogetherAndEndWithTheWriter(t *testing.T) {
	w := open(t, t.TempDir(), 300)
	const followers, lines = 8, 100
	got := make(chan int, followers)
	ready := make(chan struct{}, followers)
	for range followers {
		go func() {
			n := 0
			for _, err := range w.Read(t.Context(), "f", 0, true) {
				if err != nil {
					t.Error(err)
				}
				if n++; n == 1 {
					ready <- struct{}{} // once each: nobody takes more than one from each
				}
			}
			got <- n
		}()
	}
	for n := 0; n < followers; { // until each follower saw one, which shows that it follows
		say(t, w, "f", "ready")
		select {
		case <-ready:
			n++
		default:
			runtime.Gosched()
		}
	}
	for n := range lines {
		say(t, w, "f", fmt.Sprint(n))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for range followers {
		if n := <-got; n == 0 {
			t.Error("a follower ended without a line")
		}
	}
	if err := w.Write(Line{Function: "f"}); quipu.CodeOf(err) != quipu.CodeStopping {
		t.Fatal(err)
	}
	for range w.Read(t.Context(), "g", 1, true) { // returns, though nobody ever prints
	}
}

func TestASlowFollowerLosesWhatWasDeletedAndGoesOn(t *testing.T) {
	w := open(t, t.TempDir(), 220) // 2 lines a file
	say(t, w, "f", "0")
	var got []string
	for line, err := range w.Read(t.Context(), "f", -1, true) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, line.Text)
		if line.Text == "0" {
			for n := 1; n <= 20; n++ {
				say(t, w, "f", fmt.Sprint(n))
			}
		}
		if line.Text == "20" {
			break
		}
	}
	// It had the first file open, so it reads that to its end; then the oldest that is left.
	if s := strings.Join(got, " "); s != "0 1 14 15 16 17 18 19 20" {
		t.Fatal(s)
	}
}

func TestALineCutByACrashIsSkippedAndTheNextIsWhole(t *testing.T) {
	whole := `{"time":"2026-01-02T03:04:05Z","function":"f","instance":"i1","stream":"stdout","line":"last"}`
	for cut := range len(whole) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "f.000007.log"), []byte(whole+"\n"+whole[:cut]), 0o600); err != nil {
			t.Fatal(err)
		}
		w := open(t, dir, fileBytesMax)
		if got := texts(t, w, "f", 2); got != "last" {
			t.Fatalf("cut at %d, before a write: %q", cut, got)
		}
		say(t, w, "f", "new")
		if got := texts(t, w, "f", 2); got != "last new" {
			t.Fatalf("cut at %d: %q", cut, got)
		}
		if got := files(t, dir); got != "f.000007.log" {
			t.Fatal(got)
		}
	}
}

func TestForeignBytesInAFileAreSkipped(t *testing.T) {
	dir := t.TempDir()
	good := `{"time":"2026-01-02T03:04:05Z","function":"f","instance":"i1","stream":"stdout","line":"good"}`
	junk := strings.Join([]string{
		"", "null", "{}", "\x00\xff\x00", strings.ReplaceAll(good, `"f"`, `"g"`), good[1:],
		strings.Repeat("x", 3*lineBytesMax), good, `{"time":7}`, "",
	}, "\n")
	if err := os.WriteFile(filepath.Join(dir, "f.000001.log"), []byte(junk), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f.log", "f.1.log", "F.000001.log", "..000001.log", "f.000001.log.gz", "%66.000001.log"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("not ours"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w := open(t, dir, fileBytesMax)
	if len(w.rolls) != 1 {
		t.Fatal("foreign files were taken for ours")
	}
	for _, tail := range []int{1, 5, -1} {
		if got := texts(t, w, "f", tail); got != "good" {
			t.Fatalf("tail %d: %.80q", tail, got)
		}
	}
}

func TestNoFunctionNameLeavesTheFolderOrMeetsAnother(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, fileBytesMax)
	names := []string{"f", "F", "f.000001", "../f", "/etc/passwd", "a b", ".", "..", "%66", "é", "\xff", "nul", "f\n", "f\x00"}
	for _, name := range names {
		if name != "\xff" { // JSON has no such name; it is written, and nobody can read it
			say(t, w, name, "of "+name)
		}
	}
	w2 := open(t, dir, fileBytesMax) // finds the same functions by their files
	for _, name := range names {
		if got := texts(t, w2, name, -1); name != "\xff" && got != "of "+name {
			t.Errorf("%q: %q", name, got)
		}
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(dir), "f.000001.log")); err == nil {
		t.Error("a name left the folder")
	}
	for _, name := range []string{"", strings.Repeat("x", 300)} {
		if err := w.Write(Line{Function: name}); quipu.CodeOf(err) != quipu.CodeUsage {
			t.Errorf("%q: %v", name, err)
		}
		for _, err := range w.Read(t.Context(), name, 1, true) {
			if quipu.CodeOf(err) != quipu.CodeUsage {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
}

func TestALineOverTheLimitIsRefusedAndTheOthersAreKept(t *testing.T) {
	w := open(t, t.TempDir(), fileBytesMax)
	say(t, w, "f", strings.Repeat("\x01", 128<<10)) // twice the longest of package process, all of it escaped
	if err := w.Write(Line{Function: "f", Text: strings.Repeat("x", lineBytesMax)}); quipu.CodeOf(err) != quipu.CodeUsage {
		t.Fatal(err)
	}
	say(t, w, "f", "short")
	if got := texts(t, w, "f", 1); got != "short" {
		t.Fatal(got)
	}
}

func TestManyFunctionsDoNotHoldAFileOpenEach(t *testing.T) {
	w := open(t, t.TempDir(), fileBytesMax)
	for round := range 2 {
		for n := range 2 * filesOpenMax {
			say(t, w, fmt.Sprint("f", n), fmt.Sprint(round))
		}
	}
	if len(w.open) != filesOpenMax {
		t.Fatal(len(w.open), " files are open")
	}
	if got := texts(t, w, "f0", -1); got != "0 1" {
		t.Fatal(got)
	}
}

func TestAFailedWriteLosesItsLineOnly(t *testing.T) {
	w := open(t, t.TempDir(), fileBytesMax)
	say(t, w, "f", "one")
	if err := w.rolls["f"].file.Close(); err != nil { // any error of the file will do
		t.Fatal(err)
	}
	if err := w.Write(Line{Function: "f", Text: "lost"}); !errors.Is(err, os.ErrClosed) {
		t.Fatal(err)
	}
	w.rolls["f"].file, w.open = nil, nil
	say(t, w, "f", "two")
	if got := texts(t, w, "f", -1); got != "one two" {
		t.Fatal(got)
	}
}

func BenchmarkWrite(b *testing.B) {
	w, err := New(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close() //nolint:errcheck // a benchmark
	line := Line{Time: epoch, Function: "f", Instance: "f-12345678-1", Stream: "stdout", Text: strings.Repeat("x", 80)}
	for b.Loop() {
		if err := w.Write(line); err != nil {
			b.Fatal(err)
		}
	}
}
