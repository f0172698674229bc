// Package delivery is what the topic view stores of a subscription and the trigger package decides by, and what all that
// is delivered has in common, be it an event or a call that nobody waits for: when to try again, what counts as an
// attempt, and how much is tried at once.
package delivery

import (
	"time"

	"github.com/quipu-run/quipu"
)

// Subscription names a durable subscription. Epoch changes when it is moved or made anew: what was delivered under
// an earlier one cannot be settled any more.
type Subscription struct {
	Topic, Name string
	Epoch       quipu.Seq
}

// State is how far a subscription has come.
type State struct {
	Subscription
	// Function that its events go to; "" for consumers that come and go.
	Function string
	// Floor: every event up to this offset is done, or parked.
	Floor uint64
	// Done are events above the floor that are done, ascending.
	Done []uint64
	// Parked are events that wait for another attempt, ascending.
	Parked []Parked
}

// Parked is an event that was tried without success.
type Parked struct {
	Offset   uint64
	Attempts int // in calls of any size
	Alone    int // of those, in a call of its own
	Due      time.Time
	Cause    string // what the last attempt failed with
}

// Settlement is what became of deliveries: one record.
type Settlement struct {
	// Open are the deliveries that come to an end, ascending: none of them may be done already.
	Open   []uint64
	Done   []uint64 // above the floor
	Parked []Parked
	Forget []uint64 // parked before, and done now
	// Floor is the new floor, 0 for none; Clear are those done above the old floor that it passes. Only one settlement
	// with a floor may be under way at a time: the last one counts.
	Floor uint64
	Clear []uint64
}

// CauseBytesMax bounds Parked.Cause and quipu.DeadLetter.Cause.
const CauseBytesMax = 512

// Cause shortens what an attempt failed with.
func Cause(text string) string {
	if len(text) > CauseBytesMax {
		return text[:CauseBytesMax]
	}
	return text
}
