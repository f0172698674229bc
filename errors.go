package quipu

import (
	"errors"
	"fmt"
	"time"
)

// Code is a short stable name of an error that a user can act on. The list is closed:
// every code has a page in Codes, shown by quipu explain.
type Code string

// Codes of the node, the command line and access.
const (
	CodeUsage      Code = "Q0101"
	CodeDataInUse  Code = "Q0102"
	CodePortTaken  Code = "Q0103"
	CodeDataFormat Code = "Q0104"
	CodeInternal   Code = "Q0105"
	CodeToken      Code = "Q0106"
	CodeNoNode     Code = "Q0107"
	CodeOrigin     Code = "Q0108"
	CodeOpenListen Code = "Q0109"
	CodeNotFound   Code = "Q0110"
	CodeStopping   Code = "Q0111"
)

// Codes of the log.
const (
	CodeConflict    Code = "Q0201"
	CodeTrimmed     Code = "Q0202"
	CodeNoBook      Code = "Q0203"
	CodeBookExists  Code = "Q0204"
	CodeRecord      Code = "Q0205"
	CodeCorrupt     Code = "Q0206"
	CodeDiskFull    Code = "Q0207"
	CodeLogStopped  Code = "Q0208"
	CodeUnknown     Code = "Q0209"
	CodeSnapshotOld Code = "Q0210"
	CodeFenced      Code = "Q0211"
	CodeOverloaded  Code = "Q0212"
	CodeBookLocked  Code = "Q0213"
	CodeQuota       Code = "Q0214"
)

// Codes of state.
const (
	CodeKey       Code = "Q0301"
	CodeValueSize Code = "Q0302"
	CodeETag      Code = "Q0303"
	CodeETagForm  Code = "Q0304"
	CodeNoStore   Code = "Q0305"
	CodeTxSize    Code = "Q0306"
	CodeTTL       Code = "Q0307"
)

// Codes of deployment.
const (
	CodeManifest   Code = "Q0401"
	CodeSource     Code = "Q0402"
	CodeBuild      Code = "Q0403"
	CodeRoute      Code = "Q0404"
	CodeNoTool     Code = "Q0405"
	CodeBundleSize Code = "Q0406"
	CodeSandbox    Code = "Q0407"
)

// Codes of calls.
const (
	CodeNoFunction  Code = "Q0501"
	CodeStart       Code = "Q0502"
	CodeTimeout     Code = "Q0503"
	CodeCrashed     Code = "Q0504"
	CodeReplySize   Code = "Q0505"
	CodeStreaming   Code = "Q0506"
	CodeNoCall      Code = "Q0507"
	CodeContention  Code = "Q0508"
	CodeIdempotency Code = "Q0509"
	CodeBusy        Code = "Q0510"
	CodeDepth       Code = "Q0511"
	CodeReply       Code = "Q0512"
	CodeBudget      Code = "Q0513"
	CodeUnhealthy   Code = "Q0514"
)

// Codes of calls that nobody waits for.
const (
	CodeCallQueue     Code = "Q0521"
	CodeCallEnded     Code = "Q0522"
	CodeCallCancelled Code = "Q0523"
	CodeCallExpired   Code = "Q0524"
	CodeCallPending   Code = "Q0525"
)

// Codes of traces.
const (
	CodeNoTrace Code = "Q0541"
)

// Codes of the gateway.
const (
	CodeNoRoute  Code = "Q0601"
	CodeMethod   Code = "Q0602"
	CodeBodySize Code = "Q0603"
	CodeBadJSON  Code = "Q0604"
)

// Codes of revisions.
const (
	CodeNoRevision Code = "Q0610"
	CodeRefused    Code = "Q0611"
	CodeSplit      Code = "Q0612"
	CodeNoFormer   Code = "Q0613"
	CodePinned     Code = "Q0614"
)

// Codes of topics and triggers.
const (
	CodeTopicName      Code = "Q0701"
	CodeEventSize      Code = "Q0702"
	CodeCloudEvent     Code = "Q0703"
	CodeNoTopic        Code = "Q0704"
	CodeNoSubscription Code = "Q0705"
	CodeSubscribed     Code = "Q0706"
	CodeDelay          Code = "Q0707"
	CodeTooMany        Code = "Q0708"
	CodeSuperseded     Code = "Q0709"
	CodeNoPubSub       Code = "Q0710"
	CodeNoSecret       Code = "Q0711"
	CodeAppCallback    Code = "Q0712"
	CodeComponent      Code = "Q0720"
	CodeDenied         Code = "Q0722"
	CodeBreakerOpen    Code = "Q0723"
	CodeOutside        Code = "Q0724"

	CodeNoWorkflow      Code = "Q0801"
	CodeWorkflowExists  Code = "Q0802"
	CodeWorkflowEnded   Code = "Q0803"
	CodeWorkflowRunning Code = "Q0804"
	CodeWorkflowID      Code = "Q0805"
	CodeWorkflowStale   Code = "Q0806"
	CodeWorkflowSize    Code = "Q0807"
	CodeJournal         Code = "Q0808"
	CodeAlarm           Code = "Q0810"
	CodeAlarmExists     Code = "Q0811"
	CodeNoAlarm         Code = "Q0812"
	CodeNoActorHost     Code = "Q0820"
	CodeActorDepth      Code = "Q0821"
	CodeLeaseLost       Code = "Q0822"
)

// Error is an error that a user can act on.
type Error struct {
	Code Code
	Op   string // what was being done, as noun.verb: "state.set"
	Text string // what happened and why, in one sentence without a full stop
	Hint string // what to do or type next
	Seq  Seq    // CodeConflict: the winner; CodeTrimmed: the trim point
	// RetryAfter is when the same may succeed, if that is known better than "later".
	RetryAfter time.Duration
	Err        error // the cause, for logs only
}

// Error is the text with its code.
func (e *Error) Error() string {
	text := e.Text
	if text == "" {
		text = Codes[e.Code].Title
	}
	if e.Op != "" {
		text = e.Op + ": " + text
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return fmt.Sprintf("%s [%s]", text, e.Code)
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, &Error{Code: c}) compare codes.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Text == ""
}

// CodeOf is the code of the first Error in err's chain; CodeInternal if there is none, "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// AsError is the first Error in err's chain. Anything else becomes a CodeInternal that hides
// the cause from users and keeps it in Err for logs.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: CodeInternal, Err: err}
}
