package dapr

import (
	"context"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Each method of workflows has two names.

func (s *runtime) StartWorkflowBeta1(ctx context.Context, in *rtv1.StartWorkflowRequest) (*rtv1.StartWorkflowResponse, error) {
	return s.d.startWorkflow(ctx, in)
}

func (s *runtime) StartWorkflowAlpha1(ctx context.Context, in *rtv1.StartWorkflowRequest) (*rtv1.StartWorkflowResponse, error) {
	return s.d.startWorkflow(ctx, in)
}

func (s *runtime) GetWorkflowBeta1(ctx context.Context, in *rtv1.GetWorkflowRequest) (*rtv1.GetWorkflowResponse, error) {
	return s.d.getWorkflow(ctx, in)
}

func (s *runtime) GetWorkflowAlpha1(ctx context.Context, in *rtv1.GetWorkflowRequest) (*rtv1.GetWorkflowResponse, error) {
	return s.d.getWorkflow(ctx, in)
}

func (s *runtime) RaiseEventWorkflowBeta1(ctx context.Context, in *rtv1.RaiseEventWorkflowRequest) (*emptypb.Empty, error) {
	return s.d.raiseWorkflow(ctx, in)
}

func (s *runtime) RaiseEventWorkflowAlpha1(ctx context.Context, in *rtv1.RaiseEventWorkflowRequest) (*emptypb.Empty, error) {
	return s.d.raiseWorkflow(ctx, in)
}

func (s *runtime) PauseWorkflowBeta1(ctx context.Context, in *rtv1.PauseWorkflowRequest) (*emptypb.Empty, error) {
	return s.d.toWorkflow(ctx, "pause", in)
}

func (s *runtime) PauseWorkflowAlpha1(ctx context.Context, in *rtv1.PauseWorkflowRequest) (*emptypb.Empty, error) {
	return s.d.toWorkflow(ctx, "pause", in)
}

func (s *runtime) ResumeWorkflowBeta1(ctx context.Context, in *rtv1.ResumeWorkflowRequest) (*emptypb.Empty, error) {
	return s.d.toWorkflow(ctx, "resume", in)
}

func (s *runtime) ResumeWorkflowAlpha1(ctx context.Context, in *rtv1.ResumeWorkflowRequest) (*emptypb.Empty, error) {
	return s.d.toWorkflow(ctx, "resume", in)
}

func (s *runtime) TerminateWorkflowBeta1(ctx context.Context, in *rtv1.TerminateWorkflowRequest) (*emptypb.Empty, error) {
	return s.d.toWorkflow(ctx, "terminate", in)
}

func (s *runtime) TerminateWorkflowAlpha1(ctx context.Context, in *rtv1.TerminateWorkflowRequest) (*emptypb.Empty, error) {
	return s.d.toWorkflow(ctx, "terminate", in)
}

func (s *runtime) PurgeWorkflowBeta1(ctx context.Context, in *rtv1.PurgeWorkflowRequest) (*emptypb.Empty, error) {
	return s.d.toWorkflow(ctx, "purge", in)
}

func (s *runtime) PurgeWorkflowAlpha1(ctx context.Context, in *rtv1.PurgeWorkflowRequest) (*emptypb.Empty, error) {
	return s.d.toWorkflow(ctx, "purge", in)
}
