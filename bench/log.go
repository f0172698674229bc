package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/locallog"
)

const (
	logRounds    = 3       // of each figure; what it is compared with is measured right before
	hotRecords   = 2000    // of one range at the tail
	coldRecords  = 100_000 // each with a tag of its own
	trimEvery    = 1 << 14 // appends between two trims
	trimBehind   = 1 << 16 // records that a trim leaves
	warmBytesMax = 2 << 30 // written until segments are recycled
)

// ratios are of one run, smallest first.
type ratios []float64

func (s *ratios) add(v float64) { *s = append(*s, v); slices.Sort(*s) }

func (s ratios) String() string {
	if len(s) == 0 {
		return "nothing"
	}
	return fmt.Sprintf("%.2f (%.2f to %.2f)", s[len(s)/2], s[0], s[len(s)-1])
}

// benchLog measures the log in-process beside the least that the same work takes on this disk, and over gRPC beside the peers that
// are installed.
func benchLog(r *runner) error {
	return errors.Join(r.logAppends(), r.logKept(), r.logReads(), r.logNoise(), benchLogDoor(r))
}

// logAppends appends records of 1 KiB to a log that trims as it goes, so that segments are written over as the raw file is.
func (r *runner) logAppends() (err error) {
	raw, err := newRawLog(r.dir)
	if err != nil {
		return err
	}
	l, err := r.openLog("append")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close(), raw.close()) }()
	if err := l.warm(); err != nil {
		return err
	}
	rates, p50, p99, rawP99 := map[int]*ratios{1: {}, 64: {}, 512: {}}, ratios{}, ratios{}, ratios{}
	for range logRounds {
		single, err := singleSync(r.dir, r.d/2)
		if err != nil {
			return err
		}
		r.print(single)
		for _, conc := range []int{1, 64, 512} {
			limit := r.rawAppend(raw, conc)
			ours := r.ourAppend(l, "1KiB", conc)
			r.print(limit)
			r.print(ours)
			rates[conc].add(ours.OpsPerS / limit.OpsPerS)
			switch conc {
			case 1:
				p50.add(ours.P50 / single.P50)
			case 64:
				p99.add(ours.P99 / single.P99)
				rawP99.add(limit.P99 / single.P99)
			}
		}
	}
	for _, conc := range []int{1, 64, 512} {
		r.note("%d callers: %s of the raw rate", conc, rates[conc])
	}
	r.note("1 caller: p50 is %s of that of one pwrite and fdatasync", p50)
	r.note("64 callers: p99 is %s of that of one pwrite and fdatasync; raw: %s", p99, rawP99)
	return nil
}

// logKept appends without ever trimming: every segment is a new file, and its zeros are written first.
func (r *runner) logKept() (err error) {
	l, err := r.openLog("kept")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	l.keep = true
	for _, conc := range []int{64, 512} {
		r.print(r.ourAppend(l, "1KiB, none trimmed", conc))
	}
	return nil
}

func (r *runner) rawAppend(l *rawLog, conc int) figure {
	data := make([]byte, recordBytes)
	return measured(figure{Peer: "raw", Bench: "append", Variant: "1KiB", Durable: "fsync"}, conc, r.d,
		func(context.Context, int, int) error { return l.append(data) })
}

func (r *runner) ourAppend(l *benchedLog, variant string, conc int) figure {
	data := make([]byte, recordBytes)
	return measured(figure{Peer: "quipu", Bench: "append", Variant: variant, Durable: "fsync"}, conc, r.d,
		func(ctx context.Context, _, _ int) error { return l.append(ctx, data) })
}

// benchedLog is a log with one book, in a directory that goes with it.
type benchedLog struct {
	*locallog.Log
	dir  string
	book quipu.Book
	tags []string
	keep bool // never trim
}

func (r *runner) openLog(name string) (*benchedLog, error) {
	dir := filepath.Join(r.dir, name)
	l, err := locallog.Open(locallog.Options{Dir: dir})
	if err != nil {
		return nil, err
	}
	book, err := l.CreateBook(context.Background(), "bench", quipu.BookOptions{})
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &benchedLog{Log: l, dir: dir, book: book, tags: []string{"t"}}, nil
}

func (l *benchedLog) close() error { return errors.Join(l.Close(), os.RemoveAll(l.dir)) }

func (l *benchedLog) append(ctx context.Context, data []byte) error {
	seq, err := l.Append(ctx, l.book, quipu.Draft{Tags: l.tags, Data: data})
	if err == nil && !l.keep && seq.Pos()%trimEvery == 0 && seq.Pos() > trimBehind {
		err = l.Trim(ctx, l.book, quipu.TagAll, seq-trimBehind)
	}
	return err
}

// warm appends and trims until segments have their full size and are recycled.
func (l *benchedLog) warm() error {
	ctx := context.Background()
	ds := make([]quipu.Draft, 1024)
	for i := range ds {
		ds[i] = quipu.Draft{Tags: l.tags, Data: make([]byte, recordBytes)}
	}
	for written := 0; l.Stats().Recycled < 3; written += len(ds) * recordBytes {
		if written > warmBytesMax {
			return fmt.Errorf("no segment was recycled after %d bytes", written)
		}
		seqs, err := l.AppendBatch(ctx, l.book, ds)
		if err != nil {
			return err
		}
		if err := l.Trim(ctx, l.book, quipu.TagAll, seqs[0]); err != nil {
			return err
		}
	}
	return nil
}

// logReads reads the newest records again and again, and then single ones of a log that was just opened.
func (r *runner) logReads() (err error) {
	l, err := r.openLog("read")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	for from := 0; from < coldRecords; from += 1000 {
		ds := make([]quipu.Draft, 1000)
		for i := range ds {
			ds[i] = quipu.Draft{Tags: []string{coldTag(from + i)}, Data: make([]byte, recordBytes)}
		}
		if _, err := l.AppendBatch(context.Background(), l.book, ds); err != nil {
			return err
		}
	}
	if err := r.hotReads(l); err != nil {
		return err
	}
	if err := l.Close(); err != nil {
		return err
	}
	if l.Log, err = locallog.Open(locallog.Options{Dir: l.dir}); err != nil {
		return err
	}
	return r.coldReads(l)
}

func coldTag(i int) string { return fmt.Sprintf("record-%d", i) }

// hotReads ranges over the tail in one goroutine. Counts are of records, times of ranges.
func (r *runner) hotReads(l *benchedLog) error {
	tail, err := l.Tail(context.Background(), l.book, quipu.Local)
	if err != nil {
		return err
	}
	f := measured(figure{Peer: "quipu", Bench: "read", Variant: "tail, a range of 2000"}, 1, r.d,
		func(ctx context.Context, _, _ int) error {
			n := 0
			for _, err := range l.Range(ctx, l.book, quipu.TagAll, tail-hotRecords+1, tail) {
				if err != nil {
					return err
				}
				n++
			}
			if n != hotRecords {
				return fmt.Errorf("%d records instead of %d", n, hotRecords)
			}
			return nil
		})
	f.N, f.OpsPerS = f.N*hotRecords, f.OpsPerS*hotRecords
	r.print(f)
	r.note("tail: %.2f M records/s on one core", f.OpsPerS/1e6)
	return nil
}

// coldReads finds records by their tags, beside one pread of as many bytes from the same files.
func (r *runner) coldReads(l *benchedLog) error {
	names, err := filepath.Glob(filepath.Join(l.dir, "*.seg"))
	if err != nil {
		return err
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(b, a) })
	f, err := os.Open(names[min(1, len(names)-1)]) // the newest but one is full
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	buf := make([]byte, recordBytes)
	limit := measured(figure{Peer: "raw", Bench: "read", Variant: "one pread"}, 1, r.d,
		func(context.Context, int, int) error {
			_, err := f.ReadAt(buf, rand.Int64N(info.Size()-recordBytes))
			return err
		})
	ours := measured(figure{Peer: "quipu", Bench: "read", Variant: "any record, by tag"}, 1, r.d,
		func(ctx context.Context, _, _ int) error {
			_, err := l.Next(ctx, l.book, coldTag(rand.IntN(coldRecords)), 0)
			return err
		})
	r.print(limit)
	r.print(ours)
	r.note("any record: p50 is %.1f µs more than one pread; TestAColdReadIsOnePread counts", ours.P50-limit.P50)
	return nil
}
