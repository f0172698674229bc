package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	sleepersWoken = 100             // by an event, and as many by their time
	sleepersRest  = 3 * time.Minute // before memory is read again: Go looks for garbage at least every two
	sleepersShort = 3 * time.Second // the time of those who sleep while the node is killed
)

// sleepState is what a node with workflows that sleep weighs, a line of the table.
type sleepState struct {
	Peer    string  `json:"peer"`
	Bench   string  `json:"bench"`
	Variant string  `json:"variant"` // when
	N       int     `json:"n"`       // that sleep
	PSS     int     `json:"pss_KiB"`
	RSS     int     `json:"rss_KiB"`
	Log     int64   `json:"log_bytes"` // on disk
	Views   int64   `json:"views_bytes"`
	Ready   float64 `json:"ready_us,omitempty"` // exec to healthz
}

// benchSleepers has workflows sleep: each is started by a worker of the Dapr Go SDK, sets a durable timer that is due in a year, and is left
// alone. They should cost disk and not memory, and a start of the node should not become slower by them. At last some are woken.
func benchSleepers(r *runner) (err error) {
	s := &sleepers{runner: r, data: filepath.Join(r.dir, "sleepers")}
	if s.flows, err = buildFlows(r.dir); err != nil {
		return err
	}
	if r.program == "" {
		if r.program, err = build(r.dir); err != nil {
			return err
		}
	}
	if err := s.start("empty"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.node.stop(), os.RemoveAll(s.data)) }()
	n := int(r.asleep)
	for _, upTo := range []int{n / 10, n} {
		if err := s.asleep(upTo); err != nil {
			return err
		}
	}
	time.Sleep(sleepersRest)
	if err := s.weigh("at rest again", 0); err != nil {
		return err
	}
	return s.again()
}

type sleepers struct {
	*runner
	flows, data string
	node        *node
	n           int // that sleep
}

// start starts the node, and weighs it.
func (s *sleepers) start(when string) (err error) {
	var took time.Duration
	if s.node, took, err = startNode(s.program, s.data); err != nil {
		return err
	}
	return s.weigh(when, took)
}

// asleep puts more to sleep, until there are so many.
func (s *sleepers) asleep(upTo int) error {
	if err := s.do("sleep", s.n, upTo-s.n, "start until asleep"); err != nil {
		return err
	}
	s.n = upTo
	return s.weigh("asleep", 0)
}

// again kills the node while some sleep who are due soon, starts it, stops and starts it again, and wakes some.
func (s *sleepers) again() error {
	if err := s.do("sleep", s.n, sleepersWoken, "a short sleep", "-for", sleepersShort.String()); err != nil {
		return err
	}
	end(s.node.cmd)
	if err := s.start("after kill -9"); err != nil {
		return err
	}
	if err := s.node.stop(); err != nil {
		return err
	}
	if err := s.start("after a stop"); err != nil {
		return err
	}
	if err := s.do("wake", s.n, sleepersWoken, "short sleep, waited for", "-by-time"); err != nil {
		return err
	}
	if err := s.do("wake", 0, min(sleepersWoken, s.n), "event until end", "-conc", "1"); err != nil {
		return err
	}
	s.n -= min(sleepersWoken, s.n)
	return s.weigh("some woken", 0)
}

// do has the worker do something with a range of the sleepers. None of it may fail.
func (s *sleepers) do(what string, from, n int, variant string, flags ...string) error {
	args := append([]string{what, "-grpc", s.node.info.DaprGRPC, "-from", fmt.Sprint(from), "-n", fmt.Sprint(n), "-variant", variant}, flags...)
	figures, err := figuresOf(s.flows, args...)
	for _, f := range figures {
		s.print(f)
		err = errors.Join(err, failed(f))
	}
	return err
}

// weigh prints what the node with its helper has in memory, and on disk. The timers that stand have to be as many as sleep.
func (s *sleepers) weigh(when string, ready time.Duration) error {
	time.Sleep(memoryRest)
	f := sleepState{Peer: ours, Bench: "sleepers", Variant: when, N: s.n, Ready: float64(ready) / 1e3}
	pids, err := families([]int{s.node.cmd.Process.Pid})
	if err != nil {
		return err
	}
	for _, pid := range pids {
		m, err := memoryOf(pid)
		if err != nil {
			return err
		}
		f.PSS, f.RSS = f.PSS+m.pss, f.RSS+m.rss
	}
	if f.Log, err = diskBytes(filepath.Join(s.data, "log")); err == nil {
		f.Views, err = diskBytes(filepath.Join(s.data, "views"))
	}
	if err != nil {
		return err
	}
	s.printSleepers(f)
	return s.standing()
}

// standing is an error unless so many timers stand as workflows sleep, as soon as those with a short sleep have none any more.
func (s *sleepers) standing() error {
	want := fmt.Sprintf("quipu_timers_pending{kind=\"workflow\",namespace=\"default\"} %d\n", s.n)
	return within(readyMax, func(ctx context.Context) error {
		text, err := fetch(ctx, caller(), "http://"+s.node.info.HTTP+"/-/metrics")
		if err == nil && s.n > 0 && !strings.Contains(string(text), want) {
			err = fmt.Errorf("the metrics do not say %q", want)
		}
		return err
	})
}

func (s *sleepers) printSleepers(f sleepState) {
	if s.json {
		line, err := json.Marshal(f)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(s.out, "%s\n", line)
		return
	}
	ready := ""
	if f.Ready > 0 {
		ready = fmt.Sprintf(", ready in %.0f ms", f.Ready/1000)
	}
	const mib = 1 << 20
	s.note("%s, %d asleep: PSS %.1f MiB, RSS %.1f MiB; log %.1f MiB, views %.1f MiB%s", f.Variant, f.N, float64(f.PSS)/1024, float64(f.RSS)/1024,
		float64(f.Log)/mib, float64(f.Views)/mib, ready)
}
