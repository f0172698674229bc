package dapr

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/daprjob"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Reasons of errors about jobs, and how their messages begin.
const (
	jobSchedule      = "DAPR_SCHEDULER_SCHEDULE_JOB"
	jobGet           = "DAPR_SCHEDULER_GET_JOB"
	jobList          = "DAPR_SCHEDULER_LIST_JOBS"
	jobDelete        = "DAPR_SCHEDULER_DELETE_JOB"
	jobEmpty         = "DAPR_SCHEDULER_EMPTY"
	jobNameEmpty     = "DAPR_SCHEDULER_JOB_NAME_EMPTY"
	jobNameTwice     = "DAPR_SCHEDULER_JOB_NAME"
	jobScheduleEmpty = "DAPR_SCHEDULER_SCHEDULE_EMPTY"
)

var jobVerbs = map[string]string{jobSchedule: "failed to schedule job due to: ", jobGet: "failed to get job due to: ",
	jobList: "failed to list jobs due to: ", jobDelete: "failed to delete job due to: "}

// jobMistake is a request that lacks something, as Dapr words it.
func jobMistake(app, reason, message string) error {
	return &problem{status: http.StatusBadRequest, tag: reason, message: message, reason: reason, metadata: map[string]string{"appID": app}}
}

// jobProblem words an error of ours. Dapr tells of what it does not find as of what went wrong inside.
func (d *Door) jobProblem(r *http.Request, app, reason string, err error) error {
	p := d.problem(r, reason, jobVerbs[reason], err)
	if p.reason != reason { // it is worded already
		return p
	}
	p.terse, p.metadata = false, map[string]string{"appID": app}
	switch quipu.CodeOf(err) {
	case quipu.CodeAlarmExists:
		p.code = codes.AlreadyExists
	case quipu.CodeNoAlarm:
		p.status, p.code = http.StatusInternalServerError, codes.Internal
	}
	return p
}

// jobs is whose jobs a request is about, and where they are kept.
func (d *Door) jobs(r *http.Request, reason string) (app string, alarms quipu.Alarms, err error) {
	if app, err = d.appID(r); err != nil {
		return "", nil, d.jobProblem(r, app, reason, err)
	}
	session, err := d.opt.Session(r)
	if err != nil {
		return app, nil, d.jobProblem(r, app, reason, err)
	}
	return app, session, nil
}

func jobKey(app, name string) quipu.AlarmKey {
	return quipu.AlarmKey{Kind: quipu.AlarmJob, App: app, Name: name}
}

// ScheduleJob returns when the job is durable, or in the call's transaction.
func (s *runtime) ScheduleJob(ctx context.Context, in *rtv1.ScheduleJobRequest) (*rtv1.ScheduleJobResponse, error) {
	r, job, out := requestOf(ctx), in.GetJob(), &rtv1.ScheduleJobResponse{}
	app, alarms, err := s.d.jobs(r, jobSchedule)
	switch {
	case err != nil:
		return out, err
	case job == nil:
		return out, jobMistake(app, jobEmpty, "Job is empty")
	case job.GetName() == "":
		return out, jobMistake(app, jobNameEmpty, "Name is empty")
	case job.Schedule == nil && job.DueTime == nil:
		return out, jobMistake(app, jobScheduleEmpty, "Schedule is empty")
	case job.Repeats != nil && job.GetRepeats() == 0:
		return out, jobMistake(app, jobSchedule, jobVerbs[jobSchedule]+"defined repeats must be greater than 0")
	}
	dataType, data, err := daprjob.FromAny(job.GetData())
	if err != nil {
		return out, jobMistake(app, jobSchedule, jobVerbs[jobSchedule]+err.Error())
	}
	a := quipu.Alarm{AlarmKey: jobKey(app, job.GetName()), Schedule: job.GetSchedule(), DueTime: job.GetDueTime(), TTL: job.GetTtl(),
		Repeats: int(job.GetRepeats()), Data: data, DataType: dataType, Retry: retryOf(job.GetFailurePolicy()), Keep: !in.GetOverwrite()}
	if err := alarms.SetAlarm(r.Context(), a); err != nil {
		return out, s.d.jobProblem(r, app, jobSchedule, err)
	}
	return out, nil
}

// retryOf is a failure policy. One that retries without end and without an interval does so each second.
func retryOf(p *commonv1.JobFailurePolicy) (r quipu.AlarmRetry) {
	switch p := p.GetPolicy().(type) {
	case *commonv1.JobFailurePolicy_Drop:
		r.Drop = true
	case *commonv1.JobFailurePolicy_Constant:
		r.Interval = quipu.Duration(p.Constant.GetInterval().AsDuration())
		if p.Constant.MaxRetries != nil {
			most := int(p.Constant.GetMaxRetries())
			r.Max = &most
		} else {
			r.Interval = cmp.Or(r.Interval, quipu.Duration(time.Second))
		}
	}
	return r
}

// policyOf is the reverse of retryOf. What was left out is told as what it means, as Dapr does.
func policyOf(r quipu.AlarmRetry) *commonv1.JobFailurePolicy {
	if r.Drop {
		return &commonv1.JobFailurePolicy{Policy: &commonv1.JobFailurePolicy_Drop{Drop: &commonv1.JobFailurePolicyDrop{}}}
	}
	constant := &commonv1.JobFailurePolicyConstant{Interval: durationpb.New(time.Duration(r.Interval))}
	if r.Max != nil {
		most := uint32(*r.Max)
		constant.MaxRetries = &most
	} else if r.Interval == 0 {
		most := uint32(3)
		constant.Interval, constant.MaxRetries = durationpb.New(time.Second), &most
	}
	return &commonv1.JobFailurePolicy{Policy: &commonv1.JobFailurePolicy_Constant{Constant: constant}}
}

// jobOf is a job as it was scheduled.
func jobOf(a quipu.Alarm) (*rtv1.Job, error) {
	data, err := daprjob.ToAny(a.DataType, a.Data)
	if err != nil {
		return nil, fmt.Errorf("job %q: %w", a.Name, err)
	}
	job := &rtv1.Job{Name: a.Name, Data: data, FailurePolicy: policyOf(a.Retry)}
	job.Schedule, job.DueTime, job.Ttl = given(a.Schedule), given(a.DueTime), given(a.TTL)
	if a.Repeats > 0 {
		n := uint32(a.Repeats)
		job.Repeats = &n
	}
	return job, nil
}

// given is nil for what was left out.
func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// GetJob answers Internal for a job that is not there, as Dapr does.
func (s *runtime) GetJob(ctx context.Context, in *rtv1.GetJobRequest) (*rtv1.GetJobResponse, error) {
	r := requestOf(ctx)
	app, alarms, err := s.d.jobs(r, jobGet)
	if err != nil {
		return nil, err
	}
	if in.GetName() == "" {
		return nil, jobMistake(app, jobNameEmpty, "Name is empty")
	}
	a, err := alarms.Alarm(r.Context(), jobKey(app, in.GetName()))
	if err != nil {
		return nil, s.d.jobProblem(r, app, jobGet, err)
	}
	job, err := jobOf(a)
	if err != nil {
		return nil, s.d.jobProblem(r, app, jobGet, err)
	}
	return &rtv1.GetJobResponse{Job: job}, nil
}

// DeleteJob succeeds for a job that is not there.
func (s *runtime) DeleteJob(ctx context.Context, in *rtv1.DeleteJobRequest) (*rtv1.DeleteJobResponse, error) {
	r, out := requestOf(ctx), &rtv1.DeleteJobResponse{}
	app, alarms, err := s.d.jobs(r, jobDelete)
	if err != nil {
		return out, err
	}
	if in.GetName() == "" {
		return out, jobMistake(app, jobNameEmpty, "Name is empty")
	}
	if err := alarms.CancelAlarm(r.Context(), jobKey(app, in.GetName())); err != nil && quipu.CodeOf(err) != quipu.CodeNoAlarm {
		return out, s.d.jobProblem(r, app, jobDelete, err)
	}
	return out, nil
}

// DeleteJobsByPrefix deletes all jobs of the application whose names start with a prefix; "" all.
func (s *runtime) DeleteJobsByPrefix(ctx context.Context, in *rtv1.DeleteJobsByPrefixRequest) (*rtv1.DeleteJobsByPrefixResponse, error) {
	r := requestOf(ctx)
	app, alarms, err := s.d.jobs(r, jobDelete)
	if err != nil {
		return nil, err
	}
	if _, err := alarms.CancelAlarms(r.Context(), jobKey(app, in.GetNamePrefix())); err != nil {
		return nil, s.d.jobProblem(r, app, jobDelete, err)
	}
	return &rtv1.DeleteJobsByPrefixResponse{}, nil
}

// jobsBytesMax bounds what one answer lists.
const jobsBytesMax = 64 << 20

// ListJobs answers all jobs of the application.
func (s *runtime) ListJobs(ctx context.Context, _ *rtv1.ListJobsRequest) (*rtv1.ListJobsResponse, error) {
	r, out := requestOf(ctx), &rtv1.ListJobsResponse{}
	app, alarms, err := s.d.jobs(r, jobList)
	if err != nil {
		return nil, err
	}
	size := 0
	for after := ""; ; {
		list, next, err := alarms.ListAlarms(r.Context(), jobKey(app, ""), after, 0)
		if err != nil {
			return nil, s.d.jobProblem(r, app, jobList, err)
		}
		for _, a := range list {
			job, err := jobOf(a)
			if err != nil {
				return nil, s.d.jobProblem(r, app, jobList, err)
			}
			if size += len(a.Data) + len(a.Name); size > jobsBytesMax {
				return nil, &problem{status: http.StatusRequestEntityTooLarge, tag: jobList, reason: jobList,
					message: fmt.Sprintf("%sthey have more than %d bytes; quipu jobs ls shows them in pages", jobVerbs[jobList], jobsBytesMax)}
			}
			out.Jobs = append(out.Jobs, job)
		}
		if after = next; after == "" {
			return out, nil
		}
	}
}

// ScheduleJobAlpha1 is the name it had before.
func (s *runtime) ScheduleJobAlpha1(ctx context.Context, in *rtv1.ScheduleJobRequest) (*rtv1.ScheduleJobResponse, error) {
	return s.ScheduleJob(ctx, in)
}

// GetJobAlpha1 is the name it had before.
func (s *runtime) GetJobAlpha1(ctx context.Context, in *rtv1.GetJobRequest) (*rtv1.GetJobResponse, error) {
	return s.GetJob(ctx, in)
}

// DeleteJobAlpha1 is the name it had before.
func (s *runtime) DeleteJobAlpha1(ctx context.Context, in *rtv1.DeleteJobRequest) (*rtv1.DeleteJobResponse, error) {
	return s.DeleteJob(ctx, in)
}

// DeleteJobsByPrefixAlpha1 is the name it had before.
func (s *runtime) DeleteJobsByPrefixAlpha1(ctx context.Context, in *rtv1.DeleteJobsByPrefixRequestAlpha1) (*rtv1.DeleteJobsByPrefixResponseAlpha1, error) {
	if _, err := s.DeleteJobsByPrefix(ctx, &rtv1.DeleteJobsByPrefixRequest{NamePrefix: in.NamePrefix}); err != nil {
		return nil, err
	}
	return &rtv1.DeleteJobsByPrefixResponseAlpha1{}, nil
}

// ListJobsAlpha1 is the name it had before.
func (s *runtime) ListJobsAlpha1(ctx context.Context, _ *rtv1.ListJobsRequestAlpha1) (*rtv1.ListJobsResponseAlpha1, error) {
	list, err := s.ListJobs(ctx, &rtv1.ListJobsRequest{})
	if err != nil {
		return nil, err
	}
	return &rtv1.ListJobsResponseAlpha1{Jobs: list.GetJobs()}, nil
}

// job serves jobs/{name}.
func (d *Door) job(w http.ResponseWriter, r *http.Request, name string) {
	if !allow(w, r, http.MethodPost, http.MethodGet, http.MethodDelete) {
		return
	}
	s, ctx := &runtime{d: d}, context.WithValue(r.Context(), requestKey{}, r)
	var err error
	reason := jobSchedule
	switch r.Method {
	case http.MethodPost:
		var in *rtv1.ScheduleJobRequest
		if in, err = d.readJob(w, r, name); err == nil {
			_, err = s.ScheduleJob(ctx, in)
		}
	case http.MethodDelete:
		reason = jobDelete
		_, err = s.DeleteJob(ctx, &rtv1.DeleteJobRequest{Name: name})
	default:
		d.getJob(ctx, w, r, name)
		return
	}
	if err != nil {
		d.fail(w, r, reason, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// readJob reads a job as JSON. Its data is any JSON value; all else is as in the message of gRPC.
func (d *Door) readJob(w http.ResponseWriter, r *http.Request, name string) (*rtv1.ScheduleJobRequest, error) {
	defer d.bound(w, r)()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, malformed(err)
	}
	fields := map[string]json.RawMessage{}
	if len(body) > 0 {
		if err := json.Unmarshal(body, &fields); err != nil {
			return nil, malformed(err)
		}
	}
	in, job := &rtv1.ScheduleJobRequest{}, &rtv1.Job{}
	data, overwrite := fields["data"], fields["overwrite"]
	delete(fields, "data")
	delete(fields, "overwrite")
	if len(overwrite) > 0 {
		if err := json.Unmarshal(overwrite, &in.Overwrite); err != nil {
			return nil, malformed(err)
		}
	}
	rest, err := json.Marshal(fields)
	if err == nil {
		err = protojson.UnmarshalOptions{DiscardUnknown: true, AllowPartial: true}.Unmarshal(rest, job)
	}
	if err == nil {
		job.Data, err = daprjob.ToAny("", data)
	}
	if err != nil {
		return nil, malformed(err)
	}
	if job.GetName() != "" {
		return nil, &problem{status: http.StatusBadRequest, tag: jobNameTwice, message: "Set the job name in the url only", reason: jobNameTwice}
	}
	job.Name, in.Job = strings.TrimSpace(name), job
	return in, nil
}

// getJob answers a job as JSON. Data of a type that is not known here is told in bytes.
func (d *Door) getJob(ctx context.Context, w http.ResponseWriter, r *http.Request, name string) {
	out, err := (&runtime{d: d}).GetJob(ctx, &rtv1.GetJobRequest{Name: name})
	if err != nil {
		d.fail(w, r, jobGet, err)
		return
	}
	body, err := protojson.Marshal(out.GetJob())
	if data := out.GetJob().GetData(); err != nil && data != nil {
		out.Job.Data = nil
		var plain []byte
		if plain, err = protojson.Marshal(out.GetJob()); err == nil {
			fields := map[string]any{}
			err = json.Unmarshal(plain, &fields)
			fields["data"] = map[string]any{"@type": data.GetTypeUrl(), "value": data.GetValue()}
			body, _ = json.Marshal(fields) // texts, numbers and bytes
		}
	}
	if err != nil {
		d.fail(w, r, jobGet, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // a client that left has nobody to tell
}
