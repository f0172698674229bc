package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dapr/durabletask-go/workflow"
)

// Chain greets three cities, one after the other.
func Chain(ctx *workflow.WorkflowContext) (any, error) {
	var all []string
	for _, city := range []string{"Tokyo", "London", "Seattle"} {
		var one string
		if err := ctx.CallActivity(Hello, workflow.WithActivityInput(city)).Await(&one); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// Steps is a row of activities as long as its input says.
func Steps(ctx *workflow.WorkflowContext) (any, error) {
	var n int
	if err := ctx.GetInput(&n); err != nil {
		return nil, err
	}
	for i := range n {
		if err := ctx.CallActivity(Square, workflow.WithActivityInput(i)).Await(nil); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// FanOut adds up the squares of as many numbers as its input says.
func FanOut(ctx *workflow.WorkflowContext) (any, error) {
	var n, sum int
	if err := ctx.GetInput(&n); err != nil {
		return nil, err
	}
	tasks := make([]workflow.Task, n)
	for i := range tasks {
		tasks[i] = ctx.CallActivity(Square, workflow.WithActivityInput(i))
	}
	for _, t := range tasks {
		var one int
		if err := t.Await(&one); err != nil {
			return nil, err
		}
		sum += one
	}
	return sum, nil
}

// Approval waits for a person, but not for long.
func Approval(ctx *workflow.WorkflowContext) (any, error) {
	var patience time.Duration
	if err := ctx.GetInput(&patience); err != nil {
		return nil, err
	}
	ctx.SetCustomStatus("waiting for approval")
	var yes bool
	if err := ctx.WaitForExternalEvent("Approval", patience).Await(&yes); err != nil {
		return "nobody answered", nil
	}
	return yes, nil
}

// Family has two children.
func Family(ctx *workflow.WorkflowContext) (any, error) {
	a := ctx.CallChildWorkflow(Child, workflow.WithChildWorkflowInput("a"))
	b := ctx.CallChildWorkflow(Child, workflow.WithChildWorkflowInput("b"), workflow.WithChildWorkflowInstanceID(ctx.ID()+"-b"))
	var one, two string
	if err := a.Await(&one); err != nil {
		return nil, err
	}
	if err := b.Await(&two); err != nil {
		return nil, err
	}
	return one + two, nil
}

// Child greets by an activity; with the input "wait" it waits for ever.
func Child(ctx *workflow.WorkflowContext) (any, error) {
	var name, out string
	if err := ctx.GetInput(&name); err != nil {
		return nil, err
	}
	if name == "wait" {
		return nil, ctx.WaitForExternalEvent("never", -1).Await(nil)
	}
	err := ctx.CallActivity(Hello, workflow.WithActivityInput(name)).Await(&out)
	return out, err
}

// Forever has a child that waits for ever.
func Forever(ctx *workflow.WorkflowContext) (any, error) {
	return nil, ctx.CallChildWorkflow(Child, workflow.WithChildWorkflowInput("wait"), workflow.WithChildWorkflowInstanceID(ctx.ID()+"-child")).Await(nil)
}

// Count goes on as another generation until it is at ten, and keeps events that it did not look at.
func Count(ctx *workflow.WorkflowContext) (any, error) {
	var n int
	if err := ctx.GetInput(&n); err != nil {
		return nil, err
	}
	if n < 10 {
		if err := ctx.CreateTimer(time.Millisecond).Await(nil); err != nil {
			return nil, err
		}
		ctx.ContinueAsNew(n+1, workflow.WithKeepUnprocessedEvents())
		return nil, nil
	}
	var said string
	err := ctx.WaitForExternalEvent("Said", -1).Await(&said)
	return fmt.Sprint(n, said), err
}

// Monitor looks, sleeps, and goes on as another generation until all is well, so that its history stays short. It answers for how long
// it has slept; its input is for how long it had before.
func Monitor(ctx *workflow.WorkflowContext) (any, error) {
	var slept time.Duration
	if err := ctx.GetInput(&slept); err != nil {
		return nil, err
	}
	var status string
	if err := ctx.CallActivity(Look, workflow.WithActivityInput(ctx.ID())).Await(&status); err != nil {
		return nil, err
	}
	ctx.SetCustomStatus(status)
	if status == healthy {
		return slept, nil
	}
	before := ctx.CurrentTimeUTC()
	if err := ctx.CreateTimer(pollEvery).Await(nil); err != nil {
		return nil, err
	}
	ctx.ContinueAsNew(slept + ctx.CurrentTimeUTC().Sub(before))
	return nil, nil
}

// Flaky tries an activity again that fails twice.
func Flaky(ctx *workflow.WorkflowContext) (any, error) {
	var out string
	err := ctx.CallActivity(FailTwice, workflow.WithActivityInput(ctx.ID()), workflow.WithActivityRetryPolicy(&workflow.RetryPolicy{
		MaxAttempts: 5, InitialRetryInterval: 5 * time.Millisecond})).Await(&out)
	return out, err
}

// Nap sleeps for as long as its input says.
func Nap(ctx *workflow.WorkflowContext) (any, error) {
	var d time.Duration
	if err := ctx.GetInput(&d); err != nil {
		return nil, err
	}
	before := ctx.CurrentTimeUTC()
	if err := ctx.CreateTimer(d).Await(nil); err != nil {
		return nil, err
	}
	return ctx.CurrentTimeUTC().Sub(before) >= d, nil
}

// Saga undoes what it did when a later step fails.
func Saga(ctx *workflow.WorkflowContext) (any, error) {
	var done []string
	for _, step := range []string{"flight", "hotel"} {
		if err := ctx.CallActivity(Hello, workflow.WithActivityInput(step)).Await(nil); err != nil {
			return nil, err
		}
		done = append(done, step)
	}
	if err := ctx.CallActivity(Fail).Await(nil); err == nil {
		return nil, errors.New("it did not fail")
	}
	var undone []string
	for i := len(done) - 1; i >= 0; i-- {
		var one string
		if err := ctx.CallActivity(Undo, workflow.WithActivityInput(done[i])).Await(&one); err != nil {
			return nil, err
		}
		undone = append(undone, one)
	}
	return undone, nil
}

// Lost calls an activity that nobody has.
func Lost(ctx *workflow.WorkflowContext) (any, error) {
	return nil, ctx.CallActivity("Nobody").Await(nil)
}

func Hello(ctx workflow.ActivityContext) (any, error) {
	var name string
	err := ctx.GetInput(&name)
	return "Hello " + name + "!", err
}

func Square(ctx workflow.ActivityContext) (any, error) {
	var n int
	err := ctx.GetInput(&n)
	return n * n, err
}

func Undo(ctx workflow.ActivityContext) (any, error) {
	var name string
	err := ctx.GetInput(&name)
	return "no " + name, err
}

func Fail(workflow.ActivityContext) (any, error) { return nil, errors.New("no room") }

// Slow takes its time.
func Slow(ctx workflow.ActivityContext) (any, error) {
	select {
	case <-time.After(time.Second):
		return nil, nil
	case <-ctx.Context().Done():
		return nil, ctx.Context().Err()
	}
}

// What Monitor waits for: the fourth look finds it healthy.
const (
	healthy   = "healthy"
	pollEvery = 50 * time.Millisecond
	looksMax  = 4
)

// Look is how what an instance of Monitor watches does.
func Look(ctx workflow.ActivityContext) (any, error) {
	var id string
	if err := ctx.GetInput(&id); err != nil {
		return nil, err
	}
	seenMu.Lock()
	defer seenMu.Unlock()
	if looks[id]++; looks[id] < looksMax {
		return "pending", nil
	}
	return healthy, nil
}

// What activities saw, by the workflow's id.
var (
	seenMu sync.Mutex // guards the maps below
	tried  = map[string]int{}
	looks  = map[string]int{}
)

// FailTwice counts by its input.
func FailTwice(ctx workflow.ActivityContext) (any, error) {
	var id string
	if err := ctx.GetInput(&id); err != nil {
		return nil, err
	}
	seenMu.Lock()
	defer seenMu.Unlock()
	if tried[id]++; tried[id] <= 2 {
		return nil, fmt.Errorf("attempt %d", tried[id])
	}
	return fmt.Sprintf("attempt %d", tried[id]), nil
}
