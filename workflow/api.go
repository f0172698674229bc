package workflow

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/view"
)

var (
	_ flow.Store      = (*Store)(nil)
	_ quipu.Workflows = (*Store)(nil)
	_ view.Loader     = (*View)(nil)
)

// language is how the runner of a kind writes.
func (v *View) language(kind string) (flow.Language, error) {
	if l := v.o.Languages[kind]; l != nil {
		return l, nil
	}
	return nil, fmt.Errorf("workflow: nobody runs workflows of kind %q", kind)
}

// StartWorkflow implements quipu.Workflows.
func (s *Store) StartWorkflow(ctx context.Context, w quipu.WorkflowStart) (id string, err error) {
	if w.ID == "" {
		w.ID = uuid.NewString()
	}
	_, err = s.book.Change(ctx, func(tx *view.Tx) error {
		id, err = s.view.Start(tx, w)
		return err
	})
	return id, err
}

// RaiseWorkflow implements quipu.Workflows.
func (s *Store) RaiseWorkflow(ctx context.Context, k quipu.WorkflowKey, event string, data []byte) error {
	_, err := s.book.Change(ctx, func(tx *view.Tx) error { return s.view.Raise(tx, k, event, data) })
	return err
}

// SuspendWorkflow implements quipu.Workflows.
func (s *Store) SuspendWorkflow(ctx context.Context, k quipu.WorkflowKey, reason string) error {
	return s.tell(ctx, k, func(l flow.Language, at time.Time) []byte { return l.Suspend(reason, at) })
}

// ResumeWorkflow implements quipu.Workflows.
func (s *Store) ResumeWorkflow(ctx context.Context, k quipu.WorkflowKey, reason string) error {
	return s.tell(ctx, k, func(l flow.Language, at time.Time) []byte { return l.Resume(reason, at) })
}

// TerminateWorkflow implements quipu.Workflows.
func (s *Store) TerminateWorkflow(ctx context.Context, k quipu.WorkflowKey, output []byte, recursive bool) error {
	_, err := s.book.Change(ctx, func(tx *view.Tx) error { return s.view.Terminate(tx, k, output, recursive) })
	return err
}

func (s *Store) tell(ctx context.Context, k quipu.WorkflowKey, write func(flow.Language, time.Time) []byte) error {
	_, err := s.book.Change(ctx, func(tx *view.Tx) error { return s.view.tell(tx, k, write) })
	return err
}

// Workflow implements quipu.Workflows.
func (s *Store) Workflow(ctx context.Context, k quipu.WorkflowKey) (quipu.WorkflowInfo, error) {
	snap, err := s.Load(ctx, k)
	if err != nil {
		return quipu.WorkflowInfo{}, err
	}
	i := info(snap.Instance)
	i.Input, i.Output, i.Failure = snap.Input, snap.Output, snap.Failure
	if snap.Status.Ended() {
		return i, nil
	}
	l, err := s.view.language(snap.Kind)
	if err != nil {
		return i, err
	}
	if snap.Start.After(s.view.o.Clock.Now()) && snap.Status == quipu.WorkflowPending {
		i.Waits = []quipu.WorkflowWait{{What: "timer", Name: "start", Since: snap.Created, Until: snap.Start}}
		return i, nil
	}
	if i.Waits, err = l.Waits(snap); err == nil && s.view.o.Live != nil {
		s.view.o.Live(snap.Kind, &i)
	}
	return i, err
}

// Workflows implements quipu.Workflows.
func (s *Store) Workflows(ctx context.Context, l quipu.WorkflowList) (quipu.WorkflowPage, error) {
	tx := s.book.LookUntil(ctx)
	page, err := s.view.List(tx, l)
	return page, errors.Join(err, tx.Close())
}

// WorkflowHistory implements quipu.Workflows.
func (s *Store) WorkflowHistory(ctx context.Context, k quipu.WorkflowKey) ([]quipu.WorkflowEvent, error) {
	snap, err := s.Load(ctx, k)
	if err != nil {
		return nil, err
	}
	l, err := s.view.language(snap.Kind)
	if err != nil {
		return nil, err
	}
	return l.Tell(snap.History)
}

// RerunWorkflow implements quipu.Workflows.
func (s *Store) RerunWorkflow(ctx context.Context, k quipu.WorkflowKey, event int, to string, input []byte) (string, error) {
	snap, err := s.Load(ctx, k)
	if err != nil {
		return "", err
	}
	l, err := s.view.language(snap.Kind)
	if err != nil {
		return "", err
	}
	if to == "" {
		to = uuid.NewString()
	}
	target := quipu.WorkflowKey{App: k.App, ID: to}
	changes, err := l.Again(snap, event, target, input)
	if err != nil {
		return "", err
	}
	return to, s.Commit(ctx, changes)
}

// AwaitWorkflow implements quipu.Workflows.
func (s *Store) AwaitWorkflow(ctx context.Context, k quipu.WorkflowKey) (quipu.WorkflowInfo, error) {
	if _, err := s.Await(ctx, k, func(i flow.Instance) bool { return i.Status.Ended() }); err != nil {
		return quipu.WorkflowInfo{}, err
	}
	return s.Workflow(ctx, k)
}
