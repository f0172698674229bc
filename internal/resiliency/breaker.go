package resiliency

import (
	"fmt"
	"sync"
	"time"
)

// State is what a circuit breaker does with who asks.
type State string

// States of a breaker.
const (
	Closed   State = "closed"    // everybody may pass
	HalfOpen State = "half-open" // a few may, to find out
	Open     State = "open"      // nobody may
)

// OpenError says that nothing was tried, because so much failed before.
type OpenError struct {
	Target string
	State  State     // Open, or HalfOpen when enough are trying already
	Until  time.Time // when something will be tried again; zero if HalfOpen
}

// Error has the words of Dapr's, which its clients know.
func (e *OpenError) Error() string {
	if e.State == HalfOpen {
		return fmt.Sprintf("too many requests: the circuit breaker of %s is half-open", e.Target)
	}
	return fmt.Sprintf("circuit breaker is open for %s", e.Target)
}

// counts are since the breaker last changed its state, or forgot.
type counts struct {
	requests, successes, failures, successesInRow, failuresInRow int64
}

// settings are a breaker's policy.
type settings struct {
	name     string
	probes   int64         // at once while half open, and successes in a row that close it
	interval time.Duration // after which a closed one forgets; 0 is never
	pause    time.Duration // that it stays open
	trip     func(counts) bool
}

// machine is a circuit breaker without lock and clock, with the rules of sony/gobreaker, which Dapr uses. That one
// asks the machine's clock and no other, and counts a client that hangs up as a failure of who was called; so these
// lines are our own.
type machine struct {
	settings
	state  State
	epoch  uint64 // grows whenever counts begin anew: what ends in another epoch is not counted
	counts counts
	until  time.Time // of this epoch; zero if it has no end
}

func (m *machine) begin(state State, now time.Time) {
	m.state, m.counts, m.until = state, counts{}, time.Time{}
	m.epoch++
	switch {
	case state == Closed && m.interval > 0:
		m.until = now.Add(m.interval)
	case state == Open:
		m.until = now.Add(m.pause)
	}
}

// at lets time pass.
func (m *machine) at(now time.Time) {
	if m.until.IsZero() || !m.until.Before(now) {
		return
	}
	if m.state == Open {
		m.begin(HalfOpen, now)
	} else {
		m.begin(m.state, now)
	}
}

// enter lets one pass, or not.
func (m *machine) enter(now time.Time) (epoch uint64, ok bool) {
	m.at(now)
	if m.state == Open || m.state == HalfOpen && m.counts.requests >= m.probes {
		return 0, false
	}
	m.counts.requests++
	return m.epoch, true
}

// outcome is what became of one that passed.
type outcome int

const (
	failed outcome = iota
	succeeded
	forgotten // its caller went away: it says nothing about who was called
)

func (m *machine) leave(epoch uint64, o outcome, now time.Time) {
	m.at(now)
	if epoch != m.epoch {
		return
	}
	switch o {
	case forgotten:
		m.counts.requests--
	case succeeded:
		m.counts.successes++
		m.counts.successesInRow++
		m.counts.failuresInRow = 0
		if m.state == HalfOpen && m.counts.successesInRow >= m.probes {
			m.begin(Closed, now)
		}
	case failed:
		m.counts.failures++
		m.counts.failuresInRow++
		m.counts.successesInRow = 0
		if m.state == HalfOpen || m.trip(m.counts) {
			m.begin(Open, now)
		}
	}
}

// breaker is a machine for many.
type breaker struct {
	mu sync.Mutex // guards m
	m  machine
}

func newBreaker(s settings, now time.Time) *breaker {
	b := &breaker{m: machine{settings: s}}
	b.m.begin(Closed, now)
	return b
}

// enter answers an epoch to leave with, or why it may not.
func (b *breaker) enter(target string, now time.Time) (epoch uint64, state State, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	epoch, ok := b.m.enter(now)
	if !ok {
		return 0, b.m.state, &OpenError{Target: target, State: b.m.state, Until: b.m.until}
	}
	return epoch, b.m.state, nil
}

// leave answers the state from then on.
func (b *breaker) leave(epoch uint64, o outcome, now time.Time) State {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.m.leave(epoch, o, now)
	return b.m.state
}
