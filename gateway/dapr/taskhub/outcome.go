package taskhub

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/dapr/durabletask-go/api/protos"
	"github.com/dapr/durabletask-go/backend/runtimestate"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/internal/timers"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// outcome is what a turn does.
type outcome struct {
	change flow.Turn     // beyond what the turn took in
	others []flow.Change // to other instances, and messages to itself
	fresh  []*protos.HistoryEvent
	full   bool   // there may be no room for more events
	stall  string // the history ends with a stall for this reason
	reload bool   // the instance is to be read again when there is something to do
}

// apply makes an outcome of a worker's answer. It changes nothing of l.
func (h *Hub) apply(l *live, t *turn, r *protos.WorkflowResponse) *outcome {
	if v := r.GetVersion(); v != nil && (v.Name != nil || len(v.Patches) > 0) {
		if why := patched(l.patches, v.Patches); why != "" {
			return h.stalled(l, t, protos.StalledReason_PATCH_MISMATCH, why)
		}
		t.setVersion(l, v)
	} else if why := patched(l.patches, nil); why != "" && t.ends == nil {
		return h.stalled(l, t, protos.StalledReason_PATCH_MISMATCH, why)
	}
	if a := l.repeated(r.Actions); a != nil {
		return h.failed(l, t, fmt.Errorf("the worker asks for action %d again, which the history has: the code of the workflow is not deterministic", a.Id))
	}
	s := &protos.WorkflowRuntimeState{InstanceId: l.key.ID, StartEvent: l.started}
	if l.version != "" {
		s.OldEvents = []*protos.HistoryEvent{versionEvent(l.version)}
	}
	done, err := runtimestate.NewApplier(l.key.App, "").Actions(s, r.CustomStatus, r.Actions, l.started.GetParentTraceContext(), nil)
	if err != nil {
		return h.failed(l, t, err)
	}
	for _, m := range s.PendingMessages {
		if x := m.HistoryEvent.GetExecutionStalled(); x != nil {
			return h.stalled(l, t, x.Reason, x.GetDescription())
		}
	}
	o := h.outcome(l, t, s, done.ContinuedAsNew)
	if c := r.GetCustomStatus().GetValue(); r.CustomStatus != nil && c != l.custom {
		o.change.Custom = &c
	}
	if l.version != "" {
		o.change.Version = &l.version
	}
	return o
}

// versionEvent is where the protocol has the version of an instance.
func versionEvent(name string) *protos.HistoryEvent {
	return &protos.HistoryEvent{EventId: -1, EventType: &protos.HistoryEvent_WorkflowStarted{WorkflowStarted: &protos.WorkflowStartedEvent{
		Version: &protos.WorkflowVersion{Name: &name}}}}
}

// setVersion writes into the turn which code made it, as far as the history does not say it: patches that are new, and the name.
func (t *turn) setVersion(l *live, v *protos.WorkflowVersion) {
	mine := &protos.WorkflowVersion{}
	if name := v.GetName(); name != "" && name != l.version {
		mine.Name, l.version = &name, name
	}
	if len(v.Patches) > len(l.patches) {
		mine.Patches = v.Patches[len(l.patches):]
		l.patches = slices.Clone(v.Patches)
	}
	if mine.Name == nil && mine.Patches == nil {
		return
	}
	t.versioned = true
	t.events[0].GetWorkflowStarted().Version = mine
	t.encoded[0] = encode(t.events[0])
}

// outcome takes over what the actions say.
func (h *Hub) outcome(l *live, t *turn, s *protos.WorkflowRuntimeState, again bool) *outcome {
	o := &outcome{change: flow.Turn{Status: l.running()}}
	if again {
		o.change.Status = quipu.WorkflowRunning
		return h.renew(l, t, s, o)
	}
	o.fresh = s.NewEvents
	o.change.Events = make([][]byte, 0, len(s.NewEvents))
	for _, e := range s.NewEvents {
		o.change.Events = append(o.change.Events, encode(e))
	}
	o.change.Open = len(l.tasks)+len(s.PendingTasks) > 0
	for _, e := range s.PendingTasks {
		if why := h.refusal(e.Router, e.GetTaskScheduled().GetHistoryPropagationScope()); why != "" {
			o.others = append(o.others, flow.Change{WorkflowKey: l.key, Message: taskFailed(e, why, h.o.Clock.Now())})
		}
	}
	for _, e := range s.PendingTimers {
		h.setTimer(o, e)
	}
	for _, m := range s.PendingMessages {
		o.others = append(o.others, h.send(l, m))
	}
	if c := s.CompletedEvent; c != nil {
		complete(&o.change, c)
	}
	return o
}

// farthest is when timers are set at most: a timer beyond it is one that never fires, as SDKs make them for events that are
// waited for without end.
var farthest = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

func (h *Hub) setTimer(o *outcome, e *protos.HistoryEvent) {
	f := e.GetTimerFired()
	if due := f.FireAt.AsTime(); due.Before(farthest) {
		o.change.Set = append(o.change.Set, timers.Timer{Key: timers.Key{ID: strconv.Itoa(int(f.TimerId))}, Due: due, Body: encodeFireAt(f.FireAt)})
	}
}

// renew begins another generation: what it begins with is in its inbox.
func (h *Hub) renew(l *live, t *turn, s *protos.WorkflowRuntimeState, o *outcome) *outcome {
	o.change.Again = true
	o.change.Input = []byte(s.StartEvent.GetInput().GetValue())
	for _, e := range s.NewEvents {
		if x := e.GetExecutionStarted(); x != nil {
			x.Version, x.Tags = l.started.GetVersion(), l.started.GetTags()
		}
		if e.GetWorkflowStarted() == nil {
			o.others = append(o.others, flow.Change{WorkflowKey: l.key, Message: encode(e)})
		}
	}
	return o
}

// complete ends an instance.
func complete(t *flow.Turn, c *protos.ExecutionCompletedEvent) {
	t.Open = false
	switch c.WorkflowStatus {
	case protos.OrchestrationStatus_ORCHESTRATION_STATUS_COMPLETED:
		t.Status = quipu.WorkflowCompleted
	case protos.OrchestrationStatus_ORCHESTRATION_STATUS_TERMINATED, protos.OrchestrationStatus_ORCHESTRATION_STATUS_CANCELED:
		t.Status = quipu.WorkflowTerminated
	default:
		t.Status = quipu.WorkflowFailed
	}
	if c.Result != nil {
		t.Output = []byte(c.Result.Value)
	}
	if f := c.FailureDetails; f != nil {
		t.Failure = &quipu.WorkflowFailure{Type: f.ErrorType, Message: f.ErrorMessage, Stack: f.StackTrace.GetValue()}
	}
}

// send makes the changes that a message to another instance stands for.
func (h *Hub) send(l *live, m *protos.WorkflowRuntimeStateMessage) flow.Change {
	e := m.HistoryEvent
	c := flow.Change{WorkflowKey: quipu.WorkflowKey{App: target(e.Router, l.key.App), ID: m.TargetInstanceId}, Lenient: true}
	if p := l.started.GetParentInstance(); p != nil && (e.GetChildWorkflowInstanceCompleted() != nil || e.GetChildWorkflowInstanceFailed() != nil) {
		c.App = cmp.Or(p.GetAppID(), l.key.App)
	}
	if x := e.GetChildWorkflowInstanceFailed(); x != nil && x.FailureDetails == nil {
		x.FailureDetails = &protos.TaskFailureDetails{ErrorType: "WorkflowTerminated", ErrorMessage: fmt.Sprintf("workflow '%s' was terminated", l.key.ID), IsNonRetriable: true}
	}
	switch x := e.EventType.(type) {
	case *protos.HistoryEvent_ExecutionStarted:
		if why := h.refusal(e.Router, m.GetPropagatedHistory().GetScope()); why != "" {
			return flow.Change{WorkflowKey: l.key, Message: childFailed(x.ExecutionStarted.GetParentInstance().GetTaskScheduledId(), refused, why, h.o.Clock.Now())}
		}
		c.Lenient = false
		c.Start = startOf(c.App, e)
	case *protos.HistoryEvent_EventSent:
		c.Message = encode(&protos.HistoryEvent{EventId: -1, Timestamp: e.Timestamp, EventType: &protos.HistoryEvent_EventRaised{
			EventRaised: &protos.EventRaisedEvent{Name: x.EventSent.Name, Input: x.EventSent.Input}}})
	default:
		c.Message = encode(e)
	}
	return c
}

// startOf makes an instance that begins with an event.
func startOf(app string, e *protos.HistoryEvent) *flow.Start {
	x := e.GetExecutionStarted()
	s := &flow.Start{Kind: flow.KindDapr, Name: x.Name, Version: x.Version.GetValue(), Messages: [][]byte{encode(e)}}
	if x.Input != nil {
		s.Input = []byte(x.Input.Value)
	}
	if x.ScheduledStartTimestamp != nil {
		s.At = x.ScheduledStartTimestamp.AsTime()
	}
	if p := x.ParentInstance; p != nil {
		s.Parent = &quipu.WorkflowKey{App: cmp.Or(p.GetAppID(), app), ID: p.GetWorkflowInstance().GetInstanceId()}
	}
	return s
}

// failed ends an instance that cannot go on.
func (h *Hub) failed(l *live, t *turn, why error) *outcome {
	start := l.started
	if start == nil {
		start = &protos.ExecutionStartedEvent{}
	}
	s := &protos.WorkflowRuntimeState{InstanceId: l.key.ID, StartEvent: start}
	action := &protos.WorkflowAction{Id: l.highest + 1, WorkflowActionType: &protos.WorkflowAction_CompleteWorkflow{
		CompleteWorkflow: &protos.CompleteWorkflowAction{WorkflowStatus: protos.OrchestrationStatus_ORCHESTRATION_STATUS_FAILED,
			FailureDetails: &protos.TaskFailureDetails{ErrorType: "WorkflowRefused", ErrorMessage: why.Error()}}}}
	if _, err := runtimestate.NewApplier(l.key.App, "").Actions(s, nil, []*protos.WorkflowAction{action}, nil, nil); err != nil {
		panic("taskhub: " + err.Error()) // it is our own action
	}
	o := h.outcome(l, t, s, false)
	if len(l.done)*64 > quipu.WorkflowHistoryMax/2 { // there may be no room for more events
		o.change.Events, o.full = nil, true
	}
	return o
}

// stalled leaves everything as it was, and says why. What is not in the inbox comes there; the turn is made again when
// another worker is there.
func (h *Hub) stalled(l *live, t *turn, reason protos.StalledReason, why string) *outcome {
	o := &outcome{change: flow.Turn{Status: quipu.WorkflowStalled, Open: true}, stall: why, reload: true}
	if l.lastKind != why {
		e := &protos.HistoryEvent{EventId: -1, Timestamp: timestamppb.New(h.o.Clock.Now()), EventType: &protos.HistoryEvent_ExecutionStalled{
			ExecutionStalled: &protos.ExecutionStalledEvent{Reason: reason, Description: &why}}}
		o.change.Events = [][]byte{encode(e)}
	}
	return o
}

// giveUpChildren tells the instance that children failed whose ids belong to others. False if there are none.
func (h *Hub) giveUpChildren(l *live, o *outcome) (found bool) {
	o.others = slices.DeleteFunc(o.others, func(c flow.Change) bool {
		if c.Start == nil {
			return false
		}
		i, err := h.o.Store.Instance(h.ctxOfCommits(), c.WorkflowKey)
		if err != nil || i.Status.Ended() {
			return false
		}
		found = true
		return true
	})
	if !found {
		return false
	}
	for _, e := range o.fresh {
		x := e.GetChildWorkflowInstanceCreated()
		if x == nil || slices.ContainsFunc(o.others, func(c flow.Change) bool { return c.Start != nil && c.ID == x.InstanceId }) {
			continue
		}
		o.others = append(o.others, flow.Change{WorkflowKey: l.key, Message: childFailed(e.EventId, "DuplicateInstance",
			fmt.Sprintf("an active workflow with ID '%s' already exists", x.InstanceId), h.o.Clock.Now())})
	}
	return true
}

// refused is the type of error of what cannot be done here.
const refused = "Unsupported"

// refusal tells why an activity or a child cannot be begun; "" if it can.
func (h *Hub) refusal(r *protos.TaskRouter, scope protos.HistoryPropagationScope) string {
	if ns := r.GetTargetAppNamespace(); ns != "" && ns != h.o.Namespace {
		return fmt.Sprintf("applications of another namespace (%s) cannot be called by a workflow", ns)
	}
	if scope != protos.HistoryPropagationScope_HISTORY_PROPAGATION_SCOPE_NONE {
		return "history is not propagated to activities and children here: pass what they need as input"
	}
	return ""
}

func taskFailed(e *protos.HistoryEvent, why string, at time.Time) []byte {
	return encode(&protos.HistoryEvent{EventId: -1, Timestamp: timestamppb.New(at), EventType: &protos.HistoryEvent_TaskFailed{
		TaskFailed: &protos.TaskFailedEvent{TaskScheduledId: e.EventId, TaskExecutionId: e.GetTaskScheduled().GetTaskExecutionId(),
			FailureDetails: &protos.TaskFailureDetails{ErrorType: refused, ErrorMessage: why, IsNonRetriable: true}}}})
}

func childFailed(id int32, kind, why string, at time.Time) []byte {
	return encode(&protos.HistoryEvent{EventId: -1, Timestamp: timestamppb.New(at), EventType: &protos.HistoryEvent_ChildWorkflowInstanceFailed{
		ChildWorkflowInstanceFailed: &protos.ChildWorkflowInstanceFailedEvent{TaskScheduledId: id,
			FailureDetails: &protos.TaskFailureDetails{ErrorType: kind, ErrorMessage: why, IsNonRetriable: true}}}})
}

// ctxOfCommits does not end with the hub: what is on its way to the log is not abandoned.
func (h *Hub) ctxOfCommits() context.Context { return context.WithoutCancel(h.ctx) }

func text(s string) *wrapperspb.StringValue {
	if s == "" {
		return nil
	}
	return wrapperspb.String(s)
}
