package main

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// forkSizes are the values, of a KiB each, that a namespace holds when it is forked.
var forkSizes = []int{1_000, 10_000, 100_000}

const forks = 30 // of each size

// benchFork forks a namespace as it is, while nobody writes, beside the time that a copy of its views takes: what a fork that
// copies would cost at least.
func benchFork(r *runner) error {
	return r.withNode(func(ctx context.Context, n *node) error {
		held := 0
		for _, size := range forkSizes {
			if err := n.hold(ctx, held, size); err != nil {
				return err
			}
			held = size
			if err := r.fork(ctx, n, fmt.Sprintf("%d KiB", size)); err != nil {
				return err
			}
		}
		return nil
	})
}

// hold writes values of a KiB, many at a time.
func (n *node) hold(ctx context.Context, from, to int) error {
	state := n.client.State(quipu.StoreShared, "")
	var all sync.WaitGroup
	errs := make(chan error, 64)
	for w := range cap(errs) {
		all.Go(func() {
			value := make([]byte, 1<<10)
			random := rand.NewChaCha8([32]byte{byte(w)}) // what can be compressed would take less room than it seems
			for i := from + w; i < to; i += cap(errs) {
				_, _ = random.Read(value) // it has no error
				if err := state.Apply(ctx, quipu.Change{Key: fmt.Sprintf("k%07d", i), Value: value}); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

func (r *runner) fork(ctx context.Context, n *node, variant string) error {
	forked, copied := make([]time.Duration, forks), make([]time.Duration, forks)
	for i := range forks {
		start := time.Now()
		if _, err := n.client.Fork(ctx, sdk.ForkRequest{Name: "bench"}); err != nil {
			return err
		}
		forked[i] = time.Since(start)
		if err := n.client.RemoveNamespace(ctx, "bench"); err != nil {
			return err
		}
		start = time.Now()
		if err := copyDurably(filepath.Join(n.data, "views", "db"), filepath.Join(r.dir, "copy")); err != nil {
			return err
		}
		copied[i] = time.Since(start)
	}
	f := figure{Peer: "quipu", Bench: "fork", Variant: variant, Durable: "fork is durable, serves", Conc: 1, N: forks}
	r.print(f.Summed(forked, sum(forked)))
	f.Peer, f.Durable = "copy", "copy of the views is durable"
	r.print(f.Summed(copied, sum(copied)))
	return nil
}

// copyDurably copies the files of a folder and syncs each, and takes the copy away.
func copyDurably(from, to string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	err := filepath.WalkDir(to, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Sync()
	})
	if err != nil {
		return err
	}
	return os.RemoveAll(to)
}
