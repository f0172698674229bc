package resiliency

import "time"

// Kind is one of the three things that a policy does.
type Kind string

// Kinds, as Dapr's metrics name them.
const (
	KindTimeout        Kind = "timeout"
	KindRetry          Kind = "retry"
	KindCircuitBreaker Kind = "circuitbreaker"
)

// Event is something to count. There are not many different ones: targets are those of resources and of components, and
// apps that there are.
type Event struct {
	Resource string // that has the policy; "" for what is built in
	Kind     Kind
	Flow     Flow
	Target   string // as Dapr's metrics name it: app_ID or TYPE_NAME
	Status   State  // of a breaker
	// Activated tells that the policy did something: a timeout passed, a first retry, a breaker changed its state. Else
	// an operation ran under it.
	Activated bool
}

func (p *Policy) executed() {
	if p.all.o.Observe == nil {
		return
	}
	if p.timeout > 0 {
		p.tell(KindTimeout, "", false)
	}
	if p.retry != nil {
		p.tell(KindRetry, "", false)
	}
	if len(p.breakers) > 0 {
		p.tell(KindCircuitBreaker, p.breakers[0].state(p.all.o.Clock.Now()), false)
	}
}

func (p *Policy) activated(k Kind, s State) {
	if p.all.o.Observe != nil {
		p.tell(k, s, true)
	}
}

func (p *Policy) tell(k Kind, s State, activated bool) {
	p.all.o.Observe(Event{Resource: p.resource, Kind: k, Flow: p.target.flow, Target: p.label, Status: s, Activated: activated})
}

func (b *breaker) state(now time.Time) State {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.m.at(now)
	return b.m.state
}
