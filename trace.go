package quipu

import "time"

// Headers of traces: W3C Trace Context and Baggage, and what asks a node to remember a trace.
const (
	HeaderTraceparent = "Traceparent"
	HeaderTracestate  = "Tracestate"
	HeaderTrace       = "Quipu-Trace" // TraceKeep, in a call of the admin API
	TraceKeep         = "keep"
)

// Trace is what a node remembers of one trace: its own spans, and none of functions or callers.
type Trace struct {
	ID    string      `json:"id"`    // 32 hexadecimal digits
	Spans []TraceSpan `json:"spans"` // those that have ended, by their start
	// Open is the number of spans that have begun and not ended.
	Open int `json:"open,omitempty"`
	// Dropped is the number of spans that were too many to be remembered.
	Dropped int `json:"dropped,omitempty"`
}

// TraceSpan is one piece of work of a trace.
type TraceSpan struct {
	ID         string            `json:"id"`               // 16 hexadecimal digits
	Parent     string            `json:"parent,omitempty"` // also one that is not here: of a caller, or of a function
	Name       string            `json:"name"`
	Kind       string            `json:"kind"` // server, client, producer, consumer or internal
	Start      time.Time         `json:"start"`
	Nanos      int64             `json:"nanos"`
	Error      string            `json:"error,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
}
