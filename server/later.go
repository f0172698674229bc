package server

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/alarm"
	"github.com/quipu-run/quipu/call"
	contractdapr "github.com/quipu-run/quipu/contract/dapr"
	"github.com/quipu-run/quipu/internal/daprjob"
	"github.com/quipu-run/quipu/internal/delivery"
	ownership "github.com/quipu-run/quipu/lease"
	"github.com/quipu-run/quipu/timer"
	"github.com/quipu-run/quipu/workflow"
)

// later is what a namespace does at a later time, and who owns what.
type later struct {
	timers *timer.View
	alarms *alarm.View
	leases *ownership.View
	runner *timer.Runner
}

func newLater() later {
	timers := timer.New()
	return later{timers: timers, alarms: alarm.New(timers), leases: ownership.New()}
}

// openLater makes what handles timers; it is to be started.
func (ns *namespace) openLater() {
	n := ns.node
	courier := alarm.NewCourier(alarm.CourierOptions{View: ns.later.alarms, Book: ns.book, Clock: n.clock, Logger: n.cfg.Logger,
		Deliver: map[quipu.AlarmKind]alarm.Deliver{quipu.AlarmJob: ns.deliverJob, quipu.AlarmReminder: ns.deliverReminder}, Observe: n.observeAlarm(ns.name)})
	ns.later.runner = timer.NewRunner(timer.Options{Book: ns.book, View: ns.later.timers, Clock: n.clock, Logger: n.cfg.Logger,
		Handlers: map[string]timer.Handler{string(quipu.AlarmJob): courier.Handle, string(quipu.AlarmReminder): courier.Handle, workflow.TimerKind: ns.fireFlow}, Observe: n.observeTimer(ns.name)})
}

// Jobs are the jobs of the namespace's applications, and whatever else there is of alarms.
func (ns *namespace) Jobs() quipu.Alarms {
	return alarm.Outside{View: ns.later.alarms, Book: ns.book}
}

func (ns *namespace) sweepLeases(ctx context.Context) (int, error) {
	return ns.later.leases.Sweep(ctx, ns.book)
}

// hasten has jobs that wait for an application tried at once.
func (ns *namespace) hasten(app string) {
	if ns.later.runner != nil {
		ns.later.runner.Hasten(string(quipu.AlarmJob), app)
	}
}

// deliverJob calls the application of a job.
func (ns *namespace) deliverJob(ctx context.Context, a quipu.Alarm, settle alarm.Settle) alarm.Outcome {
	if one := ns.attached.first(a.App); one != nil && !one.found.Load() {
		return alarm.Outcome{Fate: alarm.Missed, Cause: fmt.Sprintf("%s does not listen yet", a.App)}
	}
	out, err := ns.Deliver(ctx, call.Delivery{CallRequest: jobRequest(a), Settle: settle,
		Accept: func(_ quipu.Function, status int, _ []byte) bool {
			return jobDone(status) && status != http.StatusNotFound
		}})
	switch code := quipu.CodeOf(err); {
	case code == quipu.CodeNoAlarm: // it was cancelled or replaced meanwhile
		return alarm.Outcome{Fate: alarm.Delivered}
	case delivery.Missed(err) || code == quipu.CodeUnhealthy:
		return alarm.Outcome{Fate: alarm.Missed, Cause: quipu.AsError(err).Text}
	case err != nil:
		return alarm.Outcome{Fate: alarm.Failed, Cause: quipu.AsError(err).Text}
	case out.Settled:
		return alarm.Outcome{Fate: alarm.Settled}
	case jobDone(out.Status):
		return alarm.Outcome{Fate: alarm.Delivered}
	}
	return alarm.Outcome{Fate: alarm.Failed, Cause: fmt.Sprintf("status %d: %s", out.Status, bytes.TrimSpace(out.Body[:min(len(out.Body), delivery.CauseBytesMax)]))}
}

// jobDone tells whether an application has taken a job. One that does not know it is not asked again, as in Dapr.
func jobDone(status int) bool {
	return status >= 200 && status < 300 || status == http.StatusNotFound
}

// jobRequest is a job as Dapr brings it to an application.
func jobRequest(a quipu.Alarm) quipu.CallRequest {
	h := http.Header{"Content-Type": {"application/json"}}
	if a.DataType != "" {
		h.Set(daprjob.HeaderDataType, a.DataType)
	}
	cause := fmt.Sprintf("%s/%s/%d/%d", contractdapr.TriggerJob, a.Name, a.Created.UnixNano(), a.Fired)
	return quipu.CallRequest{Function: a.App, Method: http.MethodPost, Path: contractdapr.JobPath + url.PathEscape(a.Name), Trigger: contractdapr.TriggerJob,
		Attempt: a.Attempts + 1, Cause: cause, Header: h, ContentLength: int64(len(a.Data)), Body: bytes.NewReader(a.Data)}
}
