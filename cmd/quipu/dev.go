package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/gateway"
	"github.com/quipu-run/quipu/sdk"
)

// dev runs the node and, once it is ready, deploys at every save. Both end together.
func (c *cli) dev(cmd *cobra.Command, n *NodeConfig, dir string) error {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return &quipu.Error{Code: quipu.CodeSource, Text: fmt.Sprintf("%q is not a folder", dir), Hint: "quipu new python " + dir + " makes one"}
	}
	if n.Data == "" {
		n.Data = filepath.Join(dir, ".quipu")
	}
	ctx, cancel := context.WithCancelCause(cmd.Context())
	defer cancel(nil)
	cmd.SetContext(ctx)
	deploying, saved := make(chan error, 1), newSaved()
	started := false
	n.Fault = saved.fault
	n.Ready = func(node sdk.Node) {
		started = true
		go func() {
			err := c.deployOnSave(ctx, node, dir, n.TokenFile, saved)
			saved.set(nil) // requests that wait for the first deploy do not hold up the end
			cancel(err)    // without the watch there is no dev
			deploying <- err
		}()
	}
	err := c.runNode(cmd, n)
	cancel(err)
	if started {
		if watchErr := <-deploying; err == nil && !errors.Is(watchErr, context.Canceled) {
			err = watchErr
		}
	}
	return err
}

// saved is what became of the last save. Routes answer with it if it is a fault; before the first deploy has ended they wait.
type saved struct {
	first chan struct{} // closed by the first end of a deploy

	mu  sync.Mutex // guards now and whether first is closed
	now *gateway.Fault
}

func newSaved() *saved { return &saved{first: make(chan struct{})} }

func (s *saved) fault(ctx context.Context) (*gateway.Fault, error) {
	select {
	case <-s.first:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now, nil
}

// set takes the end of a deploy; nil for a good one.
func (s *saved) set(f *gateway.Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = f
	select {
	case <-s.first:
	default:
		close(s.first)
	}
}

// deployOnSave tells of every deploy, and lives on when one fails: the next save may mend it.
func (c *cli) deployOnSave(ctx context.Context, n sdk.Node, dir, tokenFile string, s *saved) error {
	c.node = n.HTTP
	if err := c.readToken(tokenFile); err != nil {
		return err
	}
	node, err := c.client()
	if err != nil {
		return err
	}
	namespace := c.namespace
	if namespace == "" {
		namespace = sdk.NamespaceDefault
	}
	known := map[string]string{} // revisions by function
	return watch(ctx, dir, func(at time.Time) {
		functions, err := deployDir(ctx, node, dir, "", quipu.DeployOptions{})
		took := time.Since(at).Round(time.Millisecond)
		if err != nil {
			if ctx.Err() == nil {
				s.set(&gateway.Fault{Namespace: namespace, App: appName(dir), Err: err})
				c.complain(err)
				c.note("%s after %s; its routes show this until the next good save", c.paint("not deployed", "31"), took)
			}
			return
		}
		s.set(nil)
		c.noteDeployed(n, functions, known, took)
	})
}

// noteDeployed tells what is new since the last good deploy, which known has.
func (c *cli) noteDeployed(n sdk.Node, functions []quipu.Function, known map[string]string, took time.Duration) {
	changed := 0
	for _, fn := range functions {
		if known[fn.Name] == fn.Revision {
			continue
		}
		changed++
		known[fn.Name] = fn.Revision
		c.note("%s %s at revision %d, %s", c.paint("deployed", "32"), fn.Name, fn.Number, fn.Revision)
		c.noteTriggers(n, fn)
	}
	if changed == 0 {
		c.note("%s, as it was", c.paint("deployed", "32"))
	}
	c.note("ready %s after the save", took)
}

// noteTriggers tells what calls a function.
func (c *cli) noteTriggers(n sdk.Node, fn quipu.Function) {
	for _, t := range fn.Spec.Triggers {
		switch {
		case t.HTTP != nil:
			c.note("  http://%s%s", n.HTTP, t.HTTP.Path)
		case t.Schedule != nil:
			c.note("  at %s (%s)", t.Schedule.Cron, t.Schedule.Timezone)
		}
	}
	for _, t := range fn.Topics() {
		c.note("  events of %s", t.Name)
	}
}

// readToken takes the token of the node that was just started, unless a flag gave one.
func (c *cli) readToken(file string) error {
	if file == "" || c.token != "" {
		return nil
	}
	text, err := os.ReadFile(file)
	c.token = strings.TrimSpace(string(text))
	return err
}
