package taskhub

import (
	"maps"
	"slices"
	"strconv"

	"github.com/dapr/durabletask-go/api/helpers"
	"github.com/dapr/durabletask-go/api/protos"
	"github.com/google/uuid"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/internal/timers"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// rerun makes the beginning of an instance out of the history of another. An event that begins something has its place where
// what it began ended, or, if that had not come by then, at the end.
type rerun struct {
	key     quipu.WorkflowKey
	from    string
	target  int32
	input   []byte
	history []*protos.HistoryEvent
	open    map[int32]*protos.HistoryEvent
	started *protos.ExecutionStartedEvent
}

// add tells whether e is the event to begin from.
func (r *rerun) add(e *protos.HistoryEvent) (found bool, err error) {
	if e.EventId == r.target {
		r.open[e.EventId] = e
		return true, r.again(e)
	}
	if x := e.GetExecutionStarted(); x != nil {
		x.WorkflowInstance = &protos.WorkflowInstance{InstanceId: r.key.ID, ExecutionId: wrapperspb.String(uuid.NewString())}
		r.started = x
	}
	ended := int32(-1)
	switch x := e.EventType.(type) {
	case *protos.HistoryEvent_TaskScheduled, *protos.HistoryEvent_TimerCreated, *protos.HistoryEvent_ChildWorkflowInstanceCreated:
		r.open[e.EventId] = e
		return false, nil
	case *protos.HistoryEvent_TaskCompleted:
		ended = x.TaskCompleted.TaskScheduledId
	case *protos.HistoryEvent_TaskFailed:
		ended = x.TaskFailed.TaskScheduledId
	case *protos.HistoryEvent_TimerFired:
		ended = x.TimerFired.TimerId
	case *protos.HistoryEvent_ChildWorkflowInstanceCompleted:
		ended = x.ChildWorkflowInstanceCompleted.TaskScheduledId
	case *protos.HistoryEvent_ChildWorkflowInstanceFailed:
		ended = x.ChildWorkflowInstanceFailed.TaskScheduledId
	}
	if began := r.open[ended]; began != nil {
		r.history = append(r.history, began)
		delete(r.open, ended)
	}
	r.history = append(r.history, e)
	return false, nil
}

// again marks the event that is done again.
func (r *rerun) again(e *protos.HistoryEvent) error {
	info := &protos.RerunParentInstanceInfo{InstanceID: r.from}
	switch x := e.EventType.(type) {
	case *protos.HistoryEvent_TaskScheduled:
		x.TaskScheduled.RerunParentInstanceInfo = info
		if r.input != nil {
			x.TaskScheduled.Input = payload(r.input)
		}
	case *protos.HistoryEvent_ChildWorkflowInstanceCreated:
		x.ChildWorkflowInstanceCreated.RerunParentInstanceInfo = info
		if r.input != nil {
			x.ChildWorkflowInstanceCreated.Input = payload(r.input)
		}
	case *protos.HistoryEvent_TimerCreated:
		x.TimerCreated.RerunParentInstanceInfo = info
		if r.input != nil {
			return usage("cannot write input to timer event '%d'", r.target)
		}
	default:
		return usage("target event with ID '%d' is not an event that can be rerun", r.target)
	}
	return nil
}

// changes are the instance, and the children that begin with it.
func (r *rerun) changes(s flow.Snapshot) []flow.Change {
	start := &flow.Start{Kind: s.Kind, Name: s.Name, Version: s.Version, Input: s.Input}
	changes := []flow.Change{{WorkflowKey: r.key, Start: start}}
	for _, e := range r.history {
		start.History = append(start.History, encode(e))
	}
	for _, id := range sortedKeys(r.open) {
		e := r.open[id]
		switch x := e.EventType.(type) {
		case *protos.HistoryEvent_TaskScheduled:
			start.Open = true
		case *protos.HistoryEvent_TimerCreated:
			if due := x.TimerCreated.FireAt.AsTime(); due.Before(farthest) {
				start.Set = append(start.Set, timers.Timer{Key: timers.Key{ID: strconv.Itoa(int(id))}, Due: due, Body: encodeFireAt(x.TimerCreated.FireAt)})
			}
		case *protos.HistoryEvent_ChildWorkflowInstanceCreated:
			changes = append(changes, r.child(e, x.ChildWorkflowInstanceCreated))
		}
		start.History = append(start.History, encode(e))
	}
	return changes
}

// child begins a child again, as another instance.
func (r *rerun) child(e *protos.HistoryEvent, x *protos.ChildWorkflowInstanceCreatedEvent) flow.Change {
	x.InstanceId = helpers.GenerateChildWorkflowInstanceID(r.key.ID, e.EventId)
	k := quipu.WorkflowKey{App: target(e.Router, r.key.App), ID: x.InstanceId}
	return flow.Change{WorkflowKey: k, Start: startOf(k.App, &protos.HistoryEvent{EventId: -1, Timestamp: e.Timestamp, Router: e.Router,
		EventType: &protos.HistoryEvent_ExecutionStarted{ExecutionStarted: &protos.ExecutionStartedEvent{
			Name: x.Name, Version: x.Version, Input: x.Input,
			WorkflowInstance: &protos.WorkflowInstance{InstanceId: x.InstanceId, ExecutionId: wrapperspb.String(uuid.NewString())},
			ParentInstance: &protos.ParentInstanceInfo{TaskScheduledId: e.EventId, Name: wrapperspb.String(r.started.GetName()), AppID: &r.key.App,
				WorkflowInstance: &protos.WorkflowInstance{InstanceId: r.key.ID, ExecutionId: r.started.GetWorkflowInstance().GetExecutionId()}}}}})}
}

func sortedKeys[V any](m map[int32]V) []int32 { return slices.Sorted(maps.Keys(m)) }
