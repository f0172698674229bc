// Package apphealth asks an attached application again and again whether it is well, and tells when that changes.
//
// An application is unwell until it has been well once. Then it takes Threshold bad answers in a row to be unwell, and one
// good one to be well. Nothing is kept: after a restart it is unwell again until it is asked.
//
// What is done with an application that is unwell, and how it is asked, is not known here.
package apphealth

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/quipu-run/quipu"
)

// Options are how to ask. Zero values get the defaults that they name.
type Options struct {
	Interval  time.Duration // from question to question; 0 means 5s
	Timeout   time.Duration // for an answer, at most Interval; 0 means 500ms
	Threshold int           // 0 means 3
	Clock     quipu.Clock   // required
	// Probe asks: nil if the application is well. It must end when ctx does. Required.
	Probe func(ctx context.Context) error
	// Changed is told of each change before the next question; why is nil if the application is well. Required.
	Changed func(why error)
}

// Health is that of one application.
type Health struct {
	o    Options
	well atomic.Bool
}

// New checks the options.
func New(o Options) (*Health, error) {
	if o.Interval == 0 {
		o.Interval = 5 * time.Second
	}
	if o.Timeout == 0 {
		o.Timeout = 500 * time.Millisecond
	}
	if o.Threshold == 0 {
		o.Threshold = 3
	}
	switch {
	case o.Interval < 0 || o.Timeout < 0 || o.Threshold < 0:
		return nil, fmt.Errorf("an interval of %s, a timeout of %s, a threshold of %d: none can be negative", o.Interval, o.Timeout, o.Threshold)
	case o.Timeout > o.Interval:
		return nil, fmt.Errorf("the timeout of %s is longer than the interval of %s", o.Timeout, o.Interval)
	}
	return &Health{o: o}, nil
}

// Well tells how the application was when it was last asked. The nil Health is of one that nobody asks: it is well.
func (h *Health) Well() bool { return h == nil || h.well.Load() }

// Run asks until ctx ends, the first time at once.
func (h *Health) Run(ctx context.Context) {
	s := state{threshold: h.o.Threshold}
	for {
		next := h.o.Clock.After(h.o.Interval)
		why := h.ask(ctx)
		if ctx.Err() != nil {
			return // a question that was cut off says nothing
		}
		if s.note(why == nil) {
			h.well.Store(s.well)
			h.o.Changed(why)
		}
		select {
		case <-next:
		case <-ctx.Done():
			return
		}
	}
}

func (h *Health) ask(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, h.o.Timeout)
	defer cancel()
	return h.o.Probe(limited)
}

// state is what the answers mean.
type state struct {
	threshold int
	well      bool
	bad       int // answers in a row
}

// note takes an answer and tells whether it changes anything.
func (s *state) note(good bool) (changed bool) {
	if good {
		changed, s.well, s.bad = !s.well, true, 0
		return changed
	}
	if s.bad++; !s.well || s.bad < s.threshold {
		return false
	}
	s.well = false
	return true
}
