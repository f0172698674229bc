package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// jobsInto fails each job once, and notes the data of those that come again.
func (b *blocks) jobsInto(s common.Service) error {
	b.jobs, b.failed = make(chan *common.JobEvent, 100), map[string]bool{}
	handle := func(_ context.Context, job *common.JobEvent) error {
		if !b.failed[job.JobType] { // one job comes at a time
			b.failed[job.JobType] = true
			return errors.New("not yet")
		}
		b.jobs <- job
		return nil
	}
	return errors.Join(s.AddJobEventHandler("plain", handle), s.AddJobEventHandler("typed", handle))
}

// schedule has one job come with plain JSON, and one with a message.
func (b *blocks) schedule(ctx context.Context) error {
	text, err := json.Marshal(map[string]int{"n": 1})
	if err != nil {
		return err
	}
	typed, err := anypb.New(wrapperspb.String("x"))
	if err != nil {
		return err
	}
	for name, data := range map[string]*anypb.Any{"plain": {Value: text}, "typed": typed} {
		job := client.NewJob(name, client.WithJobDueTime("0s"), client.WithJobData(data))
		job.Overwrite = true
		if err := b.ScheduleJob(ctx, job); err != nil {
			return err
		}
		select {
		case came := <-b.jobs:
			if came.JobType != name || string(came.Data) != string(data.GetValue()) {
				return fmt.Errorf("job %s came as %s with %q", name, came.JobType, came.Data)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return b.manage(ctx)
}

// manage asks for jobs, lists and deletes them.
func (b *blocks) manage(ctx context.Context) error {
	for _, name := range []string{"later 1", "later 2", "other"} {
		job := client.NewJob(name, client.WithJobSchedule("@every 1h"), client.WithJobRepeats(3), client.WithJobConstantFailurePolicyMaxRetries(7))
		job.Overwrite = true
		if err := b.ScheduleJob(ctx, job); err != nil {
			return err
		}
		job.Overwrite = false
		if err := b.ScheduleJob(ctx, job); err == nil {
			return fmt.Errorf("job %s was overwritten", name)
		}
	}
	got, err := b.GetJob(ctx, "later 1")
	if err != nil || *got.Schedule != "@every 1h" || *got.Repeats != 3 || *got.FailurePolicy.(*client.JobFailurePolicyConstant).MaxRetries != 7 {
		return fmt.Errorf("job %+v: %w", got, err)
	}
	if err := b.DeleteJob(ctx, "other"); err != nil {
		return err
	}
	list, err := b.GrpcClient().ListJobs(ctx, &rtv1.ListJobsRequest{})
	if err != nil || len(list.GetJobs()) != 2 {
		return fmt.Errorf("%d jobs: %w", len(list.GetJobs()), err)
	}
	prefix := "later"
	if _, err := b.GrpcClient().DeleteJobsByPrefix(ctx, &rtv1.DeleteJobsByPrefixRequest{NamePrefix: &prefix}); err != nil {
		return err
	}
	if _, err := b.GetJob(ctx, "later 2"); err == nil {
		return errors.New("a deleted job is there")
	}
	return nil
}
