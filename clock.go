package quipu

import "time"

// Clock is where time comes from, so that tests can make their own.
type Clock interface {
	Now() time.Time
	// After is time.After.
	After(d time.Duration) <-chan time.Time
}
