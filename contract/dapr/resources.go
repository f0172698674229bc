package dapr

import (
	"fmt"
	"slices"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/resource"
)

// Declared is a subscription that a file declares; its scopes are functions, and none means all that are Dapr applications.
type Declared struct {
	resource.Resource
	Trigger quipu.TopicTrigger
}

// Declare reads the subscriptions of files, of both versions. CodeManifest and CodeAppCallback, with
// file and line.
func Declare(all []resource.Subscription) ([]Declared, error) {
	if len(all) > subscriptionsMax {
		return nil, manifest("%s:%d: there are more than %d subscriptions", all[subscriptionsMax].File, all[subscriptionsMax].Line, subscriptionsMax)
	}
	out := make([]Declared, 0, len(all))
	for _, s := range all {
		t, err := trigger(s)
		if err != nil {
			return nil, err
		}
		out = append(out, Declared{Resource: s.Resource, Trigger: t})
	}
	return out, nil
}

// trigger reads a subscription: the first version has a route, the second has routes.
func trigger(s resource.Subscription) (quipu.TopicTrigger, error) {
	var d declared
	at := fmt.Sprintf("%s:%d", s.File, s.Line)
	if err := s.Spec.Decode(&d); err != nil {
		text := strings.TrimPrefix(err.Error(), "yaml: ")
		return quipu.TopicTrigger{}, manifest("%s: Subscription %q: %s", at, s.Name, strings.Join(strings.Fields(text), " "))
	}
	switch s.APIVersion {
	case "dapr.io/v1alpha1":
		if d.Route == "" {
			return quipu.TopicTrigger{}, manifest("%s: Subscription %q of %s has no route", at, s.Name, s.APIVersion)
		}
		d.Routes = routes{}
	case "dapr.io/v2alpha1":
		if d.Routes.Default == "" && len(d.Routes.Rules) == 0 {
			return quipu.TopicTrigger{}, manifest("%s: Subscription %q of %s has no routes", at, s.Name, s.APIVersion)
		}
		d.Route = ""
	default:
		return quipu.TopicTrigger{}, manifest("%s: Subscription %q is of apiVersion %s; dapr.io/v1alpha1 and dapr.io/v2alpha1 are known", at, s.Name, s.APIVersion)
	}
	t, err := d.trigger()
	if err != nil {
		e := *quipu.AsError(err)
		e.Text = at + ": " + e.Text
		return t, &e
	}
	return t, nil
}

func manifest(format string, args ...any) error {
	return &quipu.Error{Code: quipu.CodeManifest, Op: "app.read", Text: fmt.Sprintf(format, args...), Hint: quipu.Codes[quipu.CodeManifest].Next}
}

// Merge are the subscriptions of a function: what it says itself, and what files declare for it about other topics.
// CodeManifest if two files declare the same.
func Merge(function string, said []quipu.TopicTrigger, declared []Declared) ([]quipu.TopicTrigger, error) {
	all := slices.Clone(said)
	by := map[place]Declared{}
	for _, d := range declared {
		if !d.For(function) {
			continue
		}
		at := placeOf(d.Trigger)
		if other, twice := by[at]; twice {
			return nil, manifest("%s:%d: function %s subscribes to topic %q twice, here and in %s:%d", d.File, d.Line, function, at.topic, other.File, other.Line)
		}
		by[at] = d
		if !slices.ContainsFunc(said, func(t quipu.TopicTrigger) bool { return placeOf(t) == at }) {
			all = append(all, d.Trigger)
		}
	}
	return all, nil
}
