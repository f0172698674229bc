package quipu

import (
	"context"
	"time"
)

// Limits of workflows.
const (
	WorkflowIDMax       = 256     // bytes
	WorkflowPayloadMax  = 2 << 20 // bytes of an input, a result, an event's data, a custom status
	WorkflowHistoryMax  = 100_000 // events of one generation; continue-as-new begins another
	WorkflowInboxMax    = 10_000  // messages that one instance has not taken yet
	WorkflowsListMax    = 1000
	WorkflowKeptDefault = 30 * 24 * time.Hour // after its end
)

// WorkflowStatus is how far an instance has come.
type WorkflowStatus string

// Statuses of workflows; the words are Dapr's.
const (
	WorkflowPending    WorkflowStatus = "PENDING" // no turn has been made yet
	WorkflowRunning    WorkflowStatus = "RUNNING"
	WorkflowSuspended  WorkflowStatus = "SUSPENDED"
	WorkflowStalled    WorkflowStatus = "STALLED" // its worker's code cannot go on with its history
	WorkflowCompleted  WorkflowStatus = "COMPLETED"
	WorkflowFailed     WorkflowStatus = "FAILED"
	WorkflowTerminated WorkflowStatus = "TERMINATED"
)

// Ended tells whether nothing more happens to the instance.
func (s WorkflowStatus) Ended() bool {
	return s == WorkflowCompleted || s == WorkflowFailed || s == WorkflowTerminated
}

// WorkflowKey names an instance: the application, or function, that runs it, and its id there.
type WorkflowKey struct {
	App string `json:"app"`
	ID  string `json:"id"`
}

// WorkflowStart asks for an instance.
type WorkflowStart struct {
	WorkflowKey        // ID "" has one made
	Name        string // of the workflow; "" for a function, which is one by itself
	Version     string
	Input       []byte
	// At, if set, is when its first turn may be made.
	At time.Time
}

// WorkflowInfo describes an instance.
type WorkflowInfo struct {
	WorkflowKey
	Name       string         `json:"name"`
	Version    string         `json:"version,omitempty"`
	Kind       string         `json:"kind"` // "dapr": its worker speaks the durable task protocol; "step": a function with a journal
	Status     WorkflowStatus `json:"status"`
	Created    time.Time      `json:"created"`
	Updated    time.Time      `json:"updated"`
	Ended      time.Time      `json:"ended,omitzero"`
	Generation int            `json:"generation"` // grows with each continue-as-new
	Events     int            `json:"events"`     // of its history
	Inbox      int            `json:"inbox"`      // messages that no turn has taken yet
	Parent     *WorkflowKey   `json:"parent,omitempty"`
	Custom     string         `json:"customStatus,omitempty"`
	// Waits is what it waits for: activities, timers, events, children, a worker.
	Waits []WorkflowWait `json:"waits,omitempty"`
	// Owner is who has its turn, or "" if nobody.
	Owner string `json:"owner,omitempty"`

	// Only from Workflow, not in lists.
	Input   []byte           `json:"input,omitempty"`
	Output  []byte           `json:"output,omitempty"`
	Failure *WorkflowFailure `json:"failure,omitempty"`
}

// WorkflowWait is one thing that an instance waits for.
type WorkflowWait struct {
	What  string    `json:"what"` // "activity", "timer", "event", "child", "worker", "version"
	Name  string    `json:"name,omitempty"`
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"` // of a timer
	Owner string    `json:"owner,omitempty"`
}

// WorkflowFailure is why an instance failed.
type WorkflowFailure struct {
	Type    string `json:"type"`
	Message string `json:"message"`
	Stack   string `json:"stack,omitempty"`
}

// WorkflowEvent is one event of a history, in words.
type WorkflowEvent struct {
	N     int       `json:"n"`
	Time  time.Time `json:"time"`
	Type  string    `json:"type"`
	Name  string    `json:"name,omitempty"`
	ID    int       `json:"id"` // of the task; -1 none
	Data  string    `json:"data,omitempty"`
	Error string    `json:"error,omitempty"`
}

// WorkflowList asks for instances, by id.
type WorkflowList struct {
	App    string // "" of all
	Status WorkflowStatus
	Name   string
	After  WorkflowKey
	Limit  int // 0 means WorkflowsListMax, which is also the most
}

// WorkflowPage is a part of a listing. Next, if set, is the After of the following page.
type WorkflowPage struct {
	Workflows []WorkflowInfo `json:"workflows"`
	Next      *WorkflowKey   `json:"next,omitempty"`
}

// WorkflowPurge says which instances to forget: one, or those that ended before a time.
type WorkflowPurge struct {
	WorkflowKey
	Name      string
	Before    time.Time
	Recursive bool // with the children
	Force     bool // also if it has not ended
}

// Workflows is what runs for longer than a call. What changes something returns when it is durable; inside an atomic
// call Start and Raise are part of its transaction.
// CodeNoWorkflow, CodeWorkflowExists, CodeWorkflowEnded, CodeWorkflowRunning, CodeWorkflowID, CodeTooMany, CodeBodySize.
type Workflows interface {
	WorkflowStarter
	// Workflow describes one.
	Workflow(ctx context.Context, k WorkflowKey) (WorkflowInfo, error)
	// Workflows lists them.
	Workflows(ctx context.Context, l WorkflowList) (WorkflowPage, error)
	// WorkflowHistory is what happened in its current generation.
	WorkflowHistory(ctx context.Context, k WorkflowKey) ([]WorkflowEvent, error)
	SuspendWorkflow(ctx context.Context, k WorkflowKey, reason string) error
	ResumeWorkflow(ctx context.Context, k WorkflowKey, reason string) error
	// TerminateWorkflow ends one, and its children if recursive.
	TerminateWorkflow(ctx context.Context, k WorkflowKey, output []byte, recursive bool) error
	// PurgeWorkflows forgets instances that have ended, and answers how many.
	PurgeWorkflows(ctx context.Context, p WorkflowPurge) (int, error)
	// RerunWorkflow makes another instance that begins with the history before an event, which is done again, with
	// another input if that is not nil. to "" has an id made.
	RerunWorkflow(ctx context.Context, k WorkflowKey, event int, to string, input []byte) (string, error)
	// AwaitWorkflow returns when the instance has ended, or at once if it has.
	AwaitWorkflow(ctx context.Context, k WorkflowKey) (WorkflowInfo, error)
}

// WorkflowStarter is the part of Workflows that takes part in transactions.
type WorkflowStarter interface {
	// StartWorkflow makes an instance and answers its id. CodeWorkflowExists if one of the id has not ended; one that has
	// is replaced.
	StartWorkflow(ctx context.Context, s WorkflowStart) (string, error)
	// RaiseWorkflow gives an instance an event that it may wait for now or later.
	RaiseWorkflow(ctx context.Context, k WorkflowKey, event string, data []byte) error
}
