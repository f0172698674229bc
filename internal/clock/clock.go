// Package clock is the node's wall clock, which never goes back while the node runs.
package clock

import (
	"sync/atomic"
	"time"
)

// Wall is the machine's clock made monotone: when the machine's is set back, Wall stands
// still until it has caught up. The zero Wall is ready.
type Wall struct{ last atomic.Int64 }

// Now is the largest time seen so far, to the nanosecond.
func (w *Wall) Now() time.Time {
	now := time.Now().UnixNano()
	for {
		last := w.last.Load()
		if now <= last {
			return time.Unix(0, last)
		}
		if w.last.CompareAndSwap(last, now) {
			return time.Unix(0, now)
		}
	}
}

// After is time.After.
func (w *Wall) After(d time.Duration) <-chan time.Time { return time.After(d) }
