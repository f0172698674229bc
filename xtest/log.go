package xtest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
)

// Restart ends a log in some way, and opens what is left of it.
type Restart struct {
	Name string
	Do   func(t *testing.T, l quipu.Log) quipu.Log
}

// Log checks the promises of docs/concepts/log.md, by their numbers, on logs that open makes. Promises that concern what
// outlives a log are checked with each restart. open must close what it made when the test ends.
func Log(t *testing.T, open func(t *testing.T) quipu.Log, restarts ...Restart) {
	tests := []struct {
		name string
		run  func(t *testing.T, f fixture)
	}{
		{"01 acknowledged is readable", acknowledgedIsReadable},
		{"02 streams are sub-sequences of one order", streamsAreSubSequences},
		{"03 acknowledged before started means smaller seq", acknowledgedBeforeMeansSmaller},
		{"04 one producer number is one append", oneNumberOneAppend},
		{"05 next and prev are exact neighbours", exactNeighbours},
		{"06 a session reads its own writes", readsOwnWrites},
		{"07 the tail counts every acknowledged append", tailCountsAll},
		{"08 at most one wins a condition", oneWinner},
		{"09 trim is monotonic and said", trimIsMonotonic},
		{"10 hints change no answer", hintsChangeNothing},
		{"11 void records are invisible", voidIsInvisible},
		{"13 books do not see each other", booksAreApart},
		{"a quota is a bound", quotaIsABound},
		{"a deleted book is gone", deletedIsGone},
		{"a batch is whole or void", batchIsWhole},
		{"transactions are judged in order", transactionsAreJudged},
		{"limits are errors with codes", limitsHaveCodes},
		{"a subscription waits and ends", subscriptionWaits},
		{"a closed log says so", closedSaysSo},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, newFixture(t, open(t)))
		})
	}
	for _, r := range restarts {
		t.Run("01 acknowledged is readable after "+r.Name, func(t *testing.T) {
			t.Parallel()
			survives(t, newFixture(t, open(t)), r)
		})
	}
}

// fixture is a log with one book.
type fixture struct {
	ctx  context.Context
	log  quipu.Log
	book quipu.Book
}

func newFixture(t *testing.T, l quipu.Log) fixture {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	book, err := l.CreateBook(ctx, "orders", quipu.BookOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return fixture{ctx, l, book}
}

// append adds a record that must win.
func (f fixture) append(t *testing.T, data string, tags ...string) quipu.Seq {
	t.Helper()
	seq, err := f.log.Append(f.ctx, f.book, quipu.Draft{Tags: tags, Data: []byte(data)})
	if err != nil {
		t.Fatalf("append %q: %v", data, err)
	}
	return seq
}

// read is all data of a stream.
func (f fixture) read(t *testing.T, tag string, from quipu.Seq) []string {
	t.Helper()
	var all []string
	for r, err := range f.log.Range(f.ctx, f.book, tag, from, quipu.SeqMax) {
		if err != nil {
			t.Fatalf("range %q: %v", tag, err)
		}
		all = append(all, string(r.Data))
	}
	return all
}

func wantCode(t *testing.T, err error, code quipu.Code) *quipu.Error {
	t.Helper()
	if quipu.CodeOf(err) != code {
		t.Fatalf("got %v, want %s", err, code)
	}
	return quipu.AsError(err)
}

func wantAll(t *testing.T, got []string, want ...string) {
	t.Helper()
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func acknowledgedIsReadable(t *testing.T, f fixture) {
	before := time.Now().Add(-time.Hour).UnixNano()
	seq := f.append(t, "paid", "a", "b")
	r, err := f.log.Next(f.ctx, f.book, quipu.TagAll, seq)
	if err != nil || r.Seq != seq || r.Book != f.book || r.Kind != quipu.KindRaw || string(r.Data) != "paid" ||
		fmt.Sprint(r.Tags) != "[a b]" || r.Stamp < before && r.Stamp > 1e18 {
		t.Fatalf("got %+v, %v", r, err)
	}
}

func survives(t *testing.T, f fixture, restart Restart) {
	seq := f.append(t, "paid", "a")
	f.append(t, "sent", "b")
	d := quipu.Draft{Data: []byte("numbered"), Producer: quipu.Producer{ID: 7, Epoch: 1, N: 1}}
	numbered, err := f.log.Append(f.ctx, f.book, d)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.log.Trim(f.ctx, f.book, "b", seq+1); err != nil {
		t.Fatal(err)
	}
	f.log = restart.Do(t, f.log)
	if book, err := f.log.OpenBook(f.ctx, "orders"); err != nil || book != f.book {
		t.Fatalf("the book is %d, %v", book, err)
	}
	wantAll(t, f.read(t, quipu.TagAll, 0), "paid", "numbered") // the other was trimmed in its only tag
	wantAll(t, f.read(t, "a", 0), "paid")
	_, err = f.log.Next(f.ctx, f.book, "b", seq+1)
	wantCode(t, err, quipu.CodeTrimmed)
	if again, err := f.log.Append(f.ctx, f.book, d); err != nil || again != numbered {
		t.Fatalf("the same number again: %s, %v, want %s", again, err, numbered)
	}
	if later := f.append(t, "later"); later <= numbered {
		t.Fatalf("seq %s after %s", later, numbered)
	}
	_, err = f.log.Append(f.ctx, f.book, quipu.Draft{Cond: &quipu.Cond{Tag: "a", Last: 0}})
	if winner := wantCode(t, err, quipu.CodeConflict).Seq; winner != seq {
		t.Fatalf("the winner is %s, want %s", winner, seq)
	}
}

func streamsAreSubSequences(t *testing.T, f fixture) {
	f.concurrently(t, 8, 25, func(i, n int) quipu.Draft {
		return quipu.Draft{Tags: []string{fmt.Sprint("t", i%3), "all"}, Data: fmt.Appendf(nil, "%d.%d", i, n)}
	})
	place := map[string]int{}
	for i, data := range f.read(t, quipu.TagAll, 0) {
		place[data] = i
	}
	if len(place) != 200 {
		t.Fatalf("%d records, want 200", len(place))
	}
	sum := 0
	for _, tag := range []string{"t0", "t1", "t2", "all"} {
		last := -1
		for _, data := range f.read(t, tag, 0) {
			if place[data] <= last {
				t.Fatalf("stream %s has %s out of order", tag, data)
			}
			last = place[data]
			sum++
		}
	}
	if sum != 400 {
		t.Fatalf("the streams have %d records, want 400", sum)
	}
}

// concurrently appends from callers at once, and answers the seqs of each caller in order.
func (f fixture) concurrently(t *testing.T, callers, each int, draft func(caller, n int) quipu.Draft) [][]quipu.Seq {
	t.Helper()
	seqs := make([][]quipu.Seq, callers)
	var wait sync.WaitGroup
	for c := range callers {
		wait.Go(func() {
			for n := range each {
				seq, err := f.log.Append(f.ctx, f.book, draft(c, n))
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				seqs[c] = append(seqs[c], seq)
			}
		})
	}
	wait.Wait()
	return seqs
}

func acknowledgedBeforeMeansSmaller(t *testing.T, f fixture) {
	seqs := f.concurrently(t, 8, 25, func(int, int) quipu.Draft { return quipu.Draft{Data: []byte("x")} })
	seen := map[quipu.Seq]bool{}
	for _, mine := range seqs {
		for i, seq := range mine {
			if seen[seq] || i > 0 && seq <= mine[i-1] {
				t.Fatalf("seqs of one caller: %v", mine)
			}
			seen[seq] = true
		}
	}
}

func oneNumberOneAppend(t *testing.T, f fixture) {
	numbered := func(epoch uint32, n uint64) (quipu.Seq, error) {
		return f.log.Append(f.ctx, f.book, quipu.Draft{Data: fmt.Append(nil, n), Producer: quipu.Producer{ID: 9, Epoch: epoch, N: n}})
	}
	_, err := numbered(1, 2)
	wantCode(t, err, quipu.CodeFenced)
	var seqs []quipu.Seq
	for n := uint64(1); n <= quipu.ProducerWindow+1; n++ {
		seq, err := numbered(1, n)
		if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, seq)
	}
	for n := uint64(2); n <= quipu.ProducerWindow+1; n++ {
		if seq, err := numbered(1, n); err != nil || seq != seqs[n-1] {
			t.Fatalf("number %d again: %s, %v, want %s", n, seq, err, seqs[n-1])
		}
	}
	_, err = numbered(1, 1)
	wantCode(t, err, quipu.CodeFenced)
	if _, err := numbered(2, 1); err != nil {
		t.Fatal(err)
	}
	_, err = numbered(1, quipu.ProducerWindow+2)
	wantCode(t, err, quipu.CodeFenced)
	if n := len(f.read(t, quipu.TagAll, 0)); n != quipu.ProducerWindow+2 {
		t.Fatalf("%d records, want %d", n, quipu.ProducerWindow+2)
	}
	f.sameNumberAtOnce(t)
}

// sameNumberAtOnce races one number against itself, also within one group commit.
func (f fixture) sameNumberAtOnce(t *testing.T) {
	t.Helper()
	seqs := f.concurrently(t, 16, 1, func(int, int) quipu.Draft {
		return quipu.Draft{Tags: []string{"race"}, Producer: quipu.Producer{ID: 10, Epoch: 1, N: 1}}
	})
	for _, s := range seqs {
		if len(s) != 1 || s[0] != seqs[0][0] {
			t.Fatalf("one number has seqs %v", seqs)
		}
	}
	if n := len(f.read(t, "race", 0)); n != 1 {
		t.Fatalf("%d records of one number", n)
	}
}

func exactNeighbours(t *testing.T, f fixture) {
	var seqs []quipu.Seq
	for i := range 40 {
		seqs = append(seqs, f.append(t, fmt.Sprint(i), fmt.Sprint("m", i%3)))
	}
	for at := seqs[0] - 1; at <= seqs[39]+1; at++ {
		for _, tag := range []string{quipu.TagAll, "m0", "m1", "m2", "none"} {
			next, prev := -1, -1
			for i, seq := range seqs {
				if tag != quipu.TagAll && tag != fmt.Sprint("m", i%3) {
					continue
				}
				if seq >= at && next < 0 {
					next = i
				}
				if seq <= at {
					prev = i
				}
			}
			r, err := f.log.Next(f.ctx, f.book, tag, at)
			wantIndex(t, "next", r, err, next)
			r, err = f.log.Prev(f.ctx, f.book, tag, at)
			wantIndex(t, "prev", r, err, prev)
		}
	}
}

func wantIndex(t *testing.T, op string, r quipu.Record, err error, want int) {
	t.Helper()
	if want < 0 {
		wantCode(t, err, quipu.CodeNotFound)
		return
	}
	if err != nil || string(r.Data) != fmt.Sprint(want) {
		t.Fatalf("%s: got %q, %v, want %d", op, r.Data, err, want)
	}
}

func readsOwnWrites(t *testing.T, f fixture) {
	var wait sync.WaitGroup
	for c := range 8 {
		wait.Go(func() {
			for range 20 {
				seq, err := f.log.Append(f.ctx, f.book, quipu.Draft{Tags: []string{fmt.Sprint(c)}})
				if err != nil {
					t.Error(err)
					return
				}
				if r, err := f.log.Prev(f.ctx, f.book, fmt.Sprint(c), quipu.SeqMax); err != nil || r.Seq != seq {
					t.Errorf("wrote %s and read %s, %v", seq, r.Seq, err)
					return
				}
			}
		})
	}
	wait.Wait()
}

func tailCountsAll(t *testing.T, f fixture) {
	if tail, err := f.log.Tail(f.ctx, f.book, quipu.Linearizable); err != nil || tail != 0 {
		t.Fatalf("an empty book's tail is %s, %v", tail, err)
	}
	for range 5 {
		seq := f.append(t, "x")
		for _, c := range []quipu.Consistency{quipu.Linearizable, quipu.Local} {
			if tail, err := f.log.Tail(f.ctx, f.book, c); err != nil || tail != seq {
				t.Fatalf("tail is %s, %v, want %s", tail, err, seq)
			}
		}
	}
}

func oneWinner(t *testing.T, f fixture) {
	last := quipu.Seq(0)
	for range 10 {
		var mu sync.Mutex
		var won []quipu.Seq
		var lost []*quipu.Error
		var wait sync.WaitGroup
		for range 8 {
			wait.Go(func() {
				seq, err := f.log.Append(f.ctx, f.book, quipu.Draft{Tags: []string{"lock"}, Cond: &quipu.Cond{Tag: "lock", Last: last}})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won = append(won, seq)
				} else {
					lost = append(lost, quipu.AsError(err))
				}
			})
		}
		wait.Wait()
		if len(won) != 1 {
			t.Fatalf("%d winners over %s", len(won), last)
		}
		for _, e := range lost {
			if e.Code != quipu.CodeConflict || e.Seq != won[0] {
				t.Fatalf("a loser got %v of %s, the winner is %s", e, e.Seq, won[0])
			}
		}
		last = won[0]
	}
	if n := len(f.read(t, "lock", 0)); n != 10 {
		t.Fatalf("%d records, want 10", n)
	}
}
