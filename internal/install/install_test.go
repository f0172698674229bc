package install

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/internal/resource"
)

// part is a component that notes when it is closed.
type part struct {
	settings component.Metadata
	closed   *[]string
	name     string
}

func (p part) Close() error { *p.closed = append(*p.closed, p.name); return nil }

// vault is a secret store of one secret.
type vault struct{ part }

func (vault) Secret(_ context.Context, name string, _ map[string]string) (map[string]string, error) {
	return map[string]string{name: "hunter2"}, nil
}

func (vault) Secrets(context.Context, map[string]string) (map[string]map[string]string, error) {
	return nil, nil
}

// tick is a schedule.
type tick struct{}

func (tick) InputSchedule() quipu.ScheduleTrigger { return quipu.ScheduleTrigger{Cron: "@hourly"} }

func open(t *testing.T, files string) (in *Installed, closed *[]string, err error) {
	t.Helper()
	set, err := resource.ReadFiles(map[string]string{"f.yaml": files})
	if err != nil {
		t.Fatal(err)
	}
	closed = &[]string{}
	in, err = Open(t.Context(), Options{Resources: set, Host: component.Host{App: "shop", Env: map[string]string{"CITY": "Cusco"}},
		BuiltIn: []component.Loaded{{Spec: component.Spec{Name: "shared", Type: "state.quipu"}, Is: component.State{Store: "shared"}}},
		Allowed: func(kind, _ string) bool { return kind != "test.denied" },
		Make: func(_ context.Context, s component.Spec) (component.Factory, error) {
			if s.Type == "test.unknown" {
				return nil, &quipu.Error{Code: quipu.CodeManifest, Text: "there is no such type"}
			}
			return func(ctx context.Context, _ component.Host, s component.Spec) (any, error) {
				p := part{s.Metadata, closed, s.Name}
				switch s.Type {
				case "test.broken":
					return nil, errors.New("it is broken")
				case "test.slow":
					<-ctx.Done()
					return nil, ctx.Err()
				case "secretstores.test":
					return vault{p}, nil
				case "bindings.tick":
					return tick{}, nil
				}
				return p, nil
			}, nil
		}})
	return in, closed, err
}

func resourceOf(name, typ, more string) string {
	return "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: " + name + "}\nspec: {type: " + typ + ", version: v1" + more + "}\n---\n"
}

// Components have their references resolved, wherever in the files the secret store is; those of other apps are not made.
func TestComponentsHaveTheirValues(t *testing.T) {
	in, closed, err := open(t,
		"apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: a}\nauth: {secretStore: keys}\nspec: {type: test.a, version: v1, metadata: [{name: password, secretKeyRef: {name: pw, key: pw}}, {name: city, envRef: CITY}]}\n---\n"+
			resourceOf("keys", "secretstores.test", "")+
			"apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: other}\nscopes: [somebody]\nspec: {type: test.a, version: v1}\n")
	if err != nil {
		t.Fatal(err)
	}
	a, ok := component.Of[part](in.Set, "a")
	if !ok || a.settings["password"] != "hunter2" || a.settings["city"] != "Cusco" {
		t.Errorf("a has %v", a.settings)
	}
	if _, ok := component.Of[part](in.Set, "other"); ok {
		t.Error("a component of another app was made")
	}
	if _, ok := component.Of[component.State](in.Set, "shared"); !ok {
		t.Error("what is built in is not there")
	}
	if err := in.Close(); err != nil || strings.Join(*closed, " ") != "a keys" {
		t.Errorf("closed: %v, %v", *closed, err)
	}
}

// One that cannot start is told by name and place, and takes the others with it unless it says ignoreErrors.
func TestAComponentThatCannotStartIsNamed(t *testing.T) {
	for typ, want := range map[string]string{"test.broken": "it is broken", "test.unknown": "no such type", "test.slow, initTimeout: 1ms": "deadline exceeded"} {
		_, closed, err := open(t, resourceOf("good", "test.a", "")+resourceOf("bad", typ, ""))
		if err == nil || !strings.Contains(err.Error(), "f.yaml:6: component bad (test.") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", typ, err)
		}
		if strings.Join(*closed, "") != "good" {
			t.Errorf("%s: closed: %v", typ, *closed)
		}
		in, _, err := open(t, resourceOf("good", "test.a", "")+resourceOf("bad", typ, ", ignoreErrors: true"))
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := component.Of[part](in.Set, "good"); !ok || len(in.Ignored) != 1 || !strings.Contains(in.Ignored[0].Error(), "component bad") {
			t.Errorf("%s: ignored: %v", typ, in.Ignored)
		}
	}
	in, _, err := open(t, resourceOf("no", "test.denied", ""))
	if err != nil || len(in.Ignored) != 1 || len(in.Set.All()) != 1 {
		t.Errorf("a type that is denied: %v, %v", in, err)
	}
}

// An application has one state store for its actors: another is refused like one that cannot start.
func TestASecondStoreForActorsIsRefused(t *testing.T) {
	const actors = ", metadata: [{name: actorStateStore, value: %q}]"
	first := resourceOf("one", "state.test", fmt.Sprintf(actors, "true"))
	_, closed, err := open(t, first+resourceOf("two", "state.other", fmt.Sprintf(actors, "yes")))
	if quipu.CodeOf(err) != quipu.CodeComponent || !strings.Contains(err.Error(), "f.yaml:6: component two (state.other)") || !strings.Contains(err.Error(), "component one") {
		t.Error(err)
	}
	if strings.Join(*closed, "") != "one" {
		t.Errorf("closed: %v", *closed)
	}
	for name, second := range map[string]string{"one that is not for actors": resourceOf("two", "state.test", fmt.Sprintf(actors, "false")),
		"one that is no state store":  resourceOf("two", "test.a", fmt.Sprintf(actors, "true")),
		"one for another application": strings.Replace(resourceOf("two", "state.test", fmt.Sprintf(actors, "true")), "spec:", "scopes: [other]\nspec:", 1)} {
		if _, _, err := open(t, first+second); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	in, _, err := open(t, first+strings.Replace(resourceOf("two", "state.test", fmt.Sprintf(actors, "true")), "{type:", "{ignoreErrors: true, type:", 1))
	if err != nil || len(in.Ignored) != 1 {
		t.Errorf("with ignoreErrors: %v", err)
	}
}

// Input bindings are told with their paths; one whose direction is out is none.
func TestInputBindingsAreTold(t *testing.T) {
	in, _, err := open(t, resourceOf("plain", "bindings.tick", "")+
		resourceOf("routed", "bindings.tick", `, metadata: [{name: route, value: /cron/x}, {name: direction, value: "input, output"}]`)+
		resourceOf("out", "bindings.tick", `, metadata: [{name: direction, value: output}]`))
	if err != nil {
		t.Fatal(err)
	}
	if len(in.Inputs) != 2 || in.Inputs[0].Path != "/plain" || in.Inputs[0].Explicit || in.Inputs[1].Path != "/cron/x" || !in.Inputs[1].Explicit {
		t.Errorf("%+v", in.Inputs)
	}
}
