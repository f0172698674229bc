package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/locallog"
)

// benchAppend appends records of 1 KiB in-process beside a raw group commit with the same callers.
func benchAppend(r *runner) error {
	single, err := singleSync(r.dir, r.d)
	if err != nil {
		return err
	}
	r.print(single)
	for _, conc := range []int{1, 64, 512} {
		raw, err := r.rawAppend(conc)
		if err != nil {
			return err
		}
		ours, err := r.ourAppend(conc)
		if err != nil {
			return err
		}
		r.print(raw)
		r.print(ours)
		r.note("at %d callers: %.2f of the raw rate", conc, ours.OpsPerS/raw.OpsPerS)
	}
	return nil
}

func (r *runner) rawAppend(conc int) (figure, error) {
	l, err := newRawLog(r.dir)
	if err != nil {
		return figure{}, err
	}
	data := make([]byte, recordBytes)
	f := measured(figure{Peer: "raw", Bench: "append", Variant: "1 KiB, group commit", Durable: "on disk"}, conc, r.d,
		func(context.Context, int, int) error { return l.append(data) })
	return f, l.close()
}

func (r *runner) ourAppend(conc int) (f figure, err error) {
	dir := filepath.Join(r.dir, "append")
	l, err := locallog.Open(locallog.Options{Dir: dir})
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, l.Close(), os.RemoveAll(dir)) }()
	book, err := l.CreateBook(context.Background(), "bench")
	if err != nil {
		return f, err
	}
	data := make([]byte, recordBytes)
	return measured(figure{Peer: "quipu", Bench: "append", Variant: "1 KiB, one tag", Durable: "on disk"}, conc, r.d,
		func(ctx context.Context, _, _ int) error {
			_, err := l.Append(ctx, book, quipu.Draft{Tags: []string{"t"}, Data: data})
			return err
		}), nil
}
