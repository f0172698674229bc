// Package demo shows the whole product in a minute: real flights are counted by functions, which are
// killed, and so is their node, and the sums come out exact.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/quipu-run/quipu/sdk"
)

// Options of a demo.
type Options struct {
	Program  string // the quipu binary
	Data     string // directory; "" means a temporary one
	Ports    Ports
	Flights  string // file; "" means the 20,000 that come with the binary
	App      string // folder of the application; "" means the one in Go that comes with the binary
	Once     bool   // end instead of leaving the node running
	Out      io.Writer
	Progress io.Writer
	Terminal bool // Progress is one
}

// ErrInexact is what a demo ends with when a flight was lost or counted twice.
var ErrInexact = errors.New("the counted table is not the computed one")

// Run runs the demo. With Once it returns when the table has been compared; else when ctx ends.
func Run(ctx context.Context, o Options) (err error) {
	flights, err := load(o.Flights)
	if err != nil {
		return err
	}
	if o.Data == "" {
		if o.Data, err = os.MkdirTemp("", "quipu-demo-"); err != nil {
			return fmt.Errorf("make a data directory: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.Data)) }()
	}
	if err := os.MkdirAll(o.Data, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	s := &show{out: o.Progress, terminal: o.Terminal}
	output, err := os.OpenFile(filepath.Join(o.Data, "node.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make the node's log file: %w", err)
	}
	defer func() { err = errors.Join(err, output.Close()) }()
	n := &node{program: o.Program, data: o.Data, ports: o.Ports, output: output}
	s.say("1. Start a node. Its whole state is in %s", o.Data)
	if err := n.start(ctx); err != nil {
		return fmt.Errorf("%w; its output is in %s", err, output.Name())
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	if err := play(ctx, o, s, n, flights); err != nil {
		return err
	}
	if o.Once {
		return nil
	}
	next(o.Out, n)
	<-ctx.Done()
	return nil
}

// play is the demo between the first start and the last stop of the node.
func play(ctx context.Context, o Options, s *show, n *node, flights []Flight) error {
	client, err := sdk.New(sdk.Options{URL: n.info.HTTP})
	if err != nil {
		return err
	}
	s.say("2. Deploy %s, which publish flights, sum them up, write a summary\n   by the clock, and serve both", nameOf(o.App))
	if err := deploy(ctx, client, o.App); err != nil {
		return err
	}
	before, err := published(ctx, client)
	if err != nil {
		return err
	}
	s.say("3. Send %d flights in batches of %d, and meanwhile kill -9 what runs them", len(flights), batchDefault)
	f := newFeed(n, fmt.Sprintf("demo-%d", time.Now().UnixNano()), batchDefault)
	k := &killer{show: s, node: n, client: client, at: []int{30, 50, 70}, total: len(flights)}
	if err := sendAndKill(ctx, f, k, flights); err != nil {
		return err
	}
	s.say("   %d batches had to be sent again; each was published once", f.retries.Load())
	s.say("4. Wait until all events are done, after one more kill")
	start := time.Now()
	if err := k.killNode(ctx); err != nil {
		return err
	}
	topic, err := settled(ctx, client)
	if err != nil {
		return err
	}
	dead, err := deadLetters(ctx, client, topic)
	if err != nil {
		return err
	}
	s.say("   %d events are done, %d given up, after %s", topic.Last-before, dead, time.Since(start).Round(time.Millisecond))
	r, err := f.report(ctx)
	if err != nil {
		return err
	}
	s.say("   %d summaries were written", r.summary.Written)
	return judge(o.Out, int(topic.Last-before), r, flights)
}

func nameOf(app string) string {
	if app == "" {
		return "four functions in Go"
	}
	return "the functions of " + app
}

// sendAndKill sends all flights while the killer is at work.
func sendAndKill(ctx context.Context, f *feed, k *killer, flights []Flight) error {
	k.show.begin(len(flights))
	killing := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	progress := make(chan int, len(flights)/batchDefault+1)
	go func() { killing <- k.run(ctx, progress) }()
	err := f.all(ctx, flights, func(sent int) {
		k.show.progress(sent)
		progress <- sent
	})
	close(progress)
	return errors.Join(err, <-killing)
}

// judge compares what the functions came to with what the flights themselves say.
func judge(out io.Writer, events int, r report, flights []Flight) error {
	direct, hours := Direct(flights), DirectHours(flights)
	compare(out, r.table, direct)
	wrong := append(differences(r.table, direct), hourDifferences(r.summary.Hours, hours)...)
	if events != len(flights) {
		wrong = append(wrong, fmt.Sprintf("the number of events: %d for %d flights", events, len(flights)))
	}
	if len(wrong) > 0 {
		fmt.Fprintf(out, "  NOT EXACT: %d places differ, the first is %s\n", len(wrong), wrong[0])
		return ErrInexact
	}
	fmt.Fprintf(out, "  exact: all %d airports, hours and distances are equal to the last digit, and each of %d events\n  was counted once\n", len(direct), events)
	return nil
}

// next tells what to try on the node that was left running.
func next(out io.Writer, n *node) {
	host := "http://" + n.info.HTTP
	fmt.Fprint(out, strings.ReplaceAll(`
  The node is running. Try, in another terminal:
    curl HOST/table                          the sums that stats keeps
    curl HOST/hours                          the summary that hourly writes each second
    quipu --node HOST ls                     functions, routes, instances
    quipu --node HOST get topic flights      its events, who has done how many
    quipu --node HOST sub flights --from earliest --limit 3
    quipu --node HOST calls stats            the calls, each one record
    quipu --node HOST state get airport/ATL --store shared
    quipu --node HOST log tail quipu/default
    curl HOST/-/metrics

  Ctrl-C ends it.
`, "HOST", host))
}
