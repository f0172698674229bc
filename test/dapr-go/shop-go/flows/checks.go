package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dapr/durabletask-go/api"
	"github.com/dapr/durabletask-go/workflow"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type check struct {
	name  string
	check func(context.Context, *workflow.Client) error
}

var checks = []check{
	gives("chaining", "Chain", nil, `["Hello Tokyo!","Hello London!","Hello Seattle!"]`),
	gives("fan-out", "FanOut", 1000, "332833500"),
	gives("children", "Family", nil, `"Hello a!Hello b!"`),
	gives("retries", "Flaky", nil, `"attempt 3"`),
	gives("a timer", "Nap", 50*time.Millisecond, "true"),
	gives("a saga", "Saga", nil, `["no hotel","no flight"]`),
	gives("nobody approves", "Approval", 20*time.Millisecond, `"nobody answered"`),
	gives("many steps", "Steps", 300, "300"),
	fails("an activity that nobody has", "Lost", "Nobody"),
	fails("a workflow that nobody has", "Unheard", "Unheard"),
	{"monitor", monitor}, {"approval", approval}, {"an event before its start", early}, {"continue as new", count}, {"suspend and resume", suspend},
	{"terminate with a child", terminate}, {"an id that is taken", duplicate}, {"rerun", rerun}, {"purge and list", purge}, {"a start in the future", scheduled},
}

func gives(what, name string, input any, want string) check {
	return check{what, func(ctx context.Context, c *workflow.Client) error {
		got, err := result(ctx, c, name, input)
		if err == nil && got != want {
			err = fmt.Errorf("got %s, want %s", got, want)
		}
		return err
	}}
}

func fails(what, name, with string) check {
	return check{what, func(ctx context.Context, c *workflow.Client) error {
		id, err := c.ScheduleWorkflow(ctx, name)
		if err != nil {
			return err
		}
		m, err := c.WaitForWorkflowCompletion(ctx, id)
		if err == nil && (m.RuntimeStatus != workflow.StatusFailed || !strings.Contains(m.FailureDetails.GetErrorMessage(), with)) {
			err = fmt.Errorf("%s: %s", m.RuntimeStatus, m.FailureDetails)
		}
		return err
	}}
}

// until waits for a workflow to be as wanted.
func until(ctx context.Context, c *workflow.Client, id string, wanted func(*workflow.WorkflowMetadata) bool) error {
	for {
		m, err := c.FetchWorkflowMetadata(ctx, id)
		if err != nil || wanted(m) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func ends(ctx context.Context, c *workflow.Client, id, output string) error {
	m, err := c.WaitForWorkflowCompletion(ctx, id)
	if err == nil && (m.RuntimeStatus != workflow.StatusCompleted || m.Output.GetValue() != output) {
		err = fmt.Errorf("%s: %s, want %s", m.RuntimeStatus, m.Output.GetValue(), output)
	}
	return err
}

func approval(ctx context.Context, c *workflow.Client) error {
	id, err := c.ScheduleWorkflow(ctx, "Approval", workflow.WithInput(time.Minute))
	if err != nil {
		return err
	}
	if err := until(ctx, c, id, func(m *workflow.WorkflowMetadata) bool { return m.CustomStatus.GetValue() == "waiting for approval" }); err != nil {
		return err
	}
	if err := c.RaiseEvent(ctx, id, "approval", workflow.WithEventPayload(true)); err != nil { // names of events have no case
		return err
	}
	return ends(ctx, c, id, "true")
}

func early(ctx context.Context, c *workflow.Client) error {
	id, err := c.ScheduleWorkflow(ctx, "Approval", workflow.WithInput(time.Minute), workflow.WithStartTime(time.Now().Add(300*time.Millisecond)))
	if err != nil {
		return err
	}
	if err := c.RaiseEvent(ctx, id, "Approval", workflow.WithEventPayload(true)); err != nil {
		return err
	}
	return ends(ctx, c, id, "true")
}

func count(ctx context.Context, c *workflow.Client) error {
	id, err := c.ScheduleWorkflow(ctx, "Count", workflow.WithInput(1))
	if err != nil {
		return err
	}
	if err := c.RaiseEvent(ctx, id, "Said", workflow.WithEventPayload("!")); err != nil {
		return err
	}
	return ends(ctx, c, id, `"10!"`)
}

func monitor(ctx context.Context, c *workflow.Client) error {
	id, err := c.ScheduleWorkflow(ctx, "Monitor", workflow.WithInput(time.Duration(0)))
	if err != nil {
		return err
	}
	m, err := c.WaitForWorkflowCompletion(ctx, id)
	if err != nil {
		return err
	}
	var slept time.Duration
	if err := json.Unmarshal([]byte(m.Output.GetValue()), &slept); err != nil {
		return fmt.Errorf("%s: %s: %w", m.RuntimeStatus, m.Output.GetValue(), err)
	}
	seenMu.Lock()
	n := looks[id]
	seenMu.Unlock()
	if n != looksMax || slept < (looksMax-1)*pollEvery || m.CustomStatus.GetValue() != healthy {
		return fmt.Errorf("it is %q after %d looks and %s of sleep", m.CustomStatus.GetValue(), n, slept)
	}
	h, err := c.GetInstanceHistory(ctx, id)
	if err != nil {
		return err
	}
	for _, e := range h.Events {
		if e.GetTimerFired() != nil {
			return errors.New("the history has an earlier generation")
		}
	}
	return nil
}

func suspend(ctx context.Context, c *workflow.Client) error {
	id, err := c.ScheduleWorkflow(ctx, "Approval", workflow.WithInput(time.Minute))
	if err != nil {
		return err
	}
	if err := c.SuspendWorkflow(ctx, id, "lunch"); err != nil {
		return err
	}
	if err := c.RaiseEvent(ctx, id, "Approval", workflow.WithEventPayload(false)); err != nil {
		return err
	}
	if m, err := c.FetchWorkflowMetadata(ctx, id); err != nil || m.RuntimeStatus != workflow.StatusSuspended {
		return fmt.Errorf("%v, %w", m, err)
	}
	if err := c.ResumeWorkflow(ctx, id, "coffee"); err != nil {
		return err
	}
	return ends(ctx, c, id, "false")
}

func terminate(ctx context.Context, c *workflow.Client) error {
	id, err := c.ScheduleWorkflow(ctx, "Forever")
	if err != nil {
		return err
	}
	child := id + "-child"
	if err := until(ctx, c, id, func(*workflow.WorkflowMetadata) bool {
		m, err := c.FetchWorkflowMetadata(ctx, child)
		return err == nil && m.RuntimeStatus == workflow.StatusRunning
	}); err != nil {
		return err
	}
	if err := c.TerminateWorkflow(ctx, id, workflow.WithOutput("enough"), workflow.WithRecursiveTerminate(true)); err != nil {
		return err
	}
	for _, one := range []string{id, child} {
		m, err := c.WaitForWorkflowCompletion(ctx, one)
		if err != nil || m.RuntimeStatus != workflow.StatusTerminated || m.Output.GetValue() != `"enough"` {
			return fmt.Errorf("%s: %v %w", one, m, err)
		}
	}
	if err := c.RaiseEvent(ctx, id, "late"); status.Code(errors.Unwrap(err)) != codes.FailedPrecondition {
		return fmt.Errorf("an event for one that has ended: %w", err)
	}
	return nil
}

func duplicate(ctx context.Context, c *workflow.Client) error {
	id, err := c.ScheduleWorkflow(ctx, "Approval", workflow.WithInput(time.Minute))
	if err != nil {
		return err
	}
	if _, err := c.ScheduleWorkflow(ctx, "Chain", workflow.WithInstanceID(id)); status.Code(errors.Unwrap(err)) != codes.AlreadyExists {
		return fmt.Errorf("a second one of the id: %w", err)
	}
	if err := c.TerminateWorkflow(ctx, id); err != nil {
		return err
	}
	if _, err := c.ScheduleWorkflow(ctx, "Chain", workflow.WithInstanceID(id)); err != nil {
		return err
	}
	return ends(ctx, c, id, `["Hello Tokyo!","Hello London!","Hello Seattle!"]`)
}

func rerun(ctx context.Context, c *workflow.Client) error {
	id, err := c.ScheduleWorkflow(ctx, "Chain")
	if err != nil {
		return err
	}
	if _, err := c.WaitForWorkflowCompletion(ctx, id); err != nil {
		return err
	}
	again, err := c.RerunWorkflowFromEvent(ctx, id, 1, workflow.WithRerunInput("Lima"))
	if err != nil {
		return err
	}
	if err := ends(ctx, c, again, `["Hello Tokyo!","Hello Lima!","Hello Seattle!"]`); err != nil {
		return err
	}
	_, err = c.RerunWorkflowFromEvent(ctx, id, 77)
	if err == nil {
		return errors.New("there is no event 77")
	}
	return nil
}

func purge(ctx context.Context, c *workflow.Client) error {
	id, err := c.ScheduleWorkflow(ctx, "Chain")
	if err != nil {
		return err
	}
	if _, err := c.WaitForWorkflowCompletion(ctx, id); err != nil {
		return err
	}
	h, err := c.GetInstanceHistory(ctx, id)
	if err != nil || len(h.Events) < 10 {
		return fmt.Errorf("history: %v, %w", h, err)
	}
	list, err := c.ListInstanceIDs(ctx)
	if err != nil || len(list.InstanceIds) == 0 {
		return fmt.Errorf("list: %v, %w", list, err)
	}
	if err := c.PurgeWorkflowState(ctx, id); err != nil {
		return err
	}
	if err := c.PurgeWorkflowState(ctx, id); !errors.Is(err, api.ErrInstanceNotFound) {
		return fmt.Errorf("a second purge: %w", err)
	}
	if _, err := c.FetchWorkflowMetadata(ctx, id); !errors.Is(err, api.ErrInstanceNotFound) {
		return fmt.Errorf("after the purge: %w", err)
	}
	return nil
}

func scheduled(ctx context.Context, c *workflow.Client) error {
	at := time.Now().Add(200 * time.Millisecond)
	id, err := c.ScheduleWorkflow(ctx, "Chain", workflow.WithStartTime(at))
	if err != nil {
		return err
	}
	if m, err := c.FetchWorkflowMetadata(ctx, id); err != nil || m.RuntimeStatus != workflow.StatusPending {
		return fmt.Errorf("before its time: %v, %w", m, err)
	}
	if _, err := c.WaitForWorkflowCompletion(ctx, id); err != nil {
		return err
	}
	if time.Now().Before(at) {
		return errors.New("it did not wait")
	}
	return nil
}
