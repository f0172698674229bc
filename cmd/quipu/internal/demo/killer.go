package demo

import (
	"context"
	"syscall"
	"time"

	"github.com/quipu-run/quipu/sdk"
)

// killer kills instances, then the node, then instances again, each when a percentage was sent.
type killer struct {
	show   *show
	node   *node
	client *sdk.Client
	at     []int // percent of what was sent: instances, node, instances
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

// killNode also tells how much is yet to do: that is what must not be lost.
func (k *killer) killNode(ctx context.Context) error {
	topic, err := k.client.Topic(ctx, topicName)
	if err != nil {
		return err
	}
	lag, err := lagOf(topic)
	if err != nil {
		return err
	}
	pid := k.node.cmd.Process.Pid
	if err := k.node.kill(); err != nil {
		return err
	}
	start := time.Now()
	if err := k.node.start(ctx); err != nil {
		return err
	}
	k.show.say("   kill -9: the node, process %d, with %d events yet to do; ready again after %s", pid, lag, time.Since(start).Round(time.Millisecond))
	return nil
}
