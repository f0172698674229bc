package quipu

import (
	"context"
	"io"
	"net/http"
	"time"
)

// Limits of calls.
const (
	AtomicBodyMax = 6 << 20 // body of a request to, and of a reply from, an atomic function
	CallDepthMax  = 16
	ResultKept    = 24 * time.Hour
	CallBodyKept  = 16 << 10 // bytes of a request's body that are kept with the result, and that a slice shows of any body

	AsyncBodyMax  = AtomicBodyMax // body of a request that is to be called later, and of its reply
	AsyncQueueMax = 10_000        // calls of one function that wait or run
	AsyncCallsMax = 100           // of those, attempts at once
)

// Headers that calls carry.
const (
	HeaderCallID      = "Quipu-Call-Id"
	HeaderAttempt     = "Quipu-Attempt"
	HeaderTrigger     = "Quipu-Trigger"
	HeaderSession     = "Quipu-Session" // session token: the caller has seen the book up to this seq
	HeaderIdempotency = "Idempotency-Key"
	HeaderPrefer      = "Prefer"        // RFC 7240
	PreferAsync       = "respond-async" // asks for InvokeAsync
)

// TriggerBinding starts the trigger of a call that comes in by an input binding of Dapr; its name follows.
const TriggerBinding = "binding/"

// CallRequest asks for one call of a function.
type CallRequest struct {
	Function       string
	Revision       string // that the caller has chosen, by name, number or alias; "" leaves it to the traffic split
	Method         string
	Path           string // escaped, with its leading slash
	RawQuery       string
	Header         http.Header
	Body           io.Reader // nil for none
	ContentLength  int64     // -1 unknown
	Trigger        string    // http, dapr, cli, …
	IdempotencyKey string
	Attempt        int // of a delivery; 0 means 1
	// Cause names what is delivered, the same in each attempt; "" if nothing is.
	Cause string
	// Turn, if set, has the call be a turn of an actor, in the one instance that it lives in. CodeNoActorHost if that takes
	// no calls any more.
	Turn *ActorTurn
}

// CallReply is the answer of a function. The caller closes Body.
type CallReply struct {
	Call     string
	Revision string // that answered
	Status   int
	Header   http.Header
	Body     io.ReadCloser
	// Trailer is filled when Body was read to its end. Only calls of gRPC have any; nil otherwise.
	Trailer http.Header
	// Session is a session token: who sends it with a later call reads what this one read and wrote, or newer.
	Session Seq
}

// Invoker calls functions. For an atomic function it returns when the call's effects are durable and
// applied. A plain function's body streams.
// CodeNoFunction, CodeNoRevision, CodeStart, CodeTimeout, CodeCrashed, CodeReply, CodeReplySize, CodeStreaming,
// CodeContention, CodeIdempotency, CodeBusy, CodeDepth, CodeBodySize: nothing was committed.
// CodeUnknown: the commit may or may not have happened.
type Invoker interface {
	Invoke(ctx context.Context, r CallRequest) (*CallReply, error)
}

// AsyncInvoker accepts calls that are made later.
type AsyncInvoker interface {
	// InvokeAsync answers as soon as the call is durable; it is then made until it succeeds or is given up, by the
	// rules of the function's AsyncSpec, whatever is restarted meanwhile. The effects of an atomic function happen
	// exactly once, those of a plain one at least once if it succeeds. Inside an atomic call the call is there when
	// that one commits. A request with the IdempotencyKey of an earlier one is answered with that one's call.
	// CodeNoFunction, CodeBodySize, CodeIdempotency, CodeCallQueue: nothing was accepted.
	InvokeAsync(ctx context.Context, r CallRequest) (CallInfo, error)
}

// Session is where operations of an instance belong: an open atomic call, or nothing in particular.
// State, Publish, Together, Invoke, InvokeAsync, workflows and alarms take part in that call.
type Session interface {
	State
	Publisher
	Invoker
	AsyncInvoker
	WorkflowStarter
	Alarms
	// Together makes one commit of what do does: all of it, or nothing if do fails. It may be run again from the start, so
	// it must do nothing else. Inside an atomic call it is a part of that call's transaction.
	Together(ctx context.Context, do func(Group) error) error
	// EffectID names the next effect outside of the platform, so that who is asked for it can tell that it was asked before: it is the
	// same in each run of a call that does the same, in each attempt to deliver the same events, and in each request with the same
	// Idempotency-Key. "" outside of calls.
	EffectID() string
	// Function is the name that keys of StoreDefault are prefixed with.
	Function() string
}

// Group is what Together offers: what is written and published by it happens as one.
type Group interface {
	State
	Publisher
	Alarms
	// Holds has the commit happen only while a lease is held. CodeLeaseLost.
	Holds(l Lease) error
}

// CallState is how far a call has come that nobody waits for.
type CallState string

// States of a call: the first three are of one that has not ended.
const (
	CallQueued    CallState = "queued"
	CallRunning   CallState = "running"
	CallWaiting   CallState = "waiting" // for its next attempt
	CallSucceeded CallState = "succeeded"
	CallFailed    CallState = "failed"
	CallCancelled CallState = "cancelled"
	CallExpired   CallState = "expired" // it was too old for another attempt
)

// Pending tells whether the call has not ended.
func (s CallState) Pending() bool { return s == CallQueued || s == CallRunning || s == CallWaiting }

// CallInfo is a call as the platform remembers it.
type CallInfo struct {
	ID       string    `json:"id"`
	Function string    `json:"function"`
	Revision string    `json:"revision"`
	Trigger  string    `json:"trigger"`
	Method   string    `json:"method"`
	Path     string    `json:"path"`
	Status   int       `json:"status"`
	Error    Code      `json:"error,omitempty"`
	Runs     int       `json:"runs"` // 1, and one more for each lost conflict
	Seq      Seq       `json:"seq,omitempty"`
	Start    time.Time `json:"start"`
	Micros   int64     `json:"micros"` // from arrival to answer
	Reads    int       `json:"reads"`
	Writes   int       `json:"writes"`
	// Usage is what it took, as far as that is known of it alone. It comes with the record, or at the end of one without.
	Usage Usage `json:"usage,omitzero"`

	// Of a call that nobody waits for. Start, Status and what goes with them are of its last attempt.
	State    CallState `json:"state,omitempty"` // "" for a call whose caller waits
	Queued   time.Time `json:"queued,omitzero"`
	Expires  time.Time `json:"expires,omitzero"` // after it no attempt is begun
	Next     time.Time `json:"next,omitzero"`    // attempt of one that waits
	Attempts int       `json:"attempts,omitempty"`
	Cause    string    `json:"cause,omitempty"` // what the last attempt failed with
	// Execution is the id of the execution of a durable function that the call is over with.
	Execution string `json:"execution,omitempty"`
	// Undelivered is why its destination did not get the event about its end.
	Undelivered Code `json:"undelivered,omitempty"`

	// Trace is the id of the trace in which the call, or its last attempt, was recorded; "" if it was not.
	Trace string `json:"trace,omitempty"`
}

// CallSlice is the part of the log that one call is: what came in, what it read, what it did, what it answered.
type CallSlice struct {
	CallInfo
	End      time.Time           `json:"end"`
	Query    string              `json:"query,omitempty"`
	Request  CallBody            `json:"request"`
	Header   map[string][]string `json:"header,omitempty"` // of the reply
	Reply    CallBody            `json:"reply"`
	Snapshot Seq                 `json:"snapshot,omitempty"` // at which all reads were answered
	Read     []CallKey           `json:"read,omitempty"`     // found or not
	Ranges   []CallRange         `json:"ranges,omitempty"`   // listed
	Written  []CallKey           `json:"written,omitempty"`
	Events   []CallEvent         `json:"events,omitempty"` // published
	Ops      []CallOp            `json:"ops,omitempty"`    // all that the record does, in order
	// Missing says why what the record of the call would tell is not here; "" if it is.
	Missing string `json:"missing,omitempty"`
}

// CallBody is up to CallBodyKept bytes of a body: Text if it is text, else Base64.
type CallBody struct {
	Size      int64  `json:"size"` // of all of it
	Text      string `json:"text,omitempty"`
	Base64    []byte `json:"base64,omitempty"`
	Truncated bool   `json:"truncated,omitempty"`
}

// CallReplay compares a call with the same call made again, on what it had read.
type CallReplay struct {
	Call        CallInfo         `json:"call"`
	Again       CallInfo         `json:"again"`
	At          Seq              `json:"at"`   // the last record that the second one could see
	Same        bool             `json:"same"` // nothing differs
	Differences []CallDifference `json:"differences"`
	// Note says what could not be compared.
	Note string `json:"note,omitempty"`
}

// CallDifference is one thing that a call and its replay did not do alike; "" stands for not at all.
type CallDifference struct {
	What string `json:"what"`
	Was  string `json:"was"`
	Is   string `json:"is"`
}

// CallKey is a key of a view, as people know it.
type CallKey struct {
	View string `json:"view"`
	Key  string `json:"key"`
}

// CallRange is a span of keys of a view, as people know them: from From on and before To, which "" leaves open,
// or up to To itself.
type CallRange struct {
	View    string `json:"view"`
	From    string `json:"from"`
	To      string `json:"to"`
	Through bool   `json:"through,omitempty"`
}

// CallEvent is an event that a call published.
type CallEvent struct {
	Topic string `json:"topic"`
	ID    string `json:"id"`
	Size  int64  `json:"size"`
}

// CallOp is one change of one view, in words.
type CallOp struct {
	View string `json:"view"`
	Text string `json:"text"`
	Size int64  `json:"size"` // in the record
}

// Calls is the memory of calls: those with effects for ResultKept, others for a while on this node.
type Calls interface {
	// Call finds one by id. CodeNotFound.
	Call(ctx context.Context, id string) (CallInfo, error)
	// Slice shows all that a call did. CodeNotFound. What cannot be known any more is told by Missing.
	Slice(ctx context.Context, id string) (CallSlice, error)
	// Calls lists the newest first; of one function unless name is "".
	Calls(ctx context.Context, name string, limit int) ([]CallInfo, error)
	// CallResult is what a call was answered with, or the error that it ended with. CodeNotFound; CodeCallPending: it
	// has not ended; CodeCallCancelled, CodeCallExpired.
	CallResult(ctx context.Context, id string) (*CallReply, error)
	// CancelCall ends a call of InvokeAsync: durable on return. An attempt under way is cut; what it did outside of a
	// transaction stays done. CodeNotFound; CodeCallEnded: nothing changed.
	CancelCall(ctx context.Context, id string) (CallInfo, error)
}
