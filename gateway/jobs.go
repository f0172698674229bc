package gateway

import (
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

func jobRoutes() []adminRoute {
	missing := []quipu.Code{quipu.CodeNoAlarm}
	return []adminRoute{
		{id: "listJobs", method: "GET", path: "/jobs", summary: "Jobs that are to be delivered, by application and name. cause is why one that is due has not come.",
			query:  []param{{"app", "string", "only of this application"}, {"prefix", "string", "only names that start so; with app"}, {"after", "string", "the next of the page before"}, limitParam},
			status: 200, reply: jsonType, shape: sdk.Page[quipu.Alarm]{}, serve: listJobs},
		{id: "getJob", method: "GET", path: "/apps/{app}/jobs/{job}", summary: "One job.",
			status: 200, reply: jsonType, shape: quipu.Alarm{}, codes: missing, serve: getJob},
		{id: "removeJob", method: "DELETE", path: "/apps/{app}/jobs/{job}", summary: "Remove a job. If it is being delivered, that goes on.",
			status: 204, codes: missing, serve: removeJob},
	}
}

func listJobs(a *ask) error {
	limit, err := a.integer("limit", quipu.AlarmsList, quipu.AlarmsList)
	if err != nil {
		return err
	}
	k := quipu.AlarmKey{Kind: quipu.AlarmJob, App: a.query.Get("app"), Name: a.query.Get("prefix")}
	list, next, err := a.ns.Jobs().ListAlarms(a.Context(), k, a.query.Get("after"), limit)
	if err != nil {
		return err
	}
	p := page(list)
	p.Next = next
	return a.reply(p)
}

func (a *ask) job() quipu.AlarmKey {
	return quipu.AlarmKey{Kind: quipu.AlarmJob, App: a.values["app"], Name: a.values["job"]}
}

func getJob(a *ask) error {
	job, err := a.ns.Jobs().Alarm(a.Context(), a.job())
	if err != nil {
		return err
	}
	return a.reply(job)
}

func removeJob(a *ask) error { return a.done(a.ns.Jobs().CancelAlarm(a.Context(), a.job())) }
