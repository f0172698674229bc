package trigger_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/quipu-run/quipu"
)

// BenchmarkConsume is the cost of a delivered event without a function: reading, planning, settling.
func BenchmarkConsume(b *testing.B) {
	for _, batch := range []int{1, 100} {
		for _, kind := range []string{"plain", "atomic"} {
			b.Run(fmt.Sprintf("%s/batch=%d", kind, batch), func(b *testing.B) {
				w := newWorld(b)
				var got atomic.Int64
				done := make(chan struct{})
				f := on("f", quipu.TopicTrigger{Name: "t", Batch: batch, From: "earliest"})
				f.Spec.Atomic = kind == "atomic"
				for published := 0; published < b.N; published += 1000 {
					w.publish("t", numbered("e", min(1000, b.N-published))...)
				}
				b.ResetTimer()
				w.deploy(f, func(e []event, _ int) int {
					if got.Add(int64(len(e))) == int64(b.N) {
						close(done)
					}
					return 200
				})
				<-done
				w.Eventually("it is settled", func() bool { return w.info("t").Subscriptions[0].Lag == 0 })
			})
		}
	}
}
