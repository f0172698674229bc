// Package access decides what a Configuration resource of an application allows, as Dapr does: who may invoke it, which
// parts of the Dapr API it may use, which secrets it may read and which components it may have.
//
// It decides and does nothing: whoever asks refuses. Decisions are made of what is given here alone, so they are the same
// after a restart. A nil list allows everything.
package access

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/quipu-run/quipu/internal/resource"
)

// App is who calls, as the platform knows it: by whose listener or token, never by what a request says of itself. The zero
// App is somebody unknown, like a client from outside.
type App struct{ ID, Namespace string }

// List is who may invoke an app, and what of it.
//
// Dapr knows callers by their certificates, and without mTLS it knows none. Here a caller is known by the listener that
// it was given, so policies hold without certificates, and the trust domain of a policy, which is that of certificates,
// makes no difference. A policy without a namespace is for callers of any.
type List struct {
	grpc     bool
	standard bool // what holds if nothing else does
	callers  map[App]caller
}

// caller is a policy.
type caller struct {
	standard   *bool // nil is the list's
	operations node
}

// NewList reads the access control of an app that speaks HTTP, or gRPC; nil if it has none.
func NewList(c resource.AccessControl, grpc bool) *List {
	if c.DefaultAction == "" && len(c.Policies) == 0 {
		return nil
	}
	l := &List{grpc: grpc, standard: resource.Allows(c.DefaultAction), callers: map[App]caller{}}
	for _, p := range c.Policies {
		one := caller{}
		if p.DefaultAction != "" {
			allow := resource.Allows(p.DefaultAction)
			one.standard = &allow
		}
		for _, o := range p.Operations {
			name := l.fold(o.Name)
			one.operations.put(name, newRule(o))
		}
		l.callers[App{p.App, p.Namespace}] = one
	}
	return l
}

// fold makes an operation comparable: below /, and in small letters if it is a path of HTTP.
func (l *List) fold(operation string) string {
	if !l.grpc {
		operation = strings.ToLower(operation)
	}
	if !strings.HasPrefix(operation, "/") {
		operation = "/" + operation
	}
	return operation
}

// Allowed tells whether a caller may invoke an operation, and if not, why. The operation is a path, or a method of gRPC,
// as Normalize answers it: what is asked for here must be what is invoked then. verb is that of HTTP, "" if there is none.
func (l *List) Allowed(by App, operation, verb string) (bool, string) {
	if l == nil || l.allowed(by, operation, verb) {
		return true, ""
	}
	return false, fmt.Sprintf("access control policy has denied access to id: %s operation: %s verb: %s", by.ID, operation, verb)
}

func (l *List) allowed(by App, operation, verb string) bool {
	c, ok := l.callers[by]
	if !ok {
		c, ok = l.callers[App{ID: by.ID}]
	}
	if !ok {
		return l.standard
	}
	standard := l.standard
	if c.standard != nil {
		standard = *c.standard
	}
	rule := c.operations.find(l.fold(operation))
	switch {
	case rule == nil:
		return standard
	case l.grpc:
		return rule.allow
	case verb == "": // only what the caller's own policy says
		return c.standard != nil && *c.standard
	case rule.any || slices.Contains(rule.verbs, strings.ToUpper(verb)):
		return rule.allow
	}
	return standard
}

// Normalize answers the path that a method means, without dots and doubled slashes, and refuses characters that a path
// cannot have. It does not decode: that is to be done before.
func Normalize(method string) (string, error) {
	for i := range len(method) {
		if b := method[i]; b < 0x20 || b == 0x7f || b == '#' || b == '?' {
			return "", fmt.Errorf("the method %q has a character at %d that no method has", method, i)
		}
	}
	clean := path.Clean(method)
	for strings.HasPrefix(clean, "../") {
		clean = clean[len("../"):]
	}
	if clean == ".." || clean == "." {
		return "", nil
	}
	return clean, nil
}
