// Package resiliency runs operations under the Resiliency resources of an application, as Dapr does: each attempt within a
// timeout, attempts through a circuit breaker, more of them as a retry says.
//
// It knows targets by name and nothing of what is done there. Breakers are in memory: after a restart all are closed and
// have counted nothing. What is tried again happens at least once; who needs it once gives it a key of its own.
//
// Retries and breakers go by the platform's clock, timeouts by the machine's. The number of breakers and policies that
// are remembered is bounded, however many targets callers name; the one that was not used for longest is forgotten.
package resiliency

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/resource"
)

// Flow is the direction of an operation, as the application sees it.
type Flow string

// Flows, as Dapr's metrics name them.
const (
	FlowInbound  Flow = "inbound"
	FlowOutbound Flow = "outbound"
)

// Block is what a component is, as the names of default policies have it.
type Block string

// Blocks that may have default policies.
const (
	Binding       Block = "Binding"
	Configuration Block = "Configuration"
	Conversation  Block = "Conversation"
	Crypto        Block = "Crypto"
	Lock          Block = "Lock"
	PubSub        Block = "Pubsub"
	SecretStore   Block = "Secretstore"
	StateStore    Block = "Statestore"
)

// Actors are targets, too, from both sides.
const (
	actorBlock Block = "actor" // one that is called
	turnBlock  Block = "turn"  // one that makes a turn
)

var blocks = []Block{Binding, Configuration, Conversation, Crypto, Lock, PubSub, SecretStore, StateStore}

// Target is what an operation goes to, or comes from.
type Target struct {
	flow     Flow
	block    Block  // of a component, else ""
	name     string // of the app, of the component, or the type of the actor
	endpoint string // of an app, or the id of an actor: each has a breaker of its own
}

// App is an endpoint of an app that is invoked: the method, without query.
func App(id, endpoint string) Target { return Target{flow: FlowOutbound, name: id, endpoint: endpoint} }

// Actor is an actor that is called: how often, and whether at all.
func Actor(actorType, id string) Target {
	return Target{flow: FlowOutbound, block: actorBlock, name: actorType, endpoint: id}
}

// Turn is a turn of an actor: how long it may take. Who waits for the turn of another is not late, so this is apart from Actor.
func Turn(actorType string) Target {
	return Target{flow: FlowOutbound, block: turnBlock, name: actorType}
}

// Outbound is a component that is asked for something.
func Outbound(b Block, name string) Target { return Target{flow: FlowOutbound, block: b, name: name} }

// Inbound is a component that brings something to the app.
func Inbound(b Block, name string) Target { return Target{flow: FlowInbound, block: b, name: name} }

// Options are what Policies need; Clock is required.
type Options struct {
	Clock   quipu.Clock
	Observe func(Event) // if set, is told what to count; it must not wait
}

// Bounds of what is remembered.
const (
	endpointsDefault = 100  // breakers of a configured app
	actorsDefault    = 5000 // breakers of a configured type of actors
	targetsMax       = 1024 // policies and breakers of all targets that have none of their own
)

// Policies are those of one application. The nil Policies are none.
type Policies struct {
	o                         Options
	none                      bool // no target has a policy
	timeouts                  map[string]named[time.Duration]
	retries                   map[string]named[*retry]
	breakers                  map[string]named[settings]
	apps                      map[string]*plan // nil: an app that is named, and has nothing
	components                map[componentFlow]*plan
	actors                    map[string]*plan // by type
	turns                     map[string]*plan
	appDefault                *plan
	actorDefault, turnDefault *plan
	defaults                  map[blockFlow]*plan
	// shared has the breakers of components: both directions, if they name the same policy, share one.
	shared   *cache[componentBreaker, *breaker]
	warnings []string
}

type (
	componentFlow struct {
		name string
		flow Flow
	}
	blockFlow struct {
		block Block
		flow  Flow
	}
	componentBreaker struct{ component, policy string }
)

// named is a policy with the resource that it is from.
type named[P any] struct {
	policy   P
	resource string
}

// plan is the policies that a target's names mean.
type plan struct {
	resource string // that has the most telling of them, for Event
	timeout  time.Duration
	retry    *retry
	breaker  *settings
	whole    bool     // one breaker for all endpoints
	common   *breaker // of all endpoints, besides that of each; may be nil
	made     *cache[Target, *Policy]
}

// New reads the resources of one application; where two say something of the same name, the later counts. A resource
// that cannot be used is an error; names that mean nothing, and what may not be replaced, are Warnings.
func New(resources []resource.Resiliency, o Options) (*Policies, error) {
	p := &Policies{o: o, timeouts: map[string]named[time.Duration]{}, retries: map[string]named[*retry]{},
		breakers: map[string]named[settings]{}, apps: map[string]*plan{}, actors: map[string]*plan{}, turns: map[string]*plan{},
		components: map[componentFlow]*plan{}, defaults: map[blockFlow]*plan{}}
	p.shared = newCache(targetsMax, p.sharedBreaker)
	for _, r := range resources {
		if err := r.Validate(); err != nil {
			return nil, fmt.Errorf("resiliency %q: %w", r.Name, err)
		}
		if err := p.read(r); err != nil {
			return nil, fmt.Errorf("resiliency %q: %w", r.Name, err)
		}
	}
	for _, r := range resources { // names may be those of a later resource
		p.aim(r)
	}
	p.aimDefaults()
	return p, nil
}

// Retries that Dapr has without any resource, of actors and of invocations that reached nobody. Those of actors may not be made less
// than builtInRetriesMin. Invocations have none here: a function that is being started is waited for.
const serviceRetries = "DaprBuiltInServiceRetries"

var builtIn = []string{"DaprBuiltInActorRetries", "DaprBuiltInActorReminderRetries", "DaprBuiltInInitializationRetries"}

const protected = "DaprBuiltInActorNotFoundRetries"

func (p *Policies) read(r resource.Resiliency) error {
	for name, text := range r.Spec.Policies.Timeouts {
		d, err := resource.Duration(text)
		if err != nil {
			return err
		}
		p.timeouts[name] = named[time.Duration]{d, r.Name}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Spec.Policies.Retries)) {
		if name == protected {
			p.warn(r, "retry %s cannot be replaced", name)
			continue
		}
		policy, err := parseRetry(r.Spec.Policies.Retries[name])
		if err != nil {
			return err
		}
		if name == serviceRetries {
			p.warn(r, "retry %s makes no difference here: name the retries of an app in targets", name)
		}
		if slices.Contains(builtIn, name) && policy.max < builtInRetriesMin {
			p.warn(r, "retry %s has at least %d retries", name, builtInRetriesMin)
			policy.max = builtInRetriesMin
		}
		p.retries[name] = named[*retry]{policy, r.Name}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Spec.Policies.CircuitBreakers)) {
		s, err := parseBreaker(name, r.Spec.Policies.CircuitBreakers[name])
		if err != nil {
			return fmt.Errorf("spec.policies.circuitBreakers.%s: %w", name, err)
		}
		p.breakers[name] = named[settings]{s, r.Name}
	}
	return nil
}

// openDefault is how long a breaker stays open.
const openDefault = 60 * time.Second

func parseBreaker(name string, b resource.CircuitBreaker) (s settings, err error) {
	s = settings{name: name, probes: max(1, int64(b.MaxRequests))}
	if s.interval, err = resource.OptionalDuration(b.Interval, 0); err != nil {
		return s, err
	}
	if s.pause, err = resource.OptionalDuration(b.Timeout, openDefault); err != nil {
		return s, err
	}
	if s.pause == 0 {
		s.pause = openDefault
	}
	if s.trip, err = tripOf(b.Trip); err != nil {
		err = fmt.Errorf("trip: %w", err)
	}
	return s, err
}

// aim finds the policies of a resource's targets.
func (p *Policies) aim(r resource.Resiliency) {
	for _, id := range slices.Sorted(maps.Keys(r.Spec.Targets.Apps)) {
		names := r.Spec.Targets.Apps[id]
		size := names.CircuitBreakerCacheSize
		if size == 0 {
			size = endpointsDefault
		}
		p.apps[id] = p.plan(r, "apps."+id, names, size)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Spec.Targets.Actors)) {
		p.aimActor(r, name, r.Spec.Targets.Actors[name])
	}
	for _, name := range slices.Sorted(maps.Keys(r.Spec.Targets.Components)) {
		c := r.Spec.Targets.Components[name]
		p.components[componentFlow{name, FlowInbound}] = p.plan(r, "components."+name+".inbound", c.Inbound, len(blocks))
		p.components[componentFlow{name, FlowOutbound}] = p.plan(r, "components."+name+".outbound", c.Outbound, len(blocks))
	}
}

// aimActor finds the policies of a type of actors: the timeout is of a turn, the rest of who calls.
func (p *Policies) aimActor(r resource.Resiliency, actorType string, names resource.PolicyNames) {
	target, size := "actors."+actorType, names.CircuitBreakerCacheSize
	if size == 0 {
		size = actorsDefault
	}
	p.turns[actorType] = p.plan(r, target, resource.PolicyNames{Timeout: names.Timeout}, 1)
	names.Timeout = ""
	one := p.plan(r, target, names, size)
	p.actors[actorType] = one
	if one == nil || one.breaker == nil {
		return
	}
	switch names.CircuitBreakerScope {
	case resource.ScopeType:
		one.whole = true
	case resource.ScopeBoth:
		one.common = newBreaker(*one.breaker, p.o.Clock.Now())
	}
}

// plan finds the policies of one target; nil if there are none.
func (p *Policies) plan(r resource.Resiliency, target string, names resource.PolicyNames, size int) *plan {
	one := &plan{resource: r.Name}
	unknown := func(kind, name string) { p.warn(r, "target %s names %s %q, which there is not", target, kind, name) }
	if t, ok := p.timeouts[names.Timeout]; ok {
		one.timeout = t.policy
	} else if names.Timeout != "" {
		unknown("timeout", names.Timeout)
	}
	if t, ok := p.retries[names.Retry]; ok {
		one.retry = t.policy
	} else if names.Retry != "" {
		unknown("retry", names.Retry)
	}
	if b, ok := p.breakers[names.CircuitBreaker]; ok {
		one.breaker = &b.policy
	} else if names.CircuitBreaker != "" {
		unknown("circuit breaker", names.CircuitBreaker)
	}
	return p.ready(one, size)
}

// ready makes a plan one that remembers, or nil if it says nothing.
func (p *Policies) ready(one *plan, size int) *plan {
	if one.timeout == 0 && one.retry == nil && one.breaker == nil {
		return nil
	}
	one.made = newCache(size, func(t Target) *Policy { return p.policy(one, t) })
	return one
}

// aimDefaults finds the policies for all targets that no resource names, from the most telling name to the least.
func (p *Policies) aimDefaults() {
	p.appDefault = p.byDefault("App", "")
	p.actorDefault, p.turnDefault = p.actorsByDefault()
	p.none = p.appDefault == nil && p.actorDefault == nil && p.turnDefault == nil && len(p.apps)+len(p.actors)+len(p.components) == 0
	for _, b := range blocks {
		for flow, direction := range map[Flow]string{FlowInbound: "Inbound", FlowOutbound: "Outbound"} {
			one := p.byDefault(string(b)+"Component"+direction, "Component"+direction, "Component", "")
			p.defaults[blockFlow{b, flow}] = one
			p.none = p.none && one == nil
		}
	}
}

// actorsByDefault is the policies for all types that no resource names; each type has one breaker, as in Dapr.
func (p *Policies) actorsByDefault() (call, turn *plan) {
	one := p.byDefault("Actor", "")
	if one == nil {
		return nil, nil
	}
	turn = p.ready(&plan{resource: one.resource, timeout: one.timeout}, targetsMax)
	return p.ready(&plan{resource: one.resource, retry: one.retry, breaker: one.breaker, whole: true}, targetsMax), turn
}

func (p *Policies) byDefault(levels ...string) *plan {
	one := &plan{}
	if t, ok := first(p.timeouts, levels, "TimeoutPolicy"); ok {
		one.timeout, one.resource = t.policy, t.resource
	}
	if t, ok := first(p.retries, levels, "RetryPolicy"); ok {
		one.retry, one.resource = t.policy, t.resource
	}
	if b, ok := first(p.breakers, levels, "CircuitBreakerPolicy"); ok {
		one.breaker, one.resource = &b.policy, b.resource
	}
	return p.ready(one, targetsMax)
}

// first finds the policy of the first level that has one.
func first[P any](all map[string]named[P], levels []string, kind string) (found named[P], ok bool) {
	for _, level := range levels {
		if found, ok = all["Default"+level+kind]; ok {
			return found, true
		}
	}
	return found, false
}

// For answers the policy of a target: that of the resources if they name it, whatever is missing there, else the default.
func (p *Policies) For(t Target) *Policy {
	if p == nil || p.none {
		return nil
	}
	return p.find(t)
}

func (p *Policies) find(t Target) *Policy {
	one := p.planOf(t)
	if one == nil {
		return nil
	}
	if one.breaker == nil || one.whole {
		t.endpoint = "" // nothing differs
	}
	return one.made.get(t)
}

func (p *Policies) planOf(t Target) *plan {
	switch t.block {
	case "":
		return of(p.apps, t.name, p.appDefault)
	case actorBlock:
		return of(p.actors, t.name, p.actorDefault)
	case turnBlock:
		return of(p.turns, t.name, p.turnDefault)
	}
	if one, has := p.components[componentFlow{t.name, t.flow}]; has {
		return one
	}
	return p.defaults[blockFlow{t.block, t.flow}]
}

// of is the plan of a name, which may be none, or else that of all names.
func of(named map[string]*plan, name string, others *plan) *plan {
	if one, has := named[name]; has {
		return one
	}
	return others
}

// Warnings are sentences about what makes no difference.
func (p *Policies) Warnings() []string {
	if p == nil {
		return nil
	}
	return p.warnings
}

func (p *Policies) warn(r resource.Resiliency, format string, args ...any) {
	p.warnings = append(p.warnings, fmt.Sprintf("resiliency %q: ", r.Name)+fmt.Sprintf(format, args...))
}

// policy makes what For answers.
func (p *Policies) policy(one *plan, t Target) *Policy {
	policy := &Policy{plan: one, all: p, target: t, label: label(t), expired: &TimeoutError{After: one.timeout}}
	switch {
	case one.breaker == nil:
	case t.block == "" || t.block == actorBlock:
		policy.breakers = []*breaker{newBreaker(*one.breaker, p.o.Clock.Now())}
	default:
		policy.breakers = []*breaker{p.shared.get(componentBreaker{t.name, one.breaker.name})}
	}
	if one.common != nil {
		policy.breakers = append(policy.breakers, one.common)
	}
	return policy
}

func (p *Policies) sharedBreaker(k componentBreaker) *breaker {
	return newBreaker(p.breakers[k.policy].policy, p.o.Clock.Now())
}

func label(t Target) string {
	switch {
	case t.block == turnBlock:
		return string(actorBlock) + "_" + t.name
	case t.block != "":
		return string(t.block) + "_" + t.name
	case t.name != "":
		return "app_" + t.name
	}
	return ""
}
