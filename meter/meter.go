// Package meter is the view of what was taken, and what that costs: usage by day, month and function, prices, budgets, bills.
//
// What a call takes rides in the record of the call, if it has one: it counts exactly if that commits. What has no record
// (calls without effects, failed attempts, starts of instances, processor time between calls) is added up in memory and
// becomes one record each second, and at a clean stop. So after a crash the bill lacks at most that last second, and
// per instance up to cpuTakenMin of processor time that nobody had asked for yet; what was counted is counted once.
//
// Adding reads nothing, so it never loses to another commit. Totals are kept quipu.UsageKept days. All of it is integers;
// money is, too: a line of a bill is rounded once (price.go).
//
// A budget stops calls by a flag in memory that is looked at each second and when the view opens, so what runs meanwhile
// may go beyond. This package refuses no call itself: package call asks Allow.
package meter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// Name is the name of the view.
const Name = "meter"

// Tag is that of records which have nothing but what was added up.
const Tag = "meter"

// every is how often what was added up becomes a record.
const every = time.Second

// Options of a View. All fields are required but Logger.
type Options struct {
	Clock quipu.Clock
	// Publish adds an event of the platform to a transaction.
	Publish func(tx *view.Tx, m quipu.Message) error
	// Stored is how many bytes the namespace keeps.
	Stored func(ctx context.Context) (int64, error)
	Logger *slog.Logger // nil means none
}

// View is the view. It is quipu.Billing.
type View struct {
	o    Options
	book *view.Book

	totals totals // the applier's own, as buf
	buf    []byte

	news     atomic.Bool // records were applied since the budgets were looked at
	judging  sync.Mutex
	stopped  atomic.Pointer[stops] // nil if nothing is
	standing atomic.Pointer[[]quipu.BudgetStatus]

	processors processors
	hour       int64 // for which what is kept was sampled, as far as Run knows

	flushing sync.Mutex
	mu       sync.Mutex // guards sums
	sums     map[string]*quipu.Usage
}

var _ quipu.Billing = (*View)(nil)

// New makes the machine of the view.
func New(o Options) *View {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &View{o: o, sums: map[string]*quipu.Usage{}, totals: totals{day: map[string]quipu.Usage{}, month: map[string]quipu.Usage{}}}
}

// Name is the constant Name.
func (v *View) Name() string { return Name }

// Start follows book from now on; calls are stopped that budgets stop.
func (v *View) Start(book *view.Book) error {
	v.book = book
	book.OnApply(Name, func() error {
		v.news.Store(true)
		return nil
	})
	return v.judge()
}

// Note counts what has no record.
func (v *View) Note(one quipu.FunctionUsage) {
	v.mu.Lock()
	defer v.mu.Unlock()
	sum := v.sums[one.Function]
	if sum == nil {
		sum = &quipu.Usage{}
		v.sums[one.Function] = sum
	}
	sum.Add(one.Usage)
}

// Ride adds what a call has taken to its transaction.
func (v *View) Ride(tx *view.Tx, taken []quipu.FunctionUsage) error {
	return do(tx, appendTook(nil, taken))
}

// Run makes records of what was added up, samples what is kept, and has budgets tell, until ctx ends.
func (v *View) Run(ctx context.Context) {
	month, failed := "", false
	for {
		select {
		case <-v.o.Clock.After(every):
		case <-ctx.Done():
			return
		}
		now := v.o.Clock.Now().UTC().Format(monthForm)
		if now != month { // budgets begin anew
			month = now
			v.news.Store(true)
		}
		err := v.round(ctx)
		if err != nil && ctx.Err() == nil && !failed {
			v.o.Logger.Error("usage cannot be recorded; it is tried again each second", "err", err)
		}
		failed = err != nil
	}
}

func (v *View) round(ctx context.Context) error {
	v.processors.takeAll(v.Note)
	if err := errors.Join(v.Flush(ctx), v.sample(ctx)); err != nil {
		return err
	}
	if !v.news.Swap(false) {
		return nil
	}
	err := v.judge()
	if err == nil {
		err = v.tellAll(ctx)
	}
	if err != nil {
		v.news.Store(true)
	}
	return err
}

// Flush makes a record of what was added up. If it is not known whether that is in the log, it is not added again: nothing
// is billed twice.
func (v *View) Flush(ctx context.Context) error {
	v.flushing.Lock()
	defer v.flushing.Unlock()
	v.mu.Lock()
	sums := v.sums
	v.sums = make(map[string]*quipu.Usage, len(sums))
	v.mu.Unlock()
	if len(sums) == 0 {
		return nil
	}
	all := make([]quipu.FunctionUsage, 0, len(sums))
	for _, function := range slices.Sorted(maps.Keys(sums)) {
		all = append(all, quipu.FunctionUsage{Function: function, Usage: *sums[function]})
	}
	_, err := v.book.Change(ctx, func(tx *view.Tx) error {
		tx.Tag(Tag)
		return v.Ride(tx, all)
	})
	if err == nil || quipu.CodeOf(err) == quipu.CodeUnknown {
		return err
	}
	for _, one := range all {
		v.Note(one)
	}
	return fmt.Errorf("record usage: %w", err)
}

// Close takes what instances that are gone have left, and makes the last record. No call may run any more.
func (v *View) Close(ctx context.Context) error {
	v.processors.wait()
	v.processors.takeAll(v.Note)
	return v.Flush(context.WithoutCancel(ctx)) // it waits for nobody
}

// sample counts what is kept, once in an hour in which a node runs.
func (v *View) sample(ctx context.Context) error {
	hour := v.o.Clock.Now().Unix() / 3600
	if hour <= v.hour {
		return nil
	}
	bytes, err := v.o.Stored(ctx)
	if err != nil {
		return fmt.Errorf("ask how much is kept: %w", err)
	}
	_, err = v.book.Change(ctx, func(tx *view.Tx) error { return sampleOnce(tx, hour, bytes) })
	if err != nil {
		return fmt.Errorf("record how much is kept: %w", err)
	}
	v.hour = hour
	return nil
}

// sampleOnce adds the sample of an hour, unless it is there.
func sampleOnce(tx *view.Tx, hour, bytes int64) error {
	last, there, err := tx.Get(Name, hourKey)
	if err != nil {
		return err
	}
	if there {
		n, err := strconv.ParseInt(string(last), 10, 64)
		if err != nil {
			return fmt.Errorf("last sample: %w", err)
		}
		if n >= hour {
			return nil
		}
	}
	tx.Tag(Tag)
	tx.Put(Name, hourKey, strconv.AppendInt(nil, hour, 10))
	return do(tx, binary.AppendUvarint(binary.AppendUvarint([]byte{opSample}, uint64(hour)), uint64(max(0, bytes))))
}
