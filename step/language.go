package step

import (
	"fmt"
	"slices"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
)

// Language is how executions are written in the workflow view. Each message is an event.
type Language struct{}

// Begin implements flow.Language, for executions that are started without a request: theirs is POST / with the input.
func (Language) Begin(_ quipu.WorkflowStart, at time.Time) []byte {
	return (&event{Event: evBegin, At: millis(at), Request: &request{Trigger: "workflow"}}).encode()
}

// Raise implements flow.Language.
func (Language) Raise(name string, data []byte, at time.Time) []byte {
	return (&event{Event: evRaised, At: millis(at), Name: name, Data: data}).encode()
}

// Suspend implements flow.Language.
func (Language) Suspend(reason string, at time.Time) []byte {
	return (&event{Event: evSuspended, At: millis(at), Cause: reason}).encode()
}

// Resume implements flow.Language.
func (Language) Resume(reason string, at time.Time) []byte {
	return (&event{Event: evResumed, At: millis(at), Cause: reason}).encode()
}

// Terminate implements flow.Language.
func (Language) Terminate(output []byte, recursive bool, at time.Time) []byte {
	return (&event{Event: evTerminate, At: millis(at), Data: output, Recursive: recursive}).encode()
}

// Fired implements flow.Language.
func (Language) Fired(id string, _ []byte, at time.Time) []byte {
	return (&event{Event: evFired, At: millis(at), ID: id}).encode()
}

// Tell implements flow.Language.
func (Language) Tell(events [][]byte) ([]quipu.WorkflowEvent, error) {
	all, err := decodeEvents(events)
	if err != nil {
		return nil, err
	}
	list := make([]quipu.WorkflowEvent, len(all))
	for i, e := range all {
		list[i] = quipu.WorkflowEvent{N: i, Time: instant(e.At), Type: e.Event, Name: e.Name, ID: -1, Data: e.words(), Error: e.fault()}
		if e.Event == evEntry {
			list[i].Type = e.Kind
		}
	}
	return list, nil
}

// words are what an event has besides its name.
func (e *event) words() string {
	switch {
	case e.Event == evBegin && e.Request != nil && e.Request.Method != "":
		return e.Request.Method + " " + e.Request.Path
	case e.Event == evRaised || e.Event == evTerminate:
		return string(e.Data)
	case e.Event == evEnd:
		return fmt.Sprintf("status %d", e.Status)
	case e.Event == evParked:
		return fmt.Sprintf("waits for %v", e.IDs)
	case e.Until != 0 && e.Event == evEntry:
		return fmt.Sprintf("%s, until %s", e.ID, instant(e.Until).Format(time.RFC3339))
	case e.Result != nil:
		return e.ID + " " + string(e.Result)
	case e.Child != "":
		return e.ID + " execution " + e.Child
	}
	return e.ID
}

func (e *event) fault() string {
	if e.Error != nil {
		return e.Error.Message
	}
	return e.Cause
}

// fold is the journal of an instance, with what its inbox has.
func fold(s flow.Snapshot) (*journal, error) {
	j := newJournal()
	all, err := decodeEvents(slices.Concat(s.History, s.Inbox))
	for _, e := range all {
		j.apply(e)
	}
	return j, err
}

// Waits implements flow.Language.
func (Language) Waits(s flow.Snapshot) (list []quipu.WorkflowWait, err error) {
	j, err := fold(s)
	if err != nil {
		return nil, err
	}
	switch {
	case j.stalled != "":
		return []quipu.WorkflowWait{{What: "version", Name: s.Version, Since: s.Updated}}, nil
	case !j.backoff.IsZero():
		return []quipu.WorkflowWait{{What: "timer", Name: retryTimer, Since: s.Updated, Until: j.backoff}}, nil
	case j.parked == nil && !j.suspended:
		return []quipu.WorkflowWait{{What: "worker", Name: s.App, Since: s.Updated}}, nil
	}
	what := map[string]string{kindSleep: "timer", kindEvent: "event", kindCall: "child"}
	for _, x := range j.open() {
		list = append(list, quipu.WorkflowWait{What: what[x.Kind], Name: x.Name, Since: instant(x.At), Until: instant(x.Until)})
	}
	return list, nil
}

// Children implements flow.Language.
func (Language) Children(s flow.Snapshot) (list []quipu.WorkflowKey, err error) {
	j, err := fold(s)
	if err != nil {
		return nil, err
	}
	for _, x := range j.entries {
		if x.Child != "" {
			list = append(list, quipu.WorkflowKey{App: x.Name, ID: x.Child})
		}
	}
	return list, nil
}

// Again implements flow.Language: what was done before the event is there, what came from it on is done again. How runs ended is
// left out, and so is what was waited for. With event 0, or another input, all is done again.
func (Language) Again(s flow.Snapshot, number int, k quipu.WorkflowKey, input []byte) ([]flow.Change, error) {
	if number < 0 || number > len(s.History) {
		return nil, &quipu.Error{Code: quipu.CodeUsage, Op: "step.rerun", Text: fmt.Sprintf("the history has no event %d", number)}
	}
	all, err := decodeEvents(s.History[:number])
	if err != nil {
		return nil, err
	}
	r, err := beginning(s)
	if err != nil {
		return nil, err
	}
	r.Parent, r.Hash, r.Call = "", "", k.ID
	start := &flow.Start{Kind: flow.KindStep, Name: s.Name, Version: s.Version, Input: s.Input}
	begin := event{Event: evBegin, At: millis(s.Updated), Request: &r}
	start.Messages = [][]byte{begin.encode()}
	if input != nil {
		start.Input, all = input, nil
	}
	for _, e := range all {
		if e.Event == evEntry && (e.Kind == kindStep || e.Kind == kindCall && e.Child == "") {
			start.History = append(start.History, e.encode())
		}
	}
	return []flow.Change{{WorkflowKey: k, Start: start}}, nil
}
