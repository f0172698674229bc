// Package demo shows the whole product in a minute: real flights are counted by functions, which are
// killed, and so is their node, and the sums come out exact.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/examples"
	"github.com/quipu-run/quipu/internal/bundle"
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
	if o.App == "" {
		s.say("2. Deploy two functions in Go: stats, which is atomic, and table")
	} else {
		s.say("2. Deploy the functions of %s: stats, which is atomic, and table", o.App)
	}
	if err := deploy(ctx, client, o.App); err != nil {
		return err
	}
	s.say("3. Send %d flights in batches of %d, and meanwhile kill -9 what runs them", len(flights), batchDefault)
	f := &feed{url: "http://" + n.info.HTTP + "/flights", run: fmt.Sprintf("demo-%d", time.Now().UnixNano()),
		batch: batchDefault, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: senders}}}
	k := &killer{show: s, node: n, client: client, at: []int{30, 50, 70}, total: len(flights)}
	s.begin(len(flights))
	killing := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	progress := make(chan int, len(flights)/batchDefault+1)
	go func() { killing <- k.run(ctx, progress) }()
	err = f.all(ctx, flights, func(sent int) {
		s.progress(sent)
		progress <- sent
	})
	close(progress)
	if err = errors.Join(err, <-killing); err != nil {
		return err
	}
	s.say("4. %d batches had to be sent again; each was counted once", f.retries.Load())
	counted, err := f.table(ctx, "http://"+n.info.HTTP+"/table")
	if err != nil {
		return err
	}
	return judge(o.Out, counted, Direct(flights))
}

func judge(out io.Writer, counted, direct Table) error {
	compare(out, counted, direct)
	if wrong := differences(counted, direct); len(wrong) > 0 {
		fmt.Fprintf(out, "  NOT EXACT: %d cells differ, the first is %s\n", len(wrong), wrong[0])
		return ErrInexact
	}
	fmt.Fprintf(out, "  exact: all %d airports, hours and distances are equal to the last digit\n", len(direct))
	return nil
}

// killer kills instances, then the node, then instances again, each when a percentage was sent.
type killer struct {
	show   *show
	node   *node
	client *sdk.Client
	at     []int // percent: instances, node, instances
	total  int
}

func (k *killer) run(ctx context.Context, progress <-chan int) error {
	next := 0
	for sent := range progress {
		if next == len(k.at) || 100*sent < k.at[next]*k.total {
			continue
		}
		var err error
		if next == 1 {
			err = k.killNode(ctx)
		} else {
			err = k.killInstances(ctx)
		}
		if err != nil {
			return err
		}
		next++
	}
	return nil
}

func (k *killer) killInstances(ctx context.Context) error {
	list, err := k.client.Instances(ctx)
	if err != nil {
		return err
	}
	killed := 0
	for _, i := range list {
		if i.PID > 0 && syscall.Kill(i.PID, syscall.SIGKILL) == nil {
			killed++
		}
	}
	k.show.say("   kill -9: %d instances of functions", killed)
	return nil
}

func (k *killer) killNode(ctx context.Context) error {
	pid := k.node.cmd.Process.Pid
	if err := k.node.kill(); err != nil {
		return err
	}
	start := time.Now()
	if err := k.node.start(ctx); err != nil {
		return err
	}
	k.show.say("   kill -9: the node, process %d; started again and ready after %s", pid, time.Since(start).Round(time.Millisecond))
	return nil
}

// load reads flights from a file, or those that come with the binary.
func load(name string) ([]Flight, error) {
	var r io.ReadCloser
	var err error
	if name == "" {
		r, err = examples.Flights.Open("flights/data/flights-20k.csv.gz")
	} else {
		r, err = os.Open(name)
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	flights, err := ReadFlights(r)
	if err == nil && len(flights) == 0 {
		err = errors.New("there are no flights in the file")
	}
	return flights, err
}

// deploy sends the application in dir, or the embedded one, and empties what an earlier demo left in its data
// directory.
func deploy(ctx context.Context, client *sdk.Client, dir string) (err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "quipu-flights-"); err != nil {
			return fmt.Errorf("make a folder for the example: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		if err := unpackExample(dir); err != nil {
			return fmt.Errorf("unpack the example: %w", err)
		}
	}
	packed, err := bundle.Pack(ctx, dir)
	if err != nil {
		return err
	}
	if _, err := client.Deploy(ctx, "flights", packed); err != nil {
		return err
	}
	return empty(ctx, client)
}

// unpackExample copies the embedded example, without the flights.
func unpackExample(dir string) error {
	app, err := fs.Sub(examples.Flights, "flights")
	if err != nil {
		return err
	}
	if err := os.CopyFS(dir, app); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(dir, "data"))
}

// empty deletes the sums of an earlier run.
func empty(ctx context.Context, client *sdk.Client) error {
	state := client.State("shared", "")
	for {
		page, err := state.List(ctx, quipu.ListRequest{Prefix: "airport"})
		if err != nil {
			return err
		}
		for _, item := range page.Items {
			if err := state.Apply(ctx, quipu.Change{Key: item.Key, Delete: true}); err != nil {
				return err
			}
		}
		if page.Next == "" {
			return nil
		}
	}
}

// next tells what to try on the node that was left running.
func next(out io.Writer, n *node) {
	host := "http://" + n.info.HTTP
	fmt.Fprint(out, strings.ReplaceAll(`
  The node is running. Try, in another terminal:
    curl HOST/table                          the sums, from the function table
    quipu --node HOST ls                     functions, routes, instances
    quipu --node HOST calls stats            the calls, each one record
    quipu --node HOST state get airport/ATL --store shared
    quipu --node HOST log tail quipu/default
    curl HOST/-/metrics

  Ctrl-C ends it.
`, "HOST", host))
}
