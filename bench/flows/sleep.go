package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/dapr/durabletask-go/task"
	"github.com/dapr/durabletask-go/workflow"

	"github.com/quipu-run/quipu/bench/load"
)

const (
	wakeEvent = "wake"
	woken     = "woken" // what those end with that the event came to
	slept     = "slept" // and those whose time came
)

// sleepOf waits for an event, and sets a durable timer that says how long.
func sleepOf(ctx *workflow.WorkflowContext) (any, error) {
	var most time.Duration
	if err := ctx.GetInput(&most); err != nil {
		return nil, err
	}
	var said string
	err := ctx.WaitForExternalEvent(wakeEvent, most).Await(&said)
	if errors.Is(err, task.ErrTaskCanceled) {
		return slept, nil
	}
	return said, err
}

// sleepers are workflows with numbers in their ids.
type sleepers struct {
	flags                           *flag.FlagSet
	address, peer, variant, durable *string
	from, n, conc                   *int
	client                          *workflow.Client
}

func newSleepers(what string) *sleepers {
	flags := flag.NewFlagSet(what, flag.ExitOnError)
	return &sleepers{flags: flags, address: flags.String("grpc", "127.0.0.1:50001", "the Dapr gRPC port"),
		peer: flags.String("peer", "quipu", "name of the figure"), variant: flags.String("variant", what, "of the figure"),
		durable: flags.String("durable", "on disk", "what an answer means"),
		from:    flags.Int("from", 0, "number of the first"), n: flags.Int("n", 100, "how many"), conc: flags.Int("conc", 64, "at once")}
}

// sleep starts workflows that sleep, and measures from the start of each until its timer is on disk.
func sleep(args []string) error {
	s := newSleepers("sleep")
	most := s.flags.Duration("for", 365*24*time.Hour, "their timers")
	return s.each(args, func(ctx context.Context, id string) error {
		if _, err := s.client.ScheduleWorkflow(ctx, "Sleep", workflow.WithInstanceID(id), workflow.WithInput(*most)); err != nil {
			return err
		}
		_, err := s.client.WaitForWorkflowStart(ctx, id)
		return err
	})
}

// wake measures from an event to a workflow that sleeps until its end, or waits for those whose time comes.
func wake(args []string) error {
	s := newSleepers("wake")
	byTime := s.flags.Bool("by-time", false, "they wake by themselves")
	return s.each(args, func(ctx context.Context, id string) error {
		want := slept
		if !*byTime {
			want = woken
			if err := s.client.RaiseEvent(ctx, id, wakeEvent, workflow.WithEventPayload(woken)); err != nil {
				return err
			}
		}
		meta, err := s.client.WaitForWorkflowCompletion(ctx, id, workflow.WithFetchPayloads(true))
		if err == nil && meta.Output.GetValue() != fmt.Sprintf("%q", want) {
			err = fmt.Errorf("sleeper %s ended %s with %s", id, meta.RuntimeStatus, meta.Output.GetValue())
		}
		return err
	})
}

// each does something with each of them and prints how long one took, and all.
func (s *sleepers) each(args []string, do func(ctx context.Context, id string) error) error {
	if err := s.flags.Parse(args); err != nil {
		return err
	}
	client, stop, err := worker(*s.address, "sleepers")
	if err != nil {
		return err
	}
	defer stop()
	s.client = client
	f := load.Each(load.Figure{Peer: *s.peer, Bench: "sleepers", Variant: *s.variant, Durable: *s.durable}, *s.conc, *s.n, func(ctx context.Context, i int) error {
		return do(ctx, fmt.Sprintf("sleeper-%07d", *s.from+i))
	})
	return json.NewEncoder(os.Stdout).Encode(f)
}
