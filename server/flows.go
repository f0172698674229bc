package server

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/call"
	"github.com/quipu-run/quipu/gateway"
	"github.com/quipu-run/quipu/gateway/dapr"
	"github.com/quipu-run/quipu/gateway/dapr/taskhub"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/internal/timers"
	"github.com/quipu-run/quipu/step"
	"github.com/quipu-run/quipu/view"
	"github.com/quipu-run/quipu/workflow"
	"google.golang.org/grpc"
)

// flows are what runs for longer than a call: instances, their timers, and who runs them.
type flows struct {
	view   *workflow.View
	store  *workflow.Store
	hub    *taskhub.Hub
	wakers wakers
}

func (ns *namespace) newFlows() {
	ns.flows.wakers.open()
	ns.flows.view = workflow.New(workflow.Options{Timers: ns.later.timers, Clock: ns.node.clock, KindOf: ns.flowKind,
		Languages: map[string]flow.Language{flow.KindStep: step.Language{}, flow.KindDapr: taskhub.Language{}},
		Ended:     ns.executionEnded,
		Live: func(kind string, info *quipu.WorkflowInfo) {
			if kind == flow.KindDapr {
				ns.flows.hub.Live(info)
			}
		}})
}

// flowKind is who runs the instances of an application.
func (ns *namespace) flowKind(app string) string {
	if f, err := ns.find(app); err == nil && f.Spec.Durable {
		return flow.KindStep
	}
	return flow.KindDapr
}

func (ns *namespace) openFlows() {
	f := &ns.flows
	f.store = f.view.Follow(ns.book)
	f.hub = taskhub.New(taskhub.Options{Store: f.store, API: f.store, Namespace: ns.name, Observe: ns.node.observeTurns(ns.name), Wake: ns.wakeWorker,
		Clock: ns.node.clock, Logger: ns.node.cfg.Logger})
	ns.steps = step.New(step.Options{Store: f.store, Clock: ns.node.clock, Find: ns.durableFunction, Call: ns.attempt,
		Invoke:    func(ctx context.Context, r quipu.CallRequest) (*quipu.CallReply, error) { return ns.Invoke(ctx, r) },
		Functions: ns.Functions, Observe: ns.observeExecution, Logger: ns.node.cfg.Logger})
}

// WorkflowStore implements gateway.Namespace.
func (ns *namespace) WorkflowStore() quipu.Workflows { return ns.flows.store }

func (ns *namespace) startFlows() {
	ns.steps.Start()
	ns.flows.hub.Start()
	for _, f := range ns.Functions() {
		if f.Spec.Durable {
			ns.wakeFlows(f) // unless the node ended before it was done
		}
	}
}

func (ns *namespace) stopFlows() {
	ns.flows.wakers.stop() // who waits for a worker
	ns.steps.Stop()
	ns.flows.hub.Stop()
}

// closeFlows is called when no instance of a function is left.
func (ns *namespace) closeFlows() {
	ns.stopFlows()
	ns.steps.Wait()
	ns.flows.hub.Close()
	ns.flows.wakers.close()
}

// taskHub adds the durable task protocol to a door; find answers the namespace of a request; worker is who opens
// streams of work items there.
func taskHub(find func(*http.Request) (*namespace, error), app func(*http.Request) string, worker taskhub.Worker) func(grpc.ServiceRegistrar) {
	return func(s grpc.ServiceRegistrar) {
		taskhub.Register(s, func(ctx context.Context) (*taskhub.Hub, string, error) {
			r := dapr.RequestOf(ctx)
			ns, err := find(r)
			if err != nil {
				return nil, "", err
			}
			return ns.flows.hub, app(r), nil
		}, func(context.Context) taskhub.Worker { return worker })
	}
}

// services are what an instance finds at its own gRPC door besides Dapr's.
func (ns *namespace) services(f quipu.Function, instance string) func(grpc.ServiceRegistrar) {
	hub := taskHub(func(*http.Request) (*namespace, error) { return ns, nil }, func(*http.Request) string { return f.Name }, ns.worker(f, instance))
	return func(s grpc.ServiceRegistrar) {
		hub(s)
		if f.Spec.Durable {
			ns.steps.Register(s, f.Name)
		}
	}
}

// fireFlow does what a timer of an instance is for.
func (ns *namespace) fireFlow(ctx context.Context, t timers.Timer) {
	_, err := ns.book.Change(ctx, func(tx *view.Tx) error { return ns.flows.view.Fire(tx, t) })
	if err != nil && ctx.Err() == nil {
		ns.node.cfg.Logger.Error("a timer cannot be recorded; it is tried again", "fn", t.Owner, "err", err)
	}
}

func (ns *namespace) durableFunction(function, revision, id string) (quipu.Function, error) {
	return ns.choose(quipu.CallRequest{Function: function, Revision: revision}, id)
}

// execute has an execution of a durable function made.
func (ns *namespace) execute(ctx context.Context, x call.Execution) (*quipu.CallReply, error) {
	reply, err := ns.steps.Invoke(ctx, step.Request{Function: x.Function, ID: x.ID, Named: x.Named, Hash: x.Hash, Async: x.Async,
		Call: x.Call, Method: x.Method, Path: x.Path, Query: x.RawQuery, Header: x.Header, Trigger: x.Trigger, Body: x.Bytes})
	if err != nil {
		return nil, err
	}
	return call.Recorded(reply.Revision, reply.Status, reply.Header, reply.Body), nil
}

// executions implements call.Executions.
type executions struct{ flows *workflow.View }

// AwaitEnd implements call.Executions.
func (x executions) AwaitEnd(tx *view.Tx, function, execution string) (*call.ExecutionEnd, error) {
	end, err := x.flows.AwaitEnd(tx, quipu.WorkflowKey{App: function, ID: execution})
	if end == nil || err != nil {
		return nil, err
	}
	how := endOf(*end)
	return &how, nil
}

// Terminate implements call.Executions.
func (x executions) Terminate(tx *view.Tx, function, execution string) error {
	err := x.flows.Terminate(tx, quipu.WorkflowKey{App: function, ID: execution}, nil, false)
	switch quipu.CodeOf(err) {
	case quipu.CodeNoWorkflow, quipu.CodeWorkflowEnded:
		return nil
	}
	return err
}

func endOf(e flow.End) call.ExecutionEnd {
	reply, err := step.Ended(e)
	return call.ExecutionEnd{Revision: e.Version, Status: reply.Status, Header: reply.Header, Body: reply.Body, Err: err}
}

// executionEnded ends the calls that nobody waits for with their execution, in its record.
func (ns *namespace) executionEnded(tx *view.Tx, e flow.End) error {
	return ns.ExecutionEnded(tx, e.App, e.ID, endOf(e))
}

// attempt makes one run of one.
func (ns *namespace) attempt(ctx context.Context, a step.Attempt) (step.Reply, error) {
	status, header, body, err := ns.Attempt(ctx, a.Function, call.Attempt{Call: a.Call, Bytes: a.Body, CallRequest: quipu.CallRequest{
		Function: a.Function.Name, Revision: a.Function.Revision, Method: a.Method, Path: a.Path, RawQuery: a.Query, Header: a.Header,
		Trigger: a.Trigger, Attempt: a.Number}})
	return step.Reply{Revision: a.Function.Revision, Status: status, Header: header, Body: body}, err
}

// journals puts the journals of a durable function's runs beside its Dapr API.
func (ns *namespace) journals(f quipu.Function, token string, required bool, plain http.Handler) http.Handler {
	if !f.Spec.Durable {
		return plain
	}
	door := ns.steps.Door(f.Name)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, step.JournalPath) {
			plain.ServeHTTP(w, r)
			return
		}
		given := r.Header.Get("Dapr-Api-Token")
		if given == "" && !required {
			if err := gateway.CheckLocal(r); err != nil {
				http.Error(w, quipu.AsError(err).Text, http.StatusForbidden)
				return
			}
		} else if !gateway.TokenEqual(given, token) {
			http.Error(w, errToken.Error(), http.StatusUnauthorized)
			return
		}
		door.ServeHTTP(w, r)
	})
}

var errToken = errors.New("invalid api token")
