package egress

import "golang.org/x/sys/unix"

// attempt is what is known of a connect when it is decided.
type attempt struct {
	destination
	kind    kind
	domain  int
	outside bool // the socket was let out before
}

// action is what to do with it.
type action int

const (
	stay   action = iota // the kernel carries on with the call, in the instance's namespace
	keep                 // answer success and do nothing
	refuse               // EACCES
	leave                // a socket outside takes its place
	inside               // the node connects the instance's own socket, in the instance's namespace
	trial                // the same, and leave if nobody listens there
)

// decide is the whole of the policy's meaning for one call; it does nothing.
func (p *Policy) decide(a attempt) action {
	if a.kind == other {
		return stay
	}
	if a.family == unix.AF_UNSPEC && a.outside && a.kind == datagram {
		return keep
	}
	if !a.to.IsValid() || int(a.family) != a.domain {
		return stay // AF_UNSPEC, and what the kernel has an error for
	}
	to := normal(a.to)
	allowed := p.Allows(to) && !(a.kind == datagram && p.NoDatagrams)
	if to.Addr().IsLoopback() && !a.outside {
		return p.decideLoopback(a, allowed)
	}
	if allowed {
		return leave
	}
	return refuse
}

// decideLoopback is for a socket inside. What may not go out finds what is inside, or nothing. TCP
// does not stay, so that the sandbox may forbid an instance all TCP connects of its own (Landlock).
func (p *Policy) decideLoopback(a attempt, allowed bool) action {
	switch {
	case a.kind == stream && allowed:
		return trial
	case a.kind == stream:
		return inside
	case allowed && p.isNameserver(normal(a.to)):
		return leave
	}
	return stay
}
