// Package crashtest finds out whether an application survives the death of its functions at any moment. It runs the application once
// undisturbed, and then once for each operation that a function did: there the instance is killed, after the operation took
// effect and before the function knows. Clients ask again with their Idempotency-Key, events and asynchronous calls
// come again by themselves; when nothing is left to be done, the state has to be that of the undisturbed run.
//
// Each run has a node of its own, in this process, with its data in a temporary folder and a clock that is moved on to whatever somebody
// waits for, so that back-offs cost nothing. Functions are real processes, and are really killed. What differs between two
// undisturbed runs, since it depends on time or chance, is not compared, and named.
//
// It kills instances, one in a run, and not the node: that the node survives its own death is tested with the platform. It
// does not see what functions do outside of the platform, and knows of no order between functions that run at the same time: a
// point that a run does not come to is counted, and is no failure. Nothing is kept.
package crashtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/quipu-run/quipu/internal/bundle"
)

// atOnceMax bounds the runs at a time.
const atOnceMax = 8

// RunsDefault is how many points are tried if nothing else is said.
const RunsDefault = 500

// Options of a test.
type Options struct {
	Dir        string // of the application
	App        string // its name
	Scenario   Scenario
	RunsMax    int // points that are tried; 0 means RunsDefault
	Unconfined bool
	Version    string
	// Progress, if set, is told before each run.
	Progress func(run, runs int)

	bundle []byte
	start  time.Time // on the clock of every run
}

// Report is what came out.
type Report struct {
	Points    int       `json:"points"`              // operations and replies of the undisturbed run
	Tried     int       `json:"tried"`               // of those, at which an instance was killed
	Unreached int       `json:"unreached,omitempty"` // of those tried, that their run did not come to
	Ignored   []string  `json:"ignored,omitempty"`   // what two undisturbed runs differ in
	Leaks     []Leak    `json:"leaks,omitempty"`
	Seconds   float64   `json:"seconds"`
	Steps     []string  `json:"steps"`
	Runs      int       `json:"runs"`
	Began     time.Time `json:"began"`
}

// Leak is a point after which the application ended in another state.
type Leak struct {
	Point
	Differences []Difference `json:"differences"`
	Failed      string       `json:"failed,omitempty"` // why the run did not end, if it did not
}

// Safe tells whether all runs ended in the same state.
func (r Report) Safe() bool { return len(r.Leaks) == 0 }

// Run tests an application. An error says why it could not be tested; what was found is in the report.
func Run(ctx context.Context, o Options) (report Report, err error) {
	if o.RunsMax <= 0 {
		o.RunsMax = RunsDefault
	}
	report.Began = time.Now()
	// A full hour and a bit: a schedule ticks when a step advances the time, and not because a run took long.
	o.start = report.Began.Truncate(time.Hour).Add(time.Hour + time.Second)
	if o.bundle, err = bundle.Pack(ctx, o.Dir); err != nil {
		return report, err
	}
	top, err := os.MkdirTemp("", "quipu-test-")
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(top)) }()
	for _, s := range o.Scenario.Steps {
		report.Steps = append(report.Steps, s.Title())
	}
	err = o.explore(ctx, top, &report)
	report.Seconds = time.Since(report.Began).Seconds()
	return report, err
}

func (o *Options) explore(ctx context.Context, top string, report *Report) error {
	w := &worker{o: o, top: filepath.Join(top, "0")}
	o.progress(1, 2)
	base, err := w.run(ctx, nil, nil)
	if err != nil {
		return fmt.Errorf("the undisturbed run: %w", err)
	}
	if err := o.Scenario.check(base.state.Results); err != nil {
		return err
	}
	o.progress(2, 2)
	again, err := w.run(ctx, nil, &base.state)
	if err != nil {
		return fmt.Errorf("the second undisturbed run: %w", err)
	}
	ignored := base.state.unlike(again.state)
	report.Ignored = ignored.names()
	all, _ := base.rec.outcome()
	report.Points = len(all)
	points := sample(all, o.RunsMax)
	tries := make([]try, len(points))
	err = o.each(ctx, w, top, len(points), func(w *worker, i int) {
		r, err := w.run(ctx, &points[i], &base.state)
		_, tries[i].struck = r.rec.outcome()
		tries[i].leak = Leak{Point: points[i]}
		if err != nil {
			tries[i].leak.Failed = err.Error()
		} else {
			tries[i].leak.Differences = base.state.differences(r.state, ignored)
		}
	})
	report.add(tries)
	return err
}

// try is what came of one point.
type try struct {
	struck bool
	leak   Leak
}

func (r *Report) add(tries []try) {
	r.Tried, r.Runs = len(tries), len(tries)+2
	for _, t := range tries {
		if !t.struck {
			r.Unreached++
		}
		if t.leak.Failed != "" || len(t.leak.Differences) > 0 {
			r.Leaks = append(r.Leaks, t.leak)
		}
	}
}

// each does n things, several at a time: a run waits for the starts of processes most of its time.
func (o *Options) each(ctx context.Context, first *worker, top string, n int, do func(w *worker, i int)) error {
	next := make(chan int)
	var workers sync.WaitGroup
	for k := range min(n, atOnceMax, 2*runtime.GOMAXPROCS(0)) {
		w := first
		if k > 0 {
			w = &worker{o: o, top: filepath.Join(top, strconv.Itoa(k))}
		}
		workers.Go(func() {
			for i := range next {
				do(w, i)
			}
		})
	}
	for i := 0; i < n && ctx.Err() == nil; i++ {
		o.progress(i+1, n)
		select {
		case next <- i:
		case <-ctx.Done():
		}
	}
	close(next)
	workers.Wait()
	return context.Cause(ctx)
}

// worker does runs one after the other, in a folder of its own.
type worker struct {
	o     *Options
	top   string
	runs  int
	built string // the folder of the application as the run before has built it; "" for none
}

// run is play in an empty folder; what was built is kept for the next.
func (w *worker) run(ctx context.Context, target *Point, reference *State) (*run, error) {
	w.runs++
	data := filepath.Join(w.top, strconv.Itoa(w.runs))
	r, err := w.play(ctx, data, target, reference)
	if err != nil {
		w.built = "" // whatever is wrong with it
		return r, err
	}
	keep := filepath.Join(w.top, "built")
	err = errors.Join(os.RemoveAll(keep), os.Rename(w.built, keep), os.RemoveAll(data))
	w.built = keep
	return r, err
}

func (o *Options) progress(run, runs int) {
	if o.Progress != nil {
		o.Progress(run, runs)
	}
}

// sample takes up to most points, evenly.
func sample(points []Point, most int) []Point {
	if len(points) <= most {
		return points
	}
	some := make([]Point, most)
	for i := range some {
		some[i] = points[i*len(points)/most]
	}
	return some
}

// check compares the answers of the undisturbed run with what the scenario expects.
func (s Scenario) check(results []Result) error {
	for i, r := range results {
		want := s.Steps[i].Expect
		if want.Status != 0 && r.Status != want.Status || want.Body != nil && r.Body != *want.Body || want == (Expect{}) && r.Code != "" {
			return fmt.Errorf("undisturbed, step %d, %s, is answered with %s: mend the function, or what the step expects", i+1, s.Steps[i].Title(), r)
		}
	}
	return nil
}
