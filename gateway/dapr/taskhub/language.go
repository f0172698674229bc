package taskhub

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dapr/durabletask-go/api/protos"
	"github.com/google/uuid"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Language is how instances of flow.KindDapr are written: an event is a HistoryEvent of the durable task protocol.
type Language struct{}

var (
	_ flow.Language   = Language{}
	_ flow.Translator = Language{}
)

func event(at time.Time, fill func(*protos.HistoryEvent)) []byte {
	e := &protos.HistoryEvent{EventId: -1, Timestamp: timestamppb.New(at)}
	fill(e)
	return encode(e)
}

// payload is nil for no bytes at all: the protocol tells an empty string from none.
func payload(b []byte) *wrapperspb.StringValue {
	if b == nil {
		return nil
	}
	return wrapperspb.String(strings.ToValidUTF8(string(b), "\uFFFD"))
}

// Begin implements flow.Language.
func (Language) Begin(s quipu.WorkflowStart, at time.Time) []byte {
	x := &protos.ExecutionStartedEvent{Name: s.Name, Version: text(s.Version), Input: payload(s.Input),
		WorkflowInstance: &protos.WorkflowInstance{InstanceId: s.ID, ExecutionId: wrapperspb.String(uuid.NewString())}}
	if !s.At.IsZero() {
		x.ScheduledStartTimestamp = timestamppb.New(s.At)
	}
	return event(at, func(e *protos.HistoryEvent) { e.EventType = &protos.HistoryEvent_ExecutionStarted{ExecutionStarted: x} })
}

// Raise implements flow.Language.
func (Language) Raise(name string, data []byte, at time.Time) []byte {
	return event(at, func(e *protos.HistoryEvent) {
		e.EventType = &protos.HistoryEvent_EventRaised{EventRaised: &protos.EventRaisedEvent{Name: name, Input: payload(data)}}
	})
}

// Suspend implements flow.Language.
func (Language) Suspend(reason string, at time.Time) []byte {
	return event(at, func(e *protos.HistoryEvent) {
		e.EventType = &protos.HistoryEvent_ExecutionSuspended{ExecutionSuspended: &protos.ExecutionSuspendedEvent{Input: text(reason)}}
	})
}

// Resume implements flow.Language.
func (Language) Resume(reason string, at time.Time) []byte {
	return event(at, func(e *protos.HistoryEvent) {
		e.EventType = &protos.HistoryEvent_ExecutionResumed{ExecutionResumed: &protos.ExecutionResumedEvent{Input: text(reason)}}
	})
}

// Terminate implements flow.Language.
func (Language) Terminate(output []byte, recursive bool, at time.Time) []byte {
	return event(at, func(e *protos.HistoryEvent) {
		e.EventType = &protos.HistoryEvent_ExecutionTerminated{ExecutionTerminated: &protos.ExecutionTerminatedEvent{Input: payload(output), Recurse: recursive}}
	})
}

// Fired implements flow.Language.
func (Language) Fired(id string, body []byte, at time.Time) []byte {
	n, err := strconv.ParseInt(id, 10, 32)
	if err != nil {
		n = -1 // no instance has such a timer, so it is left out
	}
	return event(at, func(e *protos.HistoryEvent) {
		e.EventType = &protos.HistoryEvent_TimerFired{TimerFired: &protos.TimerFiredEvent{TimerId: int32(n), FireAt: decodeFireAt(body)}}
	})
}

// Retold implements flow.Translator.
func (Language) Retold(message []byte, in flow.Language) ([]byte, error) {
	e, err := decode(message)
	if err != nil {
		return nil, err
	}
	at := e.Timestamp.AsTime()
	switch x := e.EventType.(type) {
	case *protos.HistoryEvent_EventRaised:
		return in.Raise(x.EventRaised.Name, []byte(x.EventRaised.Input.GetValue()), at), nil
	case *protos.HistoryEvent_ExecutionSuspended:
		return in.Suspend(x.ExecutionSuspended.Input.GetValue(), at), nil
	case *protos.HistoryEvent_ExecutionResumed:
		return in.Resume(x.ExecutionResumed.Input.GetValue(), at), nil
	case *protos.HistoryEvent_ExecutionTerminated:
		return in.Terminate([]byte(x.ExecutionTerminated.Input.GetValue()), x.ExecutionTerminated.Recurse, at), nil
	}
	return nil, nil
}

// Tell implements flow.Language.
func (Language) Tell(events [][]byte) ([]quipu.WorkflowEvent, error) {
	list := make([]quipu.WorkflowEvent, len(events))
	for n, b := range events {
		e, err := decode(b)
		if err != nil {
			return nil, fmt.Errorf("event %d: %w", n, err)
		}
		list[n] = inWords(e)
		list[n].N, list[n].Time = n, e.Timestamp.AsTime()
	}
	return list, nil
}

// inWords is an event without its number and time.
func inWords(e *protos.HistoryEvent) quipu.WorkflowEvent {
	switch x := e.EventType.(type) {
	case *protos.HistoryEvent_WorkflowStarted:
		return quipu.WorkflowEvent{Type: "turn", ID: -1, Name: x.WorkflowStarted.GetVersion().GetName(), Data: strings.Join(x.WorkflowStarted.GetVersion().GetPatches(), ",")}
	case *protos.HistoryEvent_ExecutionStarted:
		return quipu.WorkflowEvent{Type: "started", ID: -1, Name: x.ExecutionStarted.Name, Data: x.ExecutionStarted.Input.GetValue()}
	case *protos.HistoryEvent_ExecutionCompleted:
		c := x.ExecutionCompleted
		return quipu.WorkflowEvent{Type: strings.ToLower(strings.TrimPrefix(c.WorkflowStatus.String(), "ORCHESTRATION_STATUS_")), ID: int(e.EventId),
			Data: c.Result.GetValue(), Error: failure(c.FailureDetails)}
	case *protos.HistoryEvent_ExecutionTerminated:
		return quipu.WorkflowEvent{Type: "terminate", ID: -1, Data: x.ExecutionTerminated.Input.GetValue()}
	case *protos.HistoryEvent_ExecutionSuspended:
		return quipu.WorkflowEvent{Type: "suspended", ID: -1, Data: x.ExecutionSuspended.Input.GetValue()}
	case *protos.HistoryEvent_ExecutionResumed:
		return quipu.WorkflowEvent{Type: "resumed", ID: -1, Data: x.ExecutionResumed.Input.GetValue()}
	case *protos.HistoryEvent_ExecutionStalled:
		return quipu.WorkflowEvent{Type: "stalled", ID: -1, Name: x.ExecutionStalled.Reason.String(), Error: x.ExecutionStalled.GetDescription()}
	case *protos.HistoryEvent_EventRaised:
		return quipu.WorkflowEvent{Type: "event", ID: -1, Name: x.EventRaised.Name, Data: x.EventRaised.Input.GetValue()}
	case *protos.HistoryEvent_EventSent:
		return quipu.WorkflowEvent{Type: "event sent", ID: int(e.EventId), Name: x.EventSent.Name, Data: x.EventSent.Input.GetValue()}
	}
	return taskInWords(e)
}

// taskInWords is an event of an activity, a timer or a child.
func taskInWords(e *protos.HistoryEvent) quipu.WorkflowEvent {
	switch x := e.EventType.(type) {
	case *protos.HistoryEvent_TaskScheduled:
		return quipu.WorkflowEvent{Type: "activity", ID: int(e.EventId), Name: x.TaskScheduled.Name, Data: x.TaskScheduled.Input.GetValue()}
	case *protos.HistoryEvent_TaskCompleted:
		return quipu.WorkflowEvent{Type: "activity completed", ID: int(x.TaskCompleted.TaskScheduledId), Data: x.TaskCompleted.Result.GetValue()}
	case *protos.HistoryEvent_TaskFailed:
		return quipu.WorkflowEvent{Type: "activity failed", ID: int(x.TaskFailed.TaskScheduledId), Error: failure(x.TaskFailed.FailureDetails)}
	case *protos.HistoryEvent_TimerCreated:
		return quipu.WorkflowEvent{Type: "timer", ID: int(e.EventId), Name: timerName(x.TimerCreated), Data: x.TimerCreated.FireAt.AsTime().Format(time.RFC3339Nano)}
	case *protos.HistoryEvent_TimerFired:
		return quipu.WorkflowEvent{Type: "timer fired", ID: int(x.TimerFired.TimerId)}
	case *protos.HistoryEvent_ChildWorkflowInstanceCreated:
		c := x.ChildWorkflowInstanceCreated
		return quipu.WorkflowEvent{Type: "child", ID: int(e.EventId), Name: c.Name + " " + c.InstanceId, Data: c.Input.GetValue()}
	case *protos.HistoryEvent_ChildWorkflowInstanceCompleted:
		return quipu.WorkflowEvent{Type: "child completed", ID: int(x.ChildWorkflowInstanceCompleted.TaskScheduledId), Data: x.ChildWorkflowInstanceCompleted.Result.GetValue()}
	case *protos.HistoryEvent_ChildWorkflowInstanceFailed:
		return quipu.WorkflowEvent{Type: "child failed", ID: int(x.ChildWorkflowInstanceFailed.TaskScheduledId), Error: failure(x.ChildWorkflowInstanceFailed.FailureDetails)}
	case *protos.HistoryEvent_DetachedWorkflowInstanceCreated:
		return quipu.WorkflowEvent{Type: "detached", ID: int(e.EventId), Name: x.DetachedWorkflowInstanceCreated.InstanceId}
	}
	return quipu.WorkflowEvent{Type: "other", ID: int(e.EventId)}
}

// timerName is the event that a timer waits for the end of, or its own name.
func timerName(t *protos.TimerCreatedEvent) string {
	return cmp.Or(t.GetExternalEvent().GetName(), t.GetName())
}

func failure(f *protos.TaskFailureDetails) string {
	if f == nil {
		return ""
	}
	return f.ErrorType + ": " + f.ErrorMessage
}

// Waits implements flow.Language.
func (Language) Waits(s flow.Snapshot) (list []quipu.WorkflowWait, err error) {
	m, _, last, err := remember(s.App, s.History)
	if err != nil {
		return nil, err
	}
	if x := last.GetExecutionStalled(); x != nil {
		list = append(list, quipu.WorkflowWait{What: "version", Name: x.GetDescription(), Since: last.Timestamp.AsTime()})
	} else if len(s.Inbox) > 0 {
		list = append(list, quipu.WorkflowWait{What: "worker", Since: s.Updated})
	}
	for _, id := range sortedKeys(m.tasks) {
		e := m.tasks[id].event
		list = append(list, quipu.WorkflowWait{What: "activity", Name: e.GetTaskScheduled().GetName(), Since: e.Timestamp.AsTime()})
	}
	for _, id := range sortedKeys(m.children) {
		c := m.children[id]
		list = append(list, quipu.WorkflowWait{What: "child", Name: c.key.ID, Since: c.since})
	}
	for _, id := range sortedKeys(m.timers) {
		t := m.timers[id]
		w := quipu.WorkflowWait{What: "timer", Name: timerName(t), Until: t.FireAt.AsTime()}
		if t.GetExternalEvent() != nil {
			w.What = "event"
		}
		if !w.Until.Before(farthest) {
			w.Until = time.Time{}
		}
		list = append(list, w)
	}
	return list[:min(len(list), waitsMax)], nil
}

// waitsMax is how many waits of one instance are told.
const waitsMax = 1000

// Children implements flow.Language.
func (Language) Children(s flow.Snapshot) (list []quipu.WorkflowKey, err error) {
	for n, b := range s.History {
		e, err := decode(b)
		if err != nil {
			return nil, fmt.Errorf("event %d: %w", n, err)
		}
		if c := e.GetChildWorkflowInstanceCreated(); c != nil {
			list = append(list, quipu.WorkflowKey{App: target(e.Router, s.App), ID: c.InstanceId})
		}
	}
	return list, nil
}

var errRerun = errors.New("rerun")

// usage is a mistake of who asks for a rerun.
func usage(format string, args ...any) error {
	return &quipu.Error{Code: quipu.CodeUsage, Op: "workflow.rerun", Text: fmt.Sprintf(format, args...),
		Hint: "quipu workflow history ID shows the events; activities, timers and children can be done again", Err: errRerun}
}

// Again implements flow.Language: what is before the event stays, and what had been begun by then and not answered is done again
// with it. Children get ids of their own.
func (Language) Again(s flow.Snapshot, target int, k quipu.WorkflowKey, input []byte) ([]flow.Change, error) {
	switch {
	case !s.Status.Ended():
		return nil, usage("'%s' is not in a terminal state", s.ID)
	case s.Parent != nil:
		return nil, usage("'%s': cannot rerun from child-workflows", s.ID)
	}
	r := rerun{key: k, from: s.ID, target: int32(target), input: input, open: map[int32]*protos.HistoryEvent{}}
	for n, b := range s.History {
		e, err := decode(b)
		if err != nil {
			return nil, fmt.Errorf("event %d: %w", n, err)
		}
		if found, err := r.add(e); err != nil {
			return nil, err
		} else if found {
			return r.changes(s), nil
		}
	}
	return nil, usage("does not have history event with ID '%d'", target)
}
