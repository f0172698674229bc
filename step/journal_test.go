package step

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
)

// told is the journal of a history.
func told(events ...event) *journal {
	j := newJournal()
	j.apply(&event{Event: evBegin, Request: &request{Path: "/"}})
	for i := range events {
		j.apply(&events[i])
	}
	return j
}

func enter(id, kind, name string) event { return event{Event: evEntry, ID: id, Kind: kind, Name: name} }

// Which entry an event goes to is decided by the order of the history alone.
func TestAnEventGoesToTheOldestThatWaitsOrToTheNext(t *testing.T) {
	j := told(
		event{Event: evRaised, Name: "a", Data: []byte(`1`)},
		enter("0", kindEvent, "a"), enter("1", kindEvent, "a"), enter("2", kindEvent, "a"), enter("3", kindEvent, "b"),
		event{Event: evFired, ID: "1"},
		event{Event: evRaised, Name: "a", Data: []byte(`2`)},
		event{Event: evRaised, Name: "a", Data: []byte(`3`)},
	)
	for id, want := range map[string]string{"0": "1 true false", "1": " true true", "2": "2 true false", "3": " false false"} {
		x := j.byID[id]
		if got := fmt.Sprintf("%s %t %t", x.Result, x.done, x.timeout); got != want {
			t.Errorf("entry %s is %q, want %q", id, got, want)
		}
	}
	if early := j.raised["a"]; len(early) != 1 || string(early[0]) != "3" {
		t.Errorf("what nobody waits for yet is %q, want the third", early)
	}
}

// An execution rests while all that it ended for is still to come, and goes on with the first of it.
func TestWhenAnExecutionGoesOn(t *testing.T) {
	waiting := []event{enter("0", kindSleep, ""), enter("1", kindEvent, "a"), {Event: evParked, IDs: []string{"0", "1"}}}
	for _, c := range []struct {
		after []event
		want  verdict
	}{
		{nil, rest},
		{[]event{{Event: evFired, ID: "0"}}, goOn},
		{[]event{{Event: evRaised, Name: "a"}}, goOn},
		{[]event{{Event: evRaised, Name: "b"}}, rest},
		{[]event{{Event: evSuspended}, {Event: evRaised, Name: "a"}}, rest},
		{[]event{{Event: evSuspended}, {Event: evRaised, Name: "a"}, {Event: evResumed}}, goOn},
		{[]event{{Event: evTerminate}}, giveUp},
		{[]event{{Event: evRaised, Name: "a"}, {Event: evFailed, Attempt: 1, Until: 1000}}, rest},
		{[]event{{Event: evRaised, Name: "a"}, {Event: evFailed, Attempt: 1, Until: 1000}, {Event: evFired, ID: retryTimer}}, goOn},
		{[]event{{Event: evEnd}}, isOver},
	} {
		if got := told(slices.Concat(waiting, c.after)...).next(); got != c.want {
			t.Errorf("after %v: %d, want %d", c.after, got, c.want)
		}
	}
}

// A park that comes after what it waits for is none: the event was on its way while the run ended.
func TestAnEventThatComesWhileARunEnds(t *testing.T) {
	j := told(enter("0", kindEvent, "a"), event{Event: evRaised, Name: "a"}, event{Event: evParked, IDs: []string{"0"}})
	if got := j.next(); got != goOn {
		t.Errorf("verdict %d, want to go on", got)
	}
}

// Code that asks for something else than its journal has is found out, whichever way it differs.
func TestCodeThatDoesNotMatchItsJournal(t *testing.T) {
	j := told(enter("0", kindStep, "charge"), enter("1/0/0", kindStep, "a"), enter("1/1/0", kindStep, "b"))
	for _, c := range []struct {
		e    event
		want quipu.Code
	}{
		{enter("0", kindStep, "charge"), ""},
		{enter("2", kindStep, "ship"), ""},
		{enter("1/2/0", kindStep, "c"), ""},
		{enter("0", kindStep, "refund"), quipu.CodeJournal},
		{enter("0", kindSleep, "charge"), quipu.CodeJournal},
		{enter("1", kindStep, "charge"), quipu.CodeJournal},
		{enter("1/0", kindStep, "charge"), quipu.CodeUsage},
		{enter("0/0/0", kindStep, "charge"), quipu.CodeJournal},
		{enter("x", kindStep, "charge"), quipu.CodeUsage},
		{enter("01", kindStep, "charge"), quipu.CodeUsage},
		{enter("3/1000/0", kindStep, "charge"), quipu.CodeTooMany},
		{enter("3/999/0", kindStep, strings.Repeat("x", nameMax+1)), quipu.CodeUsage},
		{event{Event: evEntry, ID: "3", Kind: kindStep, Result: make([]byte, ResultMax+1)}, quipu.CodeWorkflowSize},
	} {
		_, err := j.admit(&c.e)
		got := quipu.Code("")
		if err != nil {
			got = quipu.CodeOf(err)
		}
		if got != c.want {
			t.Errorf("%s %s %s: %q, want %q: %v", c.e.ID, c.e.Kind, c.e.Name, got, c.want, err)
		}
	}
}

func TestAJournalHasAnEnd(t *testing.T) {
	j := newJournal()
	for i := range EntriesMax {
		e := enter(fmt.Sprint(i), kindStep, "s")
		if _, err := j.admit(&e); err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
		j.apply(&e)
	}
	e := enter(fmt.Sprint(EntriesMax), kindStep, "s")
	if _, err := j.admit(&e); quipu.CodeOf(err) != quipu.CodeWorkflowSize {
		t.Errorf("entry %d: %v", EntriesMax, err)
	}
}

// A run that got further has all its attempts again.
func TestAttemptsAreCountedFromTheLastStep(t *testing.T) {
	j := told(event{Event: evFailed, Attempt: 2, Until: 1}, event{Event: evFired, ID: retryTimer}, enter("0", kindStep, "a"))
	if j.failures != 0 {
		t.Errorf("%d failures after a step", j.failures)
	}
}
