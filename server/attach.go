package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/call"
	"github.com/quipu-run/quipu/internal/access"
	"github.com/quipu-run/quipu/internal/resource"
	"github.com/quipu-run/quipu/sdk"
)

// attachments are applications that run by themselves: quipu run started them, or somebody else did. Each is a
// plain function of contract dapr whose instances we neither start nor stop; it is known while its client stays
// connected. Its durable subscriptions outlive it.
type attachments struct {
	mu   sync.Mutex
	of   map[string][]*attachment // by app id
	next atomic.Uint64
}

type attachment struct {
	f      quipu.Function
	id     string // of the instance
	app    app
	uses   atomic.Pointer[uses]
	access atomic.Pointer[access.List]
	known  atomic.Pointer[quipu.Function] // f with what it subscribes to, once that is known
}

// Limits of what may be attached, and of how.
const (
	attachedMax         = 1000 // instances of a namespace
	attachedConcurrency = 1000
	attachedTimeout     = 60 * time.Second
	dialEvery           = 50 * time.Millisecond
)

var appIDForm = regexp.MustCompile(`^[A-Za-z0-9]([-_A-Za-z0-9]{0,61}[A-Za-z0-9])?$`)

// Attach makes an application that listens on a port of this machine, or will, part of the namespace until ctx ends.
func (ns *namespace) Attach(ctx context.Context, appID string, a sdk.Attachment, tell func(sdk.Attached) error) error {
	f, err := ns.attachedFunction(appID, a)
	if err != nil {
		return err
	}
	using, err := ns.attachedUses(ctx, appID, a)
	if err != nil {
		return err
	}
	one := &attachment{f: f, id: appID + "-attached-" + newToken()[:8]}
	one.uses.Store(using)
	one.access.Store(access.NewList(using.config.AccessControl, a.Protocol == quipu.ProtocolGRPC))
	defer func() { ns.closeUses(one.uses.Load()) }()
	one.app = newApp(f, reachable(a.Port).Dial)
	defer one.app.Close()
	own := ns.newDoor(f, one.id, newToken(), one.uses.Load, one.subscriptions)
	defer own.close()
	httpPort, err := own.open(own.http, a.DaprHTTPPort)
	if err != nil {
		return portTaken(err)
	}
	grpcPort, err := own.open(own.grpc, a.DaprGRPCPort)
	if err != nil {
		return portTaken(err)
	}
	if err := ns.attached.add(one); err != nil {
		return err
	}
	ns.node.labels.admit(ns.name, appID)
	defer func() {
		ns.attached.remove(one)
		ns.label(ns.Functions())
	}()
	if err := tell(sdk.Attached{State: sdk.AttachedOpen, DaprHTTP: httpPort, DaprGRPC: grpcPort, Token: own.token}); err != nil {
		return err
	}
	if a.Port == 0 {
		<-ctx.Done()
		return nil
	}
	return ns.serveAttached(ctx, one, tell)
}

func portTaken(err error) error {
	return &quipu.Error{Code: quipu.CodePortTaken, Op: "app.attach", Text: "the Dapr ports of the application cannot be opened", Err: err,
		Hint: "choose others with --dapr-http-port and --dapr-grpc-port, or leave them out"}
}

// serveAttached waits for the application to listen, hears what it subscribes to, and delivers until ctx ends.
func (ns *namespace) serveAttached(ctx context.Context, one *attachment, tell func(sdk.Attached) error) error {
	if err := one.listens(ctx); err != nil {
		return nil // it never did; its client left
	}
	ns.Caller.Sync() // calls of it may have waited
	list := sdk.Attached{State: sdk.AttachedListening, Subscriptions: []string{}}
	using := one.uses.Load()
	asked, err := using.ask(ctx, one.f, one.app)
	if quipu.CodeOf(err) == quipu.CodeAppCallback { // a web server may answer anything to a path that it does not know
		list.Warning, err = quipu.AsError(err).Text, nil
	}
	if err != nil {
		return err
	}
	f := one.f
	f.Subscriptions, f.Bindings = asked.Subscriptions, asked.Bindings
	one.known.Store(&f)
	for _, t := range asked.Subscriptions {
		list.Subscriptions = append(list.Subscriptions, t.Name)
	}
	ns.ticker.Sync()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ready, serving := ns.serveAll(ctx, cancel, one.f, triggersOf(f))
	defer serving.Wait()
	serving.Go(func() {
		if err := ns.feed(ctx, f, using); err != nil {
			cancel(err)
		}
	})
	select {
	case <-ready: // what is published from now on reaches it
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := tell(list); err != nil {
		cancel(err)
		return err
	}
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
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

func (one *attachment) subscriptions() []quipu.TopicTrigger {
	if f := one.known.Load(); f != nil {
		return f.Subscriptions
	}
	return nil
}

// functions are what is attached and known to have schedules, one of each app id.
func (s *attachments) functions() (all []quipu.Function) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, list := range s.of {
		if f := list[0].known.Load(); f != nil {
			all = append(all, *f)
		}
	}
	return all
}

// attachedUses opens what an attached application uses by the files that it came with.
func (ns *namespace) attachedUses(ctx context.Context, appID string, a sdk.Attachment) (*uses, error) {
	set, err := resource.ReadFiles(a.Resources)
	if err != nil {
		return nil, err
	}
	return ns.install(ctx, source{app: appID, dir: a.Dir, set: set, env: a.Env, keys: func() (map[string]string, error) { return ns.secretsOf(appID) }})
}

func (ns *namespace) closeUses(u *uses) {
	if err := u.Close(); err != nil {
		ns.node.cfg.Logger.Warn("a component was not closed", "err", err)
	}
}

// listens waits until the application accepts connections.
func (one *attachment) listens(ctx context.Context) error {
	tick := time.NewTicker(dialEvery)
	defer tick.Stop()
	for {
		conn, err := reachable(one.port()).Dial(ctx)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (one *attachment) port() int {
	port, err := strconv.Atoi(one.f.Spec.Env["APP_PORT"])
	if err != nil {
		panic("server: an attached application without a port: " + err.Error()) // attachedFunction wrote it
	}
	return port
}

func (ns *namespace) attachedFunction(appID string, a sdk.Attachment) (f quipu.Function, err error) {
	refuse := func(format string, args ...any) error {
		return &quipu.Error{Code: quipu.CodeUsage, Op: "app.attach", Text: fmt.Sprintf(format, args...)}
	}
	switch {
	case !appIDForm.MatchString(appID):
		return f, refuse("%.80q cannot be an app id: letters, digits, hyphens and underscores, at most 63", appID)
	case a.Port < 0 || a.Port > 65535 || a.DaprHTTPPort < 0 || a.DaprHTTPPort > 65535 || a.DaprGRPCPort < 0 || a.DaprGRPCPort > 65535:
		return f, refuse("a port is from 0 to 65535")
	case a.Protocol != quipu.ProtocolHTTP && a.Protocol != quipu.ProtocolGRPC:
		return f, refuse("the protocol is %q, but must be %s or %s", a.Protocol, quipu.ProtocolHTTP, quipu.ProtocolGRPC)
	case a.Concurrency < 0 || a.Concurrency > attachedConcurrency:
		return f, refuse("the concurrency is %d, but must be at most %d", a.Concurrency, attachedConcurrency)
	}
	if _, err := ns.View.Function(appID); err == nil {
		return f, refuse("a function %q is deployed; choose another app id, or remove it: quipu rm function %s", appID, appID)
	}
	spec := quipu.Spec{Contract: quipu.ContractDapr, Protocol: a.Protocol, Concurrency: a.Concurrency, Scale: quipu.Scale{Max: 1},
		Timeout: quipu.Duration(attachedTimeout), StartTimeout: quipu.Duration(attachedTimeout),
		Env: map[string]string{"APP_PORT": strconv.Itoa(a.Port), "APP_API_TOKEN": a.AppToken}}
	if spec.Concurrency == 0 {
		spec.Concurrency = attachedConcurrency
	}
	return quipu.Function{Name: appID, Revision: quipu.RevisionAttached, App: appID, Spec: spec, Deployed: ns.node.clock.Now()}, nil
}

func (s *attachments) add(one *attachment) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, list := range s.of {
		n += len(list)
	}
	if n >= attachedMax {
		return &quipu.Error{Code: quipu.CodeTooMany, Op: "app.attach", Text: fmt.Sprintf("%d applications are attached, which is the most", n)}
	}
	if s.of == nil {
		s.of = map[string][]*attachment{}
	}
	s.of[one.f.Name] = append(s.of[one.f.Name], one)
	return nil
}

func (s *attachments) remove(one *attachment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var left []*attachment
	for _, other := range s.of[one.f.Name] {
		if other != one {
			left = append(left, other)
		}
	}
	if s.of[one.f.Name] = left; left == nil {
		delete(s.of, one.f.Name)
	}
}

// pick takes the instances of an app id by turns; nil if there is none.
func (s *attachments) pick(appID string) *attachment {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.of[appID]
	if len(list) == 0 {
		return nil
	}
	return list[s.next.Add(1)%uint64(len(list))]
}

// attachedLease is a place in an attached application, which has as many as are asked for.
type attachedLease struct{ *attachment }

func (l attachedLease) ID() string                                 { return l.id }
func (l attachedLease) Do(r *http.Request) (*http.Response, error) { return l.app.Do(r) }
func (attachedLease) Release()                                     {}
func (attachedLease) Kill()                                        {} // it is not ours

// lease is a place in an attached application; nil if there is none of that name.
func (s *attachments) lease(f quipu.Function) call.Lease {
	if one := s.pick(f.Name); one != nil {
		return attachedLease{one}
	}
	return nil
}

// reachable is an application on a port of this machine, as far as newApp needs one.
type reachable int

func (p reachable) Dial(ctx context.Context) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(p))))
}
