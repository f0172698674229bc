package meter

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/delivery"
	"github.com/quipu-run/quipu/topic"
	"github.com/quipu-run/quipu/view"
	"github.com/quipu-run/quipu/xtest"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// world is the view on a log.
type world struct {
	*View
	t      *testing.T
	clock  *xtest.Clock
	log    *xtest.Model
	id     quipu.Book
	fs     *vfs.MemFS
	store  *view.Store
	book   *view.Book
	topics *topic.View
	stored atomic.Int64
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, clock: xtest.NewClock(noon), fs: vfs.NewCrashableMem()}
	w.log = xtest.NewModel(w.clock)
	var err error
	if w.id, err = w.log.CreateBook(t.Context(), "quipu/default", quipu.BookOptions{}); err != nil {
		t.Fatal(err)
	}
	w.open()
	t.Cleanup(w.close)
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	if w.store, err = view.OpenStore(view.Options{Dir: "/views", FS: w.fs}); err != nil {
		w.t.Fatal(err)
	}
	w.topics = topic.New()
	w.View = New(Options{Clock: w.clock, Publish: func(tx *view.Tx, m quipu.Message) error { return w.topics.Put(tx, m) },
		Stored: func(context.Context) (int64, error) { return w.stored.Load(), nil }})
	if w.book, err = view.OpenBook(context.Background(), w.store, w.log, w.id, w.clock, w.View, w.topics); err != nil {
		w.t.Fatal(err)
	}
	w.topics.Start(w.book, func(delivery.Subscription) {})
	w.must(w.Start(w.book))
}

func (w *world) close() {
	w.t.Helper()
	w.must(errors.Join(w.book.Close(), w.store.Close()))
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// crash loses the views' files and what was not recorded, and starts again.
func (w *world) crash() {
	w.t.Helper()
	w.close()
	w.fs = vfs.NewCrashableMem()
	w.open()
}

// second is what Run does each second.
func (w *world) second() {
	w.t.Helper()
	w.clock.Move(time.Second)
	w.must(w.round(w.t.Context()))
}

func (w *world) note(function string, u quipu.Usage) {
	w.Note(quipu.FunctionUsage{Function: function, Usage: u})
}

// ride commits usage as a call does.
func (w *world) ride(all ...quipu.FunctionUsage) {
	w.t.Helper()
	_, err := w.book.Change(w.t.Context(), func(tx *view.Tx) error { return w.Ride(tx, all) })
	w.must(err)
}

func (w *world) bill(by string) quipu.Bill {
	w.t.Helper()
	b, err := w.Bill(w.t.Context(), "", by)
	w.must(err)
	return b
}

func (w *world) digest() string {
	w.t.Helper()
	d, err := w.book.Digest()
	w.must(err)
	return d
}

func TestWhatIsNotedIsOneRecordASecondAndWhatRidesIsThereAtOnce(t *testing.T) {
	w := newWorld(t)
	w.second() // the first sample
	before, err := w.log.Tail(t.Context(), w.id, quipu.Linearizable)
	w.must(err)
	w.ride(quipu.FunctionUsage{Function: "f", Usage: quipu.Usage{Calls: 1, CPUMicros: 7}})
	for range 100 {
		w.note("f", quipu.Usage{Calls: 1})
		w.note("g", quipu.Usage{Calls: 1, MemoryMB: 64})
	}
	if got := w.bill("").Usage; got.Calls != 1 || got.CPUMicros != 7 {
		t.Errorf("at once there is %+v, want the call that rode", got)
	}
	w.second()
	w.second() // nothing new: no record
	records := 0
	for _, err := range w.log.Range(t.Context(), w.id, quipu.TagAll, before+1, quipu.SeqMax) {
		w.must(err)
		records++
	}
	if got := w.bill("").Usage; got.Calls != 201 || records != 2 {
		t.Errorf("%d calls in %d records, want 201 in 2", got.Calls, records)
	}
}

func TestAfterACrashOnlyWhatWasAddedUpSinceTheLastRecordIsMissing(t *testing.T) {
	w := newWorld(t)
	w.note("f", quipu.Usage{Calls: 10})
	w.second()
	w.note("f", quipu.Usage{Calls: 1})
	w.ride(quipu.FunctionUsage{Function: "f", Usage: quipu.Usage{Calls: 100}})
	w.crash()
	if got := w.bill("").Usage.Calls; got != 110 {
		t.Errorf("%d calls, want the 110 that were recorded", got)
	}
	w.note("f", quipu.Usage{Calls: 1000})
	w.must(w.Close(t.Context()))
	w.crash()
	if got := w.bill("").Usage.Calls; got != 1110 {
		t.Errorf("%d calls, want 1110: a clean stop records the rest", got)
	}
}

func TestABookFromBeforeThereWasAMeterOpens(t *testing.T) {
	w := newWorld(t)
	w.close()
	var err error
	w.store, err = view.OpenStore(view.Options{Dir: "/before", FS: w.fs})
	w.must(err)
	topics := topic.New()
	w.book, err = view.OpenBook(t.Context(), w.store, w.log, w.id, w.clock, topics)
	w.must(err)
	topics.Start(w.book, func(delivery.Subscription) {})
	_, err = w.book.Change(t.Context(), func(tx *view.Tx) error { return topics.Put(tx, quipu.Message{Topic: "old", ID: "1"}) })
	w.must(err)
	w.crash()
	w.note("f", quipu.Usage{Calls: 1})
	w.second()
	if b := w.bill(""); b.Usage.Calls != 1 || b.Currency != DefaultPrices().Currency {
		t.Errorf("the bill is %+v", b)
	}
}

// A view that is built anew from the log is the same byte for byte, days and months later.
func TestAViewThatIsBuiltAnewIsTheSame(t *testing.T) {
	w := newWorld(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	w.must(w.SetBudget(t.Context(), quipu.Budget{Function: "f1", Amount: 1, Warn: 50, Stop: true}))
	for range 500 {
		w.clock.Move(time.Duration(rng.Int64N(int64(30 * time.Hour))))
		f := fmt.Sprint("f", rng.IntN(4))
		u := quipu.Usage{Calls: rng.Int64N(1e6), MemoryMB: rng.Int64N(3), MemoryMBMillis: rng.Int64N(1e12), BytesOut: rng.Int64N(2)}
		if rng.IntN(2) == 0 {
			w.ride(quipu.FunctionUsage{Function: f, Usage: u})
		} else {
			w.note(f, u)
		}
		w.must(w.round(t.Context()))
		if rng.IntN(50) == 0 {
			w.close() // what the store has is taken up again
			w.open()
		}
	}
	want := w.digest()
	w.crash()
	if got := w.digest(); got != want {
		t.Errorf("built anew the view has digest %s, before %s", got, want)
	}
}

func TestRowsAreKeptForFourHundredDays(t *testing.T) {
	w := newWorld(t)
	w.note("f", quipu.Usage{Calls: 1})
	w.second()
	days := func() int {
		list, err := w.Usage(t.Context(), "2026-11-01", "2028-12-31")
		w.must(err)
		n := 0
		for _, d := range list {
			if d.Function == "f" {
				n++
			}
		}
		return n
	}
	w.clock.Move(quipu.UsageKept * 24 * time.Hour)
	w.note("f", quipu.Usage{Calls: 1})
	w.second()
	if got := days(); got != 2 {
		t.Errorf("after %d days there are %d, want both", quipu.UsageKept, got)
	}
	w.clock.Move(24 * time.Hour)
	w.note("f", quipu.Usage{Calls: 1})
	w.second()
	if got := days(); got != 2 {
		t.Errorf("a day later there are %d, want the first to be gone", got)
	}
	b, err := w.Bill(t.Context(), "2026-11", "")
	w.must(err)
	if b.Usage.Calls != 1 {
		t.Errorf("the month of the last day that is kept has %d calls, want all it had", b.Usage.Calls)
	}
}

func TestTheBillByDayHasTheUsageOfTheBillByFunction(t *testing.T) {
	w := newWorld(t)
	for day := range 9 { // to the end of the month
		for _, f := range []string{"", "a", "b"} {
			w.note(f, quipu.Usage{Calls: int64(day + 1), MemoryMBMillis: 12_345_678, BytesOut: 1 << 33, StoredByteHours: 1 << 41})
		}
		w.second()
		w.clock.Move(24 * time.Hour)
	}
	w.clock.Move(noon.Sub(w.clock.Now()))
	functions, days := w.bill(quipu.ByFunction), w.bill(quipu.ByDay)
	if functions.Usage != days.Usage || len(functions.Rows) != 3 || len(days.Rows) != 9 {
		t.Errorf("by function %d rows with %+v, by day %d rows with %+v", len(functions.Rows), functions.Usage, len(days.Rows), days.Usage)
	}
	sum := quipu.Money(0)
	for _, row := range functions.Rows {
		sum += row.Amount
	}
	if functions.Total != sum || sum == 0 {
		t.Errorf("the total is %s, the rows have %s", functions.Total, sum)
	}
}

func TestWhatIsKeptIsSampledOnceAnHourAlsoAcrossRestarts(t *testing.T) {
	w := newWorld(t)
	w.stored.Store(1000)
	for range 3 {
		w.second()
		w.crash()
	}
	if got := w.bill("").Usage.StoredByteHours; got != 1000 {
		t.Errorf("within an hour %d byte-hours were counted, want 1000", got)
	}
	w.clock.Move(time.Hour)
	w.stored.Store(5)
	w.second()
	if got := w.bill("").Usage.StoredByteHours; got != 1005 {
		t.Errorf("an hour later it is %d, want 1005", got)
	}
}

// warnings are the percentages that were told of, in order.
func (w *world) warnings() (percents []string) {
	w.t.Helper()
	events, err := w.topics.Read(quipu.TopicBudgets, 1, 100)
	w.must(err)
	for _, e := range events {
		percents = append(percents, string(e.Data))
	}
	return percents
}

func TestABudgetWarnsOnceAndStopsUntilTheMonthEnds(t *testing.T) {
	w := newWorld(t)
	w.must(w.SetPrices(t.Context(), quipu.Prices{Currency: "EUR", PerMillionCalls: "1"}))
	w.must(w.SetBudget(t.Context(), quipu.Budget{Function: "f", Amount: 1_000_000, Warn: 80, Stop: true}))
	w.must(w.SetBudget(t.Context(), quipu.Budget{Amount: 1_000_000_000, Warn: 80, Stop: true}))
	for _, step := range []struct {
		calls   int64
		told    int
		refused bool
	}{{799_999, 0, false}, {1, 1, false}, {199_999, 1, false}, {1, 2, true}, {5, 2, true}} {
		w.note("f", quipu.Usage{Calls: step.calls})
		w.second()
		w.second()
		w.crash() // what was told, and what is stopped, outlives a node
		w.second()
		err := w.Allow("f")
		if told := len(w.warnings()); told != step.told || (err != nil) != step.refused {
			t.Fatalf("after %d more calls %d warnings, and calls get %v; want %d, refused %v", step.calls, told, err, step.told, step.refused)
		}
	}
	e := quipu.AsError(w.Allow("f"))
	if e.Code != quipu.CodeBudget || e.RetryAfter != retryAfterMax || w.Allow("g") != nil {
		t.Errorf("f gets %v with %s, g gets %v; want a code, an hour, and nothing", e, e.RetryAfter, w.Allow("g"))
	}
	w.clock.Move(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC).Sub(w.clock.Now()))
	if err := w.Allow("f"); err != nil {
		t.Errorf("in the next month: %v", err)
	}
	w.note("f", quipu.Usage{Calls: 800_000})
	w.second()
	w.second()
	if got := len(w.warnings()); got != 3 || w.Allow("f") != nil {
		t.Errorf("in the next month there are %d warnings in all, want 3", got)
	}
}

func TestABudgetThatIsRaisedLetsCallsInAtOnce(t *testing.T) {
	w := newWorld(t)
	w.must(w.SetPrices(t.Context(), quipu.Prices{Currency: "EUR", PerMillionCalls: "1"}))
	w.note("f", quipu.Usage{Calls: 10})
	w.second()
	w.must(w.SetBudget(t.Context(), quipu.Budget{Amount: 10, Warn: 100, Stop: true}))
	if w.Allow("f") == nil || w.Allow("g") == nil {
		t.Fatal("the namespace's budget is used up, and calls are let in")
	}
	w.must(w.SetBudget(t.Context(), quipu.Budget{Amount: 11, Warn: 100, Stop: true}))
	if err := w.Allow("f"); err != nil {
		t.Errorf("the budget was raised: %v", err)
	}
	w.must(w.RemoveBudget(t.Context(), ""))
	if quipu.CodeOf(w.RemoveBudget(t.Context(), "")) != quipu.CodeNotFound {
		t.Error("a budget was removed twice")
	}
}

func TestWhatCannotBeABudgetOrAPriceIsRefusedAndChangesNothing(t *testing.T) {
	w := newWorld(t)
	before := w.digest()
	for _, b := range []quipu.Budget{{Amount: 0, Warn: 80}, {Amount: -1, Warn: 80}, {Amount: 1, Warn: 0}, {Amount: 1, Warn: 101}, {Function: "a/b", Amount: 1, Warn: 80}} {
		if err := w.SetBudget(t.Context(), b); quipu.CodeOf(err) != quipu.CodeUsage {
			t.Errorf("%+v: %v", b, err)
		}
	}
	for _, p := range []quipu.Prices{{}, {Currency: "a b"}, {Currency: "EUR", PerGBIn: "much"}} {
		if err := w.SetPrices(t.Context(), p); quipu.CodeOf(err) != quipu.CodeUsage {
			t.Errorf("%+v: %v", p, err)
		}
	}
	for _, month := range []string{"2026", "2026-13", "11-2026", "x"} {
		if _, err := w.Bill(t.Context(), month, ""); quipu.CodeOf(err) != quipu.CodeUsage {
			t.Errorf("bill of %q: %v", month, err)
		}
	}
	if w.digest() != before {
		t.Error("something was changed")
	}
}

// cpuClock is the processor time of a fake instance.
type cpuClock struct{ micros atomic.Int64 }

func (c *cpuClock) CPUTime() (time.Duration, error) {
	return time.Duration(c.micros.Load()) * time.Microsecond, nil
}

// However calls and seconds share the readings, their sum is what the instance took.
func TestProcessorTimeIsCountedOnceAndToTheEnd(t *testing.T) {
	w := newWorld(t)
	c, done := &cpuClock{}, make(chan struct{})
	w.Watch("i1", "f", c, done)
	c.micros.Store(int64(cpuTakenMin/time.Microsecond) - 1)
	w.second()
	if got := w.bill("").Usage.CPUMicros; got != 0 {
		t.Errorf("an instance that idles caused a record of %d µs", got)
	}
	var byCalls atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 1000 {
				c.micros.Add(13)
				byCalls.Add(w.CPU("i1"))
			}
		})
	}
	all.Go(func() {
		for range 100 {
			w.processors.takeAll(w.Note)
		}
	})
	all.Wait()
	c.micros.Add(3)
	close(done)
	w.must(w.Close(t.Context()))
	if got := byCalls.Load() + w.bill("").Usage.CPUMicros; got != c.micros.Load() {
		t.Errorf("%d µs were counted of %d", got, c.micros.Load())
	}
	if w.CPU("i1") != 0 {
		t.Error("an instance that is gone still takes time")
	}
}

func TestOperationsThatAreNoneAreRefused(t *testing.T) {
	good := appendTook(nil, []quipu.FunctionUsage{{Function: "f", Usage: quipu.Usage{Calls: 1, MemoryMB: 1 << 62}}, {Usage: quipu.Usage{CPUMicros: 300}}})
	for n := range good {
		if r := describeTook(&reader{rest: good[1:max(1, n)]}); r != errOp.Error() {
			t.Errorf("the first %d bytes of %d are %q", n, len(good), r)
		}
	}
	if got := DescribeOp(good); got != "count 0 ms, 0 MB-ms and 300 µs of processor" {
		t.Errorf("an operation is %q", got)
	}
}

func BenchmarkNote(b *testing.B) {
	v := New(Options{})
	u := quipu.FunctionUsage{Function: "f", Usage: quipu.Usage{Calls: 1, Runs: 1, BilledMillis: 1, MemoryMB: 128, MemoryMBMillis: 128}}
	b.ReportAllocs()
	for b.Loop() {
		v.Note(u)
	}
}

func BenchmarkAllow(b *testing.B) {
	v := New(Options{})
	for b.Loop() {
		if v.Allow("f") != nil {
			b.Fatal("refused")
		}
	}
}
