// Bench measures Quipu beside peers and physical limits, on this machine and in one run: shared machines are
// noisy, so compare figures of one run as ratios, and repeat before you believe a small difference.
//
//	go run ./bench [log] [logdoor] [state] [invoke] [counter] [async] [events] [peers] [start] [scale] [functions] [fork] [dapr] [workflow] [sleepers] [actor] [-json] [-d 2s] [-max 1e6] [-sleepers 1e5]
//
// Without a name everything runs. Each figure is a line: a table for people, or JSON objects with -json.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// bench is something that can be run by its name.
type bench struct {
	name string
	run  func(*runner) error
}

// benches in the order in which they run. Log has logdoor in it, which therefore runs by itself only if it is named alone.
var benches = []bench{
	{"log", benchLog},
	{"state", benchState},
	{"invoke", benchInvoke},
	{"counter", benchCounter},
	{"async", benchAsync},
	{"events", benchEvents},
	{"peers", benchPeers},
	{"start", benchStart},
	{"scale", benchScale},
	{"functions", benchFunctions},
	{"fork", benchFork},
	{"dapr", benchDapr},
	{"workflow", benchWorkflow},
	{"sleepers", benchSleepers},
	{"actor", benchActor},
}

var parts = []bench{{"logdoor", benchLogDoor}}

// runner is what benches share.
type runner struct {
	printer
	d       time.Duration // of each figure
	max     float64       // records of the largest log of scale
	asleep  float64       // workflows of sleepers
	dir     string        // temporary, on the disk that is measured
	program string        // the built binary; "" until needed
	seen    func(figure)  // if set, gets the figures of peers
}

func main() {
	if err := start(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func start(args []string) error {
	if len(args) > 0 && args[0] == scaleChild {
		return runScaleChild(args[1:])
	}
	if len(args) > 0 && args[0] == echoChild {
		return runEchoChild(args[1:])
	}
	return run(args)
}

func run(args []string) (err error) {
	r := &runner{printer: printer{out: os.Stdout}}
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	flags.BoolVar(&r.json, "json", false, "print JSON lines")
	flags.DurationVar(&r.d, "d", 2*time.Second, "time of each figure")
	flags.Float64Var(&r.max, "max", 1e6, "records of the largest log that scale opens")
	flags.Float64Var(&r.asleep, "sleepers", 1e5, "workflows that sleep")
	where := flags.String("dir", "", "measure the disk of this directory; default: that of temporary files")
	var names []string
	for len(args) > 0 { // flags may stand after names
		if !strings.HasPrefix(args[0], "-") {
			names, args = append(names, args[0]), args[1:]
			continue
		}
		if err := flags.Parse(args); err != nil {
			return err
		}
		args = flags.Args()
	}
	if r.dir, err = os.MkdirTemp(*where, "quipu-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(r.dir)
	return r.all(names)
}

func (r *runner) all(names []string) error {
	known := slices.Concat(benches, parts)
	for _, name := range names {
		if !slices.ContainsFunc(known, func(b bench) bool { return b.name == name }) {
			return fmt.Errorf("there is no bench %q", name)
		}
	}
	all := benches
	if len(names) > 0 {
		all = known
	}
	for _, b := range all {
		if len(names) > 0 && !slices.Contains(names, b.name) {
			continue
		}
		if err := b.run(r); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
	}
	return nil
}
