package dapr

import (
	"context"
	"net/http"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
)

// StoreSecrets is the name of the secret store that every namespace has.
const StoreSecrets = "secretstore"

// BuiltIn are the components that every namespace has without any file, but for its secrets.
func BuiltIn() []component.Loaded {
	var all []component.Loaded
	for _, store := range []string{quipu.StoreDefault, quipu.StoreShared} {
		is := component.State{Store: store}
		all = append(all, component.Loaded{Spec: component.Spec{Name: store, Type: "state.quipu", Version: "v1"}, Is: is, Capabilities: is.Capabilities()})
	}
	topics := component.PubSub{}
	return append(all, component.Loaded{Spec: component.Spec{Name: quipu.PubSubDefault, Type: "pubsub.quipu", Version: "v1"}, Is: topics, Capabilities: topics.Capabilities()})
}

func builtIn(opt Options) *component.Set {
	all := BuiltIn()
	if opt.Secrets != nil {
		all = append(all, component.Loaded{Spec: component.Spec{Name: StoreSecrets, Type: "secretstores.quipu", Version: "v1"}, Is: requestSecrets{opt.Secrets}})
	}
	return component.NewSet(all...)
}

// set is what a request may use.
func (d *Door) set(r *http.Request) (*component.Set, error) {
	if d.opt.Components == nil {
		return d.builtIn, nil
	}
	return d.opt.Components(r)
}

// requestSecrets are secrets that depend on the request. A secret of one value has its own name as key, as in Dapr.
type requestSecrets struct {
	of func(*http.Request) (map[string]string, error)
}

// Secret answers one, nil if it is not there.
func (s requestSecrets) Secret(ctx context.Context, name string, _ map[string]string) (map[string]string, error) {
	all, err := s.of(requestOf(ctx))
	if err != nil {
		return nil, err
	}
	if value, ok := all[name]; ok {
		return map[string]string{name: value}, nil
	}
	return nil, nil
}

// Secrets answers all.
func (s requestSecrets) Secrets(ctx context.Context, _ map[string]string) (map[string]map[string]string, error) {
	all, err := s.of(requestOf(ctx))
	if err != nil {
		return nil, err
	}
	out := make(map[string]map[string]string, len(all))
	for name, value := range all {
		out[name] = map[string]string{name: value}
	}
	return out, nil
}
