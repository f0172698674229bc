package access

import (
	"strings"

	"github.com/quipu-run/quipu/internal/resource"
)

// Secrets is which secrets an app may read.
type Secrets struct{ stores map[string]scope }

type scope struct {
	deny            bool
	allowed, denied map[string]bool
}

// NewSecrets reads the scopes of an app; nil if there are none.
func NewSecrets(s resource.Secrets) *Secrets {
	if len(s.Scopes) == 0 {
		return nil
	}
	all := &Secrets{stores: map[string]scope{}}
	for _, one := range s.Scopes {
		all.stores[one.Store] = scope{deny: strings.EqualFold(one.Default, "deny"), allowed: set(one.Allowed), denied: set(one.Denied)}
	}
	return all
}

func set(names []string) map[string]bool {
	all := make(map[string]bool, len(names))
	for _, name := range names {
		all[name] = true
	}
	return all
}

// Allowed tells whether a secret of a store may be read: if some are allowed by name, only those; else not those that
// are denied by name; else what the store's default says. A store without a scope is free.
func (s *Secrets) Allowed(store, name string) bool {
	if s == nil {
		return true
	}
	one, scoped := s.stores[store]
	switch {
	case !scoped:
		return true
	case len(one.allowed) > 0:
		return one.allowed[name]
	}
	return !one.denied[name] && !one.deny
}

// Components is which types of components an app may not have.
type Components struct{ denied map[string]bool }

// NewComponents reads a list of types, like state.redis, or state.redis/v1 for one version; nil if there are none.
func NewComponents(deny []string) *Components {
	if len(deny) == 0 {
		return nil
	}
	return &Components{set(deny)}
}

// Allowed tells whether there may be a component of a type and version.
func (c *Components) Allowed(kind, version string) bool {
	return c == nil || !c.denied[kind] && !c.denied[kind+"/"+version]
}
