package server

import (
	"context"
	"net/http"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/gateway"
	"github.com/quipu-run/quipu/gateway/book"
	"github.com/quipu-run/quipu/gateway/dapr"
	"github.com/quipu-run/quipu/gateway/dapr/taskhub"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/internal/resiliency"
	"github.com/quipu-run/quipu/sdk"
)

// serve opens the doors: from here on requests are answered.
func (n *Node) serve() {
	n.listeners.serve(mainDoor, gateway.NewServer(n.gateway, n.cfg.Logger), n.fail)
	n.listeners.serve(insideDoor, gateway.NewServer(n.gateway.Inside(), n.cfg.Logger), n.fail)
	outside := dapr.New(dapr.Options{
		Session: n.outside, AppID: dapr.OutsideAppID, Components: n.outsideComponents, SecretAllowed: n.outsideSecretAllowed, Endpoint: n.outsideEndpoint,
		Workflows: n.outsideWorkflows, Services: taskHub(n.namespaceOf, dapr.OutsideAppID, taskhub.Worker{}), Subscribe: n.outsideSubscribe, Actors: n.outsideActors, Token: n.cfg.Token, RequireToken: n.cfg.Token != "", Logger: n.cfg.Logger, Clock: n.clock, Version: n.cfg.Version})
	n.listeners.serve(daprDoor, gateway.NewServer(outside, n.cfg.Logger), n.fail)
	books := book.New(book.Options{Log: n.booksOf, Token: n.cfg.Token, Logger: n.cfg.Logger})
	beside := dapr.Beside{Register: books.Register, Options: book.ServerOptions()}
	n.listeners.serve(grpcDoor, grpcServer{outside.GRPC(beside), []closer{outside, books}}, n.fail)
}

// booksOf is the log as a namespace may use it.
func (n *Node) booksOf(namespace string) (quipu.Log, error) {
	ns, err := n.namespace(namespace)
	if err != nil {
		return nil, err
	}
	return ns.Log(), nil
}

// outside is the session of a Dapr client that is no instance: an app of the namespace it names.
func (n *Node) outside(r *http.Request) (quipu.Session, error) {
	ns, err := n.namespaceOf(r)
	if err != nil {
		return nil, err
	}
	session, err := n.roam(n.trace.Door(r.Header, ns.Outside(dapr.OutsideAppID(r)), "", nil), nil)
	if err != nil {
		return nil, err
	}
	return &policed{Session: session, ns: ns}, nil
}

// outsideWorkflows are those of the namespace that a client names.
func (n *Node) outsideWorkflows(r *http.Request) (quipu.Workflows, error) {
	ns, err := n.namespaceOf(r)
	if err != nil {
		return nil, err
	}
	return ns.flows.store, nil
}

func (n *Node) namespaceOf(r *http.Request) (*namespace, error) {
	name := r.Header.Get(sdk.HeaderNamespace)
	if name == "" {
		name = DefaultNamespace
	}
	return n.namespace(name)
}

// outsideUses is what a client that is no instance uses.
func (n *Node) outsideUses(r *http.Request) (*uses, error) {
	ns, err := n.namespaceOf(r)
	if err != nil {
		return nil, err
	}
	return ns.outsideUses(r.Context(), dapr.OutsideAppID(r))
}

func (n *Node) outsideComponents(r *http.Request) (*component.Set, error) {
	u, err := n.outsideUses(r)
	if err != nil {
		return nil, err
	}
	return u.Set, nil
}

func (n *Node) outsideSecretAllowed(r *http.Request, store, name string) bool {
	u, err := n.outsideUses(r)
	return err == nil && u.secrets.Allowed(store, name)
}

func (n *Node) outsideEndpoint(r *http.Request, name string) (dapr.Endpoint, bool) {
	u, err := n.outsideUses(r)
	if err != nil {
		return dapr.Endpoint{}, false
	}
	return u.endpoint(name)
}

// outsideActors are nil if there is no such namespace, which the rest of the request will find out.
func (n *Node) outsideActors(r *http.Request) dapr.Actors {
	ns, err := n.namespaceOf(r)
	if err != nil {
		return nil
	}
	return actorDoor{ns, quipu.Function{Name: dapr.OutsideAppID(r)}, "", func() *resiliency.Policies { return nil }}
}

func (n *Node) outsideSubscribe(r *http.Request, s quipu.SubscribeRequest, deliver func(context.Context, quipu.Event) quipu.Outcome) error {
	ns, err := n.namespaceOf(r)
	if err != nil {
		return err
	}
	return ns.Subscribe(r.Context(), s, deliver)
}

// status is what the node says about itself now.
func (n *Node) status() sdk.Node {
	info := n.info
	info.UptimeSec = int64(time.Since(n.started).Seconds())
	return info
}
