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
	stop, done       chan struct{} // stop is closed by the test, done by run
}

func (k *randomKiller) kills() int64 { return k.nodes.Load() }

func (k *randomKiller) run(ctx context.Context) {
	defer close(k.done)
	for {
		select {
		case <-k.stop:
			return
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(k.rng.IntN(400)) * time.Millisecond):
		}
		if k.rng.IntN(3) == 0 {
			k.killInstance(ctx)
			continue
		}
		if err := k.node.kill(); err != nil {
			k.t.Error(err)
			return
		}
		if err := k.node.start(ctx); err != nil {
			k.t.Error(err)
			return
		}
		k.nodes.Add(1)
	}
}

func (k *randomKiller) killInstance(ctx context.Context) {
	list, err := k.client.Instances(ctx)
	if err != nil {
		k.t.Error(err)
		return
	}
	if len(list) == 0 {
		return
	}
	if i := list[k.rng.IntN(len(list))]; i.PID > 0 && syscall.Kill(i.PID, syscall.SIGKILL) == nil {
		k.instances.Add(1)
	}
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return n
}
