package dapr

import (
	"net/http"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
)

// with gives requests components beside the built-in ones.
func (h *house) with(all ...component.Loaded) {
	set := component.NewSet(append(BuiltIn(), all...)...)
	h.opt.Components = func(*http.Request) (*component.Set, error) { return set, nil }
}

// alone gives requests these components and no others.
func (h *house) alone(all ...component.Loaded) {
	set := component.NewSet(all...)
	h.opt.Components = func(*http.Request) (*component.Set, error) { return set, nil }
}

func loaded(name, kind string, is any) component.Loaded {
	return component.Loaded{Spec: component.Spec{Name: name, Type: kind, Version: "v1"}, Is: is}
}

// keysIn are the keys of a store as the app "default" sees it.
func (h *house) keysIn(store string) []string {
	h.t.Helper()
	page, err := h.ns.State("default").List(h.t.Context(), store, quipu.ListRequest{Limit: 1000})
	if err != nil {
		h.t.Fatal(err)
	}
	return keysOf(page.Items)
}
