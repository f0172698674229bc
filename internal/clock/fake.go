package clock

import (
	"sync"
	"time"
)

// Fake is a clock that stands still until Advance or Set. It is for tests.
type Fake struct {
	mu    sync.Mutex
	now   time.Time
	waits []wait
}

type wait struct {
	at time.Time
	ch chan time.Time
}

// NewFake starts at now.
func NewFake(now time.Time) *Fake { return &Fake{now: now} }

// Now is the time that was set.
func (f *Fake) Now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

// After fires when the clock has been advanced by d.
func (f *Fake) After(d time.Duration) <-chan time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := wait{at: f.now.Add(d), ch: make(chan time.Time, 1)}
	f.waits = append(f.waits, w)
	f.fire()
	return w.ch
}

// Advance moves the clock by d, which may be negative, and fires what is due.
func (f *Fake) Advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
	f.fire()
}

func (f *Fake) fire() {
	kept := f.waits[:0]
	for _, w := range f.waits {
		if w.at.After(f.now) {
			kept = append(kept, w)
			continue
		}
		w.ch <- f.now
	}
	f.waits = kept
}
