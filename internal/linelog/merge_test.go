package linelog

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
)

// sayAt writes text at a second after the epoch.
func sayAt(t *testing.T, w *Writer, second int, function, text string) {
	t.Helper()
	if err := w.Write(Line{Time: epoch.Add(time.Duration(second) * time.Second), Function: function, Stream: "stdout", Text: text}); err != nil {
		t.Fatal(err)
	}
}

func merged(t *testing.T, w *Writer, r Request) string {
	t.Helper()
	var all []string
	for p, err := range w.ReadAll(t.Context(), r) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p.Function+":"+p.Text)
	}
	return strings.Join(all, " ")
}

func TestLinesOfSeveralFunctionsComeInTheOrderOfTime(t *testing.T) {
	w := open(t, t.TempDir(), fileBytesMax)
	for second, f := range []string{"a", "b", "b", "a", "c", "b"} {
		sayAt(t, w, second, f, fmt.Sprint(second))
	}
	for want, r := range map[string]Request{
		"a:0 b:1 b:2 a:3 c:4 b:5": {Tail: 100},
		"b:2 a:3 c:4 b:5":         {Tail: 4},
		"b:5":                     {Tail: 1},
		"a:3 c:4":                 {Tail: 2, Functions: []string{"a", "c"}},
		"":                        {Tail: 2, Functions: []string{"none"}},
	} {
		if got := merged(t, w, r); got != want {
			t.Errorf("%+v: %q, want %q", r, got, want)
		}
	}
	if !w.Known("a") || w.Known("none") {
		t.Error("a printed, none did not")
	}
}

// Whatever a reader's connections are cut into, it sees every line once: also of functions that it had seen none of, that
// were before its tail, or that began while it was away; and across the files of a function.
func TestAReaderThatComesBackMissesNothingAndSeesNothingTwice(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 1))
		w := open(t, t.TempDir(), 2000) // files change often, and none is deleted
		written, seen := map[string]int{}, map[string]int{}
		second := 0
		write := func(most int) {
			for range random.IntN(most) {
				f := string(rune('a' + random.IntN(5)))
				sayAt(t, w, second, f, fmt.Sprint(written[f]))
				written[f]++
				if random.IntN(3) > 0 {
					second++
				}
			}
		}
		write(20)
		before := map[string]int{}
		for f, n := range written {
			before[f] = n
		}
		after, since, first := map[string]string(nil), time.Time{}, true
		tail := 1 + random.IntN(8)
		for range 5 {
			r := Request{Tail: tail, After: after, Since: since}
			left := random.IntN(12)
			for p, err := range w.ReadAll(t.Context(), r) {
				if err != nil {
					t.Fatal(err)
				}
				if left--; left < 0 {
					break // the connection is cut: this one was not seen
				}
				var n int
				if _, err := fmt.Sscan(p.Text, &n); err != nil {
					t.Fatal(err)
				}
				if _, known := seen[p.Function]; !known {
					if after != nil && p.Time.Before(since) {
						t.Fatalf("seed %d: %s begins before the tail", seed, p.Function)
					}
					seen[p.Function] = n
				}
				if seen[p.Function] != n {
					t.Fatalf("seed %d: %s has line %d after %d", seed, p.Function, n, seen[p.Function]-1)
				}
				seen[p.Function] = n + 1
				if first {
					since, first, after = p.Time, false, map[string]string{}
				}
				after[p.Function] = p.Place
			}
			write(8)
		}
		for p := range w.ReadAll( // the last connection is not cut
			t.Context(), Request{Tail: tail, After: after, Since: since}) {
			if n, known := seen[p.Function]; known && fmt.Sprint(n) != p.Text {
				t.Fatalf("seed %d: at last %s has line %s, want %d", seed, p.Function, p.Text, n)
			}
			var n int
			fmt.Sscan(p.Text, &n)
			seen[p.Function] = n + 1
		}
		for f, n := range written {
			if got, known := seen[f]; known && got != n || !known && n > before[f] && !first {
				t.Fatalf("seed %d: of %d lines of %s it has seen up to %d", seed, n, f, got)
			}
		}
	}
}

func TestWhoFollowsSeesFunctionsThatBeginLater(t *testing.T) {
	w := open(t, t.TempDir(), fileBytesMax)
	sayAt(t, w, 0, "a", "0")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []string
	for p, err := range w.ReadAll(ctx, Request{Tail: 10, Follow: true}) {
		if err != nil {
			break
		}
		got = append(got, p.Function+":"+p.Text)
		switch len(got) {
		case 1:
			sayAt(t, w, 1, "new", "1")
		case 2:
			sayAt(t, w, 2, "a", "2")
		case 3:
			cancel()
		}
	}
	if !slices.Equal(got, []string{"a:0", "new:1", "a:2"}) {
		t.Errorf("got %q", got)
	}
}

func TestAPlaceOfOtherOutputBeginsAnew(t *testing.T) {
	w := open(t, t.TempDir(), fileBytesMax)
	sayAt(t, w, 0, "a", "0")
	if got := merged(t, w, Request{After: map[string]string{"a": "7.12345"}}); got != "a:0" {
		t.Errorf("got %q", got)
	}
	for _, bad := range []string{"", "1", "1.x", "-1.0", "1.-5", "1.2.3"} {
		for _, err := range w.ReadAll(t.Context(), Request{After: map[string]string{"a": bad}}) {
			if quipu.CodeOf(err) != quipu.CodeUsage {
				t.Errorf("%q: %v", bad, err)
			}
		}
	}
}
