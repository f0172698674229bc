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
)

// Headers that calls carry.
const (
	HeaderCallID      = "Quipu-Call-Id"
	HeaderAttempt     = "Quipu-Attempt"
	HeaderTrigger     = "Quipu-Trigger"
	HeaderSession     = "Quipu-Session" // session token: the caller has seen the book up to this seq
	HeaderIdempotency = "Idempotency-Key"
)

// CallRequest asks for one call of a function.
type CallRequest struct {
	Function       string
	Method         string
	Path           string // escaped, with its leading slash
	RawQuery       string
	Header         http.Header
	Body           io.Reader // nil for none
	ContentLength  int64     // -1 unknown
	Trigger        string    // http, dapr, cli, …
	IdempotencyKey string
}

// CallReply is the answer of a function. The caller closes Body.
type CallReply struct {
	Call   string
	Status int
	Header http.Header
	Body   io.ReadCloser
	// Trailer is filled when Body was read to its end. Only calls of gRPC have any; nil otherwise.
	Trailer http.Header
	// Session is a session token: who sends it with a later call reads what this one read and wrote, or newer.
	Session Seq
}

// Invoker calls functions. For an atomic function it returns when the call's effects are durable and
// applied. A plain function's body streams.
// CodeNoFunction, CodeStart, CodeTimeout, CodeCrashed, CodeReply, CodeReplySize, CodeStreaming,
// CodeContention, CodeIdempotency, CodeBusy, CodeDepth, CodeBodySize: nothing was committed.
// CodeUnknown: the commit may or may not have happened.
type Invoker interface {
	Invoke(ctx context.Context, r CallRequest) (*CallReply, error)
}

// Session is where operations of an instance belong: an open atomic call, or nothing in particular.
// State, Publish and Invoke take part in that call.
type Session interface {
	State
	Publisher
	Invoker
	// Function is the name that keys of StoreDefault are prefixed with.
	Function() string
}

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
}

// Calls is the memory of calls: those with effects for ResultKept, others for a while on this node.
type Calls interface {
	// Call finds one by id. CodeNotFound.
	Call(ctx context.Context, id string) (CallInfo, error)
	// Calls lists the newest first; of one function unless name is "".
	Calls(ctx context.Context, name string, limit int) ([]CallInfo, error)
}
