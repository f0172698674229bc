package dapr

import (
	"slices"
	"time"

	"github.com/quipu-run/quipu"
)

// Config is what an application says about the actors it hosts.
type Config struct {
	Entities []string `json:"entities"`
	EntityConfig
	EntitiesConfig []EntitiesConfig `json:"entitiesConfig"`
}

// EntitiesConfig is EntityConfig for some types.
type EntitiesConfig struct {
	Entities []string `json:"entities"`
	EntityConfig
}

// EntityConfig is how actors are run; times are Go's durations, and "" is the default.
type EntityConfig struct {
	IdleTimeout  string     `json:"actorIdleTimeout"`
	DrainTimeout string     `json:"drainOngoingCallTimeout"`
	Drain        *bool      `json:"drainRebalancedActors"` // nil means yes
	Reentrancy   Reentrancy `json:"reentrancy"`
}

// Reentrancy says whether a chain of calls may come back to an actor.
type Reentrancy struct {
	Enabled       bool `json:"enabled"`
	MaxStackDepth *int `json:"maxStackDepth"`
}

// Types are the types of actors that the application hosts, each once. CodeAppCallback.
func (c Config) Types() (all []quipu.ActorType, err error) {
	if len(c.Entities) > quipu.ActorTypesMax {
		return nil, callback("the application hosts %d types of actors; the most is %d", len(c.Entities), quipu.ActorTypesMax)
	}
	for _, name := range c.Entities {
		if slices.ContainsFunc(all, func(t quipu.ActorType) bool { return t.Type == name }) {
			continue
		}
		if name == "" || len(name) > quipu.ActorTypeMax {
			return nil, callback("a type of actors has a name of %d bytes; 1 to %d may be", len(name), quipu.ActorTypeMax)
		}
		t, err := c.of(name).actorType(name)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// of is what holds for a type: the last entry that names it has all of it, as in Dapr, but for draining, which is said for all.
func (c Config) of(name string) EntityConfig {
	found := c.EntityConfig
	for _, e := range c.EntitiesConfig {
		if slices.Contains(e.Entities, name) {
			found = e.EntityConfig
			found.Drain = c.Drain
			if found.DrainTimeout == "" {
				found.DrainTimeout = c.DrainTimeout
			}
		}
	}
	return found
}

func (c EntityConfig) actorType(name string) (quipu.ActorType, error) {
	t := quipu.ActorType{Type: name, Reentrant: c.Reentrancy.Enabled, Depth: quipu.ActorDepthDefault}
	if c.Reentrancy.MaxStackDepth != nil {
		t.Depth = *c.Reentrancy.MaxStackDepth
	}
	var err error
	if t.Idle, err = durationOr(name, "actorIdleTimeout", c.IdleTimeout, quipu.ActorIdleDefault); err != nil {
		return t, err
	}
	t.Drain, err = durationOr(name, "drainOngoingCallTimeout", c.DrainTimeout, quipu.ActorDrainDefault)
	if c.Drain != nil && !*c.Drain {
		t.Drain = 0
	}
	return t, err
}

func durationOr(name, what, text string, or time.Duration) (quipu.Duration, error) {
	if text == "" {
		return quipu.Duration(or), nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, callback("the %s of actor type %q is %.40q, which is no duration like 30s or 1h", what, name, text)
	}
	return quipu.Duration(d), nil
}
