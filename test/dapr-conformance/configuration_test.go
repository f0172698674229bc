package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"sync"

	"github.com/dapr/components-contrib/configuration"
	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// settings is a configuration store over gRPC: a subscription is a stream.
type settings struct{ component }

func (s *settings) Init(_ context.Context, m configuration.Metadata) error {
	return s.declare(m.Properties)
}

func (s *settings) Get(ctx context.Context, r *configuration.GetRequest) (*configuration.GetResponse, error) {
	got, err := s.GetConfiguration(ctx, &rtv1.GetConfigurationRequest{StoreName: s.name, Keys: r.Keys, Metadata: r.Metadata})
	return &configuration.GetResponse{Items: itemsOf(got.GetItems())}, err
}

func itemsOf(all map[string]*commonv1.ConfigurationItem) map[string]*configuration.Item {
	out := map[string]*configuration.Item{}
	for key, one := range all {
		out[key] = itemWith(one.GetValue(), one.GetVersion(), one.GetMetadata())
	}
	return out
}

// itemWith has metadata even if there is none, as upstream's items.
func itemWith(value, version string, metadata map[string]string) *configuration.Item {
	if metadata == nil {
		metadata = map[string]string{}
	}
	return &configuration.Item{Value: value, Version: version, Metadata: metadata}
}

// Subscribe returns when the node has told the id of the subscription.
func (s *settings) Subscribe(ctx context.Context, r *configuration.SubscribeRequest, handle configuration.UpdateHandler) (string, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // the suite's ends with the part that subscribes
	s.t.Cleanup(cancel)
	stream, err := s.SubscribeConfiguration(ctx, &rtv1.SubscribeConfigurationRequest{StoreName: s.name, Keys: r.Keys, Metadata: r.Metadata})
	if err != nil {
		return "", err
	}
	first, err := stream.Recv()
	if err != nil {
		return "", err
	}
	var taking sync.WaitGroup
	s.t.Cleanup(func() { cancel(); taking.Wait() })
	taking.Go(func() {
		for {
			got, err := stream.Recv()
			if err != nil { // somebody has unsubscribed
				return
			}
			if err := handle(ctx, &configuration.UpdateEvent{ID: got.GetId(), Items: itemsOf(got.GetItems())}); err != nil {
				s.t.Error(err)
			}
		}
	})
	return first.GetId(), nil
}

func (s *settings) Unsubscribe(ctx context.Context, r *configuration.UnsubscribeRequest) error {
	got, err := s.UnsubscribeConfiguration(ctx, &rtv1.UnsubscribeConfigurationRequest{StoreName: s.name, Id: r.ID})
	if err == nil && !got.GetOk() {
		err = errors.New(got.GetMessage())
	}
	return err
}

// webSettings is a configuration store over HTTP: changes are posted to the application.
type webSettings struct {
	component
	mu       sync.Mutex // guards what follows
	handlers map[string]configuration.UpdateHandler
	early    map[string][]*configuration.UpdateEvent // before Subscribe knew their id
}

func newWebSettings(c component) *webSettings {
	return &webSettings{component: c, handlers: map[string]configuration.UpdateHandler{}, early: map[string][]*configuration.UpdateEvent{}}
}

func (s *webSettings) Init(_ context.Context, m configuration.Metadata) (err error) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /configuration/"+s.name+"/{key}", s.changed)
	s.application, err = attach(s.t, s.node, s.name, web(s.t, mux), s.resources(m.Properties), s.dir)
	return err
}

func (s *webSettings) Get(ctx context.Context, r *configuration.GetRequest) (*configuration.GetResponse, error) {
	out := &configuration.GetResponse{Items: map[string]*configuration.Item{}}
	var got map[string]configuration.Item
	err := s.ask(ctx, http.MethodGet, "/v1.0/configuration/"+s.name+keysOf(r.Keys), nil, &got)
	for key, one := range got {
		out.Items[key] = itemWith(one.Value, one.Version, one.Metadata)
	}
	return out, err
}

func keysOf(keys []string) string {
	if len(keys) == 0 {
		return ""
	}
	return "?" + url.Values{"key": keys}.Encode()
}

func (s *webSettings) Subscribe(ctx context.Context, r *configuration.SubscribeRequest, handle configuration.UpdateHandler) (string, error) {
	var got struct {
		ID string `json:"id"`
	}
	if err := s.ask(ctx, http.MethodGet, "/v1.0/configuration/"+s.name+"/subscribe"+keysOf(r.Keys), nil, &got); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers[got.ID] = handle
	for _, e := range s.early[got.ID] {
		if err := handle(ctx, e); err != nil {
			return "", err
		}
	}
	delete(s.early, got.ID)
	return got.ID, nil
}

// changed is told each key by itself, in a body with all that changed together.
func (s *webSettings) changed(w http.ResponseWriter, r *http.Request) {
	var e configuration.UpdateEvent
	if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	key := r.PathValue("key")
	if e.Items[key] == nil {
		s.t.Errorf("a change of %s does not have it", key)
		return
	}
	only := &configuration.UpdateEvent{ID: e.ID, Items: map[string]*configuration.Item{key: e.Items[key]}}
	s.mu.Lock()
	defer s.mu.Unlock()
	handle := s.handlers[e.ID]
	if handle == nil {
		s.early[e.ID] = append(s.early[e.ID], only)
		return
	}
	if err := handle(r.Context(), only); err != nil {
		s.t.Error(err)
	}
}

func (s *webSettings) Unsubscribe(ctx context.Context, r *configuration.UnsubscribeRequest) error {
	return s.ask(ctx, http.MethodGet, "/v1.0/configuration/"+s.name+"/"+url.PathEscape(r.ID)+"/unsubscribe", nil, nil)
}

// writer writes configuration, as quipu config does: Dapr's API only reads it.
type writer struct{ state sdk.State }

func (writer) Init(map[string]string) error { return nil }

func (w writer) AddKey(items map[string]*configuration.Item) error {
	for key, one := range items {
		if err := w.state.Apply(context.Background(), quipu.Change{Key: key, Value: []byte(one.Value)}); err != nil {
			return err
		}
	}
	return nil
}

func (w writer) UpdateKey(items map[string]*configuration.Item) error { return w.AddKey(items) }

func (w writer) DeleteKey(keys []string) error {
	for _, key := range keys {
		if err := w.state.Apply(context.Background(), quipu.Change{Key: key, Delete: true}); err != nil {
			return err
		}
	}
	return nil
}
