package trace

import (
	crand "crypto/rand"
	"encoding/hex"
	"math/rand/v2"

	"go.opentelemetry.io/otel/trace"
)

// Lengths of a traceparent of version 00: version, trace id, span id and flags with dashes between them.
const (
	parentBytes = 55
	traceEnd    = 35
	spanEnd     = 52
)

// Valid tells whether the values of a header traceparent are one that can be followed.
func Valid(values []string) bool { return parse(values).IsValid() }

// parse reads a traceparent, as W3C Trace Context says: exactly one, in lower case, with ids that are not zero. Of a version
// that is not known yet it reads what version 00 has. Anything else is no parent.
func parse(values []string) (none trace.SpanContext) {
	if len(values) != 1 || len(values[0]) < parentBytes {
		return none
	}
	s := values[0]
	switch version := s[:2]; {
	case s[2] != '-' || s[traceEnd] != '-' || s[spanEnd] != '-' || !isHex(version) || version == "ff",
		version == "00" && len(s) != parentBytes,
		len(s) > parentBytes && s[parentBytes] != '-':
		return none
	}
	var c trace.SpanContextConfig
	flags := s[spanEnd+1 : parentBytes]
	if !isHex(s[3:traceEnd]) || !isHex(s[traceEnd+1:spanEnd]) || !isHex(flags) {
		return none
	}
	_, _ = hex.Decode(c.TraceID[:], []byte(s[3:traceEnd])) // they are digits
	_, _ = hex.Decode(c.SpanID[:], []byte(s[traceEnd+1:spanEnd]))
	if !c.TraceID.IsValid() || !c.SpanID.IsValid() {
		return none
	}
	if low := flags[1]; low <= '9' && (low-'0')&1 == 1 || low >= 'a' && (low-'a')&1 == 1 {
		c.TraceFlags = trace.FlagsSampled
	}
	c.Remote = true
	return trace.NewSpanContext(c)
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// TraceIDOf is the trace that a traceparent is of; "" if it is none.
func TraceIDOf(traceparent string) string {
	if c := parse([]string{traceparent}); c.IsValid() {
		return traceparent[3:traceEnd]
	}
	return ""
}

// NewTraceparent begins a trace that is recorded.
func NewTraceparent() string { return newTraceparent("01") }

// unrecorded begins a trace that nobody records.
func unrecorded() string { return newTraceparent("00") }

func newTraceparent(flags string) string {
	var id [24]byte
	crand.Read(id[:]) // never fails
	id[0] |= 1        // neither id may be zero
	id[23] |= 1
	return "00-" + hex.EncodeToString(id[:16]) + "-" + hex.EncodeToString(id[16:]) + "-" + flags
}

func chance() float64 { return rand.Float64() }

// binaryBytes is the length of grpc-trace-bin: a version, and a number before each of trace id, span id and flags.
const binaryBytes = 29

// FromBinary is the traceparent in a grpc-trace-bin, as OpenCensus wrote it and Dapr still does; "" if it is none.
func FromBinary(b []byte) string {
	if len(b) != binaryBytes || b[0] != 0 || b[1] != 0 || b[18] != 1 || b[27] != 2 {
		return ""
	}
	text := "00-" + hex.EncodeToString(b[2:18]) + "-" + hex.EncodeToString(b[19:27]) + "-" + hex.EncodeToString(b[28:])
	if !Valid([]string{text}) {
		return ""
	}
	return text
}

// Binary is a traceparent as grpc-trace-bin; nil if it is none.
func Binary(traceparent string) []byte {
	c := parse([]string{traceparent})
	if !c.IsValid() {
		return nil
	}
	traceID, spanID := c.TraceID(), c.SpanID()
	b := append([]byte{0, 0}, traceID[:]...)
	b = append(append(b, 1), spanID[:]...)
	return append(b, 2, byte(c.TraceFlags()))
}
