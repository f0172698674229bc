// Package timers is what package timer keeps and what others ask of it: something is to be done at a time, whatever is restarted
// meanwhile.
package timers

import (
	"time"

	"github.com/quipu-run/quipu"
)

// Key names a timer. Kind and Owner have no NUL byte.
type Key struct {
	Kind  string // who handles it: "workflow", "step", "job", "reminder"
	Owner string // application or function; timers of one owner are fired in order of their time, and wait for each other's room
	ID    string
}

// Timer is something to be done at a time.
type Timer struct {
	Key
	Due  time.Time
	Body []byte // its kind's own
	// Seq is of the record that set it: another one each time that it is set.
	Seq quipu.Seq
}
