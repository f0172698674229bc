// Package install makes of an application's resources what it uses: its components by name, its input bindings, the
// endpoints it may call.
//
// It opens secret stores first, since others may refer to them, then everything else in the order of the files. A component that
// cannot start fails the whole, unless it says ignoreErrors; then it is left out and told by name. Nothing is kept: a restart
// installs again.
package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/internal/mapping"
	"github.com/quipu-run/quipu/internal/resource"
)

// initTimeoutDefault is how long a component may take to start.
const initTimeoutDefault = 5 * time.Second

// Options say what to install, and with what. All but Allowed and Guard are required.
type Options struct {
	Resources resource.Set
	Host      component.Host // its App is whose resources count
	// BuiltIn are components that are there without a resource; one of the same name takes its place.
	BuiltIn []component.Loaded
	// Make finds who makes components of a type.
	Make func(ctx context.Context, s component.Spec) (component.Factory, error)
	// Allowed tells whether components of a type may be made; nil means that all may.
	Allowed func(kind, version string) bool
	// Guard is what a component's operations run within; nil means that there is nothing.
	Guard func(s component.Spec) component.Guard
}

// Installed is what an application uses. Close gives it back.
type Installed struct {
	Set       *component.Set
	Inputs    []Input
	Endpoints map[string]resource.Endpoint
	Ignored   []error // why components were left out
}

// Input is an input binding.
type Input struct {
	Name, Path string
	Explicit   bool // its resource says so: the application is not asked whether it takes it
	Is         any  // component.InputBinding, InputTopic or InputSchedule
}

// Open installs. What it opened is closed again if it fails.
func Open(ctx context.Context, o Options) (in *Installed, err error) {
	l := loader{o: o, all: slices.Clone(o.BuiltIn)}
	for i := range l.all {
		l.guard(&l.all[i])
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, component.NewSet(l.opened...).Close())
		}
	}()
	for _, first := range []bool{true, false} {
		for _, c := range o.Resources.Components {
			if strings.HasPrefix(c.Type, "secretstores.") != first || !c.For(o.Host.App) {
				continue
			}
			if err := l.load(ctx, c); err != nil {
				return nil, err
			}
		}
	}
	in = &Installed{Set: component.NewSet(l.all...), Inputs: l.inputs, Ignored: l.ignored, Endpoints: map[string]resource.Endpoint{}}
	for _, e := range o.Resources.HTTPEndpoints {
		if !e.For(o.Host.App) {
			continue
		}
		if in.Endpoints[e.Name], err = e.Resolve(ctx, l.resolver()); err != nil {
			return nil, err
		}
	}
	return in, nil
}

// Close closes components.
func (in *Installed) Close() error { return in.Set.Close() }

type loader struct {
	o       Options
	all     []component.Loaded // built-in ones first
	opened  []component.Loaded
	inputs  []Input
	ignored []error
}

// load opens one component.
func (l *loader) load(ctx context.Context, c resource.Component) error {
	if l.o.Allowed != nil && !l.o.Allowed(c.Type, c.Version) {
		l.ignored = append(l.ignored, fmt.Errorf("component %s: components of type %s are denied by a Configuration", c.Name, c.Type))
		return nil
	}
	made, err := l.open(ctx, c)
	if err == nil {
		l.input(made)
		l.guard(&made)
		l.all, l.opened = append(l.all, made), append(l.opened, made)
		return nil
	}
	err = l.refusal(c, err)
	if c.IgnoreErrors {
		l.ignored = append(l.ignored, err)
		return nil
	}
	return err
}

func (l *loader) guard(made *component.Loaded) {
	if l.o.Guard == nil {
		return
	}
	if g := l.o.Guard(made.Spec); g != nil {
		made.Is = component.Guarded(made.Is, g)
	}
}

// refusal names the component that cannot start. What has a code keeps it.
func (l *loader) refusal(c resource.Component, err error) error {
	why := &quipu.Error{Code: quipu.CodeComponent, Text: err.Error()}
	errors.As(err, &why)
	return &quipu.Error{Code: why.Code, Op: "component.start", Err: err, Hint: cmp.Or(why.Hint, quipu.Codes[why.Code].Next),
		Text: fmt.Sprintf("%s:%d: component %s (%s) cannot start: %s", c.File, c.Line, c.Name, c.Type, cmp.Or(why.Text, err.Error()))}
}

func (l *loader) open(ctx context.Context, c resource.Component) (component.Loaded, error) {
	timeout := initTimeoutDefault
	if c.InitTimeout != "" {
		d, err := time.ParseDuration(c.InitTimeout)
		if err != nil || d <= 0 {
			return component.Loaded{}, fmt.Errorf("initTimeout %q is no duration above 0", c.InitTimeout)
		}
		timeout = d
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	spec, err := c.Resolve(ctx, l.resolver())
	if err != nil {
		return component.Loaded{}, err
	}
	if err := l.onlyActorStore(spec); err != nil {
		return component.Loaded{}, err
	}
	factory, err := l.o.Make(ctx, spec)
	if err != nil {
		return component.Loaded{}, err
	}
	is, err := factory(ctx, l.o.Host, spec)
	if err != nil {
		return component.Loaded{}, err
	}
	made := component.Loaded{Spec: spec, Is: is}
	if teller, ok := is.(interface{ Capabilities() []string }); ok {
		made.Capabilities = teller.Capabilities()
	}
	return made, nil
}

// onlyActorStore refuses a second store for actors: nobody would know in which their state is.
func (l *loader) onlyActorStore(s component.Spec) error {
	if !isActorStore(s) {
		return nil
	}
	for _, other := range l.opened {
		if isActorStore(other.Spec) {
			return fmt.Errorf("actorStateStore is true of component %s, too, and an application has one store for its actors", other.Name)
		}
	}
	return nil
}

func isActorStore(s component.Spec) bool {
	return strings.HasPrefix(s.Type, "state.") && mapping.ActorStore(s)
}

// input notes a component that brings events in. Like daprd it goes by direction, if the metadata says one.
func (l *loader) input(made component.Loaded) {
	switch made.Is.(type) {
	case component.InputBinding, component.InputTopic, component.InputSchedule:
	default:
		return
	}
	direction := strings.ToLower(made.Metadata.Get("direction"))
	if direction != "" && !strings.Contains(direction, "input") {
		return
	}
	l.inputs = append(l.inputs, Input{Name: made.Name, Path: path.Join("/", cmp.Or(made.Metadata.Get("route"), made.Name)), Explicit: direction != "", Is: made.Is})
}

func (l *loader) env(name string) (string, bool) {
	value, ok := l.o.Host.Env[name]
	return value, ok
}

// resolver looks secrets up in the stores that are open so far.
func (l *loader) resolver() resource.Resolver {
	return resource.Resolver{App: l.o.Host.App, Namespace: l.o.Host.Namespace, Env: l.env,
		Secret: func(ctx context.Context, store, name, key string) (string, bool, error) {
			from, ok := component.Of[component.SecretStore](component.NewSet(l.all...), store)
			if !ok {
				return "", false, fmt.Errorf("there is no secret store %q", store)
			}
			values, err := from.Secret(ctx, name, nil)
			if err != nil {
				return "", false, err
			}
			value, there := values[cmp.Or(key, name)]
			return value, there, nil
		}}
}
