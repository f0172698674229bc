package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/blob"
	"github.com/quipu-run/quipu/internal/durable"
	"github.com/quipu-run/quipu/locallog"
	"github.com/quipu-run/quipu/view"
)

// Times of the collector of blobs, which also comes when blob.Store.Due says so. To find what is referred to it reads all
// views, so it does not come often by itself: that is for what was deleted, and makes no room by new values.
const (
	collectAfter = time.Minute // of the start, or of a failure
	collectEvery = time.Hour
)

// collector deletes blobs that no view refers to, and nobody needs.
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
	wait := collectAfter
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.upkeep.After(wait):
		case <-n.blobs.Due():
		}
		wait = collectEvery
		if _, err := n.collectOnce(ctx); err != nil && ctx.Err() == nil {
			n.cfg.Logger.Error("blobs were not collected; it is tried again in a minute", "err", err)
			wait = collectAfter
		}
	}
}

func (n *Node) collectOnce(ctx context.Context) (blob.Collected, error) {
	done, err := n.blobs.Collect(ctx, n.refer)
	if done.Deleted > 0 {
		n.cfg.Logger.Info("blobs collected", "deleted", done.Deleted, "bytes", done.DeletedBytes, "live", done.LiveBytes, "dead", done.DeadBytes)
	}
	return done, err
}

// refer is the blob.Live of the node.
func (n *Node) refer(ctx context.Context, visit func(quipu.BlobRef)) (int64, error) {
	for _, ns := range n.namespaces.all() { // one that is made after this has only blobs that are held, or were released meanwhile
		if err := ns.refer(ctx, visit); err != nil {
			return 0, fmt.Errorf("namespace %s: %w", ns.name, err)
		}
	}
	if err := n.settleLog(); err != nil {
		return 0, err
	}
	return folderBytes(n.path("views", "db"))
}

// refer visits what the views of the namespace refer to.
func (ns *namespace) refer(ctx context.Context, visit func(quipu.BlobRef)) (err error) {
	ns.Bundles(visit) // which follow the view a little later
	tx := ns.book.LookUntil(ctx)
	defer func() { err = errors.Join(err, tx.Close()) }()
	for _, blobs := range []func(*view.Tx, func(quipu.BlobRef)) error{ns.kv.Blobs, ns.results.Blobs, ns.View.Blobs} {
		if err := errors.Join(ctx.Err(), blobs(tx, visit)); err != nil {
			return err
		}
	}
	return nil
}

// settleLog makes durable what the views have applied: with SyncOS a power cut could otherwise take back the record by
// which a value was overwritten, and the value would be gone. Syncing a file by another name for it is as good.
func (n *Node) settleLog() error {
	if locallog.SyncMode(n.cfg.Sync) != locallog.SyncOS {
		return nil
	}
	files, err := os.ReadDir(n.path("log"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if filepath.Ext(f.Name()) != ".seg" {
			continue
		}
		if err := durable.Sync(n.path("log", f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("make the log durable: %w", err)
		}
	}
	return nil
}

// folderBytes is what the files of a folder take; some may go while it looks.
func folderBytes(dir string) (total int64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		total += info.Size()
	}
	return total, nil
}
