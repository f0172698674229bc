package dapr

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
)

// with gives requests components beside the built-in ones.
func (h *house) with(all ...component.Loaded) {
	set := component.NewSet(append(BuiltIn(nil), all...)...)
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

// elsewhere is a pub/sub that is not on the log: one queue of what was published, from which each subscriber takes.
type elsewhere struct {
	published chan component.ForeignMessage
	refuse    string // a topic that takes nothing, or data
}

func newElsewhere() *elsewhere {
	return &elsewhere{published: make(chan component.ForeignMessage, 100)}
}

func (e *elsewhere) Features() []string { return nil }

func (e *elsewhere) Publish(_ context.Context, m component.ForeignMessage) error {
	if e.refuse != "" && strings.Contains(m.Topic+string(m.Data), e.refuse) {
		return errors.New("the broker's password is hunter2")
	}
	e.published <- m
	return nil
}

func (e *elsewhere) Subscribe(ctx context.Context, topic string, _ map[string]string, deliver func(context.Context, component.ForeignMessage) error) error {
	for {
		select {
		case m := <-e.published:
			for m.Topic == topic && deliver(ctx, m) != nil && ctx.Err() == nil {
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
