package step

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
)

// Limits of an execution.
const (
	EntriesMax  = 10_000 // of a journal
	BranchesMax = 1_000  // side by side
	ResultMax   = quipu.WorkflowPayloadMax
	idMax       = 256 // bytes
	nameMax     = 256
)

// journal is what an execution has come to: the fold of its history. It is pure; it knows the time only from events.
//
// What resolves an entry is decided by the order of events alone: an event that was raised goes to the oldest entry that waits
// for its name, or, if there is none, to the next that will; a timer that fired ends its entry unless something else has.
type journal struct {
	request  request
	begun    bool
	events   int
	entries  []*entry
	byID     map[string]*entry
	groups   map[string]bool     // first parts of ids: "3" and "3/0" of "3/0/1"
	raised   map[string][][]byte // by name: data that no entry waited for yet
	waiting  map[string][]*entry // by name: entries that wait for an event, the oldest first
	failures int                 // of runs, since one got further
	backoff  time.Time
	parked   []string // what the last run ended for; nil if it is to be made again

	suspended bool
	stalled   string
	terminate *event
	end       *event
}

// entry is one place of a journal.
type entry struct {
	event
	done    bool
	doneBy  int // number of the event that made it so
	timeout bool
	n       int // events before it
}

func newJournal() *journal {
	return &journal{byID: map[string]*entry{}, groups: map[string]bool{}, raised: map[string][][]byte{}, waiting: map[string][]*entry{}}
}

// apply takes in the next event. cancel are timers that nobody needs any more.
func (j *journal) apply(e *event) (cancel []string) {
	j.events++
	switch e.Event {
	case evBegin:
		if e.Request != nil && !j.begun {
			j.request = *e.Request
		}
		j.begun = true
	case evEntry:
		return j.enter(e)
	case evRaised:
		return j.raise(e)
	case evFired:
		j.fire(e)
	case evChild:
		if x := j.byID[e.ID]; x != nil && x.Kind == kindCall && !x.done {
			x.Result, x.Error = e.Result, e.Error
			j.resolve(x)
		}
	case evFailed:
		j.failures, j.backoff, j.parked = e.Attempt, instant(e.Until), nil
	case evParked:
		j.park(e)
	case evSuspended:
		j.suspended = true
	case evResumed:
		j.suspended, j.stalled = false, ""
	case evTerminate:
		j.terminate = e
	case evStalled:
		j.stalled = e.Cause
	case evEnd:
		j.end = e
	}
	return nil
}

// enter adds an entry. One that is done gives the function's runs their attempts back: it gets on.
func (j *journal) enter(e *event) (cancel []string) {
	x := &entry{event: *e, n: j.events - 1}
	j.entries = append(j.entries, x)
	j.byID[x.ID] = x
	for i, c := range x.ID {
		if c == '/' {
			j.groups[x.ID[:i]] = true
		}
	}
	switch x.Kind {
	case kindStep:
		j.resolve(x)
	case kindCall:
		if x.Child == "" {
			j.resolve(x)
		}
	case kindEvent:
		if early := j.raised[x.Name]; len(early) > 0 {
			j.raised[x.Name] = early[1:]
			return j.receive(x, early[0])
		}
		j.waiting[x.Name] = append(j.waiting[x.Name], x)
	}
	return nil
}

func (j *journal) raise(e *event) (cancel []string) {
	for list := j.waiting[e.Name]; len(list) > 0; {
		x := list[0]
		list = list[1:]
		j.waiting[e.Name] = list
		if !x.done { // by its timer
			return j.receive(x, e.Data)
		}
	}
	j.raised[e.Name] = append(j.raised[e.Name], e.Data)
	return nil
}

func (j *journal) receive(x *entry, data []byte) (cancel []string) {
	x.Result = asJSON(data)
	j.resolve(x)
	if x.Until != 0 {
		cancel = append(cancel, x.ID)
	}
	return cancel
}

func (j *journal) fire(e *event) {
	if e.ID == retryTimer {
		j.backoff = time.Time{}
		return
	}
	x := j.byID[e.ID]
	if x == nil || x.done {
		return
	}
	x.timeout = x.Kind == kindEvent
	j.resolve(x)
}

func (j *journal) resolve(x *entry) {
	x.done, x.doneBy = true, j.events-1
	if slices.Contains(j.parked, x.ID) {
		j.parked = nil
	}
	if x.Kind == kindStep {
		j.failures = 0
	}
}

// park notes what a run ended for, unless some of it has come meanwhile.
func (j *journal) park(e *event) {
	for _, id := range e.IDs {
		if x := j.byID[id]; x == nil || x.done {
			return
		}
	}
	j.parked = e.IDs
}

// waits tells whether all that a run says it waits for is in the journal and has not come.
func (j *journal) waits(ids []string) (still, known bool) {
	for _, id := range ids {
		x := j.byID[id]
		if x == nil {
			return false, false
		}
		if x.done {
			return false, true
		}
	}
	return true, len(ids) > 0
}

// verdict is what is to be done with an execution.
type verdict int

const (
	rest    verdict = iota // nothing, until something arrives
	goOn                   // call the function
	giveUp                 // end it as terminated
	isOver                 // it has ended
	restart                // look for its revision again
)

func (j *journal) next() verdict {
	switch {
	case j.end != nil:
		return isOver
	case j.terminate != nil:
		return giveUp
	case j.suspended || !j.begun || !j.backoff.IsZero() || j.parked != nil:
		return rest
	case j.stalled != "":
		return restart
	}
	return goOn
}

// status is what an execution that has not ended shows.
func (j *journal) status() quipu.WorkflowStatus {
	switch {
	case j.suspended:
		return quipu.WorkflowSuspended
	case j.stalled != "":
		return quipu.WorkflowStalled
	}
	return quipu.WorkflowRunning
}

// open are the entries that have not come.
func (j *journal) open() (list []*entry) {
	for _, x := range j.entries {
		if !x.done {
			list = append(list, x)
		}
	}
	return list
}

// admit decides about an entry that a run wants to add: known is what the journal has at its place already. CodeJournal,
// CodeWorkflowSize, CodeTooMany, CodeUsage.
func (j *journal) admit(e *event) (known *entry, err error) {
	if known = j.byID[e.ID]; known != nil {
		if known.Kind == e.Kind && known.Name == e.Name {
			return known, nil
		}
		return nil, mismatch(e, fmt.Sprintf("a %s named %q", known.Kind, known.Name))
	}
	if err := checkID(e.ID); err != nil {
		return nil, err
	}
	if j.groups[e.ID] {
		return nil, mismatch(e, "branches side by side")
	}
	for i, c := range e.ID {
		if c == '/' {
			if above := j.byID[e.ID[:i]]; above != nil {
				return nil, mismatch(e, fmt.Sprintf("a %s named %q", above.Kind, above.Name))
			}
		}
	}
	switch {
	case len(j.entries) >= EntriesMax:
		return nil, &quipu.Error{Code: quipu.CodeWorkflowSize, Op: "step.append",
			Text: fmt.Sprintf("the journal has %d entries, which is the most", EntriesMax), Hint: "have another durable function do a part of it: call()"}
	case len(e.Name) > nameMax:
		return nil, &quipu.Error{Code: quipu.CodeUsage, Op: "step.append", Text: fmt.Sprintf("the name of a step has %d bytes, the most is %d", len(e.Name), nameMax)}
	case len(e.Result) > ResultMax:
		return nil, &quipu.Error{Code: quipu.CodeWorkflowSize, Op: "step.append",
			Text: fmt.Sprintf("the result of %q has %d bytes, the most is %d", e.Name, len(e.Result), ResultMax), Hint: quipu.Codes[quipu.CodeWorkflowSize].Next}
	}
	return nil, nil
}

func mismatch(e *event, there string) error {
	return &quipu.Error{Code: quipu.CodeJournal, Op: "step.append",
		Text: fmt.Sprintf("at place %s the function asks for a %s named %q, but its journal has %s there", e.ID, e.Kind, e.Name, there),
		Hint: quipu.Codes[quipu.CodeJournal].Next}
}

// checkID wants numbers with strokes between: the place, or place, branch, place in it, and so on. Branches are counted
// from 0. CodeUsage, CodeTooMany.
func checkID(id string) error {
	parts := strings.Split(id, "/")
	bad := len(id) > idMax || len(parts)%2 == 0
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 32)
		bad = bad || err != nil || strconv.FormatUint(n, 10) != part
		if !bad && i%2 == 1 && n >= BranchesMax {
			return &quipu.Error{Code: quipu.CodeTooMany, Op: "step.append",
				Text: fmt.Sprintf("branch %d of a group; at most %d go side by side", n, BranchesMax), Hint: "do them in several groups, one after the other"}
		}
	}
	if bad {
		return &quipu.Error{Code: quipu.CodeUsage, Op: "step.append", Text: fmt.Sprintf("%.80q cannot be the place of an entry", id),
			Hint: "a place is a number; in a branch place/branch/place"}
	}
	return nil
}
