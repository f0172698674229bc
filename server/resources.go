package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/quipu-run/quipu"
	contractdapr "github.com/quipu-run/quipu/contract/dapr"
	"github.com/quipu-run/quipu/gateway/dapr"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/internal/install"
	"github.com/quipu-run/quipu/internal/resiliency"
	"github.com/quipu-run/quipu/internal/resource"
)

// uses is what one application makes of Dapr's API, by its resource files.
type uses struct {
	*install.Installed
	policies
	endpoints map[string]dapr.Endpoint
	// Pipelines of the Configuration: of requests to Dapr's API, and of those to the application. nil if there is none.
	httpPipeline, appPipeline component.Middleware

	declared []contractdapr.Declared
	warnings []string
}

// source is where an application's resources come from.
type source struct {
	app  string // whose resources count
	grpc bool   // it speaks gRPC
	dir  string // that relative paths are below
	set  resource.Set
	env  map[string]string
	keys func() (map[string]string, error) // of the built-in secret store
}

// install opens what an application uses. What is left out for ignoreErrors is told in warnings.
func (ns *namespace) install(ctx context.Context, s source) (*uses, error) {
	declared, err := contractdapr.Declare(s.set.Subscriptions)
	if err != nil {
		return nil, err
	}
	p, warnings, err := ns.policiesOf(s.app, s.grpc, s.set)
	if err != nil {
		return nil, err
	}
	in, err := install.Open(ctx, install.Options{Resources: s.set, Make: ns.node.maker, BuiltIn: ns.builtIn(s),
		Host: ns.hostOf(s), Allowed: p.denied.Allowed, Guard: p.guardOf})
	if err != nil {
		return nil, err
	}
	endpoints, err := endpointsOf(in.Endpoints)
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	u := &uses{Installed: in, policies: p, endpoints: endpoints, declared: declared, warnings: slices.Concat(s.set.Warnings, warnings)}
	for _, why := range in.Ignored {
		u.warnings = append(u.warnings, why.Error())
	}
	if u.httpPipeline, err = pipelineOf(in.Set, p.config.HTTPPipeline); err == nil {
		u.appPipeline, err = pipelineOf(in.Set, p.config.AppHTTPPipeline)
	}
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return u, nil
}

// revisionUses are what instances of one revision use together, for as long as there are any.
type revisionUses struct {
	mu sync.Mutex
	of map[string]*sharedUses // by function and revision
}

type sharedUses struct {
	users int
	ready chan struct{} // closed when u and err are set
	u     *uses
	err   error
}

// takeUses opens what a revision uses, or shares what is open. give gives it back, once.
func (ns *namespace) takeUses(ctx context.Context, f quipu.Function, dir string) (u *uses, give func(), err error) {
	key := f.Name + "\x00" + f.Revision
	ns.uses.mu.Lock()
	if ns.uses.of == nil {
		ns.uses.of = map[string]*sharedUses{}
	}
	shared := ns.uses.of[key]
	first := shared == nil
	if first {
		shared = &sharedUses{ready: make(chan struct{})}
		ns.uses.of[key] = shared
	}
	shared.users++
	ns.uses.mu.Unlock()
	if first {
		shared.u, shared.err = ns.usesIn(context.WithoutCancel(ctx), f, dir) // others wait for it too
		close(shared.ready)
	}
	<-shared.ready
	give = func() { ns.giveUses(key, shared) }
	if shared.err != nil {
		give()
		return nil, nil, shared.err
	}
	return shared.u, give, nil
}

func (ns *namespace) giveUses(key string, shared *sharedUses) {
	ns.uses.mu.Lock()
	shared.users--
	last := shared.users == 0
	if last {
		delete(ns.uses.of, key)
	}
	ns.uses.mu.Unlock()
	if last && shared.u != nil {
		if err := shared.u.Close(); err != nil {
			ns.node.cfg.Logger.Warn("a component was not closed", "key", strings.ReplaceAll(key, "\x00", "/"), "err", err)
		}
	}
}

// folderOf is where the files of a deployed function are, which are built again if they are gone.
func (ns *namespace) folderOf(ctx context.Context, f quipu.Function) (string, error) {
	if _, err := ns.built(ctx, f); err != nil {
		return "", err
	}
	return ns.Folder(f), nil
}

// resourcesOf reads the files of a deployed function.
func (ns *namespace) resourcesOf(ctx context.Context, f quipu.Function) (resource.Set, error) {
	dir, err := ns.folderOf(ctx, f)
	if err != nil {
		return resource.Set{}, err
	}
	return resourcesIn(dir)
}

// resourcesIn reads the files in the folder of an application.
func resourcesIn(dir string) (resource.Set, error) {
	return resource.ReadFS(os.DirFS(dir), resource.Folders...)
}

// usesIn opens what the files in the folder of a function say.
func (ns *namespace) usesIn(ctx context.Context, f quipu.Function, dir string) (*uses, error) {
	set, err := resourcesIn(dir)
	if err != nil {
		return nil, err
	}
	return ns.install(ctx, source{app: f.Name, grpc: f.Spec.Protocol == quipu.ProtocolGRPC, dir: dir, set: set, env: f.Spec.Env, keys: func() (map[string]string, error) {
		keys, err := secretsIn(dir)
		return keys.Values(), err
	}})
}

// place finds out where on the log a Dapr application's subscription is. CodeNoPubSub, CodeDenied.
func (u *uses) place(app string, t *quipu.TopicTrigger) error {
	name := t.PubSub
	if name == "" {
		name = quipu.PubSubDefault
	}
	p, ok := component.Of[component.PubSub](u.Set, name)
	if !ok {
		return &quipu.Error{Code: quipu.CodeNoPubSub, Op: "app.subscribe", Hint: quipu.Codes[quipu.CodeNoPubSub].Next,
			Text: fmt.Sprintf("the subscription to topic %q names the pub/sub component %q, which is not there", t.Name, name)}
	}
	if !p.Scopes.MaySubscribe(app, t.Name) {
		return &quipu.Error{Code: quipu.CodeDenied, Op: "app.subscribe", Hint: "name the topic in subscriptionScopes of the component, or do not subscribe to it",
			Text: fmt.Sprintf("the scopes of pub/sub component %q do not let %s subscribe to topic %q", name, app, t.Name)}
	}
	prefix := p.Topics
	if p.Foreign != nil {
		prefix = foreignTopics(name, app)
	}
	if p.Earliest && t.From == "" {
		t.From = quipu.FromEarliest
	}
	t.Name = prefix + t.Name
	if t.DeadLetter != "" {
		t.DeadLetter = prefix + t.DeadLetter
	}
	return nil
}

// ask hears from a Dapr application what it wants: its subscriptions, besides those that files declare, and its input bindings.
func (u *uses) ask(ctx context.Context, f quipu.Function, a app) (asked quipu.Asked, err error) {
	said, err := contractdapr.Subscriptions(ctx, a)
	if err != nil {
		return asked, err
	}
	if asked.Subscriptions, err = contractdapr.Merge(f.Name, said, u.declared); err != nil {
		return asked, err
	}
	for i := range asked.Subscriptions {
		t := &asked.Subscriptions[i]
		if err := u.place(f.Name, t); err != nil {
			return asked, err
		}
		if _, err := route(*t); err != nil {
			return asked, err
		}
		complete(t)
		if retry, ok := u.resiliency.For(resiliency.Inbound(resiliency.PubSub, cmp.Or(t.PubSub, quipu.PubSubDefault))).Deliveries(); ok {
			t.Retry = retry
		}
	}
	asked.Bindings, err = u.bindings(ctx, f, a)
	return asked, err
}

// bindings are the triggers that stand for the input bindings that an application takes.
func (u *uses) bindings(ctx context.Context, f quipu.Function, a app) (all []quipu.Trigger, err error) {
	for _, in := range u.Inputs {
		takes := in.Explicit
		if !takes {
			if takes, err = contractdapr.Takes(ctx, a, in.Name, in.Path); err != nil {
				return nil, err
			}
		}
		if takes {
			retry, _ := u.resiliency.For(resiliency.Inbound(resiliency.Binding, in.Name)).Deliveries()
			all = append(all, bindingTrigger(f.Name, in, retry))
		}
	}
	return all, nil
}

// bindingTrigger delivers what comes in by a binding; the zero retry stands for the defaults.
func bindingTrigger(function string, in install.Input, retry quipu.RetrySpec) quipu.Trigger {
	if retry == (quipu.RetrySpec{}) {
		retry = quipu.RetrySpec{Max: quipu.RetriesDefault, Backoff: quipu.Duration(quipu.BackoffDefault)}
	}
	if is, ok := in.Is.(component.InputSchedule); ok {
		t := is.InputSchedule()
		t.Binding, t.Path, t.Retry = in.Name, in.Path, retry
		return quipu.Trigger{Schedule: &t}
	}
	t := quipu.TopicTrigger{Name: inputTopic(function, in.Name)}
	if is, ok := in.Is.(component.InputTopic); ok {
		t = is.InputTopic()
	}
	t.Binding, t.Path, t.Retry, t.Batch = in.Name, in.Path, retry, 1
	return quipu.Trigger{Topic: &t}
}

// scheduled are the functions whose schedules the platform keeps: what is deployed and what is attached.
func (ns *namespace) scheduled() []quipu.Function {
	return append(ns.Functions(), ns.attached.functions()...)
}
