package dapr

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// InvokeActor answers what the method answered, also if that says that it failed, as in Dapr.
func (s *runtime) InvokeActor(ctx context.Context, in *rtv1.InvokeActorRequest) (*rtv1.InvokeActorResponse, error) {
	for _, part := range []struct{ what, text string }{{"actorType", in.GetActorType()}, {"actorId", in.GetActorId()}} {
		if err := checkName(part.text); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "invalid %s: %v", part.what, err)
		}
	}
	method, err := actorMethod(in.GetMethod())
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "invalid actor method: %v", err)
	}
	r := requestOf(ctx)
	h := http.Header{}
	for name, value := range in.GetMetadata() {
		h.Set(name, value)
	}
	for _, name := range []string{quipu.HeaderCallID, quipu.HeaderTraceparent} {
		if value := r.Header.Get(name); value != "" && h.Get(name) == "" {
			h.Set(name, value)
		}
	}
	c := quipu.ActorCall{ActorKey: quipu.ActorKey{Type: in.GetActorType(), ID: in.GetActorId()}, Method: method,
		CallRequest: quipu.CallRequest{Trigger: "dapr", Header: h, Body: bytes.NewReader(in.GetData())}}
	reply, err := s.d.askActor(r, c)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	data, err := io.ReadAll(reply.Body)
	return &rtv1.InvokeActorResponse{Data: data}, err
}

// GetActorState answers nothing for a key that is not there.
func (s *runtime) GetActorState(ctx context.Context, in *rtv1.GetActorStateRequest) (*rtv1.GetActorStateResponse, error) {
	store, err := s.d.openActors(requestOf(ctx), quipu.ActorKey{Type: in.GetActorType(), ID: in.GetActorId()}, tagActorState)
	if err != nil {
		return nil, err
	}
	item, err := store.getActor(in.GetKey())
	if err != nil {
		return nil, err
	}
	return &rtv1.GetActorStateResponse{Data: item.Value, Metadata: metadataOf(item)}, nil
}

// ExecuteActorStateTransaction does all operations or none.
func (s *runtime) ExecuteActorStateTransaction(ctx context.Context, in *rtv1.ExecuteActorStateTransactionRequest) (*emptypb.Empty, error) {
	store, err := s.d.openActors(requestOf(ctx), quipu.ActorKey{Type: in.GetActorType(), ID: in.GetActorId()}, tagActorSave)
	if err != nil {
		return nil, err
	}
	changes := make([]quipu.Change, 0, len(in.GetOperations()))
	for _, o := range in.GetOperations() {
		c := change{Key: o.GetKey(), Value: o.GetValue().GetValue(), Metadata: o.GetMetadata(), remove: o.GetOperationType() == "delete"}
		if c.Value == nil {
			c.Value = []byte{}
		}
		switch {
		case o.GetOperationType() != "upsert" && !c.remove:
			return nil, status.Errorf(codes.Unimplemented, "operation type %.40s not supported", o.GetOperationType())
		case c.Key == "":
			return nil, status.Error(codes.Internal, textActorSave+"missing key")
		}
		parsed, err := c.parse(nil)
		if err != nil {
			return nil, failedSave(err)
		}
		changes = append(changes, parsed)
	}
	return &emptypb.Empty{}, store.saveActor(changes)
}

// RegisterActorTimer makes a timer for as long as the actor is active.
func (s *runtime) RegisterActorTimer(ctx context.Context, in *rtv1.RegisterActorTimerRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.d.setTimer(requestOf(ctx), quipu.ActorTimer{ActorKey: quipu.ActorKey{Type: in.GetActorType(), ID: in.GetActorId()}, Name: in.GetName(),
		DueTime: in.GetDueTime(), Period: in.GetPeriod(), TTL: in.GetTtl(), Callback: in.GetCallback(), Data: jsonBytes(in.GetData())})
}

// jsonBytes is how SDKs find bytes again: as a string of JSON in base64.
func jsonBytes(data []byte) []byte {
	if data == nil {
		return nil
	}
	text, err := json.Marshal(data)
	if err != nil {
		panic("dapr: marshal bytes: " + err.Error()) // never fails
	}
	return text
}

// UnregisterActorTimer is no error for a timer that is not there.
func (s *runtime) UnregisterActorTimer(ctx context.Context, in *rtv1.UnregisterActorTimerRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.d.cancelTimer(requestOf(ctx), quipu.ActorKey{Type: in.GetActorType(), ID: in.GetActorId()}, in.GetName())
}

// RegisterActorReminder is durable on return, or a part of the call's transaction.
func (s *runtime) RegisterActorReminder(ctx context.Context, in *rtv1.RegisterActorReminderRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.d.setReminder(requestOf(ctx), reminder{AlarmKey: reminderKey(in.GetActorType(), in.GetActorId(), in.GetName()),
		due: in.GetDueTime(), period: in.GetPeriod(), ttl: in.GetTtl(), data: jsonBytes(in.GetData()),
		keep: in.Overwrite != nil && !in.GetOverwrite(), retry: retryOf(in.GetFailurePolicy())})
}

// UnregisterActorReminder is no error for a reminder that is not there.
func (s *runtime) UnregisterActorReminder(ctx context.Context, in *rtv1.UnregisterActorReminderRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.d.dropReminder(requestOf(ctx), reminderKey(in.GetActorType(), in.GetActorId(), in.GetName()))
}

// UnregisterActorRemindersByType removes those of one actor, or of all of a type.
func (s *runtime) UnregisterActorRemindersByType(ctx context.Context, in *rtv1.UnregisterActorRemindersByTypeRequest) (*rtv1.UnregisterActorRemindersByTypeResponse, error) {
	return &rtv1.UnregisterActorRemindersByTypeResponse{}, s.d.dropReminders(requestOf(ctx), reminderKey(in.GetActorType(), in.GetActorId(), ""))
}

// GetActorReminder answers a reminder as the platform has it.
func (s *runtime) GetActorReminder(ctx context.Context, in *rtv1.GetActorReminderRequest) (*rtv1.GetActorReminderResponse, error) {
	a, err := s.d.reminder(requestOf(ctx), reminderKey(in.GetActorType(), in.GetActorId(), in.GetName()))
	if err != nil {
		return nil, err
	}
	data, err := anyOf(a.Data, a.DataType)
	return &rtv1.GetActorReminderResponse{ActorType: a.ActorType, ActorId: a.ActorID, DueTime: optional(a.DueTime), Period: optional(a.Schedule),
		Ttl: optional(expiryOfAlarm(a)), Data: data}, err
}

// ListActorReminders lists those of one actor, or of all of a type.
func (s *runtime) ListActorReminders(ctx context.Context, in *rtv1.ListActorRemindersRequest) (*rtv1.ListActorRemindersResponse, error) {
	all, err := s.d.reminders(requestOf(ctx), reminderKey(in.GetActorType(), in.GetActorId(), ""))
	if err != nil {
		return nil, err
	}
	out := &rtv1.ListActorRemindersResponse{Reminders: make([]*rtv1.NamedActorReminder, 0, len(all))}
	for _, a := range all {
		data, err := anyOf(a.Data, a.DataType)
		if err != nil {
			return nil, err
		}
		out.Reminders = append(out.Reminders, &rtv1.NamedActorReminder{Name: a.Name, Reminder: &rtv1.ActorReminder{ActorType: a.ActorType, ActorId: a.ActorID,
			DueTime: optional(a.DueTime), Period: optional(a.Schedule), Ttl: optional(expiryOfAlarm(a)), Data: data}})
	}
	return out, nil
}

func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// anyOf is data as Dapr's messages have it: JSON is bytes.
func anyOf(data []byte, dataType string) (*anypb.Any, error) {
	switch {
	case data == nil:
		return nil, nil
	case dataType != "":
		return &anypb.Any{TypeUrl: dataType, Value: data}, nil
	}
	return anypb.New(wrapperspb.Bytes(data))
}
