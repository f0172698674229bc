package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/blob"
	"github.com/quipu-run/quipu/kv"
	"github.com/quipu-run/quipu/view"
)

// Times of the collector of blobs. To find what is referred to it reads all views, so it does not come often.
const (
	collectAfter = time.Minute // of the start
	collectEvery = 6 * time.Hour
)

// collector deletes blobs that no view refers to. The first time it asks the views as they were before the node did
// anything, so that what earlier runs left goes at once; later on what is dead waits for blob.Grace.
type collector struct {
	stop context.CancelFunc
	task sync.WaitGroup
}

func (n *Node) startCollector() {
	ctx, stop := context.WithCancel(context.Background())
	n.collector.stop = stop
	n.collector.task.Go(func() { n.collect(ctx) })
}

func (c *collector) close() {
	if c.stop != nil {
		c.stop()
		c.task.Wait()
	}
}

func (n *Node) collect(ctx context.Context) {
	wait, atStart := collectAfter, true
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		// What fails is tried again the next time: nobody waits for the space.
		if _, err := n.collectOnce(ctx, atStart); err != nil && ctx.Err() == nil {
			n.cfg.Logger.Error("blobs were not collected", "err", err)
		}
		wait, atStart = collectEvery, false
	}
}

func (n *Node) collectOnce(ctx context.Context, atStart bool) (blob.Collected, error) {
	live := blob.Live{Refs: map[string]struct{}{}, AtStart: atStart}
	for _, ns := range n.namespaces.all() { // one that is made after this has only blobs that were put now
		if err := ns.refer(ctx, live); err != nil {
			return blob.Collected{}, fmt.Errorf("namespace %s: %w", ns.name, err)
		}
	}
	done, err := n.blobs.Collect(ctx, live)
	if err == nil && done.Deleted > 0 {
		n.cfg.Logger.Info("blobs collected", "deleted", done.Deleted, "bytes", done.DeletedBytes, "kept", done.Kept)
	}
	return done, err
}

// refer adds what the views of the namespace refer to, now or as it was when they were opened.
func (ns *namespace) refer(ctx context.Context, live blob.Live) (err error) {
	var tx *view.Tx
	if live.AtStart {
		tx = ns.takeBegun()
	}
	if tx == nil { // it was made in this run, so it had no blobs at its start
		tx = ns.book.Look()
	}
	defer func() { err = errors.Join(err, tx.Close()) }()
	visit := func(ref quipu.BlobRef) { live.Refs[ref.Hash] = struct{}{} }
	for _, blobs := range []func(*view.Tx, func(quipu.BlobRef)) error{ns.kv.Blobs, ns.results.Blobs, ns.View.Blobs} {
		if err := errors.Join(ctx.Err(), blobs(tx, visit)); err != nil {
			return err
		}
	}
	return nil
}

// begin keeps the views as they are before anything reads them, for the first collection. A namespace that is made later
// needs none.
func (ns *namespace) begin() error {
	if ns.node.collector.stop != nil {
		return nil
	}
	ns.begun = ns.book.Look()
	return ns.begun.Peek(kv.Name, "", "\x00", func(string, []byte) bool { return false }) // a first read takes the snapshot
}

// takeBegun answers what begin kept, once.
func (ns *namespace) takeBegun() *view.Tx {
	ns.beginning.Lock()
	defer ns.beginning.Unlock()
	tx := ns.begun
	ns.begun = nil
	return tx
}

// endBegun lets go of what begin kept, if nobody took it.
func (ns *namespace) endBegun() error {
	if tx := ns.takeBegun(); tx != nil {
		return tx.Close()
	}
	return nil
}
