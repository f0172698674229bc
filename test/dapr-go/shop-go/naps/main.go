// Program naps is a worker of workflows, with Dapr's SDK, in a function that is soon idle: nobody calls it.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dapr/durabletask-go/workflow"
	"github.com/dapr/go-sdk/client"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	r := workflow.NewRegistry()
	for _, w := range []workflow.Workflow{Nap, Drudge} {
		if err := r.AddWorkflow(w); err != nil {
			return err
		}
	}
	for _, a := range []workflow.Activity{Who, Work} {
		if err := r.AddActivity(a); err != nil {
			return err
		}
	}
	c, err := client.NewWorkflowClient()
	if err != nil {
		return err
	}
	if err := c.StartWorker(ctx, r); err != nil {
		return err
	}
	server := http.Server{Addr: "127.0.0.1:" + os.Getenv("PORT"), Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// Nap asks who is there, sleeps, and asks again.
func Nap(ctx *workflow.WorkflowContext) (any, error) {
	var d time.Duration
	if err := ctx.GetInput(&d); err != nil {
		return nil, err
	}
	var before, after string
	if err := ctx.CallActivity(Who).Await(&before); err != nil {
		return nil, err
	}
	if err := ctx.CreateTimer(d).Await(nil); err != nil {
		return nil, err
	}
	if err := ctx.CallActivity(Who).Await(&after); err != nil {
		return nil, err
	}
	return []string{before, after}, nil
}

// Who is the instance.
func Who(workflow.ActivityContext) (any, error) { return os.Getenv("QUIPU_INSTANCE"), nil }

// Drudge works without a pause, and says who began and how often.
func Drudge(ctx *workflow.WorkflowContext) (any, error) {
	var d time.Duration
	if err := ctx.GetInput(&d); err != nil {
		return nil, err
	}
	var before, who string
	if err := ctx.CallActivity(Who).Await(&before); err != nil {
		return nil, err
	}
	if err := ctx.CallActivity(Work, workflow.WithActivityInput(d)).Await(&who); err != nil {
		return nil, err
	}
	return []string{before, who}, nil
}

var begun atomic.Int64

// Work takes as long as it is told to.
func Work(ctx workflow.ActivityContext) (any, error) {
	var d time.Duration
	if err := ctx.GetInput(&d); err != nil {
		return nil, err
	}
	n := begun.Add(1)
	select {
	case <-time.After(d):
		return fmt.Sprint(os.Getenv("QUIPU_INSTANCE"), " began ", n), nil
	case <-ctx.Context().Done():
		return nil, ctx.Context().Err()
	}
}
