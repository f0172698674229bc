package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/quipu-run/quipu/internal/bundle"
)

const (
	functionRounds = 3
	coldStarts     = 34 // of each figure and round: a hundred in all
	// coldPause is between a function's rest and its next cold start: the node makes its next helper 30 ms after a start, and the
	// kernel takes down the namespaces of what ended.
	coldPause = 100 * time.Millisecond
	coldPoll  = 200 * time.Microsecond // between two looks whether a program listens
	restPoll  = 10 * time.Millisecond  // between two looks whether a function is at rest
)

// sandboxes are the ways in which a node is run.
var sandboxes = []struct{ variant, flag string }{{"sandbox", "--sandbox=auto"}, {"no sandbox", "--sandbox=off"}}

var functionConnections = []int{1, 64}

// benchFunctions measures cold starts and warm calls of functions, with walls around them and without, beside the same programs
// without a platform and beside workerd. Whatever is measured runs alone. Rounds take turns; what is printed is the one in the
// middle, or all starts together.
func benchFunctions(r *runner) (err error) {
	if r.program == "" {
		if r.program, err = build(r.dir); err != nil {
			return err
		}
	}
	all, err := r.languages()
	if err != nil {
		return err
	}
	hosts, err := r.hosts(all)
	if err != nil {
		return err
	}
	f := &functions{runner: r, languages: all, hosts: hosts}
	for range functionRounds {
		if err := f.round(); err != nil {
			return err
		}
	}
	for _, k := range f.rounds.keys {
		r.print(f.rounds.all(k))
	}
	f.goals()
	return nil
}

// functions is one run of the bench.
type functions struct {
	*runner
	languages []language
	hosts     []host
	rounds    rounds
	costs     costs
}

// round measures all once. Warm calls of everybody come right after each other: ratios are of them.
func (f *functions) round() error {
	if err := f.starts(); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if err := f.platforms(f.coldCalls); err != nil {
		return err
	}
	for _, h := range f.hosts {
		if err := f.host(h); err != nil {
			return fmt.Errorf("%s: %w", h.peer, err)
		}
	}
	return f.platforms(f.warmCalls)
}

// platforms measures a node with the sandbox and one without.
func (f *functions) platforms(measure func(context.Context, *node, language, string) error) error {
	for _, s := range sandboxes {
		if err := f.platform(s.variant, s.flag, measure); err != nil {
			return fmt.Errorf("quipu, %s: %w", s.variant, err)
		}
	}
	return nil
}

// host measures one server without a platform.
func (f *functions) host(h host) error {
	s, err := h.run()
	if err != nil {
		return err
	}
	defer s.stop()
	f.warm(h.peer, h.variant, s.url, func() []int { return []int{s.cmd.Process.Pid} })
	return nil
}

// warm measures calls on connections that stay open; pids are of whoever works for them.
func (f *functions) warm(peer, variant, url string, pids func() []int) {
	for _, conc := range functionConnections {
		c := caller()
		before := cpuOf(pids())
		got := measured(figure{Peer: peer, Bench: "warm", Variant: variant, Durable: "no effects"}, conc, f.d,
			func(ctx context.Context, _, _ int) error { return call(ctx, c, "GET", url, "") })
		f.costs.add(keyOf(got), cpuOf(pids())-before, got)
		f.rounds.add(got)
		c.CloseIdleConnections()
	}
}

// platform measures the functions on a node of their own.
func (f *functions) platform(variant, flag string, measure func(context.Context, *node, language, string) error) (err error) {
	n, _, err := startNode(f.program, filepath.Join(f.dir, fmt.Sprintf("functions-%d", time.Now().UnixNano())), flag)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.stop(), os.RemoveAll(n.data)) }()
	ctx := context.Background()
	if err := f.deploy(ctx, n); err != nil {
		return err
	}
	for _, l := range f.languages {
		if err := measure(ctx, n, l, variant); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	return nil
}

func (f *functions) warmCalls(ctx context.Context, n *node, l language, variant string) error {
	name := "warm-" + l.name
	url := "http://" + n.info.HTTP + "/" + name
	if err := call(ctx, caller(), "GET", url, ""); err != nil {
		return err
	}
	f.warm("quipu", l.name+", "+variant, url, func() []int { return append(n.pidsOf(ctx, name), n.cmd.Process.Pid) })
	return nil
}

// deploy sends each function twice: one stays, the other ends as soon as nobody calls it.
func (f *functions) deploy(ctx context.Context, n *node) error {
	app, err := os.MkdirTemp(f.dir, "functions-")
	if err != nil {
		return err
	}
	manifest := ""
	for _, l := range f.languages {
		from, err := l.folder()
		if err != nil {
			return err
		}
		if err := os.CopyFS(filepath.Join(app, l.source), os.DirFS(from)); err != nil {
			return err
		}
		manifest += l.function("warm-"+l.name, time.Minute) + l.function("cold-"+l.name, time.Millisecond)
	}
	if err := os.WriteFile(filepath.Join(app, "quipu.yaml"), []byte(manifest), 0o600); err != nil {
		return err
	}
	packed, err := bundle.Pack(ctx, app)
	if err != nil {
		return err
	}
	_, err = n.client.Deploy(ctx, "functions", packed)
	return err
}

func (l language) function(name string, idle time.Duration) string {
	return fmt.Sprintf(`apiVersion: quipu.dev/v1
kind: Function
metadata: {name: %s}
spec:
  source: ./%s
  %s
  scale: {idle: %s}
  triggers:
    - http: {path: /%s}
---
`, name, l.source, l.manifest, idle, name)
}

// coldCalls calls a function that is at rest, again and again. The first is not counted: files come from the disk.
func (f *functions) coldCalls(ctx context.Context, n *node, l language, variant string) error {
	name, c := "cold-"+l.name, caller()
	var took []time.Duration
	for i := range coldStarts + 1 {
		if err := n.untilRest(ctx, name); err != nil {
			return err
		}
		time.Sleep(coldPause)
		start := time.Now()
		if err := call(ctx, c, "GET", "http://"+n.info.HTTP+"/"+name, ""); err != nil {
			return err
		}
		if i > 0 {
			took = append(took, time.Since(start))
		}
	}
	f.rounds.addTaken(figure{Peer: "quipu", Bench: "cold_start", Variant: l.name + ", " + variant, Durable: "no effects"}, took)
	return nil
}
