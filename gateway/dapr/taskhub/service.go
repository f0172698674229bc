package taskhub

import (
	"cmp"
	"context"
	"fmt"

	"github.com/dapr/durabletask-go/api/protos"
	"github.com/google/uuid"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Caller finds the hub and the application of a call.
type Caller func(context.Context) (*Hub, string, error)

// Register adds the service to a server whose codec leaves grpcwire.Bytes as they are. worker describes who opens a stream of work items.
func Register(s grpc.ServiceRegistrar, caller Caller, worker func(context.Context) Worker) {
	protos.RegisterTaskHubSidecarServiceServer(s, &service{caller: caller, worker: worker})
}

// service is TaskHubSidecarService. What daprd does not have is not here either, and answered as unimplemented.
type service struct {
	protos.UnimplementedTaskHubSidecarServiceServer
	caller Caller
	worker func(context.Context) Worker
}

func unknownInstance(id string) error {
	return status.Errorf(codes.Unknown, "unknown instance ID: %s", id)
}

// fault is an error as upstream's words have it, where it has some.
func fault(id string, err error) error {
	switch quipu.CodeOf(err) {
	case "":
		return err
	case quipu.CodeNoWorkflow:
		return status.Error(codes.Unknown, "no such instance exists")
	case quipu.CodeWorkflowExists:
		return status.Errorf(codes.AlreadyExists, "an active workflow with ID '%s' already exists", id)
	case quipu.CodeWorkflowRunning:
		return status.Error(codes.Unknown, "orchestration has not yet completed")
	case quipu.CodeUsage, quipu.CodeWorkflowID:
		return status.Error(codes.InvalidArgument, err.Error())
	case quipu.CodeWorkflowEnded:
		return status.Error(codes.FailedPrecondition, err.Error())
	case quipu.CodeWorkflowSize, quipu.CodeTooMany, quipu.CodeTxSize:
		return status.Error(codes.ResourceExhausted, err.Error())
	case quipu.CodeStopping, quipu.CodeLogStopped:
		return status.Error(codes.Unavailable, err.Error())
	}
	return status.Error(codes.Unknown, err.Error())
}

func (s *service) Hello(_ context.Context, in *emptypb.Empty) (*emptypb.Empty, error) { return in, nil }

func (s *service) GetWorkItems(_ *protos.GetWorkItemsRequest, stream protos.TaskHubSidecarService_GetWorkItemsServer) error {
	ctx := stream.Context()
	h, app, err := s.caller(ctx)
	if err != nil {
		return err
	}
	w := s.worker(ctx)
	if p, ok := peer.FromContext(ctx); ok && w.ID == "" {
		w.ID = p.Addr.String()
	}
	return h.work(ctx, app, w, stream)
}

func (s *service) CompleteActivityTask(ctx context.Context, in *protos.ActivityResponse) (*protos.CompleteTaskResponse, error) {
	h, app, err := s.caller(ctx)
	if err == nil {
		err = h.completed(app, in)
	}
	return &protos.CompleteTaskResponse{}, fault(in.InstanceId, err)
}

func (s *service) CompleteWorkflowTask(ctx context.Context, in *protos.WorkflowResponse) (*protos.CompleteTaskResponse, error) {
	h, app, err := s.caller(ctx)
	if err == nil {
		err = h.answer(quipu.WorkflowKey{App: app, ID: in.InstanceId}, in)
	}
	return &protos.CompleteTaskResponse{}, fault(in.InstanceId, err)
}

// CompleteOrchestratorTask is the older name of CompleteWorkflowTask.
func (s *service) CompleteOrchestratorTask(ctx context.Context, in *protos.WorkflowResponse) (*protos.CompleteTaskResponse, error) {
	return s.CompleteWorkflowTask(ctx, in)
}

func (s *service) StartInstance(ctx context.Context, in *protos.CreateInstanceRequest) (*protos.CreateInstanceResponse, error) {
	h, app, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	if in.Name == "" {
		return nil, status.Error(codes.InvalidArgument, "workflow name is not configured")
	}
	id := cmp.Or(in.InstanceId, uuid.NewString())
	x := &protos.ExecutionStartedEvent{Name: in.Name, Version: in.Version, Input: in.Input, Tags: in.Tags, ParentTraceContext: in.ParentTraceContext,
		ScheduledStartTimestamp: in.ScheduledStartTimestamp,
		WorkflowInstance:        &protos.WorkflowInstance{InstanceId: id, ExecutionId: wrapperspb.String(cmp.Or(in.ExecutionId.GetValue(), uuid.NewString()))}}
	err = h.start(ctx, quipu.WorkflowKey{App: app, ID: id}, &protos.HistoryEvent{EventId: -1, Timestamp: timestamppb.New(h.o.Clock.Now()),
		EventType: &protos.HistoryEvent_ExecutionStarted{ExecutionStarted: x}})
	if err != nil {
		return nil, fault(id, err)
	}
	return &protos.CreateInstanceResponse{InstanceId: id}, nil
}

func (s *service) GetInstance(ctx context.Context, in *protos.GetInstanceRequest) (*protos.GetInstanceResponse, error) {
	h, app, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	i, err := h.o.Store.Instance(ctx, quipu.WorkflowKey{App: app, ID: in.InstanceId})
	if quipu.CodeOf(err) == quipu.CodeNoWorkflow {
		return &protos.GetInstanceResponse{}, nil
	}
	if err != nil {
		return nil, fault(in.InstanceId, err)
	}
	return described(in, i), nil
}

func (s *service) WaitForInstanceStart(ctx context.Context, in *protos.GetInstanceRequest) (*protos.GetInstanceResponse, error) {
	return s.wait(ctx, in, func(i flow.Instance) bool { return i.Status != quipu.WorkflowPending })
}

func (s *service) WaitForInstanceCompletion(ctx context.Context, in *protos.GetInstanceRequest) (*protos.GetInstanceResponse, error) {
	return s.wait(ctx, in, func(i flow.Instance) bool { return i.Status.Ended() })
}

func (s *service) wait(ctx context.Context, in *protos.GetInstanceRequest, wanted func(flow.Instance) bool) (*protos.GetInstanceResponse, error) {
	h, app, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	i, err := h.await(ctx, quipu.WorkflowKey{App: app, ID: in.InstanceId}, wanted)
	if err != nil {
		return nil, fault(in.InstanceId, err)
	}
	return described(in, i), nil
}

// await also ends with the hub.
func (h *Hub) await(ctx context.Context, k quipu.WorkflowKey, wanted func(flow.Instance) bool) (flow.Instance, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(h.ctx, cancel)()
	i, err := h.o.Store.Await(ctx, k, wanted)
	if err != nil && h.ctx.Err() != nil {
		return i, errStopping
	}
	return i, err
}

// described is an instance as the protocol describes it.
func described(in *protos.GetInstanceRequest, i flow.Instance) *protos.GetInstanceResponse {
	w := &protos.WorkflowState{InstanceId: i.ID, Name: i.Name, WorkflowStatus: statusOf(i.Status),
		CreatedTimestamp: timestamppb.New(i.Created), LastUpdatedTimestamp: timestamppb.New(i.Updated)}
	if i.Version != "" {
		w.Version = wrapperspb.String(i.Version)
	}
	if !i.Ended.IsZero() {
		w.CompletedTimestamp = timestamppb.New(i.Ended)
	}
	if i.Parent != nil {
		w.ParentInstanceId, w.ParentAppId = wrapperspb.String(i.Parent.ID), wrapperspb.String(i.Parent.App)
	}
	if in.GetInputsAndOutputs {
		w.Input, w.Output, w.CustomStatus = text(string(i.Input)), text(string(i.Output)), text(i.Custom)
		if f := i.Failure; f != nil {
			w.FailureDetails = &protos.TaskFailureDetails{ErrorType: f.Type, ErrorMessage: f.Message, StackTrace: text(f.Stack)}
		}
	}
	return &protos.GetInstanceResponse{Exists: true, WorkflowState: w}
}

var statusNumbers = map[quipu.WorkflowStatus]protos.OrchestrationStatus{
	quipu.WorkflowPending:    protos.OrchestrationStatus_ORCHESTRATION_STATUS_PENDING,
	quipu.WorkflowRunning:    protos.OrchestrationStatus_ORCHESTRATION_STATUS_RUNNING,
	quipu.WorkflowSuspended:  protos.OrchestrationStatus_ORCHESTRATION_STATUS_SUSPENDED,
	quipu.WorkflowStalled:    protos.OrchestrationStatus_ORCHESTRATION_STATUS_STALLED,
	quipu.WorkflowCompleted:  protos.OrchestrationStatus_ORCHESTRATION_STATUS_COMPLETED,
	quipu.WorkflowFailed:     protos.OrchestrationStatus_ORCHESTRATION_STATUS_FAILED,
	quipu.WorkflowTerminated: protos.OrchestrationStatus_ORCHESTRATION_STATUS_TERMINATED,
}

func statusOf(s quipu.WorkflowStatus) protos.OrchestrationStatus { return statusNumbers[s] }

func (s *service) RaiseEvent(ctx context.Context, in *protos.RaiseEventRequest) (*protos.RaiseEventResponse, error) {
	return &protos.RaiseEventResponse{}, s.tell(ctx, in.InstanceId, func(h *Hub, k quipu.WorkflowKey) error {
		return h.o.API.RaiseWorkflow(ctx, k, in.Name, bytesOf(in.Input))
	})
}

// tell does something to an instance.
func (s *service) tell(ctx context.Context, id string, do func(*Hub, quipu.WorkflowKey) error) error {
	h, app, err := s.caller(ctx)
	if err == nil {
		err = do(h, quipu.WorkflowKey{App: app, ID: id})
	}
	return fault(id, err)
}

func bytesOf(v *wrapperspb.StringValue) []byte {
	if v == nil {
		return nil
	}
	return []byte(v.Value)
}

// TerminateInstance returns when the instance has ended. One that had ended before is no error, as upstream has it.
func (s *service) TerminateInstance(ctx context.Context, in *protos.TerminateRequest) (*protos.TerminateResponse, error) {
	return &protos.TerminateResponse{}, s.tell(ctx, in.InstanceId, func(h *Hub, k quipu.WorkflowKey) error {
		err := h.o.API.TerminateWorkflow(ctx, k, bytesOf(in.Output), in.Recursive)
		if quipu.CodeOf(err) == quipu.CodeWorkflowEnded {
			return nil
		}
		if err == nil {
			_, err = h.await(ctx, k, func(i flow.Instance) bool { return i.Status.Ended() })
		}
		return err
	})
}

// SuspendInstance returns when the instance is suspended, or has ended.
func (s *service) SuspendInstance(ctx context.Context, in *protos.SuspendRequest) (*protos.SuspendResponse, error) {
	return &protos.SuspendResponse{}, s.tell(ctx, in.InstanceId, func(h *Hub, k quipu.WorkflowKey) error {
		err := h.o.API.SuspendWorkflow(ctx, k, in.Reason.GetValue())
		if err == nil {
			_, err = h.await(ctx, k, func(i flow.Instance) bool { return i.Status == quipu.WorkflowSuspended || i.Status.Ended() })
		}
		return err
	})
}

// ResumeInstance returns when the instance runs, or has ended.
func (s *service) ResumeInstance(ctx context.Context, in *protos.ResumeRequest) (*protos.ResumeResponse, error) {
	return &protos.ResumeResponse{}, s.tell(ctx, in.InstanceId, func(h *Hub, k quipu.WorkflowKey) error {
		err := h.o.API.ResumeWorkflow(ctx, k, in.Reason.GetValue())
		if err == nil {
			_, err = h.await(ctx, k, func(i flow.Instance) bool { return i.Status == quipu.WorkflowRunning || i.Status.Ended() })
		}
		return err
	})
}

func (s *service) PurgeInstances(ctx context.Context, in *protos.PurgeInstancesRequest) (*protos.PurgeInstancesResponse, error) {
	h, app, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	var n int
	if f := in.GetPurgeInstanceFilter(); f != nil {
		n, err = h.purgeMany(ctx, app, f)
	} else {
		n, err = h.o.API.PurgeWorkflows(ctx, quipu.WorkflowPurge{WorkflowKey: quipu.WorkflowKey{App: app, ID: in.GetInstanceId()}, Recursive: in.Recursive, Force: in.GetForce()})
	}
	if quipu.CodeOf(err) == quipu.CodeNoWorkflow {
		err = nil // a client tells by the count
	}
	if err != nil {
		return nil, fault(in.GetInstanceId(), err)
	}
	return &protos.PurgeInstancesResponse{DeletedInstanceCount: int32(n), IsComplete: wrapperspb.Bool(true)}, nil
}

// purgeMany forgets the instances that ended, were created in a time, and have one of some statuses.
func (h *Hub) purgeMany(ctx context.Context, app string, f *protos.PurgeInstanceFilter) (n int, err error) {
	list := quipu.WorkflowList{App: app}
	for {
		page, err := h.o.API.Workflows(ctx, list)
		if err != nil {
			return n, err
		}
		for _, w := range page.Workflows {
			if !w.Status.Ended() || !fits(w, f) {
				continue
			}
			one, err := h.o.API.PurgeWorkflows(ctx, quipu.WorkflowPurge{WorkflowKey: w.WorkflowKey})
			if err != nil && quipu.CodeOf(err) != quipu.CodeNoWorkflow {
				return n, err
			}
			n += one
		}
		if page.Next == nil {
			return n, nil
		}
		list.After = *page.Next
	}
}

func fits(w quipu.WorkflowInfo, f *protos.PurgeInstanceFilter) bool {
	if from := f.CreatedTimeFrom; from != nil && w.Created.Before(from.AsTime()) {
		return false
	}
	if to := f.CreatedTimeTo; to != nil && w.Created.After(to.AsTime()) {
		return false
	}
	for _, s := range f.RuntimeStatus {
		if s == statusOf(w.Status) {
			return true
		}
	}
	return len(f.RuntimeStatus) == 0
}

func (s *service) RerunWorkflowFromEvent(ctx context.Context, in *protos.RerunWorkflowFromEventRequest) (*protos.RerunWorkflowFromEventResponse, error) {
	h, app, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	if in.GetNewInstanceID() == in.SourceInstanceID {
		return nil, status.Errorf(codes.InvalidArgument, "rerun workflow instance ID must be different from the original instance ID: '%s'", in.SourceInstanceID)
	}
	var input []byte
	if in.OverwriteInput {
		input = []byte(in.Input.GetValue())
	}
	k := quipu.WorkflowKey{App: app, ID: in.SourceInstanceID}
	id, err := h.o.API.RerunWorkflow(ctx, k, int(in.EventID), in.GetNewInstanceID(), input)
	if quipu.CodeOf(err) == quipu.CodeNoWorkflow {
		return nil, status.Errorf(codes.NotFound, "workflow instance does not exist with ID '%s'", k.ID)
	}
	if quipu.CodeOf(err) == quipu.CodeWorkflowExists {
		return nil, status.Errorf(codes.AlreadyExists, "workflow '%s' has already been created", in.GetNewInstanceID())
	}
	return &protos.RerunWorkflowFromEventResponse{NewInstanceID: id}, fault(k.ID, err)
}

func (s *service) ListInstanceIDs(ctx context.Context, in *protos.ListInstanceIDsRequest) (*protos.ListInstanceIDsResponse, error) {
	h, app, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	list := quipu.WorkflowList{App: app, Limit: int(min(in.GetPageSize(), quipu.WorkflowsListMax))}
	if in.GetContinuationToken() != "" {
		list.After = quipu.WorkflowKey{App: app, ID: in.GetContinuationToken()}
	}
	page, err := h.o.API.Workflows(ctx, list)
	if err != nil {
		return nil, fault("", err)
	}
	out := &protos.ListInstanceIDsResponse{}
	for _, w := range page.Workflows {
		out.InstanceIds = append(out.InstanceIds, w.ID)
	}
	if page.Next != nil {
		out.ContinuationToken = &page.Next.ID
	}
	return out, nil
}

func (s *service) GetInstanceHistory(ctx context.Context, in *protos.GetInstanceHistoryRequest) (*protos.GetInstanceHistoryResponse, error) {
	h, app, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	snap, err := h.o.Store.Load(ctx, quipu.WorkflowKey{App: app, ID: in.InstanceId})
	if quipu.CodeOf(err) == quipu.CodeNoWorkflow {
		return nil, status.Errorf(codes.NotFound, "workflow instance '%s' not found", in.InstanceId)
	}
	out := &protos.GetInstanceHistoryResponse{}
	for n, b := range snap.History {
		e, bad := decode(b)
		if bad != nil {
			return nil, fmt.Errorf("event %d of %s: %w", n, in.InstanceId, bad)
		}
		out.Events = append(out.Events, e)
	}
	return out, fault(in.InstanceId, err)
}
