package demo

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quipu-run/quipu/sdk"
)

// randomKiller kills instances and the node, with random pauses, until it is told to stop.
type randomKiller struct {
	t      *testing.T
	node   *node
	client *sdk.Client
	rng    *rand.Rand

	nodes, instances atomic.Int64
	stop, done       chan struct{}      // stop is closed by the test, done by run
	cancel           context.CancelFunc // of the test, if the node cannot go on
}

func (k *randomKiller) kills() int64 { return k.nodes.Load() }

func (k *randomKiller) run(ctx context.Context) {
	defer close(k.done)
	if err := k.killOn(ctx); err != nil {
		k.t.Error(err)
		k.cancel()
	}
}

func (k *randomKiller) killOn(ctx context.Context) error {
	for {
		select {
		case <-k.stop:
			return nil
		case <-ctx.Done():
			return nil
		case <-time.After(time.Duration(k.rng.IntN(400)) * time.Millisecond):
		}
		if k.rng.IntN(3) == 0 {
			if err := k.killInstance(ctx); err != nil {
				return err
			}
			continue
		}
		if err := k.node.kill(); err != nil {
			return err
		}
		if err := k.node.start(ctx); err != nil {
			return err
		}
		k.nodes.Add(1)
	}
}

func (k *randomKiller) killInstance(ctx context.Context) error {
	list, err := k.client.Instances(ctx)
	if err != nil || len(list) == 0 {
		return err
	}
	if i := list[k.rng.IntN(len(list))]; i.PID > 0 && syscall.Kill(i.PID, syscall.SIGKILL) == nil {
		k.instances.Add(1)
	}
	return nil
}

// newKiller repeats what it did before, given the same seed.
func newKiller(t *testing.T, cancel context.CancelFunc, n *node, client *sdk.Client, rng *rand.Rand) *randomKiller {
	return &randomKiller{t: t, node: n, client: client, rng: rng, cancel: cancel, stop: make(chan struct{}), done: make(chan struct{})}
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return n
}
