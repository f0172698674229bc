package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/actor"
	"github.com/quipu-run/quipu/call"
	contractdapr "github.com/quipu-run/quipu/contract/dapr"
	"github.com/quipu-run/quipu/internal/resiliency"
	ownership "github.com/quipu-run/quipu/lease"
)

// newActors makes the engine of the namespace's actors; its book is open.
func (ns *namespace) newActors() *actor.Engine {
	return actor.New(actor.Options{Find: ns.actorHost, Wake: ns.wakeActorHost, Hold: ns.holdInstance, Forget: ns.forgetActor, Invoke: ns.Caller.Invoke, Within: ns.withinPolicies,
		Leases: ns.ownership(), Held: ns.heldLeases, Clock: ns.node.clock, Logger: ns.node.cfg.Logger})
}

// actorStreams are the instances that host actors by a stream of their own.
type actorStreams struct {
	mu sync.Mutex
	of map[string]*actorStream // by instance
}

type actorStream struct {
	f     quipu.Function
	types []quipu.ActorType
	do    func(*http.Request) (*http.Response, error)
}

// at is the stream of an instance; nil if it has none.
func (s *actorStreams) at(instance string) *actorStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of[instance]
}

// serving are the instances of an application, or of all, that host a type by a stream.
func (s *actorStreams) serving(function, actorType string) (f quipu.Function, t quipu.ActorType, instances []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for instance, one := range s.of {
		i := slices.IndexFunc(one.types, func(t quipu.ActorType) bool { return t.Type == actorType })
		if i < 0 || function != "" && one.f.Name != function {
			continue
		}
		if len(instances) == 0 || one.f.Name < f.Name {
			f, t, instances = one.f, one.types[i], nil
		}
		if one.f.Name == f.Name {
			instances = append(instances, instance)
		}
	}
	return f, t, instances
}

// add is refused for an instance that has a stream.
func (s *actorStreams) add(instance string, one *actorStream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of[instance] != nil {
		return &quipu.Error{Code: quipu.CodeUsage, Op: "actor.host", Text: "the instance has a stream of actors already"}
	}
	if s.of == nil {
		s.of = map[string]*actorStream{}
	}
	s.of[instance] = one
	return nil
}

func (s *actorStreams) remove(instance string, one *actorStream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of[instance] == one {
		delete(s.of, instance)
	}
}

func hosted(f quipu.Function, actorType string) (t quipu.ActorType, ok bool) {
	i := slices.IndexFunc(f.Actors, func(t quipu.ActorType) bool { return t.Type == actorType })
	if i < 0 {
		return t, false
	}
	return f.Actors[i], true
}

// actorHost is who hosts a type: an application that runs by itself, or one that is deployed, the first by name, or whoever has opened a
// stream for it.
func (ns *namespace) actorHost(actorType string) (actor.Hosting, error) {
	if h, ok := ns.attached.hosting(actorType); ok {
		return h, nil
	}
	for _, f := range ns.View.Functions() {
		if t, ok := hosted(f, actorType); ok {
			return actor.Hosting{Function: f, Type: t, Instances: ns.pool.Serving(f)}, nil
		}
	}
	if f, t, instances := ns.streams.serving("", actorType); len(instances) > 0 {
		return actor.Hosting{Function: f, Type: t, Instances: instances}, nil
	}
	return actor.Hosting{}, &quipu.Error{Code: quipu.CodeNoActorHost, Op: "actor.call", Hint: quipu.Codes[quipu.CodeNoActorHost].Next,
		Text: fmt.Sprintf("no application hosts actors of type %.80q", actorType)}
}

// hosting are the instances of the first application by name that are well and host a type.
func (s *attachments) hosting(actorType string) (h actor.Hosting, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, list := range s.of {
		for _, one := range list {
			f := one.known.Load()
			if f == nil || !one.found.Load() || !one.health.Well() || ok && f.Name > h.Function.Name {
				continue
			}
			t, hosts := hosted(*f, actorType)
			if !hosts {
				continue
			}
			if !ok || f.Name < h.Function.Name {
				h, ok = actor.Hosting{Function: *f, Type: t}, true
			}
			h.Instances = append(h.Instances, one.id)
		}
	}
	return h, ok
}

// hostsActors tells whether an application hosts a type.
func (ns *namespace) hostsActors(app, actorType string) bool {
	if one := ns.attached.first(app); one != nil {
		if f := one.known.Load(); f != nil {
			if _, ok := hosted(*f, actorType); ok {
				return true
			}
		}
	} else if f, err := ns.View.Function(app); err == nil {
		if _, ok := hosted(f, actorType); ok {
			return true
		}
	}
	_, _, instances := ns.streams.serving(app, actorType)
	return len(instances) > 0
}

// wakeActorHost starts an instance of a deployed function.
func (ns *namespace) wakeActorHost(ctx context.Context, f quipu.Function) (string, error) {
	if f.Revision == quipu.RevisionAttached {
		return "", &quipu.Error{Code: quipu.CodeNoActorHost, Op: "actor.call", Text: fmt.Sprintf("application %s is not there any more", f.Name)}
	}
	return ns.wakes.wake(ctx, f, func(ctx context.Context) (string, error) {
		l, err := ns.pool.AcquireJoined(ctx, f) // who calls may have the place that others wait for
		if err != nil {
			return "", err
		}
		defer l.Release()
		return l.ID(), nil
	})
}

func (ns *namespace) holdInstance(f quipu.Function, instance string) (release func(), ok bool) {
	if f.Revision == quipu.RevisionAttached {
		return func() {}, ns.attached.isThere(f.Name, instance)
	}
	return ns.pool.Hold(f, instance)
}

// acquireAt waits for a place in one instance.
func (ns *namespace) acquireAt(ctx context.Context, f quipu.Function, instance string, within bool) (call.Lease, error) {
	if f.Revision == quipu.RevisionAttached {
		one := ns.attached.byID(f.Name, instance)
		if one == nil {
			return nil, &quipu.Error{Code: quipu.CodeNoActorHost, Op: "app.call", Text: fmt.Sprintf("application %s is not there any more", f.Name)}
		}
		if within {
			return hostLease{attachedLease{one}, ns.streams.at(instance), true}, nil
		}
		l, err := one.place(ctx)
		if err != nil {
			return nil, err
		}
		return hostLease{l, ns.streams.at(instance), false}, nil
	}
	l, err := ns.pool.AcquireAt(ctx, f, instance, within)
	if err != nil {
		return nil, err
	}
	var held call.Lease = poolLease{l, ns.appOf(l)}
	if stream := ns.streams.at(instance); stream != nil {
		held = hostLease{held, stream, false}
	}
	if ns.node.cfg.Probe != nil {
		return probedLease{held, ns, f.Name}, nil
	}
	return held, nil
}

// hostLease is a place in an instance for a turn of an actor, which may go over the instance's stream.
type hostLease struct {
	call.Lease
	stream *actorStream
	extra  bool // it is none of the places that are counted
}

// Do sends the request of the turn.
func (l hostLease) Do(r *http.Request) (*http.Response, error) {
	if l.stream != nil {
		return l.stream.do(r)
	}
	return l.Lease.Do(r)
}

// Release gives the place back.
func (l hostLease) Release() {
	if !l.extra {
		l.Lease.Release()
	}
}

// Kill ends the instance, if it is ours.
func (l hostLease) Kill() {
	if !l.extra {
		l.Lease.Kill()
	}
}

// forgetActor tells an instance that an actor does not live in it any more. One that has ended has forgotten it, and one that does not know
// it has nothing to forget.
func (ns *namespace) forgetActor(ctx context.Context, f quipu.Function, instance string, k quipu.ActorKey) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodDelete, "http://app"+actor.Path(k), http.NoBody)
	if err != nil {
		return err
	}
	do := ns.doAt(f, instance)
	if do == nil {
		return nil
	}
	resp, err := do(r)
	switch {
	case quipu.CodeOf(err) == quipu.CodeCrashed:
		return nil
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNotFound:
		err = fmt.Errorf("DELETE %s was answered with %d", r.URL.Path, resp.StatusCode)
	}
	return errors.Join(err, resp.Body.Close())
}

// doAt is how to ask an instance; nil if it is gone.
func (ns *namespace) doAt(f quipu.Function, instance string) func(*http.Request) (*http.Response, error) {
	if stream := ns.streams.at(instance); stream != nil {
		return stream.do
	}
	if one := ns.attached.byID(f.Name, instance); one != nil {
		return one.app.Do
	}
	if a, ok := ns.apps.Load(instance); ok {
		return a.(app).Do
	}
	return nil
}

// heldLeases visits leases by their names.
func (ns *namespace) heldLeases(ctx context.Context, prefix string, visit func(quipu.Lease) bool) error {
	for l := (quipu.LeaseList{Prefix: prefix}); ; {
		page, err := ns.Leases(ctx, l)
		if err != nil {
			return err
		}
		for _, one := range page.Leases {
			if !visit(one) {
				return nil
			}
		}
		if l.After = page.Next; l.After == "" {
			return nil
		}
	}
}

// Leases lists who owns what.
func (ns *namespace) Leases(ctx context.Context, l quipu.LeaseList) (quipu.LeasePage, error) {
	return ns.ownership().Leases(ctx, l)
}

func (ns *namespace) ownership() ownership.Outside {
	return ownership.Outside{View: ns.later.leases, Book: ns.book}
}

// askActors hears which actors an application hosts. No answer, or one that cannot be understood at all, says nothing, as with Dapr: many
// applications answer anything to a path that they do not know, or break.
func (ns *namespace) askActors(ctx context.Context, f quipu.Function, a app) ([]quipu.ActorType, error) {
	config, err := contractdapr.Configuration(ctx, a)
	if err != nil && ctx.Err() == nil {
		ns.node.cfg.Logger.Info("an application does not say which actors it hosts", "fn", f.Name, "err", err)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return config.Types()
}

// actorDoor is what the door of an instance, or of clients from outside, knows of actors.
type actorDoor struct {
	ns       *namespace
	f        quipu.Function
	instance string                      // "" is outside
	policies func() *resiliency.Policies // of who asks
}

func (d actorDoor) Hosts(actorType string) bool { return d.ns.hostsActors(d.f.Name, actorType) }

func (d actorDoor) Turn(ctx context.Context, c quipu.ActorCall, via quipu.Invoker) (*quipu.CallReply, error) {
	return d.ns.askActor(ctx, c, d.policies(), via)
}

func (d actorDoor) Lease(k quipu.ActorKey) (quipu.Lease, error) {
	return d.ns.actors.Lease(d.instance, k)
}

func (d actorDoor) SetTimer(t quipu.ActorTimer) error { return d.ns.actors.SetTimer(t) }

func (d actorDoor) CancelTimer(k quipu.ActorKey, name string) { d.ns.actors.CancelTimer(k, name) }

func (d actorDoor) Active() (counts map[string]int, ok bool) {
	counts = map[string]int{}
	f := d.f
	if one := d.ns.attached.first(f.Name); one != nil && one.known.Load() != nil {
		f = *one.known.Load()
	} else if known, ok := d.ns.View.Revision(f.Name, f.Revision); ok {
		f = known
	}
	types := f.Actors
	if stream := d.ns.streams.at(d.instance); stream != nil {
		types = append(slices.Clone(types), stream.types...)
	}
	for _, t := range types {
		counts[t.Type] = 0
	}
	for name, n := range d.ns.actors.Active(d.instance) {
		counts[name] = n
	}
	return counts, len(counts) > 0
}

func (d actorDoor) Serve(types []quipu.ActorType, do func(*http.Request) (*http.Response, error)) (leave func(), err error) {
	if d.instance == "" {
		return nil, &quipu.Error{Code: quipu.CodeUsage, Op: "actor.host", Text: "a client from outside hosts no actors: start it with quipu run, or deploy it"}
	}
	one := &actorStream{d.f, types, do}
	if err := d.ns.streams.add(d.instance, one); err != nil {
		return nil, err
	}
	d.ns.hastenReminders(types)
	return func() {
		d.ns.streams.remove(d.instance, one)
		d.ns.actors.Gone(d.instance) // nobody can be told any more
	}, nil
}

// Actors lists those that are active.
func (ns *namespace) Actors(ctx context.Context, l quipu.ActorList) (quipu.ActorPage, error) {
	return ns.actors.Actors(ctx, l)
}
