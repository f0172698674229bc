package gateway

import (
	"slices"
	"strconv"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// workflowRoutes are the operations on workflows.
func workflowRoutes() []adminRoute {
	none := []quipu.Code{quipu.CodeNoWorkflow}
	told := []quipu.Code{quipu.CodeNoWorkflow, quipu.CodeWorkflowEnded, quipu.CodeTooMany, quipu.CodeWorkflowSize}
	one := "/workflows/{app}/{id}"
	return []adminRoute{
		{id: "listWorkflows", method: "GET", path: "/workflows", summary: "Instances of workflows, by application and id. next, if set, is afterApp and after of the following page.",
			query: []param{{"app", "string", "only of this application or function"}, {"status", "string", "only in this status"}, {"name", "string", "only of this workflow"},
				{"afterApp", "string", "only those after one of this application"}, {"after", "string", "and of this id"}, limitParam},
			status: 200, reply: jsonType, shape: quipu.WorkflowPage{}, serve: listWorkflows},
		{id: "startWorkflow", method: "POST", path: "/workflows", summary: "Start an instance. Without an id it gets one.",
			body: jsonType, takes: sdk.WorkflowStart{}, bodyMax: workflowBodyMax, status: 200, reply: jsonType, shape: sdk.WorkflowID{},
			codes: []quipu.Code{quipu.CodeWorkflowExists, quipu.CodeWorkflowID, quipu.CodeWorkflowSize}, serve: startWorkflow},
		{id: "purgeWorkflows", method: "POST", path: "/workflows/purge", summary: "Forget instances that have ended.",
			body: jsonType, takes: sdk.WorkflowPurge{}, status: 200, reply: jsonType, shape: sdk.WorkflowsPurged{}, serve: purgeWorkflows},
		{id: "getWorkflow", method: "GET", path: one, summary: "One instance, with what it waits for.",
			query:  []param{{"wait", "boolean", "answer when it has ended"}},
			status: 200, reply: jsonType, shape: quipu.WorkflowInfo{}, codes: none, serve: getWorkflow},
		{id: "getWorkflowHistory", method: "GET", path: one + "/history", summary: "What happened in the current generation of an instance.",
			status: 200, reply: jsonType, shape: sdk.Page[quipu.WorkflowEvent]{}, codes: none, serve: getWorkflowHistory},
		{id: "raiseWorkflow", method: "POST", path: one + "/raise", summary: "Give an instance an event, which it may wait for now or later.",
			body: jsonType, takes: sdk.WorkflowRaise{}, bodyMax: workflowBodyMax, status: 204, codes: told, serve: raiseWorkflow},
		{id: "suspendWorkflow", method: "POST", path: one + "/suspend", summary: "Have an instance do nothing until it is resumed.",
			body: jsonType, takes: sdk.WorkflowReason{}, status: 204, codes: told, serve: suspendWorkflow},
		{id: "resumeWorkflow", method: "POST", path: one + "/resume", summary: "Have a suspended instance go on.",
			body: jsonType, takes: sdk.WorkflowReason{}, status: 204, codes: told, serve: resumeWorkflow},
		{id: "terminateWorkflow", method: "POST", path: one + "/terminate", summary: "End an instance, and its children unless alone is set.",
			body: jsonType, takes: sdk.WorkflowEnd{}, bodyMax: workflowBodyMax, status: 204, codes: told, serve: terminateWorkflow},
		{id: "rerunWorkflow", method: "POST", path: one + "/rerun", summary: "Make another instance that does again what this one did from an event on.",
			body: jsonType, takes: sdk.WorkflowRerun{}, bodyMax: workflowBodyMax, status: 200, reply: jsonType, shape: sdk.WorkflowID{},
			codes: slices.Concat(none, []quipu.Code{quipu.CodeUsage, quipu.CodeWorkflowExists, quipu.CodeWorkflowID}), serve: rerunWorkflow},
		{id: "purgeWorkflow", method: "POST", path: one + "/purge", summary: "Forget an instance that has ended, and its children if recursive is set; with force also one that has not.",
			body: jsonType, takes: sdk.WorkflowPurge{}, status: 200, reply: jsonType, shape: sdk.WorkflowsPurged{},
			codes: slices.Concat(none, []quipu.Code{quipu.CodeWorkflowRunning}), serve: purgeWorkflow},
	}
}

// workflowBodyMax has room for a payload in which each byte is escaped.
const workflowBodyMax = 8 << 20

func (a *ask) workflow() quipu.WorkflowKey {
	return quipu.WorkflowKey{App: a.values["app"], ID: a.values["id"]}
}

func listWorkflows(a *ask) error {
	l := quipu.WorkflowList{App: a.query.Get("app"), Status: quipu.WorkflowStatus(a.query.Get("status")), Name: a.query.Get("name"),
		After: quipu.WorkflowKey{App: a.query.Get("afterApp"), ID: a.query.Get("after")}}
	if text := a.query.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > listLimitMax {
			return &quipu.Error{Code: quipu.CodeUsage, Text: "limit must be 1 to 1000"}
		}
		l.Limit = n
	}
	page, err := a.ns.WorkflowStore().Workflows(a.Context(), l)
	if err != nil {
		return err
	}
	return a.reply(page)
}

func startWorkflow(a *ask) error {
	var in sdk.WorkflowStart
	if err := a.object(&in); err != nil {
		return err
	}
	start := quipu.WorkflowStart{WorkflowKey: quipu.WorkflowKey{App: in.App, ID: in.ID}, Name: in.Name, Version: in.Version, At: in.At}
	if in.Input != "" {
		start.Input = []byte(in.Input)
	}
	id, err := a.ns.WorkflowStore().StartWorkflow(a.Context(), start)
	if err != nil {
		return err
	}
	return a.reply(sdk.WorkflowID{App: in.App, ID: id})
}

func getWorkflow(a *ask) error {
	get := a.ns.WorkflowStore().Workflow
	if wait, _ := strconv.ParseBool(a.query.Get("wait")); wait {
		get = a.ns.WorkflowStore().AwaitWorkflow
	}
	info, err := get(a.Context(), a.workflow())
	if err != nil {
		return err
	}
	return a.reply(info)
}

func getWorkflowHistory(a *ask) error {
	events, err := a.ns.WorkflowStore().WorkflowHistory(a.Context(), a.workflow())
	if err != nil {
		return err
	}
	return a.reply(sdk.Page[quipu.WorkflowEvent]{Items: slices.Concat([]quipu.WorkflowEvent{}, events)})
}

func raiseWorkflow(a *ask) error {
	var in sdk.WorkflowRaise
	if err := a.object(&in); err != nil {
		return err
	}
	var data []byte
	if in.Data != "" {
		data = []byte(in.Data)
	}
	return a.done(a.ns.WorkflowStore().RaiseWorkflow(a.Context(), a.workflow(), in.Event, data))
}

func suspendWorkflow(a *ask) error {
	var in sdk.WorkflowReason
	if err := a.object(&in); err != nil {
		return err
	}
	return a.done(a.ns.WorkflowStore().SuspendWorkflow(a.Context(), a.workflow(), in.Reason))
}

func resumeWorkflow(a *ask) error {
	var in sdk.WorkflowReason
	if err := a.object(&in); err != nil {
		return err
	}
	return a.done(a.ns.WorkflowStore().ResumeWorkflow(a.Context(), a.workflow(), in.Reason))
}

func terminateWorkflow(a *ask) error {
	var in sdk.WorkflowEnd
	if err := a.object(&in); err != nil {
		return err
	}
	var output []byte
	if in.Output != "" {
		output = []byte(in.Output)
	}
	return a.done(a.ns.WorkflowStore().TerminateWorkflow(a.Context(), a.workflow(), output, !in.Alone))
}

func rerunWorkflow(a *ask) error {
	var in sdk.WorkflowRerun
	if err := a.object(&in); err != nil {
		return err
	}
	var input []byte
	if in.Input != nil {
		input = []byte(*in.Input)
	}
	id, err := a.ns.WorkflowStore().RerunWorkflow(a.Context(), a.workflow(), in.Event, in.To, input)
	if err != nil {
		return err
	}
	return a.reply(sdk.WorkflowID{App: a.values["app"], ID: id})
}

func purgeWorkflow(a *ask) error { return purge(a, a.workflow()) }

func purgeWorkflows(a *ask) error { return purge(a, quipu.WorkflowKey{}) }

func purge(a *ask, k quipu.WorkflowKey) error {
	var in sdk.WorkflowPurge
	if err := a.object(&in); err != nil {
		return err
	}
	if k.ID == "" {
		k.App = in.App
	}
	p := quipu.WorkflowPurge{WorkflowKey: k, Name: in.Name, Recursive: in.Recursive, Force: in.Force}
	if in.Before != "" {
		at, err := time.Parse(time.RFC3339, in.Before)
		if err != nil {
			return &quipu.Error{Code: quipu.CodeUsage, Text: "before must be a time like 2026-01-02T15:04:05Z"}
		}
		p.Before = at
	}
	n, err := a.ns.WorkflowStore().PurgeWorkflows(a.Context(), p)
	if err != nil {
		return err
	}
	return a.reply(sdk.WorkflowsPurged{Purged: n})
}
