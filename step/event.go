package step

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/quipu-run/quipu"
)

// Events of a history. A message of an inbox is one as well, and becomes part of the history as it is.
const (
	evBegin     = "begin"     // Request
	evEntry     = "entry"     // of the journal: ID, Kind, Name, and what its kind has
	evRaised    = "raised"    // Name, Data
	evFired     = "fired"     // the timer of the entry ID, or of a retry
	evChild     = "child"     // the child of the entry ID has ended: Result or Error
	evFailed    = "failed"    // a run: Attempt, Status, Cause, Until
	evParked    = "parked"    // a run ended to wait for the entries IDs
	evSuspended = "suspended" // by somebody: Cause
	evResumed   = "resumed"   // Cause
	evTerminate = "terminate" // Data, Recursive
	evStalled   = "stalled"   // its revision is gone: Cause
	evEnd       = "end"       // Status, Header; the body is the instance's output
)

// Kinds of entries.
const (
	kindStep  = "step"  // what lies outside was done: Result or Error
	kindSleep = "sleep" // until Until
	kindEvent = "event" // waits for one called Name, at most until Until
	kindCall  = "call"  // of the function Name
)

// retryTimer is the timer of a run that is made again. No entry has such an id.
const retryTimer = "retry"

// event is one event of a history, as JSON.
type event struct {
	Event string `json:"e"`
	At    int64  `json:"at"` // Unix milliseconds
	ID    string `json:"id,omitempty"`
	Kind  string `json:"kind,omitempty"`
	Name  string `json:"name,omitempty"`
	Until int64  `json:"until,omitempty"` // Unix milliseconds

	Result json.RawMessage `json:"result,omitempty"`
	Error  *Failure        `json:"error,omitempty"`
	Child  string          `json:"child,omitempty"` // id of the execution that a call of a durable function is

	Request   *request            `json:"request,omitempty"`
	Data      []byte              `json:"data,omitempty"`
	Recursive bool                `json:"recursive,omitempty"`
	IDs       []string            `json:"ids,omitempty"`
	Attempt   int                 `json:"attempt,omitempty"`
	Status    int                 `json:"status,omitempty"`
	Cause     string              `json:"cause,omitempty"`
	Header    map[string][]string `json:"header,omitempty"`
}

// Failure is why a step failed, as the function gets it.
type Failure struct {
	Type    string `json:"type,omitempty"`
	Message string `json:"message"`
}

// request is what an execution was started with, but for its body, which is the instance's input.
type request struct {
	Call    string      `json:"call,omitempty"`
	Method  string      `json:"method,omitempty"`
	Path    string      `json:"path,omitempty"`
	Query   string      `json:"query,omitempty"`
	Header  http.Header `json:"header,omitempty"`
	Trigger string      `json:"trigger,omitempty"`
	Hash    string      `json:"hash,omitempty"`   // of a request with a key
	Parent  string      `json:"parent,omitempty"` // entry of the parent's journal
}

func millis(t time.Time) int64 { return t.UnixMilli() }

func instant(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// encode panics only if a Result is no JSON, which is checked where results come in.
func (e *event) encode() []byte {
	b, err := json.Marshal(e)
	if err != nil {
		panic(fmt.Sprintf("step: event %s: %v", e.Event, err))
	}
	return b
}

func decodeEvent(b []byte) (*event, error) {
	var e event
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, fmt.Errorf("event of an execution: %w", err)
	}
	return &e, nil
}

func decodeEvents(all [][]byte) ([]*event, error) {
	list := make([]*event, len(all))
	for i, b := range all {
		e, err := decodeEvent(b)
		if err != nil {
			return nil, err
		}
		list[i] = e
	}
	return list, nil
}

// asJSON is a body as a value: itself if it is JSON, else a text; null if there is none.
func asJSON(body []byte) json.RawMessage {
	switch {
	case len(body) == 0:
		return json.RawMessage("null")
	case json.Valid(body):
		return body
	}
	if !utf8.Valid(body) {
		text, _ := json.Marshal(body) // base64
		return text
	}
	text, _ := json.Marshal(string(body)) // a string always is
	return text
}

// failureOf is an answer that is no success, as an error of the one who asked.
func failureOf(status int, body []byte) *Failure {
	const most = 1000
	text := string(body[:min(len(body), most)])
	return &Failure{Type: fmt.Sprintf("status %d", status), Message: text}
}

// failureFrom is an error of the platform.
func failureFrom(err error) *Failure {
	e := quipu.AsError(err)
	return &Failure{Type: string(e.Code), Message: e.Text}
}
