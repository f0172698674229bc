// Flows is workflows as people write them with Dapr's SDK for Go, with their worker, and checks what comes of them. With -load it
// measures instead: workflows of -steps activities in a row, -c of them at a time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"github.com/dapr/durabletask-go/workflow"
	"github.com/dapr/go-sdk/client"
)

var (
	load    = flag.Duration("load", 0, "measure for so long instead of checking")
	clients = flag.Int("c", 1, "workflows at a time")
	steps   = flag.Int("steps", 10, "activities of a workflow")
)

func main() {
	flag.Parse()
	log.SetFlags(0)
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	r := workflow.NewRegistry()
	for _, w := range []workflow.Workflow{Chain, FanOut, Approval, Family, Child, Count, Flaky, Nap, Saga, Lost, Steps, Forever, Monitor} {
		if err := r.AddWorkflow(w); err != nil {
			return err
		}
	}
	for _, a := range []workflow.Activity{Hello, Square, Fail, FailTwice, Undo, Slow, Look} {
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
	if *load > 0 {
		return measure(ctx, c)
	}
	for _, one := range checks {
		if err := one.check(ctx, c); err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
		fmt.Println("checked", one.name)
	}
	fmt.Println("ok")
	return nil
}

// measure prints how many workflows a second there were, and how long one took.
func measure(ctx context.Context, c *workflow.Client) error {
	end := time.Now().Add(*load)
	var mu sync.Mutex
	var n int
	var all time.Duration
	var worst time.Duration
	errs := make(chan error, *clients)
	begin := time.Now()
	for range *clients {
		go func() {
			for time.Now().Before(end) {
				at := time.Now()
				if _, err := result(ctx, c, "Steps", *steps); err != nil {
					errs <- err
					return
				}
				took := time.Since(at)
				mu.Lock()
				n++
				all += took
				worst = max(worst, took)
				mu.Unlock()
			}
			errs <- nil
		}()
	}
	var err error
	for range *clients {
		err = errors.Join(err, <-errs)
	}
	if n > 0 {
		fmt.Fprintf(os.Stdout, "%d steps, %d in flight: %.0f/s, mean %s, worst %s\n", *steps, *clients, float64(n)/time.Since(begin).Seconds(),
			(all / time.Duration(n)).Round(10*time.Microsecond), worst.Round(10*time.Microsecond))
	}
	return err
}

// result starts a workflow and answers its output.
func result(ctx context.Context, c *workflow.Client, name string, input any) (string, error) {
	id, err := c.ScheduleWorkflow(ctx, name, workflow.WithInput(input))
	if err != nil {
		return "", err
	}
	m, err := c.WaitForWorkflowCompletion(ctx, id)
	if err != nil {
		return "", err
	}
	if m.RuntimeStatus != workflow.StatusCompleted {
		return "", fmt.Errorf("%s is %s: %v", name, m.RuntimeStatus, m.FailureDetails)
	}
	return m.Output.GetValue(), nil
}
