// Package flow is what the workflow view keeps, and what those who run workflows ask of it: the door that speaks the durable
// task protocol, and functions with a journal. Events, messages and bodies are bytes that only the runner reads.
package flow

import (
	"context"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/timers"
)

// Kinds of workflows: who runs them.
const (
	KindDapr = "dapr" // gateway/dapr/taskhub
	KindStep = "step" // package step
)

// Instance is a workflow as the view has it.
type Instance struct {
	quipu.WorkflowKey
	Kind, Name, Version string
	Status              quipu.WorkflowStatus
	Created, Updated    time.Time
	Ended               time.Time
	Start               time.Time // of the first turn, if that was asked for
	Parent              *quipu.WorkflowKey
	// Rev grows with each change by a runner. A Change that names another loses.
	Rev        uint64
	Generation uint32
	Events     uint32 // of this generation's history
	First      uint64 // number of the oldest message that no turn has taken
	Next       uint64 // number that the next message gets
	// Open tells that a runner has to do something besides taking messages: tasks that were begun, say.
	Open    bool
	Custom  string
	Input   []byte
	Output  []byte
	Failure *quipu.WorkflowFailure
}

// Snapshot is an instance with all that a runner needs to go on with it.
type Snapshot struct {
	Instance
	History [][]byte
	Inbox   [][]byte // from First on
}

// Change is what one turn, or something from outside, does to one instance. All Changes of a Commit are one record: all of
// them happen, or none.
type Change struct {
	quipu.WorkflowKey
	// Start makes the instance. It replaces one that has ended; CodeWorkflowExists for one that has not.
	Start *Start
	// Turn, if set, is by the instance's runner, made on its revision Rev: CodeWorkflowStale if that is not it any more.
	Turn *Turn
	// Message, if set, arrives in the inbox. CodeNoWorkflow, CodeWorkflowEnded, CodeTooMany.
	Message []byte
	// Lenient leaves out a Message that cannot arrive, or a Start of one that is there, instead of refusing all: what one
	// workflow sends another may come late.
	Lenient bool
	// Purge forgets the instance. CodeWorkflowRunning if it has not ended, unless Force.
	Purge, Force bool
}

// Start is how an instance begins.
type Start struct {
	Kind, Name, Version string
	Input               []byte
	At                  time.Time
	Parent              *quipu.WorkflowKey
	History             [][]byte // it begins with, if it is made of another
	Messages            [][]byte // of its inbox
	// Open and Set are as in a Turn: what its history has begun, and not ended.
	Open bool
	Set  []timers.Timer
	// Rev is the revision that it begins with, for a runner that makes the first turn at once; 0 has one made. It is never that
	// of an earlier instance of the id: the time of the start in nanoseconds will do.
	Rev uint64
}

// Turn is what a runner has done.
type Turn struct {
	Rev     uint64   // that it was made on
	Took    int      // messages of the inbox, the oldest first
	Redo    int      // Events take the place of so many at the end of the history, which one Turn added
	Again   bool     // continue-as-new: another generation, whose history begins with Events
	Events  [][]byte // appended to the history
	Input   []byte   // of the new generation; only with Again
	Status  quipu.WorkflowStatus
	Open    bool
	Custom  *string // nil leaves it
	Version *string // nil leaves it
	Output  []byte  // with a status that is an end
	Failure *quipu.WorkflowFailure
	Set     []timers.Timer // Kind and Owner are made from the instance; ID is the runner's
	Cancel  []string       // ids of timers
}

// End is how an instance ended, for who was to be told of it.
type End struct {
	quipu.WorkflowKey
	Version string
	Status  quipu.WorkflowStatus // "" if it was purged before
	Event   []byte               // the last of its history
	Output  []byte
}

// Arrival is what a record did to an instance, besides the turn of its runner.
type Arrival struct {
	quipu.WorkflowKey
	Started  bool     // it was made, perhaps in place of one that had ended
	Purged   bool     // it is gone
	First    uint64   // number of the first of Messages
	Messages [][]byte // that arrived in its inbox
}

// Store is the view as runners use it.
type Store interface {
	// Load reads an instance. CodeNoWorkflow.
	Load(ctx context.Context, k quipu.WorkflowKey) (Snapshot, error)
	// Commit makes all changes in one record and returns when it is durable and applied.
	Commit(ctx context.Context, changes []Change) error
	// Busy visits the instances of a kind and application, of all if app is "", that a runner has something to do for: messages in the inbox, or Open. It reads
	// none of them.
	Busy(ctx context.Context, kind, app string, visit func(quipu.WorkflowKey) bool) error
	// Instance reads an instance without history and inbox. CodeNoWorkflow.
	Instance(ctx context.Context, k quipu.WorkflowKey) (Instance, error)
	// Await reads an instance as soon as it is as wanted. CodeNoWorkflow, also if it is purged meanwhile.
	Await(ctx context.Context, k quipu.WorkflowKey, wanted func(Instance) bool) (Instance, error)
	// Watch has arrived called for each Arrival at an instance of a kind, in the order of the log and when readers can see it. It
	// must return at once and not commit. Only one may watch a kind, from before the first commit.
	Watch(kind string, arrived func(Arrival))
}

// Language is how a runner writes and reads the bytes of its instances.
type Language interface {
	// Begin is the message that an instance starts with.
	Begin(s quipu.WorkflowStart, at time.Time) []byte
	// Raise, Suspend, Resume and Terminate are messages to an instance.
	Raise(event string, data []byte, at time.Time) []byte
	Suspend(reason string, at time.Time) []byte
	Resume(reason string, at time.Time) []byte
	Terminate(output []byte, recursive bool, at time.Time) []byte
	// Fired is the message that a timer brings.
	Fired(id string, body []byte, at time.Time) []byte
	// Tell puts a history, or an inbox, into words.
	Tell(events [][]byte) ([]quipu.WorkflowEvent, error)
	// Waits is what an instance waits for.
	Waits(s Snapshot) ([]quipu.WorkflowWait, error)
	// Children are the instances that an instance made and that belong to it.
	Children(s Snapshot) ([]quipu.WorkflowKey, error)
	// Again makes an instance k that does a history again from one of its events on, with all that begins with it, in one
	// commit. CodeUsage if it cannot be done from there.
	Again(s Snapshot, event int, k quipu.WorkflowKey, input []byte) ([]Change, error)
}

// Translator is a Language whose messages from outside can be said in another.
type Translator interface {
	// Retold is such a message in another language; nil if it is none, as that which an instance starts with.
	Retold(message []byte, in Language) ([]byte, error)
}
