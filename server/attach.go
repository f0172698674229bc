package server

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/call"
	contractdapr "github.com/quipu-run/quipu/contract/dapr"
	"github.com/quipu-run/quipu/gateway/dapr"
	"github.com/quipu-run/quipu/internal/apphealth"
	"github.com/quipu-run/quipu/sdk"
)

// attachments are applications that run by themselves: quipu run started them, or somebody else did. Each is a
// plain function of contract dapr whose instances we neither start nor stop; it is known while its client stays
// connected. Its durable subscriptions outlive it.
type attachments struct {
	mu   sync.Mutex
	of   map[string][]*attachment // by app id
	left map[string]*attachment   // by id: those that only the actors in them are let finish in
	next atomic.Uint64
}

type attachment struct {
	f       quipu.Function
	id      string // of the instance
	a       sdk.Attachment
	app     app
	uses    atomic.Pointer[uses]
	known   atomic.Pointer[quipu.Function] // f with what it subscribes to, once that is known
	found   atomic.Bool                    // it listens, or is not to
	health  *apphealth.Health              // nil: nobody asks
	places  chan struct{}                  // has one for each call under way; nil: there is no limit
	changed chan struct{}                  // has one when its health may have changed
	ending  chan struct{}                  // has one when it asked to be ended
	reloads chan reload
	gone    chan struct{} // closed when it is not attached any more
}

// Limits of what may be attached, and of how.
const (
	attachedMax         = 1000 // instances of a namespace
	attachedConcurrency = 1000
	attachedListen      = 16 // hosts
	attachedBodyMax     = 1 << 30
	attachedTimeout     = 60 * time.Second
	dialEvery           = 50 * time.Millisecond
)

var appIDForm = regexp.MustCompile(`^[A-Za-z0-9]([-_A-Za-z0-9]{0,61}[A-Za-z0-9])?$`)

// Attach makes an application that listens on a port of this machine, or will, part of the namespace until ctx ends.
func (ns *namespace) Attach(ctx context.Context, appID string, a sdk.Attachment, tell func(sdk.Attached) error) error {
	one, err := ns.newAttachment(ctx, appID, a)
	if err != nil {
		return err
	}
	defer func() { ns.closeUses(one.uses.Load()) }()
	defer one.app.Close()
	own := ns.newDoor(one.f, one.id, cmp.Or(a.Token, newToken()), one.uses.Load, one.subscriptions, one.atDoor)
	defer own.end()
	open, err := one.open(own)
	if err != nil {
		return err
	}
	if err := ns.attached.add(one); err != nil {
		return err
	}
	ns.node.labels.admit(ns.name, appID)
	defer func() {
		close(one.gone)
		ns.attached.leaves(one)
		ns.actors.Leave(one.id)
		ns.attached.remove(one)
		ns.actors.Gone(one.id)
		ns.label(ns.Functions())
	}()
	if err := tell(open); err != nil {
		return err
	}
	return ns.serveAttached(ctx, one, tell)
}

// newAttachment checks what is to be attached, and opens what it uses.
func (ns *namespace) newAttachment(ctx context.Context, appID string, a sdk.Attachment) (*attachment, error) {
	f, err := ns.attachedFunction(appID, a)
	if err != nil {
		return nil, err
	}
	one := &attachment{f: f, a: a, id: appID + "-attached-" + newToken()[:8], changed: make(chan struct{}, 1), ending: make(chan struct{}, 1),
		reloads: make(chan reload), gone: make(chan struct{})}
	one.found.Store(a.Port == 0)
	if a.Concurrency > 0 {
		one.places = make(chan struct{}, a.Concurrency)
	}
	one.app = newAttachedApp(f, a, one.uses.Load)
	if one.health, err = one.newHealth(ns.node.clock); err != nil {
		return nil, err
	}
	using, err := ns.attachedUses(ctx, appID, a)
	if err != nil {
		return nil, err
	}
	one.uses.Store(using)
	return one, nil
}

// atDoor is what the door of an attached application has besides that of an instance.
func (one *attachment) atDoor(o *dapr.Options) {
	if one.a.Token != "" || one.a.Open {
		o.RequireToken = !one.a.Open
	}
	o.AnyHost = one.a.Socket != "" || slices.ContainsFunc(one.a.Listen, func(host string) bool { return !isLoopback(host) })
	o.BodyBytesMax = one.a.BodyBytesMax
	o.Running = func(*http.Request) bool { return one.found.Load() }
	o.Shutdown = func(*http.Request, bool) { signal(one.ending) }
	about := o.About
	o.About = func(r *http.Request) (a dapr.About) {
		if about != nil {
			a = about(r)
		}
		a.App = one.connection()
		return a
	}
}

// signal leaves a word, unless there is one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// connection is how the platform talks to the application, as metadata shows it.
func (one *attachment) connection() dapr.AppConnection {
	if one.a.Port == 0 {
		return dapr.AppConnection{}
	}
	c := dapr.AppConnection{Port: int32(one.a.Port), Protocol: one.a.Protocol, ChannelAddress: one.host(), MaxConcurrency: int32(one.a.Concurrency)}
	if h := one.a.Health; h != nil {
		o := one.healthOptions()
		c.Health = &dapr.AppHealth{Path: cmp.Or(h.Path, contractdapr.HealthPath), Interval: o.Interval.String(), Timeout: o.Timeout.String(), Threshold: int32(o.Threshold)}
	}
	return c
}

// open opens the Dapr ports of the application, or its sockets.
func (one *attachment) open(own *ownDoor) (at sdk.Attached, err error) {
	at = sdk.Attached{State: sdk.AttachedOpen, ID: one.id, Token: own.token}
	a := one.a
	if a.Socket != "" {
		at.DaprHTTP, err = own.openSocket(own.http, filepath.Join(a.Socket, "dapr-"+one.f.Name+"-http.socket"))
		if err == nil {
			at.DaprGRPC, err = own.openSocket(own.grpc, filepath.Join(a.Socket, "dapr-"+one.f.Name+"-grpc.socket"))
		}
	} else {
		hosts := a.Listen
		if len(hosts) == 0 {
			hosts = []string{"127.0.0.1"}
		}
		at.DaprHTTP, err = own.open(own.http, hosts, a.DaprHTTPPort)
		if err == nil {
			at.DaprGRPC, err = own.open(own.grpc, hosts, a.DaprGRPCPort)
		}
	}
	if err != nil {
		return at, &quipu.Error{Code: quipu.CodePortTaken, Op: "app.attach", Text: "the Dapr ports of the application cannot be opened: " + err.Error(), Err: err,
			Hint: "choose others with --dapr-http-port and --dapr-grpc-port, or leave them out"}
	}
	return at, nil
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

func (ns *namespace) closeUses(u *uses) {
	if err := u.Close(); err != nil {
		ns.node.cfg.Logger.Warn("a component was not closed", "err", err)
	}
}

func (ns *namespace) attachedFunction(appID string, a sdk.Attachment) (f quipu.Function, err error) {
	if err := checkAttachment(appID, a); err != nil {
		return f, err
	}
	if _, err := ns.View.Function(appID); err == nil {
		return f, refusal("a function %q is deployed; choose another app id, or remove it: quipu rm function %s", appID, appID)
	}
	spec := quipu.Spec{Contract: quipu.ContractDapr, Protocol: plainProtocol(a.Protocol), Concurrency: a.Concurrency, Scale: quipu.Scale{Max: 1},
		Timeout: quipu.Duration(attachedTimeout), StartTimeout: quipu.Duration(attachedTimeout),
		Env: map[string]string{"APP_PORT": strconv.Itoa(a.Port), "APP_API_TOKEN": a.AppToken}}
	if spec.Concurrency == 0 {
		spec.Concurrency = attachedConcurrency
	}
	return quipu.Function{Name: appID, Revision: quipu.RevisionAttached, App: appID, Spec: spec, Deployed: ns.node.clock.Now()}, nil
}

func refusal(format string, args ...any) error {
	return &quipu.Error{Code: quipu.CodeUsage, Op: "app.attach", Text: fmt.Sprintf(format, args...)}
}

func checkAttachment(appID string, a sdk.Attachment) error {
	ports := func(all ...int) bool {
		return !slices.ContainsFunc(all, func(p int) bool { return p < 0 || p > 65535 })
	}
	switch {
	case !appIDForm.MatchString(appID):
		return refusal("%.80q cannot be an app id: letters, digits, hyphens and underscores, at most 63", appID)
	case !ports(a.Port, a.DaprHTTPPort, a.DaprGRPCPort):
		return refusal("a port is from 0 to 65535")
	case !slices.Contains(attachedProtocols, a.Protocol):
		return refusal("the protocol is %.40q, but must be one of %s", a.Protocol, strings.Join(attachedProtocols, ", "))
	case a.Concurrency < 0 || a.Concurrency > attachedConcurrency:
		return refusal("the concurrency is %d, but must be at most %d", a.Concurrency, attachedConcurrency)
	case len(a.Listen) > attachedListen:
		return refusal("there may be %d addresses to listen on", attachedListen)
	case a.BodyBytesMax < 0 || a.BodyBytesMax > attachedBodyMax:
		return refusal("the largest body has %d bytes, but may have %d at most", a.BodyBytesMax, attachedBodyMax)
	case a.Socket != "" && !filepath.IsAbs(a.Socket):
		return refusal("the folder %q for sockets is not absolute", a.Socket)
	}
	return nil
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
	delete(s.left, one.id)
}

// leaves takes an attachment away for all but those that know its id.
func (s *attachments) leaves(one *attachment) {
	s.remove(one)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left == nil {
		s.left = map[string]*attachment{}
	}
	s.left[one.id] = one
}

// isThere tells whether an attachment takes calls of anybody.
func (s *attachments) isThere(appID, id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.of[appID], func(one *attachment) bool { return one.id == id })
}

// first is one of an app id, to look at; nil if there is none. It takes no turn.
func (s *attachments) first(appID string) *attachment {
	s.mu.Lock()
	defer s.mu.Unlock()
	if list := s.of[appID]; len(list) > 0 {
		return list[0]
	}
	return nil
}

// pick takes the instances of an app id by turns, those that are well first; nil if there is none.
func (s *attachments) pick(appID string) *attachment {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.of[appID]
	if len(list) == 0 {
		return nil
	}
	turn := s.next.Add(1)
	for i := range uint64(len(list)) {
		if one := list[(turn+i)%uint64(len(list))]; one.health.Well() {
			return one
		}
	}
	return list[turn%uint64(len(list))]
}

// byID finds an attachment; nil if it is not there.
func (s *attachments) byID(appID, id string) *attachment {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.of[appID] {
		if one.id == id {
			return one
		}
	}
	return s.left[id]
}

// attachedLease is a place in an attached application.
type attachedLease struct{ *attachment }

func (l attachedLease) ID() string                                 { return l.id }
func (l attachedLease) Do(r *http.Request) (*http.Response, error) { return l.app.Do(r) }
func (l attachedLease) Kill()                                      { l.Release() } // it is not ours

// Release gives the place back.
func (l attachedLease) Release() {
	if l.places != nil {
		<-l.places
	}
}

// lease is a place in an attached application, which has as many as it said, or as are asked for; nil if there is none of that name.
// CodeUnhealthy, CodeBusy.
func (s *attachments) lease(ctx context.Context, f quipu.Function) (call.Lease, error) {
	one := s.pick(f.Name)
	if one == nil {
		return nil, nil
	}
	if !one.health.Well() {
		return nil, &quipu.Error{Code: quipu.CodeUnhealthy, Op: "app.call", Text: "app is not in a healthy state", Hint: quipu.Codes[quipu.CodeUnhealthy].Next}
	}
	return one.place(ctx)
}

// place waits for one. CodeBusy.
func (one *attachment) place(ctx context.Context) (call.Lease, error) {
	if one.places == nil {
		return attachedLease{one}, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, attachedTimeout, &quipu.Error{Code: quipu.CodeBusy, Op: "app.call",
		Text: fmt.Sprintf("%s takes %d calls at a time, and none ended within %s", one.f.Name, cap(one.places), attachedTimeout)})
	defer cancel()
	select {
	case one.places <- struct{}{}:
		return attachedLease{one}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
