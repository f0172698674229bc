package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const starts = 10

// benchStart measures time to ready, memory at rest, and cold starts of a function.
func benchStart(r *runner) (err error) {
	if r.program == "" {
		if r.program, err = build(r.dir); err != nil {
			return err
		}
	}
	var ready []time.Duration
	var took time.Duration
	for i := range starts {
		data := filepath.Join(r.dir, fmt.Sprintf("ready-%d", i))
		n, d, err := startNode(r.program, data)
		if err != nil {
			return err
		}
		ready, took = append(ready, d), took+d
		if i == starts-1 {
			err = r.rest(n)
		}
		if err = errors.Join(err, n.stop(), os.RemoveAll(data)); err != nil {
			return err
		}
	}
	r.print(figure{Peer: "quipu", Bench: "ready", Variant: "empty data directory", Durable: "exec to healthz", Conc: 1}.Summed(ready, took))
	return r.withNode(r.cold)
}

// rest prints the resident memory of an idle node: MB in the place of microseconds.
func (r *runner) rest(n *node) error {
	time.Sleep(time.Second)
	kib, err := rss(n.cmd.Process.Pid)
	if err != nil {
		return err
	}
	r.print(figure{Peer: "quipu", Bench: "rss_idle_KiB", Variant: "see max", Durable: "VmRSS", Conc: 1, N: 1, Max: float64(kib)})
	return nil
}

// cold calls a function that is at zero, waits until it is again, and calls it again.
func (r *runner) cold(ctx context.Context, n *node) error {
	c := caller()
	var latencies []time.Duration
	begin := time.Now()
	for range starts {
		if err := n.untilRest(ctx, "cold"); err != nil {
			return err
		}
		start := time.Now()
		if err := call(ctx, c, "GET", "http://"+n.info.HTTP+"/cold", ""); err != nil {
			return err
		}
		latencies = append(latencies, time.Since(start))
	}
	r.print(figure{Peer: "quipu", Bench: "cold_start", Variant: "Go function, from 0", Durable: "no effects", Conc: 1}.Summed(latencies, time.Since(begin)))
	return nil
}
