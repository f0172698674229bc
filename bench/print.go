package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/quipu-run/quipu/bench/load"
)

type figure = load.Figure

// measured is load.Run.
func measured(f figure, conc int, d time.Duration, op func(ctx context.Context, worker, i int) error) figure {
	return load.Run(f, conc, d, op)
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

// tell says on stderr what takes long.
func (p *printer) tell(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}
