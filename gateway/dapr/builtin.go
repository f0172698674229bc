package dapr

import (
	"context"
	"net/http"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
)

// StoreSecrets is the name of the secret store that every namespace has.
const StoreSecrets = "secretstore"

// BuiltIn are components that every namespace has without any file; keys are what its secret store holds, nil for no such store.
func BuiltIn(keys Secrets) []component.Loaded {
	var all []component.Loaded
	for _, store := range []string{quipu.StoreDefault, quipu.StoreShared} {
		is := component.State{Store: store}
		all = append(all, component.Loaded{Spec: component.Spec{Name: store, Type: "state.quipu", Version: "v1"}, Is: is, Capabilities: is.Capabilities()})
	}
	topics := component.PubSub{}
	all = append(all, component.Loaded{Spec: component.Spec{Name: quipu.PubSubDefault, Type: "pubsub.quipu", Version: "v1"}, Is: topics, Capabilities: topics.Capabilities()})
	if keys != nil {
		all = append(all, component.Loaded{Spec: component.Spec{Name: StoreSecrets, Type: "secretstores.quipu", Version: "v1"}, Is: keys})
	}
	return all
}

// set is what a request may use.
func (d *Door) set(r *http.Request) (*component.Set, error) {
	if d.opt.Components == nil {
		return d.builtIn, nil
	}
	return d.opt.Components(r)
}

// Secrets is the built-in secret store: a secret of one value has its own name as key, as in Dapr.
type Secrets func() (map[string]string, error)

// Secret answers one, nil if it is not there.
func (s Secrets) Secret(_ context.Context, name string, _ map[string]string) (map[string]string, error) {
	all, err := s()
	if value, ok := all[name]; ok && err == nil {
		return map[string]string{name: value}, nil
	}
	return nil, err
}

// Secrets answers all.
func (s Secrets) Secrets(context.Context, map[string]string) (map[string]map[string]string, error) {
	all, err := s()
	out := make(map[string]map[string]string, len(all))
	for name, value := range all {
		out[name] = map[string]string{name: value}
	}
	return out, err
}
