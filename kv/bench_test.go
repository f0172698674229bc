package kv_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/blob"
	"github.com/quipu-run/quipu/internal/clock"
	"github.com/quipu-run/quipu/kv"
	"github.com/quipu-run/quipu/locallog"
	"github.com/quipu-run/quipu/view"
)

// BenchmarkSet is a durable set through view and log, beside the append that is its limit.
func BenchmarkSet(b *testing.B) {
	for _, conc := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("append/%d", conc), func(b *testing.B) {
			log, id := openLog(b)
			data := make([]byte, 200)
			share(b, conc, func(ctx context.Context, _ int) error {
				_, err := log.Append(ctx, id, quipu.Draft{Data: data})
				return err
			})
		})
		b.Run(fmt.Sprintf("set/%d", conc), func(b *testing.B) {
			log, id := openLog(b)
			store, err := view.OpenStore(view.Options{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			blobs, err := blob.Open(vfs.Default, b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			s := kv.New(blobs)
			book, err := view.OpenBook(context.Background(), store, log, id, &clock.Wall{}, s)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { book.Close(); store.Close() })
			state := s.State(book, "")
			value := make([]byte, 110)
			share(b, conc, func(ctx context.Context, i int) error {
				return state.Apply(ctx, quipu.StoreShared, []quipu.Change{{Key: fmt.Sprint(i % 1000), Value: value}})
			})
		})
	}
}

func openLog(b *testing.B) (quipu.Log, quipu.Book) {
	log, err := locallog.Open(locallog.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { log.Close() })
	id, err := log.CreateBook(context.Background(), "quipu/bench", quipu.BookOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return log, id
}

// share does b.N operations from conc callers.
func share(b *testing.B, conc int, op func(ctx context.Context, i int) error) {
	b.ResetTimer()
	var wg sync.WaitGroup
	for worker := range conc {
		wg.Go(func() {
			for i := worker; i < b.N; i += conc {
				if err := op(context.Background(), i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
