package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	memoryApps    = 10
	memoryWorkers = 64
	memoryRest    = 2 * time.Second  // after a load or a start, before memory is read
	memoryQuiet   = 25 * time.Second // after a load, when it is read again: Go gives memory back late
	memoryShare   = 5                // the goal: ten sidecars and Redis weigh so many times a node
)

// memory is of processes together, in KiB.
type memory struct {
	pss int // of a page that several processes have, each has its share
	rss int
}

// weighed is whose memory, and when.
type weighed struct{ who, when string }

// Whose, and when. With quipu run there is a process of each application besides the node.
const (
	withRuns  = "quipu run"
	idle      = "idle"
	afterLoad = "after load"
	restAgain = "at rest again"
)

// memory weighs ten sidecars and a Redis, and a node with as many applications.
func (d *daprBench) memory() error {
	d.weight = map[weighed]memory{}
	if err := d.weighSidecars(); err != nil {
		return fmt.Errorf("memory of sidecars: %w", err)
	}
	if err := d.weighNode(); err != nil {
		return fmt.Errorf("memory of a node: %w", err)
	}
	return d.weighRuns()
}

func (d *daprBench) weighSidecars() (err error) {
	g, err := startGroup(d.daprd, filepath.Join(d.dir, "daprd-memory"), d.ports)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.stop()) }()
	var all []side
	for _, s := range g.sidecars {
		all = append(all, side{peer: daprDefault, http: s.http})
	}
	return d.weighBoth(daprDefault, all, g.pids())
}

func (d *daprBench) weighNode() (err error) {
	n, err := d.attachedNode("dapr-memory", d.ports)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	var all []side
	for _, at := range n.apps {
		all = append(all, side{peer: ours, http: "127.0.0.1:" + at.DaprHTTP, token: at.Token})
	}
	return d.weighBoth(ours, all, []int{n.cmd.Process.Pid})
}

// weighRuns is the node with a process of quipu run for each application, idle.
func (d *daprBench) weighRuns() (err error) {
	n, err := d.attachedNode("dapr-runs", nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	all, err := d.startRuns(n.node, d.ports)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, all.stop()) }()
	pids := []int{n.cmd.Process.Pid}
	for _, cmd := range all {
		pids = append(pids, cmd.Process.Pid)
	}
	return d.weigh(weighed{withRuns, idle}, pids)
}

// weighBoth weighs before and after each kind of call came to all applications.
func (d *daprBench) weighBoth(who string, all []side, pids []int) error {
	if err := d.weigh(weighed{who, idle}, pids); err != nil {
		return err
	}
	for _, s := range all {
		if err := s.fill(); err != nil {
			return err
		}
	}
	for _, kind := range []struct {
		want    int
		request func(s side, ask []byte, n int) []byte
	}{
		{http.StatusNoContent, side.set},
		{http.StatusNoContent, func(s side, ask []byte, _ int) []byte {
			return s.request(ask, "POST", "/v1.0/publish/pubsub/bench", `{"v":"`+daprValue+`"}`)
		}},
		{http.StatusOK, func(s side, ask []byte, n int) []byte {
			return s.request(ask, "POST", "/v1.0/invoke/"+appName(n%memoryApps)+"/method/echo", `{"v":"`+daprValue+`"}`)
		}},
	} {
		if err := d.spread(all, kind.want, kind.request); err != nil {
			return err
		}
	}
	if err := d.weigh(weighed{who, afterLoad}, pids); err != nil {
		return err
	}
	time.Sleep(memoryQuiet)
	return d.weigh(weighed{who, restAgain}, pids)
}

// spread makes calls on 64 connections, which are to all applications by turns.
func (d *daprBench) spread(all []side, want int, request func(s side, ask []byte, n int) []byte) error {
	var to []*wires
	for _, s := range all {
		to = append(to, newWires(s.http, memoryWorkers))
	}
	got := measured(figure{}, memoryWorkers, d.d, func(_ context.Context, worker, i int) error {
		app := worker % len(all)
		return to[app].do(worker, func(ask []byte) []byte { return request(all[app], ask, worker*7919+i) }, want)
	})
	for _, w := range to {
		w.close()
	}
	return failed(got)
}

// weigh counts what the processes have started, too: a node has a helper of its functions.
func (d *daprBench) weigh(what weighed, pids []int) error {
	time.Sleep(memoryRest)
	all, err := families(pids)
	if err != nil {
		return err
	}
	var sum memory
	for _, pid := range all {
		m, err := memoryOf(pid)
		if err != nil {
			return err
		}
		sum.pss, sum.rss = sum.pss+m.pss, sum.rss+m.rss
	}
	d.weight[what] = sum
	for _, f := range []struct {
		name string
		kib  int
	}{{"PSS", sum.pss}, {"RSS", sum.rss}} {
		d.print(figure{Peer: what.who, Bench: "memory_" + f.name + "_KiB", Variant: what.when + ", see max", Conc: 1, N: 1, Max: float64(f.kib),
			Durable: fmt.Sprintf("%s of %d processes for %d apps", f.name, len(all), memoryApps)})
	}
	return nil
}

// families are processes and all that they started, and so on.
func families(pids []int) (all []int, err error) {
	all = pids
	for i := 0; i < len(all); i++ {
		of, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		if err != nil {
			return nil, err
		}
		for _, file := range of {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			for field := range strings.FieldsSeq(string(text)) {
				pid, err := strconv.Atoi(field)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", file, err)
				}
				all = append(all, pid)
			}
		}
	}
	return all, nil
}

// memoryOf is what a process has, of /proc/PID/smaps_rollup: proc(5).
func memoryOf(pid int) (m memory, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		into := map[string]*int{"Pss": &m.pss, "Rss": &m.rss}[name]
		if into == nil {
			continue
		}
		if *into, err = strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB")); err != nil {
			return m, fmt.Errorf("smaps_rollup of %d: %w", pid, err)
		}
	}
	return m, nil
}

// memoryGoal says how many times the weight of a node ten sidecars and Redis have. Of PSS, pages that processes share are there once;
// of RSS, which is what tools and limits of single processes show, they are there in each.
func (d *daprBench) memoryGoal() {
	for _, when := range []string{idle, afterLoad, restAgain} {
		theirs, own := d.weight[weighed{daprDefault, when}], d.weight[weighed{ours, when}]
		d.note("%s", weightVerdict("PSS", when, theirs.pss, own.pss))
		d.note("%s", weightVerdict("RSS", when, theirs.rss, own.rss))
	}
	theirs, own := d.weight[weighed{daprDefault, idle}], d.weight[weighed{withRuns, idle}]
	d.note("with a process of quipu run for each app: %s", weightVerdict("PSS", idle, theirs.pss, own.pss))
}

func weightVerdict(of, when string, theirs, own int) string {
	const kib = 1024.
	return fmt.Sprintf("memory of %d apps, %s, %s: sidecars and Redis %.0f MiB, ours %.0f: 1/%.1f, at most 1/%d: %s", memoryApps, when, of,
		float64(theirs)/kib, float64(own)/kib, float64(theirs)/float64(own), memoryShare, met(theirs >= memoryShare*own))
}
