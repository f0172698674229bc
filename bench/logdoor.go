package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

const (
	doorRounds      = 3  // of everything; ratios are of figures of one round
	doorConnections = 64 // each with a stream of its own
	doorInFlight    = 64 // appends of each connection, when pipelined
)

// benchLogDoor appends to the log of a node over gRPC, beside peers that sync before they answer. All keep about the newest
// 65,536 records.
func benchLogDoor(r *runner) error {
	type key struct{ peer, variant string }
	var all []map[key]float64
	for range doorRounds {
		rates := map[key]float64{}
		r.seen = func(f figure) { rates[key{f.Peer, f.Variant}] = f.OpsPerS }
		if err := r.withNode(r.doorAppends); err != nil {
			return err
		}
		if err := r.peers("append"); err != nil {
			return err
		}
		all = append(all, rates)
	}
	r.seen = nil
	for _, variant := range doorVariants() {
		for _, peer := range []string{"redis-always", "nats-always"} {
			s := ratios{}
			for _, rates := range all {
				if theirs := rates[key{peer, variant}]; theirs > 0 {
					s.add(rates[key{"quipu", variant}] / theirs)
				}
			}
			if len(s) > 0 {
				r.note("%s: %s of %s", variant, s, peer)
			}
		}
	}
	return nil
}

func doorVariant(size, inFlight int) string { return fmt.Sprintf("%d B, %d in flight", size, inFlight) }

func doorVariants() (names []string) {
	for _, size := range []int{128, 1024} {
		names = append(names, doorVariant(size, 1), doorVariant(size, doorInFlight))
	}
	return names
}

// doorAppends has one caller on each connection append one record after the other, or many at a time. As with the peers,
// times are of single appends, or of many.
func (r *runner) doorAppends(ctx context.Context, n *node) (err error) {
	logs := make([]*sdk.Log, doorConnections)
	defer func() {
		for _, l := range slices.DeleteFunc(logs, func(l *sdk.Log) bool { return l == nil }) {
			err = errors.Join(err, l.Close())
		}
	}()
	for i := range logs {
		if logs[i], err = n.client.Log(ctx); err != nil {
			return err
		}
	}
	book, err := logs[0].CreateBook(ctx, "bench", quipu.BookOptions{})
	if err != nil {
		return err
	}
	for _, size := range []int{128, 1024} {
		data := make([]byte, size)
		for _, each := range []int{1, doorInFlight} {
			f := figure{Peer: "quipu", Bench: "append", Variant: doorVariant(size, each), Durable: "fsync before ack"}
			drafts := slices.Repeat([]quipu.Draft{{Data: data}}, each)
			f = measured(f, doorConnections, r.d, func(ctx context.Context, worker, _ int) error {
				var errs []error
				for _, a := range logs[worker].AppendEach(ctx, book, drafts) {
					errs = append(errs, a.Err, trimDoor(ctx, logs[worker], book, a.Seq))
				}
				return errors.Join(errs...)
			})
			f.N, f.OpsPerS = f.N*each, f.OpsPerS*float64(each)
			r.print(f)
			r.seen(f)
		}
	}
	return nil
}

// trimDoor trims now and then.
func trimDoor(ctx context.Context, l *sdk.Log, book quipu.Book, seq quipu.Seq) error {
	if seq.Pos()%trimEvery != 0 || seq.Pos() <= trimBehind {
		return nil
	}
	return l.Trim(ctx, book, quipu.TagAll, seq-trimBehind)
}
