package locallog

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
)

const benchRecordBytes = 1024

// BenchmarkAppend appends 1 KiB records from 1, 64 and 512 callers, beside a raw group commit: the same callers,
// one writer, pwrite and fdatasync on a zero-filled file, nothing else.
func BenchmarkAppend(b *testing.B) {
	for _, callers := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("quipu/%d", callers), func(b *testing.B) {
			l := mustOpen(b, Options{Dir: b.TempDir(), SegmentBytesMin: 64 << 20})
			ctx := context.Background()
			book, err := l.CreateBook(ctx, "bench", quipu.BookOptions{})
			if err != nil {
				b.Fatal(err)
			}
			d := quipu.Draft{Tags: []string{"orders"}, Data: make([]byte, benchRecordBytes)}
			inParallel(b, callers, func() error {
				_, err := l.Append(ctx, book, d)
				return err
			})
			s := l.Stats()
			b.ReportMetric(float64(s.Appends)/float64(s.Batches), "appends/sync")
		})
		b.Run(fmt.Sprintf("raw/%d", callers), func(b *testing.B) {
			r := newRaw(b)
			data := make([]byte, benchRecordBytes)
			inParallel(b, callers, func() error { return r.append(data) })
			r.close()
		})
	}
}

// inParallel runs b.N times do, divided among callers.
func inParallel(b *testing.B, callers int, do func() error) {
	b.Helper()
	b.ReportAllocs()
	b.ResetTimer()
	var wait sync.WaitGroup
	for c := range callers {
		n := b.N / callers
		if c < b.N%callers {
			n++
		}
		wait.Go(func() {
			for range n {
				if err := do(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
}

// raw is the least that a durable group commit can do.
type raw struct {
	file  vfs.File
	queue chan rawAppend
	done  chan error
}

type rawAppend struct {
	data []byte
	done chan error
}

const rawFileBytes = 64 << 20

func newRaw(b *testing.B) *raw {
	b.Helper()
	f, err := vfs.Default.Create(filepath.Join(b.TempDir(), "raw"), vfs.WriteCategoryUnspecified)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := f.Write(make([]byte, rawFileBytes)); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	r := &raw{file: f, queue: make(chan rawAppend, 4096), done: make(chan error)}
	go r.run()
	return r
}

func (r *raw) append(data []byte) error {
	done := make(chan error, 1)
	r.queue <- rawAppend{data, done}
	return <-done
}

func (r *raw) close() {
	close(r.queue)
	<-r.done
}

func (r *raw) run() {
	var buf []byte
	var waiting []chan error
	at := int64(0)
	for first := range r.queue {
		buf, waiting = append(buf[:0], first.data...), append(waiting[:0], first.done)
	more:
		for len(buf) < 2<<20 {
			select {
			case next, ok := <-r.queue:
				if !ok {
					break more
				}
				buf, waiting = append(buf, next.data...), append(waiting, next.done)
			default:
				break more
			}
		}
		if at+int64(len(buf)) > rawFileBytes {
			at = 0
		}
		_, err := r.file.WriteAt(buf, at)
		if err == nil {
			err = r.file.SyncData()
		}
		at += int64(len(buf))
		for _, w := range waiting {
			w <- err
		}
	}
	r.done <- r.file.Close()
}

// BenchmarkOpen opens an empty directory: what a new node waits for.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	for i := range b.N {
		start := time.Now()
		l, err := Open(Options{Dir: filepath.Join(dir, fmt.Sprint(i))})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(start).Microseconds())/1000, "last-ms")
		b.StopTimer()
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
