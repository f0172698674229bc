package taskhub

import (
	"encoding/binary"

	"github.com/dapr/durabletask-go/api/protos"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Fields of messages that are written and read here without their types: a history is encoded once and sent many times.
const (
	itemWorkflow  protowire.Number = 1  // WorkItem.workflowRequest
	itemToken     protowire.Number = 10 // WorkItem.completionToken
	requestID     protowire.Number = 1  // WorkflowRequest.instanceId
	requestPast   protowire.Number = 3  // WorkflowRequest.pastEvents
	requestNew    protowire.Number = 4  // WorkflowRequest.newEvents
	fieldTerminal protowire.Number = 5  // HistoryEvent.executionTerminated
)

// appendEvent adds an event to a history as it stands in a work item.
func appendEvent(b []byte, as protowire.Number, event []byte) []byte {
	b = protowire.AppendTag(b, as, protowire.BytesType)
	return protowire.AppendBytes(b, event)
}

// workItem is a WorkItem with a WorkflowRequest. past is sent as it is: it may grow meanwhile, and never changes.
func workItem(id, token string, past []byte, fresh [][]byte) mem.BufferSlice {
	var tail []byte
	for _, e := range fresh {
		tail = appendEvent(tail, requestNew, e)
	}
	size := protowire.SizeTag(requestID) + protowire.SizeBytes(len(id)) + len(past) + len(tail)
	head := protowire.AppendTag(make([]byte, 0, len(id)+32), itemWorkflow, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(size))
	head = protowire.AppendTag(head, requestID, protowire.BytesType)
	head = protowire.AppendString(head, id)
	tail = protowire.AppendTag(tail, itemToken, protowire.BytesType)
	tail = protowire.AppendString(tail, token)
	if len(past) == 0 {
		return mem.BufferSlice{mem.SliceBuffer(append(head, tail...))}
	}
	if len(past) < smallHistory {
		return mem.BufferSlice{mem.SliceBuffer(append(append(append(make([]byte, 0, len(head)+len(past)+len(tail)), head...), past...), tail...))}
	}
	return mem.BufferSlice{mem.SliceBuffer(head), mem.SliceBuffer(past), mem.SliceBuffer(tail)}
}

// smallHistory is copied rather than sent in parts.
const smallHistory = 4 << 10

// activityItem is a WorkItem with an ActivityRequest.
func activityItem(id, token string, taskID int32, e *protos.TaskScheduledEvent) mem.BufferSlice {
	b, err := proto.Marshal(&protos.WorkItem{
		Request: &protos.WorkItem_ActivityRequest{ActivityRequest: &protos.ActivityRequest{
			Name: e.Name, Version: e.Version, Input: e.Input, WorkflowInstance: &protos.WorkflowInstance{InstanceId: id},
			TaskId: taskID, TaskExecutionId: e.TaskExecutionId, ParentTraceContext: e.ParentTraceContext}},
		CompletionToken: token})
	if err != nil {
		panic("taskhub: " + err.Error()) // it was decoded before, so it can be encoded
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}
}

// encode writes an event.
func encode(e *protos.HistoryEvent) []byte {
	b, err := proto.Marshal(e)
	if err != nil {
		panic("taskhub: " + err.Error()) // strings in it are those of messages that were decoded
	}
	return b
}

func decode(b []byte) (*protos.HistoryEvent, error) {
	e := new(protos.HistoryEvent)
	return e, proto.Unmarshal(b, e)
}

// isTermination looks at an event without decoding it.
func isTermination(event []byte) bool {
	for len(event) > 0 {
		n, t, size := protowire.ConsumeTag(event)
		if size < 0 {
			return false
		}
		if n == fieldTerminal {
			return true
		}
		event = event[size:]
		if size = protowire.ConsumeFieldValue(n, t, event); size < 0 {
			return false
		}
		event = event[size:]
	}
	return false
}

// fireAt is the body of a timer: when it was to fire, which may not be when it does.
func encodeFireAt(t *timestamppb.Timestamp) []byte {
	b := binary.AppendVarint(nil, t.GetSeconds())
	return binary.AppendVarint(b, int64(t.GetNanos()))
}

func decodeFireAt(b []byte) *timestamppb.Timestamp {
	seconds, n := binary.Varint(b)
	if n <= 0 {
		return nil
	}
	nanos, _ := binary.Varint(b[n:])
	return &timestamppb.Timestamp{Seconds: seconds, Nanos: int32(nanos)}
}
