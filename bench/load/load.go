// Package load measures what is called again and again by a fixed number of callers, and sums it up as a Figure.
package load

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Figure is one measured line; the fields are those of the scripts that measure peers.
type Figure struct {
	Peer    string  `json:"peer"`
	Bench   string  `json:"bench"`
	Variant string  `json:"variant,omitempty"`
	Durable string  `json:"durable,omitempty"`
	Conc    int     `json:"conc"`
	N       int     `json:"n"`
	Errors  int64   `json:"errors"`
	Seconds float64 `json:"seconds"`
	OpsPerS float64 `json:"ops_per_s"`
	P50     float64 `json:"p50_us"`
	P90     float64 `json:"p90_us"`
	P99     float64 `json:"p99_us"`
	Max     float64 `json:"max_us"`
	Err     string  `json:"err,omitempty"` // the last error, if there was one
}

// errorsMax ends a load that only fails.
const errorsMax = 100

// Run calls op from conc workers, each as soon as its last call returned, for a warm-up of a fifth of d
// and then for d, and counts the calls that end within d.
func Run(f Figure, conc int, d time.Duration, op func(ctx context.Context, worker, i int) error) Figure {
	f.Conc = conc
	ctx, cancel := context.WithTimeout(context.Background(), 3*d+30*time.Second)
	defer cancel()
	from := time.Now().Add(d / 5)
	to := from.Add(d)
	latencies := make([][]time.Duration, conc)
	var failed atomic.Int64
	var last atomic.Value
	var wg sync.WaitGroup
	for worker := range conc {
		wg.Go(func() {
			for i := 0; failed.Load() < errorsMax; i++ {
				start := time.Now()
				if start.After(to) {
					return
				}
				if err := op(ctx, worker, i); err != nil {
					failed.Add(1)
					last.Store(err.Error())
					continue
				}
				if end := time.Now(); end.After(from) && !end.After(to) {
					latencies[worker] = append(latencies[worker], end.Sub(start))
				}
			}
		})
	}
	wg.Wait()
	f.Errors = failed.Load()
	if text, ok := last.Load().(string); ok {
		f.Err = text
	}
	return f.Summed(slices.Concat(latencies...), d)
}

// eachMax is the time that Each gives one operation.
const eachMax = 2 * time.Minute

// Each calls op once for each number below n, conc at a time, and counts all of them: the rate is that of the whole.
func Each(f Figure, conc, n int, op func(ctx context.Context, i int) error) Figure {
	f.Conc = conc
	latencies := make([][]time.Duration, conc)
	var next, failed atomic.Int64
	var last atomic.Value
	var wg sync.WaitGroup
	begin := time.Now()
	for worker := range conc {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed.Load() < errorsMax; i = int(next.Add(1)) - 1 {
				ctx, cancel := context.WithTimeout(context.Background(), eachMax)
				start := time.Now()
				err := op(ctx, i)
				cancel()
				if err != nil {
					failed.Add(1)
					last.Store(err.Error())
					continue
				}
				latencies[worker] = append(latencies[worker], time.Since(start))
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	f.Errors = failed.Load()
	if text, ok := last.Load().(string); ok {
		f.Err = text
	}
	return f.Summed(slices.Concat(latencies...), took)
}

// Summed fills in counts, rate and percentiles.
func (f Figure) Summed(latencies []time.Duration, took time.Duration) Figure {
	slices.Sort(latencies)
	f.N, f.Seconds = len(latencies), took.Seconds()
	if f.N == 0 {
		return f
	}
	at := func(p float64) float64 {
		return float64(latencies[int(p*float64(f.N-1))].Nanoseconds()) / 1e3
	}
	f.OpsPerS = float64(f.N) / took.Seconds()
	f.P50, f.P90, f.P99, f.Max = at(.5), at(.9), at(.99), at(1)
	return f
}
