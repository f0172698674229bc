package clock

import (
	"slices"
	"sync"
	"time"
)

// Skip is a clock on which time passes as usual, and which can be moved on besides, to where somebody waits for. It starts at a
// time of its own. It is for tests of whole nodes, in which nothing happens but what they wait for.
type Skip struct {
	wall Wall

	mu     sync.Mutex // guards the fields below
	ahead  time.Duration
	timers []*skipTimer
}

type skipTimer struct {
	due  time.Time
	c    chan time.Time
	real *time.Timer
}

// NewSkip is a clock that shows at now.
func NewSkip(at time.Time) *Skip {
	s := &Skip{}
	s.ahead = at.Sub(s.wall.Now())
	return s
}

// Now is at least what it was before.
func (s *Skip) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now()
}

func (s *Skip) now() time.Time { return s.wall.Now().Add(s.ahead) }

// After is time.After.
func (s *Skip) After(d time.Duration) <-chan time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &skipTimer{due: s.now().Add(d), c: make(chan time.Time, 1)}
	s.timers = append(s.timers, t)
	t.real = time.AfterFunc(d, func() { s.fire(t) })
	return t.c
}

// fire ends a timer, unless a skip has.
func (s *Skip) fire(t *skipTimer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.timers, t); i >= 0 {
		s.timers = slices.Delete(s.timers, i, i+1)
		t.c <- s.now()
	}
}

// Skip moves to the next time that somebody waits for, if it is not after limit; false if nothing is.
func (s *Skip) Skip(limit time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	var next *skipTimer
	for _, t := range s.timers {
		if !t.due.After(limit) && (next == nil || t.due.Before(next.due)) {
			next = t
		}
	}
	if next == nil {
		return false
	}
	s.moveTo(next.due)
	return true
}

// Until moves to a time that is not passed. What waits for times before comes at once.
func (s *Skip) Until(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moveTo(at)
}

// moveTo ends all timers that are due then. The caller holds mu.
func (s *Skip) moveTo(at time.Time) {
	by := at.Sub(s.now())
	if by > 0 {
		s.ahead += by
	}
	now := s.now()
	s.timers = slices.DeleteFunc(s.timers, func(t *skipTimer) bool {
		if !t.due.After(now) {
			t.real.Stop() // if it runs already, it finds its timer gone
			t.c <- now
			return true
		}
		t.real.Reset(t.due.Sub(now))
		return false
	})
}

// Stop ends the timers that nobody will wait for any more.
func (s *Skip) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.timers {
		t.real.Stop()
	}
	s.timers = nil
}

// Passing shows the time of a clock, but what waits for it waits as long as the machine's clock takes: for upkeep, which no skip
// is to wait for.
type Passing struct{ Clock interface{ Now() time.Time } }

// Now is the Clock's.
func (p Passing) Now() time.Time { return p.Clock.Now() }

// After is time.After.
func (p Passing) After(d time.Duration) <-chan time.Time { return time.After(d) }
