package server

import (
	"context"
	"errors"
	"maps"
	"net/http"

	"github.com/quipu-run/quipu/component/bindings"
	"github.com/quipu-run/quipu/component/configuration"
	"github.com/quipu-run/quipu/component/conversation"
	"github.com/quipu-run/quipu/component/crypto"
	"github.com/quipu-run/quipu/component/lock"
	"github.com/quipu-run/quipu/component/middleware"
	"github.com/quipu-run/quipu/component/pluggable"
	"github.com/quipu-run/quipu/component/secrets"
	"github.com/quipu-run/quipu/gateway/dapr"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/internal/mapping"
)

// hostOf is what components of an application are given.
func (ns *namespace) hostOf(s source) component.Host {
	state := ns.kv.State(ns.book, s.app)
	return component.Host{Namespace: ns.name, App: s.app, Dir: s.dir, Env: s.env, State: state, Watch: state.Watch, Topics: ns.Engine,
		Client: http.DefaultClient, Clock: ns.node.clock, Logger: ns.node.cfg.Logger.With("app", s.app)}
}

// Names of the components that every namespace has, besides those of the door.
const (
	configStore = "configstore"
	lockStore   = "lockstore"
)

// builtIn are the components that are there without any file.
func (ns *namespace) builtIn(s source) []component.Loaded {
	host := ns.hostOf(s)
	all := dapr.BuiltIn(s.keys)
	for _, spec := range []component.Spec{{Name: configStore, Type: configuration.Type, Version: "v1"}, {Name: lockStore, Type: lock.Type, Version: "v1"}} {
		is, err := map[string]component.Factory{configuration.Type: configuration.New, lock.Type: lock.New}[spec.Type](context.Background(), host, spec)
		if err != nil {
			panic("server: a built-in component that cannot be made: " + err.Error())
		}
		all = append(all, component.Loaded{Spec: spec, Is: is})
	}
	return all
}

// maker finds who makes components of a type: the log, what is built in, or a program that serves components on a socket.
func (n *Node) maker(ctx context.Context, s component.Spec) (component.Factory, error) {
	if family, served := n.cfg.Components.Served(s.Type, s.Version); served {
		if make := n.mapped(family); make != nil {
			return make, nil
		}
	}
	if make, ok := factories[s.Type]; ok {
		return make, nil
	}
	found, err := pluggable.Discover(ctx, "")
	if make, ok := found[s.Type]; ok {
		return make, nil
	}
	return nil, errors.Join(n.cfg.Components.Unknown(s.Name, s.Type, s.Version), err)
}

// mapped makes components that the log serves.
func (n *Node) mapped(family mapping.Family) component.Factory {
	switch family {
	case mapping.FamilyState:
		return func(_ context.Context, h component.Host, s component.Spec) (any, error) {
			return mapping.StateOf(s, h.App, "")
		}
	case mapping.FamilyPubSub:
		return func(_ context.Context, _ component.Host, s component.Spec) (any, error) { return mapping.PubSubOf(s) }
	case mapping.FamilyLock:
		return lock.New
	case mapping.FamilyConfiguration:
		return configuration.New
	}
	return nil
}

// factories make components by their types.
var factories = func() map[string]component.Factory {
	all := map[string]component.Factory{}
	for _, some := range []map[string]component.Factory{secrets.Factories(), bindings.Factories(), conversation.Factories(), crypto.Factories(), middleware.Factories()} {
		maps.Copy(all, some)
	}
	return all
}()
