// Package configuration is the configuration store on the log: keys of a store that anybody may read and watch, written
// with quipu config, durable as all state is. The version of an item is its etag, which changes with every write.
package configuration

import (
	"context"
	"fmt"
	"slices"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
)

// Type is what the component is called in a resource.
const Type = "configuration.quipu"

// itemsMax bounds what one answer has.
const itemsMax = 10_000

// New makes a configuration store whose items are those of all stores of its name in the namespace.
func New(_ context.Context, h component.Host, s component.Spec) (any, error) {
	return &Store{state: h.State, watch: h.Watch, store: "configuration:" + s.Name}, nil
}

// Store is component.Configuration.
type Store struct {
	state quipu.State
	watch func(ctx context.Context, store string, ready func(), changed func([]quipu.Item) error) error
	store string
}

var _ component.Configuration = (*Store)(nil)

// Get answers the items that there are.
func (s *Store) Get(ctx context.Context, keys []string, _ map[string]string) (map[string]component.ConfigItem, error) {
	out := map[string]component.ConfigItem{}
	if len(keys) > itemsMax {
		return nil, tooMany()
	}
	if len(keys) > 0 {
		items, err := s.state.Get(ctx, s.store, keys...)
		return add(out, items), err
	}
	for r := (quipu.ListRequest{}); ; {
		page, err := s.state.List(ctx, s.store, r)
		if err != nil {
			return nil, err
		}
		add(out, page.Items)
		if page.Next == "" {
			return out, nil
		}
		if len(out) >= itemsMax {
			return nil, tooMany()
		}
		r.After = page.Next
	}
}

func tooMany() error {
	return &quipu.Error{Code: quipu.CodeTooMany, Op: "configuration.get", Text: fmt.Sprintf("there are more than %d items; ask for some by their keys", itemsMax)}
}

// add leaves out what does not exist.
func add(out map[string]component.ConfigItem, items []quipu.Item) map[string]component.ConfigItem {
	for _, item := range items {
		if item.Exists() {
			out[item.Key] = component.ConfigItem{Value: string(item.Value), Version: item.ETag}
		}
	}
	return out
}

// Subscribe tells of changes of the keys, of all if there are none.
func (s *Store) Subscribe(ctx context.Context, keys []string, _ map[string]string, ready func(), changed func(map[string]component.ConfigItem)) error {
	return s.watch(ctx, s.store, ready, func(items []quipu.Item) error {
		news := map[string]component.ConfigItem{}
		for _, item := range items {
			if len(keys) == 0 || slices.Contains(keys, item.Key) {
				news[item.Key] = component.ConfigItem{}
				add(news, []quipu.Item{item})
			}
		}
		if len(news) > 0 {
			changed(news)
		}
		return nil
	})
}
