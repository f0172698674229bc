package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// figure is one measured line; the fields are those of the scripts that measure peers.
type figure struct {
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

// load calls op from conc workers, each as soon as its last call returned, for a warm-up of a fifth of d
// and then for d, and counts the calls that end within d.
func load(f figure, conc int, d time.Duration, op func(ctx context.Context, worker, i int) error) figure {
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
	return f.summed(slices.Concat(latencies...), d)
}

// summed fills in counts, rate and percentiles.
func (f figure) summed(latencies []time.Duration, took time.Duration) figure {
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

// printer writes figures as a table or as JSON lines.
type printer struct {
	out  io.Writer
	json bool
	head bool
}

func (p *printer) print(f figure) {
	if p.json {
		line, err := json.Marshal(f)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(p.out, "%s\n", line)
		return
	}
	if !p.head {
		p.head = true
		fmt.Fprintf(p.out, "%-8s %-16s %-22s %5s %9s %11s %9s %9s %9s  %s\n",
			"peer", "bench", "variant", "conc", "n", "ops/s", "p50 µs", "p99 µs", "max µs", "an answer means")
	}
	fmt.Fprintf(p.out, "%-8s %-16s %-22s %5d %9d %11.0f %9.0f %9.0f %9.0f  %s\n",
		f.Peer, f.Bench, f.Variant, f.Conc, f.N, f.OpsPerS, f.P50, f.P99, f.Max, f.Durable)
	if f.Errors > 0 {
		fmt.Fprintf(p.out, "         %d errors, the last: %s\n", f.Errors, f.Err)
	}
}

// note is a remark that belongs between the figures of a table: a ratio, or what to read out of them.
func (p *printer) note(format string, args ...any) {
	if !p.json {
		fmt.Fprintf(p.out, "         "+format+"\n", args...)
	}
}
