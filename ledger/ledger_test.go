package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/ledger"
	"github.com/quipu-run/quipu/xtest"
)

// hasty is a clock on which nothing takes time.
type hasty struct{ *xtest.Clock }

func (hasty) After(time.Duration) <-chan time.Time {
	now := make(chan time.Time, 1)
	now <- time.Time{}
	return now
}

func newModel() *xtest.Model { return xtest.NewModel(xtest.NewClock(time.Unix(1e9, 0))) }

func on(log quipu.Log) *ledger.Ledgers {
	return ledger.New(ledger.Options{Log: log, Clock: hasty{xtest.NewClock(time.Unix(1e9, 0))}})
}

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantCode(t *testing.T, err error, code quipu.Code) {
	t.Helper()
	if quipu.CodeOf(err) != code {
		t.Fatalf("got %v, want %s", err, code)
	}
}

// fill appends entries from 0, whose data are their ids.
func fill(t *testing.T, w *ledger.Writer, n int) {
	t.Helper()
	for i := range n {
		if id, err := w.Append(t.Context(), fmt.Append(nil, i)); err != nil || id != int64(i) {
			t.Fatalf("entry %d has id %d, %v", i, id, err)
		}
	}
}

// read answers the data of entries, and the error at the end.
func read(t *testing.T, r *ledger.Reader, first, last int64) (all []string, err error) {
	t.Helper()
	next := first
	for e, err := range r.Read(t.Context(), first, last) {
		if err != nil {
			return all, err
		}
		if e.ID != next {
			t.Fatalf("entry %d comes where %d belongs", e.ID, next)
		}
		next++
		all = append(all, string(e.Data))
	}
	return all, nil
}

func wantState(t *testing.T, r *ledger.Reader, last int64, closed bool) {
	t.Helper()
	if info := must(r.Info(t.Context()))(t); info.Last != last || info.Closed != closed {
		t.Fatalf("the last is %d, closed %v; want %d, %v", info.Last, info.Closed, last, closed)
	}
}

func TestALedgerIsWrittenClosedAndRead(t *testing.T) {
	l := on(newModel())
	w := must(l.Create(t.Context(), "a/b"))(t)
	_, err := l.Create(t.Context(), "a/b")
	wantCode(t, err, quipu.CodeBookExists)
	const n = 200
	fill(t, w, n)
	r := must(l.OpenReadOnly(t.Context(), "a/b"))(t)
	wantState(t, r, n-1, false)
	if last := must(w.Close(t.Context()))(t); last != n-1 {
		t.Fatalf("closed at %d", last)
	}
	if last := must(w.Close(t.Context()))(t); last != n-1 {
		t.Fatalf("closed again at %d", last)
	}
	wantState(t, r, n-1, true)
	_, err = w.Append(t.Context(), nil)
	wantCode(t, err, quipu.CodeUsage)
	for first := int64(0); first < n; first++ {
		for _, last := range []int64{first, min(first+70, n-1), n - 1} {
			all, err := read(t, r, first, last)
			if err != nil || int64(len(all)) != last-first+1 || all[0] != fmt.Sprint(first) {
				t.Fatalf("from %d to %d: %d entries, %v", first, last, len(all), err)
			}
		}
	}
	for _, span := range [][2]int64{{0, n}, {n, n}, {n - 1, n + 500}, {n + 500, n + 500}} {
		_, err := read(t, r, span[0], span[1])
		wantCode(t, err, quipu.CodeNotFound)
	}
	_, err = read(t, r, -1, 3)
	wantCode(t, err, quipu.CodeUsage)
	if all, err := read(t, r, 3, 2); err != nil || len(all) != 0 {
		t.Fatalf("nothing asked for gave %q, %v", all, err)
	}
}

func TestAnEmptyLedgerCloses(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, l *ledger.Ledgers, w *ledger.Writer){
		"by its writer":    func(t *testing.T, _ *ledger.Ledgers, w *ledger.Writer) { must(w.Close(t.Context()))(t) },
		"by somebody else": func(t *testing.T, l *ledger.Ledgers, _ *ledger.Writer) { must(l.Open(t.Context(), "x"))(t) },
		"by both in a row": func(t *testing.T, l *ledger.Ledgers, w *ledger.Writer) {
			must(w.Close(t.Context()))(t)
			must(l.Open(t.Context(), "x"))(t)
		},
		"by two one by one": func(t *testing.T, l *ledger.Ledgers, _ *ledger.Writer) {
			must(l.Open(t.Context(), "x"))(t)
			must(l.Open(t.Context(), "x"))(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			log := newModel()
			l := on(log)
			w := must(l.Create(t.Context(), "x"))(t)
			end(t, l, w)
			r := must(l.OpenReadOnly(t.Context(), "x"))(t)
			wantState(t, r, ledger.None, true)
			for e, err := range r.Follow(t.Context(), 0) {
				t.Fatalf("followed to %+v, %v", e, err)
			}
			_, err := w.Append(t.Context(), nil)
			if code := quipu.CodeOf(err); code != quipu.CodeFenced && code != quipu.CodeUsage {
				t.Fatalf("an append got %v", err)
			}
			_, err = read(t, r, 0, 0)
			wantCode(t, err, quipu.CodeNotFound)
		})
	}
}

func TestANewOwnerFencesTheOldOne(t *testing.T) {
	l := on(newModel())
	w := must(l.Create(t.Context(), "x"))(t)
	fill(t, w, 5)
	wantState(t, must(l.OpenReadOnly(t.Context(), "x"))(t), 4, false) // which fences nobody
	if id, err := w.Append(t.Context(), []byte("5")); err != nil || id != 5 {
		t.Fatal(id, err)
	}
	r := must(l.Open(t.Context(), "x"))(t)
	wantState(t, r, 5, true)
	for range 3 {
		_, err := w.Append(t.Context(), []byte("late"))
		wantCode(t, err, quipu.CodeFenced)
	}
	_, err := w.Close(t.Context())
	wantCode(t, err, quipu.CodeFenced)
	wantState(t, must(l.Open(t.Context(), "x"))(t), 5, true)
	all, err := read(t, r, 0, 5)
	if err != nil || strings.Join(all, "") != "012345" {
		t.Fatalf("read %q, %v", all, err)
	}
}

func TestEntriesOfOneSenderKeepTheirOrder(t *testing.T) {
	l := on(newModel())
	w := must(l.Create(t.Context(), "x"))(t)
	var sent []*ledger.Sent
	for i := range 5000 {
		sent = append(sent, must(w.Send(t.Context(), fmt.Append(nil, i)))(t))
	}
	for i, s := range sent {
		if id := must(s.Wait(t.Context()))(t); id != int64(i) {
			t.Fatalf("entry %d has id %d", i, id)
		}
	}
	must(w.Close(t.Context()))(t)
	all, err := read(t, must(l.OpenReadOnly(t.Context(), "x"))(t), 0, 4999)
	for i, data := range all {
		if data != fmt.Sprint(i) {
			t.Fatalf("entry %d is %s", i, data)
		}
	}
	if err != nil || len(all) != 5000 {
		t.Fatal(len(all), err)
	}
}

func TestAFollowerSeesEveryEntryAndTheEnd(t *testing.T) {
	for _, first := range []int64{-3, 0, 1, 63, 64, 65, 100, 150, 151, 400} {
		t.Run(fmt.Sprint("from ", first), func(t *testing.T) {
			l := on(newModel())
			w := must(l.Create(t.Context(), "x"))(t)
			fill(t, w, 100)
			r := must(l.OpenReadOnly(t.Context(), "x"))(t)
			ids := make(chan []int64)
			go func() {
				var all []int64
				for e, err := range r.Follow(t.Context(), first) {
					if err != nil {
						t.Errorf("followed to %v", err)
					}
					all = append(all, e.ID)
				}
				ids <- all
			}()
			for i := 100; i < 150; i++ {
				must(w.Append(t.Context(), nil))(t)
			}
			must(w.Close(t.Context()))(t)
			all := <-ids
			if want := max(0, 150-max(first, 0)); int64(len(all)) != want || want > 0 && (all[0] != max(first, 0) || all[len(all)-1] != 149) {
				t.Errorf("%d entries, want %d: %v", len(all), want, all)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	l := on(newModel())
	must(l.Create(t.Context(), "x"))(t)
	cancel()
	for _, err := range must(l.OpenReadOnly(t.Context(), "x"))(t).Follow(ctx, 0) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	}
}

func TestLedgersAreListedAndDeleted(t *testing.T) {
	log := newModel()
	l := on(log)
	if _, err := log.CreateBook(t.Context(), "no ledger", quipu.BookOptions{}); err != nil {
		t.Fatal(err)
	}
	a, b := must(l.Create(t.Context(), "a"))(t), must(l.Create(t.Context(), "b"))(t)
	fill(t, a, 3)
	must(b.Close(t.Context()))(t)
	list := must(l.List(t.Context()))(t)
	if got := fmt.Sprint(list); len(list) != 2 || list[0].Bytes == 0 || got != fmt.Sprintf("[{a 2 false %d} {b -1 true %d}]", list[0].Bytes, list[1].Bytes) {
		t.Fatalf("listed %s", got)
	}
	r := must(l.OpenReadOnly(t.Context(), "a"))(t)
	if err := l.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, l.Delete(t.Context(), "a"), quipu.CodeNoBook)
	_, err := a.Append(t.Context(), nil)
	wantCode(t, err, quipu.CodeNoBook)
	_, err = read(t, r, 0, 0)
	wantCode(t, err, quipu.CodeNoBook)
	fill(t, must(l.Create(t.Context(), "a"))(t), 1) // another one
	_, err = read(t, r, 0, 0)
	wantCode(t, err, quipu.CodeNoBook)
}

func TestBadInputHasItsCode(t *testing.T) {
	l := on(newModel())
	for _, name := range []string{"", "line\nbreak", strings.Repeat("x", quipu.BookNameMax)} {
		_, err := l.Create(t.Context(), name)
		wantCode(t, err, quipu.CodeUsage)
	}
	_, err := l.Open(t.Context(), "none")
	wantCode(t, err, quipu.CodeNoBook)
	_, err = l.OpenReadOnly(t.Context(), "none")
	wantCode(t, err, quipu.CodeNoBook)
	w := must(l.Create(t.Context(), "x"))(t)
	_, err = w.Append(t.Context(), make([]byte, ledger.EntryBytesMax+1))
	wantCode(t, err, quipu.CodeRecord)
	if id := must(w.Append(t.Context(), make([]byte, ledger.EntryBytesMax)))(t); id != 0 { // the writer lives on
		t.Fatalf("id %d", id)
	}
}

// gate is a log whose appends wait for the test.
type gate struct {
	quipu.Log
	came, pass chan struct{}
}

func newGate() gate { return gate{newModel(), make(chan struct{}), make(chan struct{})} }

func (g gate) AppendBatch(ctx context.Context, book quipu.Book, ds []quipu.Draft) ([]quipu.Seq, error) {
	select {
	case g.came <- struct{}{}:
	case <-ctx.Done():
	}
	select {
	case <-g.pass:
	case <-ctx.Done():
		return nil, &quipu.Error{Code: quipu.CodeUnknown, Err: ctx.Err()}
	}
	return g.Log.AppendBatch(ctx, book, ds)
}

func TestWhatWaitsGoesTogetherAndTheQueueIsBounded(t *testing.T) {
	g := newGate()
	l := ledger.New(ledger.Options{Log: g, QueueBytesMax: 100})
	w := must(l.Create(t.Context(), "x"))(t)
	first := must(w.Send(t.Context(), nil))(t)
	<-g.came // on its way, so the others wait
	var waiting []*ledger.Sent
	for range 5 {
		waiting = append(waiting, must(w.Send(t.Context(), make([]byte, 12)))(t)) // and 8 bytes for its id
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := w.Send(gone, make([]byte, 12))
	wantCode(t, err, quipu.CodeOverloaded)
	_, err = first.Wait(gone)
	wantCode(t, err, quipu.CodeUnknown)
	room := make(chan *ledger.Sent)
	go func() {
		s, err := w.Send(t.Context(), make([]byte, 12))
		if err != nil {
			t.Error(err)
		}
		room <- s
	}()
	g.pass <- struct{}{}
	<-g.came
	last := <-room // the second append took all that waited, so there is room
	g.pass <- struct{}{}
	for _, s := range waiting {
		must(s.Wait(t.Context()))(t)
	}
	<-g.came
	g.pass <- struct{}{}
	if id := must(last.Wait(t.Context()))(t); id != 6 {
		t.Errorf("the entry that waited for room has id %d", id)
	}
}

func TestACloseThatGivesUpLeavesTheLedgerToOpen(t *testing.T) {
	g := newGate()
	w := must(on(g).Create(t.Context(), "x"))(t)
	s := must(w.Send(t.Context(), nil))(t)
	<-g.came // and stays there
	ctx, cancel := context.WithCancel(t.Context())
	closed := make(chan error)
	go func() {
		_, err := w.Close(ctx)
		closed <- err
	}()
	cancel()
	wantCode(t, <-closed, quipu.CodeUnknown)
	_, err := s.Wait(t.Context())
	wantCode(t, err, quipu.CodeUnknown)
	wantState(t, must(on(g.Log).Open(t.Context(), "x"))(t), ledger.None, true)
}

// Many append while many open: all who open agree, and every acknowledged entry is in.
func TestARaceOfWritersAndNewOwnersHasOneEnd(t *testing.T) {
	rounds := 100
	if testing.Short() {
		rounds = 10
	}
	for round := range rounds {
		l := on(newModel())
		w := must(l.Create(t.Context(), "x"))(t)
		var wait sync.WaitGroup
		var acked sync.Map // id -> data
		var count atomic.Int64
		start := make(chan struct{})
		for c := range 8 {
			wait.Go(func() {
				for i := 0; ; i++ {
					data := fmt.Sprint(c, ".", i)
					id, err := w.Append(t.Context(), []byte(data))
					if err != nil {
						wantFenced(t, err)
						return
					}
					if _, twice := acked.LoadOrStore(id, data); twice {
						t.Errorf("two entries have the id %d", id)
					}
					if count.Add(1) == int64(round) {
						close(start)
					}
				}
			})
		}
		if round > 0 {
			<-start
		}
		lasts := make(chan int64, 4)
		for range cap(lasts) {
			wait.Go(func() {
				r, err := l.Open(t.Context(), "x")
				if err != nil {
					t.Error(err)
					return
				}
				info, err := r.Info(t.Context())
				if err != nil || !info.Closed {
					t.Errorf("opened, and it is %+v, %v", info, err)
				}
				lasts <- info.Last
			})
		}
		wait.Wait()
		last := <-lasts
		for range cap(lasts) - 1 {
			if other := <-lasts; other != last {
				t.Fatalf("one saw the end at %d, another at %d", last, other)
			}
		}
		wantAcked(t, must(l.OpenReadOnly(t.Context(), "x"))(t), last, &acked)
	}
}

func wantFenced(t *testing.T, err error) {
	t.Helper()
	if quipu.CodeOf(err) != quipu.CodeFenced {
		t.Errorf("a writer got %v", err)
	}
}

// wantAcked reads the whole ledger and compares.
func wantAcked(t *testing.T, r *ledger.Reader, last int64, acked *sync.Map) {
	t.Helper()
	all, err := read(t, r, 0, last)
	if err != nil || int64(len(all)) != last+1 {
		t.Fatalf("%d of %d entries, %v", len(all), last+1, err)
	}
	acked.Range(func(id, data any) bool {
		if id.(int64) > last || all[id.(int64)] != data {
			t.Errorf("acknowledged entry %d is not there", id)
		}
		return true
	})
}

// deaf is a log that does each append, or not, and answers with the errors of a list as long as there are some.
type deaf struct {
	quipu.Log
	does    bool
	answers []quipu.Code
}

func (d *deaf) AppendBatch(ctx context.Context, book quipu.Book, ds []quipu.Draft) ([]quipu.Seq, error) {
	if len(d.answers) == 0 {
		return d.Log.AppendBatch(ctx, book, ds)
	}
	code := d.answers[0]
	d.answers = d.answers[1:]
	if d.does {
		_, _ = d.Log.AppendBatch(ctx, book, ds)
	}
	return nil, &quipu.Error{Code: code}
}

func TestAnAppendWithoutAnAnswerIsSentAgainAndIsOneEntry(t *testing.T) {
	const lost, gone, busy = quipu.CodeUnknown, quipu.CodeNoNode, quipu.CodeOverloaded
	for _, c := range []struct {
		answers []quipu.Code
		does    bool
		want    quipu.Code
	}{
		{[]quipu.Code{lost}, true, ""},
		{[]quipu.Code{lost, gone, busy, lost}, true, ""},
		{[]quipu.Code{lost, gone, busy, lost}, false, ""},
		{[]quipu.Code{lost, lost, lost, lost, lost}, true, lost},
		{[]quipu.Code{gone, busy, busy, busy, busy}, true, lost},
		{[]quipu.Code{busy, busy, busy, busy, busy}, false, busy},
		{[]quipu.Code{lost, quipu.CodeFenced}, false, quipu.CodeFenced},
		{[]quipu.Code{quipu.CodeDiskFull}, false, quipu.CodeDiskFull},
	} {
		d := &deaf{Log: newModel(), does: c.does}
		l := on(d)
		w := must(l.Create(t.Context(), "x"))(t)
		d.answers = c.answers
		_, err := w.Append(t.Context(), []byte("once"))
		wantCode(t, err, c.want)
		d.answers = nil
		if _, err := w.Append(t.Context(), nil); quipu.CodeOf(err) != c.want {
			t.Errorf("%v: the next append got %v", c, err)
		}
		r := must(l.Open(t.Context(), "x"))(t)
		entries := map[bool]int64{true: 1}[c.does] // what was done counts
		if c.want == "" {
			entries = 2
		}
		wantState(t, r, entries-1, true)
	}
}
