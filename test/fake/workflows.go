package fake

import (
	"context"

	"github.com/quipu-run/quipu"
)

// Workflows has one instance, w1 of the application shop, that runs; what is done to it is remembered.
type Workflows struct {
	Said []string
}

func (f *Workflows) has(k quipu.WorkflowKey, said string) error {
	if k != (quipu.WorkflowKey{App: "shop", ID: "w1"}) {
		return &quipu.Error{Code: quipu.CodeNoWorkflow, Text: "there is none"}
	}
	f.Said = append(f.Said, said)
	return nil
}

// StartWorkflow implements quipu.Workflows.
func (f *Workflows) StartWorkflow(_ context.Context, s quipu.WorkflowStart) (string, error) {
	f.Said = append(f.Said, "start "+s.Name)
	return s.ID, nil
}

// RaiseWorkflow implements quipu.Workflows.
func (f *Workflows) RaiseWorkflow(_ context.Context, k quipu.WorkflowKey, event string, data []byte) error {
	return f.has(k, "raise "+event+" "+string(data))
}

// Workflow implements quipu.Workflows.
func (f *Workflows) Workflow(_ context.Context, k quipu.WorkflowKey) (quipu.WorkflowInfo, error) {
	return quipu.WorkflowInfo{WorkflowKey: k, Name: "order", Kind: "dapr", Status: quipu.WorkflowRunning, Created: Epoch, Updated: Epoch,
		Waits: []quipu.WorkflowWait{{What: "activity", Name: "pay", Since: Epoch}}}, f.has(k, "get")
}

// Workflows implements quipu.Workflows.
func (f *Workflows) Workflows(ctx context.Context, _ quipu.WorkflowList) (quipu.WorkflowPage, error) {
	one, err := f.Workflow(ctx, quipu.WorkflowKey{App: "shop", ID: "w1"})
	return quipu.WorkflowPage{Workflows: []quipu.WorkflowInfo{one}}, err
}

// WorkflowHistory implements quipu.Workflows.
func (f *Workflows) WorkflowHistory(_ context.Context, k quipu.WorkflowKey) ([]quipu.WorkflowEvent, error) {
	return []quipu.WorkflowEvent{{Time: Epoch, Type: "started", Name: "order", ID: -1}}, f.has(k, "history")
}

// SuspendWorkflow implements quipu.Workflows.
func (f *Workflows) SuspendWorkflow(_ context.Context, k quipu.WorkflowKey, reason string) error {
	return f.has(k, "suspend "+reason)
}

// ResumeWorkflow implements quipu.Workflows.
func (f *Workflows) ResumeWorkflow(_ context.Context, k quipu.WorkflowKey, reason string) error {
	return f.has(k, "resume "+reason)
}

// TerminateWorkflow implements quipu.Workflows.
func (f *Workflows) TerminateWorkflow(_ context.Context, k quipu.WorkflowKey, output []byte, _ bool) error {
	return f.has(k, "terminate "+string(output))
}

// PurgeWorkflows implements quipu.Workflows.
func (f *Workflows) PurgeWorkflows(_ context.Context, p quipu.WorkflowPurge) (int, error) {
	if p.ID == "" {
		return 0, nil
	}
	return 1, f.has(p.WorkflowKey, "purge")
}

// RerunWorkflow implements quipu.Workflows.
func (f *Workflows) RerunWorkflow(_ context.Context, k quipu.WorkflowKey, _ int, to string, _ []byte) (string, error) {
	return to, f.has(k, "rerun")
}

// AwaitWorkflow implements quipu.Workflows.
func (f *Workflows) AwaitWorkflow(ctx context.Context, k quipu.WorkflowKey) (quipu.WorkflowInfo, error) {
	return f.Workflow(ctx, k)
}

// WorkflowStore is the same for all tests of a namespace.
func (ns *Namespace) WorkflowStore() quipu.Workflows { return &ns.workflows }
