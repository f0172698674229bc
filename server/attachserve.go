package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/resource"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/trigger"
)

// serving is what goes on while an application is attached. Its methods run on the goroutine of Attach, one after another.
type serving struct {
	ns      *namespace
	one     *attachment
	tell    func(sdk.Attached) error
	list    sdk.Attached // what is told when it is served
	asked   bool         // list and one.known are there
	pause   func()       // ends deliveries and waits; nil: there are none
	failed  chan error   // the first thing that ends deliveries
	tasks   sync.WaitGroup
	retired int // uses that are open still though others took their place
	closed  chan *uses
}

// retiredMax is how many of those there may be.
const retiredMax = 8

// reload are other resources on their way to where they are used.
type reload struct {
	uses *uses
	done chan error
}

// serveAttached waits for the application to listen, hears what it subscribes to, and delivers while it is well, until ctx ends.
func (ns *namespace) serveAttached(ctx context.Context, one *attachment, tell func(sdk.Attached) error) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &serving{ns: ns, one: one, tell: tell, failed: make(chan error, 1), closed: make(chan *uses)}
	defer func() {
		cancel()
		s.stop()
		s.tasks.Wait()
	}()
	found := s.find(ctx)
	for err == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-found:
			found = nil
			err = s.discovered(ctx)
		case <-one.changed:
			err = s.follow(ctx)
		case r := <-one.reloads:
			r.done <- s.reload(ctx, r.uses)
		case old := <-s.closed:
			s.retired--
			ns.closeUses(old)
		case <-one.ending:
			err = tell(sdk.Attached{State: sdk.AttachedShutdown})
		case err = <-s.failed:
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// find tells when the application listens, if it is to.
func (s *serving) find(ctx context.Context) <-chan struct{} {
	found := make(chan struct{})
	if s.one.a.Port == 0 {
		return found // which never comes
	}
	s.tasks.Go(func() {
		if s.one.listens(ctx) == nil {
			close(found)
		}
	})
	return found
}

// discovered is what follows when the application listens.
func (s *serving) discovered(ctx context.Context) error {
	s.one.found.Store(true)
	s.ns.Caller.Sync() // calls of it may have waited
	s.ns.hasten(s.one.f.Name)
	if err := s.tell(sdk.Attached{State: sdk.AttachedFound}); err != nil {
		return err
	}
	if s.one.health != nil { // which tells when it is well
		s.tasks.Go(func() { s.one.health.Run(ctx) })
		return nil
	}
	return s.start(ctx)
}

// follow starts or stops deliveries as the health of the application is.
func (s *serving) follow(ctx context.Context) error {
	switch well := s.one.health.Well(); {
	case well && s.pause == nil:
		s.ns.Caller.Sync()
		s.ns.hasten(s.one.f.Name)
		return s.start(ctx)
	case !well && s.pause != nil:
		s.stop()
		return s.tell(sdk.Attached{State: sdk.AttachedUnwell})
	}
	return nil
}

func (s *serving) stop() {
	if s.pause != nil {
		s.pause()
		s.pause = nil
	}
}

// ask hears from the application what it subscribes to. A web server may answer anything to a path that it does not know: that is told.
func (s *serving) ask(ctx context.Context, using *uses) (f quipu.Function, list sdk.Attached, err error) {
	list = sdk.Attached{State: sdk.AttachedListening, Subscriptions: []string{}}
	asked, err := using.ask(ctx, s.one.f, s.one.app)
	if err == nil {
		asked.Actors, err = s.ns.askActors(ctx, s.one.f, s.one.app)
	}
	if quipu.CodeOf(err) == quipu.CodeAppCallback {
		list.Warning, err = quipu.AsError(err).Text, nil
	}
	f = s.one.f
	f.Subscriptions, f.Bindings, f.Actors = asked.Subscriptions, asked.Bindings, asked.Actors
	for _, t := range asked.Subscriptions {
		list.Subscriptions = append(list.Subscriptions, t.Name)
	}
	return f, list, err
}

// know takes what was heard for what the application wants.
func (s *serving) know(f quipu.Function, list sdk.Attached) {
	s.asked, s.list = true, list
	s.one.known.Store(&f)
	s.ns.ticker.Sync()
	s.ns.hastenReminders(f.Actors)
}

// start delivers, and returns when what is published from then on reaches the application.
func (s *serving) start(ctx context.Context) error {
	if !s.asked {
		f, list, err := s.ask(ctx, s.one.uses.Load())
		if err != nil {
			return err
		}
		s.know(f, list)
	}
	inner, cancel := context.WithCancelCause(ctx)
	f, using := *s.one.known.Load(), s.one.uses.Load()
	ready, tasks := s.ns.serveAll(inner, cancel, f, trigger.Topics(f))
	tasks.Go(func() {
		if err := s.ns.feed(inner, f, using); err != nil {
			cancel(err)
		}
	})
	tasks.Go(func() {
		<-inner.Done()
		if cause := context.Cause(inner); !errors.Is(cause, context.Canceled) {
			s.fail(cause)
		}
	})
	s.pause = func() {
		cancel(nil)
		tasks.Wait()
	}
	select {
	case <-ready:
		return s.tell(s.list)
	case <-inner.Done():
		return nil // the loop sees why
	}
}

// fail ends it all. The first reason counts.
func (s *serving) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// reload lets the application go on with other resources, or with those before if it cannot.
func (s *serving) reload(ctx context.Context, using *uses) (err error) {
	defer func() {
		if err != nil {
			s.ns.closeUses(using)
		}
	}()
	if s.retired == retiredMax {
		return &quipu.Error{Code: quipu.CodeTooMany, Op: "app.reload", Text: fmt.Sprintf("the resources changed %d times within %s, which is the most", retiredMax, attachedTimeout)}
	}
	if s.pause == nil { // the application is asked when it listens, or is well again
		s.asked = false
		s.swap(ctx, using)
		return nil
	}
	f, list, err := s.ask(ctx, using)
	if err != nil {
		return err
	}
	s.stop()
	s.swap(ctx, using)
	s.know(f, list)
	if err := s.start(ctx); err != nil { // the client of the attachment left
		s.fail(err)
	}
	return nil
}

// swap puts resources in use. Those before are closed when no call can have them any more.
func (s *serving) swap(ctx context.Context, using *uses) {
	old := s.one.uses.Swap(using)
	s.retired++
	s.tasks.Go(func() {
		select {
		case <-s.ns.node.upkeep.After(attachedTimeout):
		case <-ctx.Done():
			s.ns.closeUses(old)
			return
		}
		select {
		case s.closed <- old:
		case <-ctx.Done():
			s.ns.closeUses(old)
		}
	})
}

// Reload gives an attached application other resources, and returns when they are in use.
func (ns *namespace) Reload(ctx context.Context, appID, id string, r sdk.AttachedResources) error {
	one := ns.attached.byID(appID, id)
	gone := &quipu.Error{Code: quipu.CodeNoFunction, Op: "app.reload", Text: fmt.Sprintf("application %q is not attached as %q", appID, id)}
	if one == nil {
		return gone
	}
	a := one.a
	a.Resources, a.Env = r.Resources, r.Env
	using, err := ns.attachedUses(ctx, appID, a)
	if err != nil {
		return err
	}
	next := reload{using, make(chan error, 1)}
	select {
	case one.reloads <- next:
		return <-next.done
	case <-one.gone:
		err = gone
	case <-ctx.Done():
		err = ctx.Err()
	}
	ns.closeUses(using)
	return err
}

// attachedUses opens what an attached application uses by the files that it came with.
func (ns *namespace) attachedUses(ctx context.Context, appID string, a sdk.Attachment) (*uses, error) {
	set, err := resource.ReadFiles(a.Resources)
	if err != nil {
		return nil, err
	}
	return ns.install(ctx, source{app: appID, grpc: plainProtocol(a.Protocol) == quipu.ProtocolGRPC, dir: a.Dir, set: set, env: a.Env, keys: func() (map[string]string, error) { return ns.secretsOf(appID) }})
}

// serveAll delivers to an application what it subscribes to. ready is closed when all subscriptions are there.
func (ns *namespace) serveAll(ctx context.Context, cancel context.CancelCauseFunc, f quipu.Function, list []quipu.TopicTrigger) (ready chan struct{}, serving *sync.WaitGroup) {
	ready, serving = make(chan struct{}), &sync.WaitGroup{}
	var left atomic.Int64
	left.Store(int64(len(list)))
	if len(list) == 0 {
		close(ready)
	}
	for _, t := range list {
		serving.Go(func() {
			err := ns.Serve(ctx, f, t, func() {
				if left.Add(-1) == 0 {
					close(ready)
				}
			})
			if ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	return ready, serving
}
