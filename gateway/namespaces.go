package gateway

import (
	"context"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// Travel is what can be done with namespaces as a whole, and with their past.
type Travel interface {
	ListNamespaces() []sdk.Namespace
	// Fork makes the namespace name of another as it was at a record; 0 is now. Durable on return.
	// CodeNotFound, CodeTrimmed, CodeTooMany, CodeUsage.
	Fork(ctx context.Context, from, name string, at quipu.Seq, running bool) (sdk.Namespace, error)
	// Resume lets triggers, schedules and calls that wait run in a fork. CodeNotFound, CodeUsage.
	Resume(ctx context.Context, name string) (sdk.Namespace, error)
	// RemoveNamespace removes one with all that it has. CodeNotFound, CodeUsage.
	RemoveNamespace(ctx context.Context, name string) error
	// Replay makes a call again on what it had read, and compares.
	// CodeNotFound, CodeTrimmed, CodeCallPending, CodeNoRevision, CodeSandbox, CodeUsage.
	Replay(ctx context.Context, namespace, call string, o sdk.ReplayOptions) (quipu.CallReplay, error)
}

func (g *Gateway) namespaceRoutes() []adminRoute {
	return []adminRoute{
		{id: "listNamespaces", method: "GET", path: "/namespaces", summary: "The namespaces of the node, and what they were forked of.",
			status: 200, reply: jsonType, shape: sdk.Page[sdk.Namespace]{}, serve: g.listNamespaces},
		{id: "forkNamespace", method: "POST", path: "/forks", summary: "Make a namespace of the one that is asked, as it was at a record, or is now. Nothing happens in it by itself unless it runs.",
			body: jsonType, takes: sdk.ForkRequest{}, status: 200, reply: jsonType, shape: sdk.Namespace{},
			codes: []quipu.Code{quipu.CodeTrimmed, quipu.CodeTooMany, quipu.CodeNotFound}, serve: g.forkNamespace},
		{id: "resumeFork", method: "POST", path: "/namespaces/{namespace}/resume", summary: "Let triggers, schedules and calls that wait run in a fork. Calls under way end first.",
			status: 200, reply: jsonType, shape: sdk.Namespace{}, codes: []quipu.Code{quipu.CodeNotFound}, serve: g.resumeFork},
		{id: "removeNamespace", method: "DELETE", path: "/namespaces/{namespace}", summary: "Remove a namespace with all that it has. Calls under way end first.",
			status: 204, codes: []quipu.Code{quipu.CodeNotFound}, serve: g.removeNamespace},
		{id: "replayCall", method: "POST", path: "/calls/{call}/replay", summary: "Make a call again in a scratch namespace, on what it had read, and tell what it did not do alike.",
			body: jsonType, takes: sdk.ReplayOptions{}, status: 200, reply: jsonType, shape: quipu.CallReplay{},
			codes: []quipu.Code{quipu.CodeNotFound, quipu.CodeTrimmed, quipu.CodeCallPending, quipu.CodeNoRevision, quipu.CodeSandbox}, serve: g.replayCall},
	}
}

func (g *Gateway) listNamespaces(a *ask) error { return a.reply(page(g.opt.Travel.ListNamespaces())) }

func (g *Gateway) forkNamespace(a *ask) error {
	var f sdk.ForkRequest
	if err := a.object(&f); err != nil {
		return err
	}
	return a.replyNamespace(g.opt.Travel.Fork(a.Context(), a.namespace, f.Name, f.At, f.Running))
}

func (g *Gateway) resumeFork(a *ask) error {
	return a.replyNamespace(g.opt.Travel.Resume(a.Context(), a.values["namespace"]))
}

func (a *ask) replyNamespace(ns sdk.Namespace, err error) error {
	if err != nil {
		return err
	}
	return a.reply(ns)
}

func (g *Gateway) removeNamespace(a *ask) error {
	return a.done(g.opt.Travel.RemoveNamespace(a.Context(), a.values["namespace"]))
}

func (g *Gateway) replayCall(a *ask) error {
	var o sdk.ReplayOptions
	if err := a.object(&o); err != nil {
		return err
	}
	result, err := g.opt.Travel.Replay(a.Context(), a.namespace, a.values["call"], o)
	if err != nil {
		return err
	}
	return a.reply(result)
}
