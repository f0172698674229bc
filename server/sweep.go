package server

import (
	"context"
	"time"
)

// Times of the sweeper: how often it looks, and how many records it writes at most each time, so that a
// backlog does not crowd out calls.
const (
	sweepEvery      = 10 * time.Second
	sweepRecordsMax = 20
	sweepFull       = 1000 // entries of a full record: there may be more
)

// sweep deletes by record what has passed its time: keys with a time to live, results of calls, and workflows that ended long ago.
func (ns *namespace) sweep(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-ns.node.upkeep.After(sweepEvery):
		}
		for _, sweep := range []func(context.Context) (int, error){ns.sweepState, ns.sweepLeases, ns.Sweep, ns.flows.store.Sweep} {
			if err := sweepAll(ctx, sweep); err != nil && ctx.Err() == nil {
				// Nothing is wrong for readers, who judge times themselves; the next round tries again.
				ns.node.cfg.Logger.Error("sweep failed", "namespace", ns.name, "err", err)
			}
		}
	}
}

func (ns *namespace) sweepState(ctx context.Context) (int, error) { return ns.kv.Sweep(ctx, ns.book) }

func sweepAll(ctx context.Context, sweep func(context.Context) (int, error)) error {
	for range sweepRecordsMax {
		n, err := sweep(ctx)
		if err != nil || n < sweepFull {
			return err
		}
	}
	return nil
}
