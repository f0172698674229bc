package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// costs are processor times per call of whoever served them, which noise of other programs touches less than rates.
type costs map[figureKey]ratios

// add takes what was used during a measurement, warm-up included, in which calls came at the rate of got.
func (c *costs) add(k figureKey, ticks int64, got figure) {
	if *c == nil {
		*c = costs{}
	}
	if calls := got.OpsPerS * got.Seconds * warmShare; calls > 0 {
		all := (*c)[k]
		all.add(float64(ticks) * tickMicros / calls)
		(*c)[k] = all
	}
}

const (
	warmShare  = 1.2    // of what counts, with the warm-up before it: load.Run
	tickMicros = 10_000 // of /proc/PID/stat: USER_HZ is 100 on every Linux
)

// cpuOf is the processor time of processes in ticks, 0 where there is no /proc.
func cpuOf(pids []int) (ticks int64) {
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it ended, or this is not Linux
		}
		_, after, _ := strings.Cut(string(text), ") ") // the name may hold blanks
		for i, field := range strings.Fields(after) {
			if i == 11 || i == 12 { // utime, stime: proc_pid_stat(5)
				n, _ := strconv.ParseInt(field, 10, 64)
				ticks += n
			}
		}
	}
	return ticks
}

// goals says what the figures mean for the goals; each ratio is of figures of one round.
func (f *functions) goals() {
	for _, l := range f.languages {
		for _, s := range sandboxes {
			f.warmGoal(l, s.variant)
		}
	}
	for _, l := range f.languages {
		for _, s := range sandboxes {
			k := figureKey{"cold_start", "quipu", l.name + ", " + s.variant, 1}
			all := f.rounds.all(k)
			f.note("cold start %s, %s: p50 %.1f ms, of rounds %s; p99/p50 %.1f", l.name, s.variant, all.P50/1e3,
				f.rounds.each(k, k, func(a, _ figure) float64 { return a.P50 / 1e3 }), all.P99/all.P50)
		}
	}
	bare := figureKey{"start", "raw", "go, fork and exec", 1}
	for _, s := range sandboxes {
		f.note("start of a process, %s: %s ms over bare fork and exec", s.variant,
			f.rounds.each(figureKey{"start", "process", "go, " + s.variant, 1}, bare, func(a, b figure) float64 { return (a.P50 - b.P50) / 1e3 }))
	}
}

func (f *functions) warmGoal(l language, variant string) {
	of := func(peer, variant string) figureKey { return figureKey{"warm", peer, variant, 64} }
	ours, alone, workerd := of("quipu", l.name+", "+variant), of(l.peer, l.name+", no platform"), of("workerd", "JavaScript")
	rate := func(a, b figure) float64 { return a.OpsPerS / b.OpsPerS }
	f.note("warm %s, %s, 64 connections: %s of the rate of the same program alone", l.name, variant, f.rounds.each(ours, alone, rate))
	f.note("  processor per call: %s µs; alone %s", f.costs[ours], f.costs[alone])
	if len(f.rounds.of[workerd]) > 0 {
		f.note("  %s of workerd's rate, which takes %s µs", f.rounds.each(ours, workerd, rate), f.costs[workerd])
	}
}
