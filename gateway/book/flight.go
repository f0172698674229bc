package book

import (
	"context"
	"sync"
)

// flight bounds what is on its way, in bytes and, unless countMax is 0, in number. One that is alone may be larger.
type flight struct {
	bytesMax int64
	countMax int

	mu      sync.Mutex // guards below
	bytes   int64
	count   int
	waiting int
	freed   chan struct{} // closed when somebody left and others wait
}

func newFlight(bytesMax int64, countMax int) *flight {
	return &flight{bytesMax: bytesMax, countMax: countMax, freed: make(chan struct{})}
}

// enter waits for room until ctx ends.
func (f *flight) enter(ctx context.Context, bytes int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.full(bytes) {
		freed := f.freed
		f.waiting++
		f.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
		}
		f.mu.Lock()
		f.waiting--
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	f.bytes += bytes
	f.count++
	return nil
}

// full tells whether there is no room. f.mu is held.
func (f *flight) full(bytes int64) bool {
	return f.bytes > 0 && f.bytes+bytes > f.bytesMax || f.countMax > 0 && f.count >= f.countMax
}

// leave gives back room: the bytes of an append that is done, or the place of one that was answered.
func (f *flight) leave(bytes int64, count int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bytes -= bytes
	f.count -= count
	if f.bytes < 0 || f.count < 0 {
		panic("book: more left than entered")
	}
	if f.waiting > 0 {
		close(f.freed)
		f.freed = make(chan struct{})
	}
}
