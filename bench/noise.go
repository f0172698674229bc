package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/quipu-run/quipu"
)

// neighbours are who else may write to the log.
var neighbours = []struct {
	callers, bytes int
	name           string
}{
	{64, 1 << 10, "64 callers of 1 KiB"},
	{64, 64 << 10, "64 callers of 64 KiB"},
	{4, 4 << 20, "4 callers of 4 MiB"},
}

// logNoise measures what one caller with records of 1 KiB feels of others who write to another book as fast as they can.
func (r *runner) logNoise() (err error) {
	l, err := r.openLog("noise")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	if err := l.warm(); err != nil {
		return err
	}
	other := *l
	if other.book, err = l.CreateBook(context.Background(), "noise", quipu.BookOptions{MaxBytes: 256 << 20}); err != nil {
		return err
	}
	alone := r.ourAppend(l, "1KiB, alone", 1)
	r.print(alone)
	for _, n := range neighbours {
		beside, err := r.beside(l, &other, n.callers, n.bytes, "1KiB, beside "+n.name)
		if err != nil {
			return err
		}
		r.print(beside)
		r.note("beside %s in another book: p50 is %.1f and p99 %.1f of that alone", n.name, beside.P50/alone.P50, beside.P99/alone.P99)
	}
	return nil
}

func (r *runner) beside(l, other *benchedLog, callers, bytes int, variant string) (figure, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var noise sync.WaitGroup
	failed := make(chan error, callers)
	for range callers {
		noise.Go(func() { failed <- other.shout(ctx, make([]byte, bytes)) })
	}
	f := r.ourAppend(l, variant, 1)
	cancel()
	noise.Wait()
	close(failed)
	var errs []error
	for err := range failed {
		errs = append(errs, err)
	}
	return f, errors.Join(errs...)
}

// shout appends until ctx ends. What is refused because the queue is full is tried again: a rude neighbour does.
func (l *benchedLog) shout(ctx context.Context, data []byte) error {
	for ctx.Err() == nil {
		_, err := l.Append(context.WithoutCancel(ctx), l.book, quipu.Draft{Tags: l.tags, Data: data})
		if err != nil && quipu.CodeOf(err) != quipu.CodeOverloaded {
			return fmt.Errorf("the neighbour: %w", err)
		}
	}
	return nil
}
