package delivery

import (
	"time"

	"github.com/quipu-run/quipu"
)

// Backoff doubles from first with each attempt, up to quipu.BackoffMax.
func Backoff(first time.Duration, attempt int) time.Duration {
	for ; attempt > 1 && first < quipu.BackoffMax; attempt-- {
		first *= 2
	}
	return min(first, quipu.BackoffMax)
}

// Missed tells of the error of a call whether it did not get as far as the function's code, which is no attempt.
func Missed(err error) bool {
	switch quipu.CodeOf(err) {
	case quipu.CodeBusy, quipu.CodeStart, quipu.CodeStopping, quipu.CodeContention, quipu.CodeNoFunction, quipu.CodeNoTool,
		quipu.CodeOverloaded, quipu.CodeBudget, quipu.CodeDiskFull, quipu.CodeLogStopped, quipu.CodeUnknown, quipu.CodeBuild:
		return true
	}
	return false
}

// patienceMax bounds how long it takes to try more calls at once again.
const patienceMax = 256

// Pace is how many calls of an atomic function are made at once. Calls that lose to each other are better made one after
// the other: fewer at once, and the more often that happens the longer. It begins with one.
type Pace struct {
	limit, wins, patience int // calls that did not lose, in a row; how many it takes to try one more at once
}

// Limit is how many calls to make at once.
func (p *Pace) Limit() int { return max(1, p.limit) }

// Returned notes that a call is over which lost so often to others before it committed; most bounds Limit.
func (p *Pace) Returned(lost, most int) {
	p.wins++
	switch {
	case lost > 0:
		p.limit, p.wins = max(1, p.Limit()/2), 0
		p.patience = min(patienceMax, 2*max(1, p.patience))
	case p.wins >= p.patience && p.Limit() < most:
		p.limit, p.wins = p.Limit()+1, 0
	}
}
