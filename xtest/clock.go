package xtest

import (
	"sync"
	"time"
)

// Clock is a clock that stands still until it is moved. The zero Clock is at the zero time.
type Clock struct {
	mu     sync.Mutex // guards below
	now    time.Time
	timers []timer
}

type timer struct {
	at   time.Time
	ring chan time.Time
}

// NewClock makes a clock that stands at now.
func NewClock(now time.Time) *Clock { return &Clock{now: now} }

// Now implements quipu.Clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// After implements quipu.Clock.
func (c *Clock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := timer{c.now.Add(d), make(chan time.Time, 1)}
	c.timers = append(c.timers, t)
	c.ring()
	return t.ring
}

// Move moves the clock, forth or back, and rings the timers that are due.
func (c *Clock) Move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	c.ring()
}

// ring rings what is due. c.mu is held.
func (c *Clock) ring() {
	kept := c.timers[:0]
	for _, t := range c.timers {
		if t.at.After(c.now) {
			kept = append(kept, t)
			continue
		}
		t.ring <- c.now
	}
	c.timers = kept
}
