package server

import (
	"context"
	"sync"

	"github.com/quipu-run/quipu/internal/resource"
)

// outsidersMax is how many app ids of clients from outside are remembered with what they use.
const outsidersMax = 100

// outsideUses are what clients from outside use, by the app id that they speak as. It is forgotten when something is deployed.
type outsideUses struct {
	mu sync.Mutex
	of map[string]outsider
}

// outsider may be in use when it is forgotten: what it has is closed when nobody can have it any more.
type outsider struct {
	u    *uses
	give func()
}

// forget gives back what is known.
func (o *outsideUses) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, one := range o.of {
		one.give()
	}
	o.of = nil
}

// outsideUses is what a client from outside uses. As a function, deployed or attached, that is what the function uses; any
// other app id has what the files of all applications say for it.
func (ns *namespace) outsideUses(ctx context.Context, app string) (*uses, error) {
	if one := ns.attached.first(app); one != nil {
		return one.uses.Load(), nil
	}
	ns.outsiders.mu.Lock()
	defer ns.outsiders.mu.Unlock()
	if known, ok := ns.outsiders.of[app]; ok {
		return known.u, nil
	}
	one, err := ns.newOutsider(context.WithoutCancel(ctx), app)
	if err != nil {
		return nil, err
	}
	if len(ns.outsiders.of) >= outsidersMax {
		for old, them := range ns.outsiders.of { // any one
			them.give()
			delete(ns.outsiders.of, old)
			break
		}
	}
	if ns.outsiders.of == nil {
		ns.outsiders.of = map[string]outsider{}
	}
	ns.outsiders.of[app] = one
	return one.u, nil
}

func (ns *namespace) newOutsider(ctx context.Context, app string) (outsider, error) {
	if f, err := ns.View.Function(app); err == nil {
		dir, err := ns.folderOf(ctx, f)
		if err != nil {
			return outsider{}, err
		}
		u, give, err := ns.takeUses(ctx, f, dir)
		return outsider{u, give}, err
	}
	set, err := ns.allResources(ctx)
	if err != nil {
		return outsider{}, err
	}
	u, err := ns.install(ctx, source{app: app, set: set, keys: func() (map[string]string, error) { return ns.secretsOf(app) }})
	if err != nil {
		return outsider{}, err
	}
	return outsider{u, func() { ns.closeUses(u) }}, nil
}

// allResources is what the files of all applications say. What cannot start for somebody who is none of them is left out.
func (ns *namespace) allResources(ctx context.Context) (all resource.Set, err error) {
	seen := map[string]bool{}
	for _, f := range ns.Functions() {
		if seen[f.App] {
			continue
		}
		seen[f.App] = true
		set, err := ns.resourcesOf(ctx, f)
		if err != nil {
			return all, err
		}
		for _, c := range set.Components {
			c.IgnoreErrors = true
			all.Components = append(all.Components, c)
		}
		all.HTTPEndpoints = append(all.HTTPEndpoints, set.HTTPEndpoints...)
	}
	return all, nil
}
