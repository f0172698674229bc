package dapr

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
	"google.golang.org/grpc/codes"
)

// Limits of configuration.
const (
	configKeysMax   = 1000 // of one request
	configSubsMax   = 1000 // subscriptions of a door
	configTellTries = 5    // before an application is not told of a change; it is told of the next
	configTellPause = 200 * time.Millisecond
)

const (
	tagConfigGet         = "ERR_CONFIGURATION_GET"
	tagConfigSubscribe   = "ERR_CONFIGURATION_SUBSCRIBE"
	tagConfigUnsubscribe = "ERR_CONFIGURATION_UNSUBSCRIBE"
)

// configOf finds a configuration store. Dapr says one thing over HTTP and another over gRPC.
func (d *Door) configOf(r *http.Request, tag, name string, keys []string) (component.Configuration, error) {
	set, err := d.set(r)
	if err != nil {
		return nil, d.problem(r, tag, "", err)
	}
	store, ok := component.Of[component.Configuration](set, name)
	p := &problem{terse: true}
	switch {
	case !ok && !component.Any[component.Configuration](set):
		p.status, p.code, p.tag, p.message = http.StatusInternalServerError, codes.FailedPrecondition, "ERR_CONFIGURATION_STORE_NOT_CONFIGURED", "configuration stores not configured"
	case !ok:
		p.status, p.tag, p.message = http.StatusBadRequest, "ERR_CONFIGURATION_STORE_NOT_FOUND", fmt.Sprintf("configuration store %s not found", name)
	case len(keys) > configKeysMax:
		p.status, p.tag, p.message = http.StatusBadRequest, tag, fmt.Sprintf("there are %d keys; the most is %d", len(keys), configKeysMax)
	default:
		return store, nil
	}
	p.reason = p.tag
	return nil, p
}

func (d *Door) getConfiguration(r *http.Request, name string, keys []string, metadata map[string]string) (map[string]component.ConfigItem, error) {
	store, err := d.configOf(r, tagConfigGet, name, keys)
	if err != nil {
		return nil, err
	}
	items, err := store.Get(r.Context(), keys, metadata)
	if err != nil {
		return nil, d.problem(r, tagConfigGet, fmt.Sprintf("failed to get %s from Configuration store %s: ", keys, name), err)
	}
	return items, nil
}

// configSubs are the open subscriptions of a door, by id.
type configSubs struct {
	mu   sync.Mutex
	open map[string]context.CancelFunc // guarded by mu; nil after close
	done sync.WaitGroup
}

// begin opens a subscription, which ends with its context or by its id. Call end when it has ended.
func (s *configSubs) begin(ctx context.Context) (sub context.Context, id string, end func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		return nil, "", nil, &quipu.Error{Code: quipu.CodeStopping, Text: "the node is stopping, or the instance is"}
	}
	if len(s.open) >= configSubsMax {
		return nil, "", nil, &quipu.Error{Code: quipu.CodeOverloaded, Text: fmt.Sprintf("there are %d subscriptions to configuration, which is the most", configSubsMax)}
	}
	id = rand.Text()
	sub, cancel := context.WithCancel(ctx)
	s.open[id] = cancel
	return sub, id, func() { s.cancel(id) }, nil
}

// run starts what close waits for, unless it is closed.
func (s *configSubs) run(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open != nil {
		s.done.Go(f)
	}
}

// cancel ends a subscription, and tells whether there was one.
func (s *configSubs) cancel(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	cancel, ok := s.open[id]
	if ok {
		cancel()
		delete(s.open, id)
	}
	return ok
}

// close ends all, now and later, and waits for those that tell an application.
func (s *configSubs) close() {
	s.mu.Lock()
	all := s.open
	s.open = nil
	for _, cancel := range all {
		cancel()
	}
	s.mu.Unlock()
	s.done.Wait()
}

// configuration serves configuration/{store}, /subscribe and /{id}/unsubscribe. Dapr's methods are all GET.
func (d *Door) configuration(w http.ResponseWriter, r *http.Request, parts []string) {
	if !allow(w, r, http.MethodGet) {
		return
	}
	name, keys := unescape(parts[0]), r.URL.Query()["key"]
	switch {
	case len(parts) == 1:
		items, err := d.getConfiguration(r, name, keys, queryMetadata(r))
		switch {
		case err != nil:
			d.fail(w, r, tagConfigGet, err)
		case len(items) == 0:
			w.WriteHeader(http.StatusNoContent)
		default:
			answerWith(w, http.StatusOK, items)
		}
	case len(parts) == 2 && parts[1] == "subscribe":
		id, err := d.subscribeConfiguration(r, name, keys)
		if err != nil {
			d.fail(w, r, tagConfigSubscribe, err)
			return
		}
		answerWith(w, http.StatusOK, map[string]string{"id": id})
	case len(parts) == 3 && parts[2] == "unsubscribe":
		d.unsubscribeConfiguration(w, r, name, unescape(parts[1]))
	default:
		d.invoke(w, r) // no such path in Dapr
	}
}

func (d *Door) unsubscribeConfiguration(w http.ResponseWriter, r *http.Request, name, id string) {
	if _, err := d.configOf(r, tagConfigUnsubscribe, name, nil); err != nil {
		d.fail(w, r, tagConfigUnsubscribe, err)
		return
	}
	if !d.configs.cancel(id) {
		answerWith(w, http.StatusInternalServerError, map[string]string{"message": noSubscription(id)})
		return
	}
	answerWith(w, http.StatusOK, map[string]bool{"ok": true})
}

func noSubscription(id string) string {
	return fmt.Sprintf("failed to unsubscribe to configuration request %.100s: subscription does not exist", id)
}

// subscribeConfiguration returns when no change will be missed. It tells the application until somebody unsubscribes or the door
// closes.
func (d *Door) subscribeConfiguration(r *http.Request, name string, keys []string) (string, error) {
	store, err := d.configOf(r, tagConfigSubscribe, name, keys)
	if err != nil {
		return "", err
	}
	if d.opt.Tell == nil {
		return "", &problem{status: http.StatusInternalServerError, tag: "ERR_APP_CHANNEL_NIL", message: "app channel is not initialized. cannot subscribe to configuration updates"}
	}
	ctx, id, end, err := d.configs.begin(context.WithoutCancel(r.Context()))
	if err != nil {
		return "", d.configProblem(r, name, keys, err)
	}
	later, metadata := r.Clone(ctx), queryMetadata(r)
	later.Body = http.NoBody
	ready, failed := make(chan struct{}), make(chan error, 1)
	d.configs.run(func() {
		defer end()
		err := store.Subscribe(ctx, keys, metadata, sync.OnceFunc(func() { close(ready) }), func(items map[string]component.ConfigItem) {
			d.tellConfiguration(later, name, id, items)
		})
		if failed <- err; err != nil && ctx.Err() == nil {
			d.opt.Logger.Warn("a subscription to configuration ended", "component", name, "err", err)
		}
	})
	select {
	case <-ready:
		return id, nil
	case err := <-failed:
		if err == nil {
			err = errors.New("it ended at once")
		}
		return "", d.configProblem(r, name, keys, err)
	case <-r.Context().Done():
		d.configs.cancel(id)
		return "", d.configProblem(r, name, keys, r.Context().Err())
	case <-ctx.Done(): // the door closes
		return "", d.configProblem(r, name, keys, errClosing)
	}
}

func (d *Door) configProblem(r *http.Request, name string, keys []string, err error) *problem {
	p := d.problem(r, tagConfigSubscribe, fmt.Sprintf("failed to subscribe %s from Configuration store %s: ", keys, name), err)
	if p.status == http.StatusInternalServerError {
		p.code = codes.InvalidArgument // Dapr says so
	}
	return p
}

// tellConfiguration posts each key to the application, which may be busy for a moment. Every post has all items, as in Dapr.
func (d *Door) tellConfiguration(r *http.Request, name, id string, items map[string]component.ConfigItem) {
	body, err := json.Marshal(map[string]any{"id": id, "items": items})
	if err != nil {
		panic(fmt.Sprintf("dapr: marshal configuration: %v", err)) // maps of strings
	}
	for key := range items {
		path := "/configuration/" + url.PathEscape(name) + "/" + url.PathEscape(key)
		if err := d.tell(r, path, body); err != nil && r.Context().Err() == nil {
			d.opt.Logger.Warn("an application was not told of its configuration", "component", name, "key", key, "err", err)
		}
	}
}

func (d *Door) tell(r *http.Request, path string, body []byte) error {
	for try := 1; ; try++ {
		err := d.opt.Tell(r, http.MethodPost, path, body)
		if err == nil || try == configTellTries {
			return err
		}
		select {
		case <-d.opt.Clock.After(configTellPause << try):
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}
}

// GetConfiguration answers the items that there are.
func (s *runtime) GetConfiguration(ctx context.Context, in *rtv1.GetConfigurationRequest) (*rtv1.GetConfigurationResponse, error) {
	items, err := s.d.getConfiguration(requestOf(ctx), in.GetStoreName(), in.GetKeys(), in.GetMetadata())
	if err != nil {
		return nil, err
	}
	return &rtv1.GetConfigurationResponse{Items: configItems(items)}, nil
}

// GetConfigurationAlpha1 is the name it had before.
func (s *runtime) GetConfigurationAlpha1(ctx context.Context, in *rtv1.GetConfigurationRequest) (*rtv1.GetConfigurationResponse, error) {
	return s.GetConfiguration(ctx, in)
}

func configItems(items map[string]component.ConfigItem) map[string]*commonv1.ConfigurationItem {
	out := make(map[string]*commonv1.ConfigurationItem, len(items))
	for key, item := range items {
		out[key] = &commonv1.ConfigurationItem{Value: item.Value, Version: item.Version, Metadata: item.Metadata}
	}
	return out
}

// configStream is one of either name of the method.
type configStream interface {
	Context() context.Context
	Send(*rtv1.SubscribeConfigurationResponse) error
}

// SubscribeConfiguration first tells the id of the subscription, then each change.
func (s *runtime) SubscribeConfiguration(in *rtv1.SubscribeConfigurationRequest, stream rtv1.Dapr_SubscribeConfigurationServer) error {
	return s.streamConfiguration(in, stream)
}

// SubscribeConfigurationAlpha1 is the name it had before.
func (s *runtime) SubscribeConfigurationAlpha1(in *rtv1.SubscribeConfigurationRequest, stream rtv1.Dapr_SubscribeConfigurationAlpha1Server) error {
	return s.streamConfiguration(in, stream)
}

func (s *runtime) streamConfiguration(in *rtv1.SubscribeConfigurationRequest, stream configStream) error {
	r := requestOf(stream.Context())
	store, err := s.d.configOf(r, tagConfigSubscribe, in.GetStoreName(), in.GetKeys())
	if err != nil {
		return err
	}
	ctx, id, end, err := s.d.configs.begin(stream.Context())
	if err != nil {
		return s.d.configProblem(r, in.GetStoreName(), in.GetKeys(), err)
	}
	defer end()
	var sending sync.Mutex
	send := func(items map[string]component.ConfigItem) {
		sending.Lock()
		defer sending.Unlock()
		if stream.Send(&rtv1.SubscribeConfigurationResponse{Id: id, Items: configItems(items)}) != nil {
			s.d.configs.cancel(id) // nobody listens any more
		}
	}
	err = store.Subscribe(ctx, in.GetKeys(), in.GetMetadata(), sync.OnceFunc(func() { send(nil) }), send)
	switch {
	case s.d.closing.Err() != nil:
		return errClosing
	case ctx.Err() != nil: // the client left, or has unsubscribed
		return nil
	case err != nil:
		return s.d.configProblem(r, in.GetStoreName(), in.GetKeys(), err)
	}
	return nil
}

// UnsubscribeConfiguration ends a subscription of either protocol.
func (s *runtime) UnsubscribeConfiguration(_ context.Context, in *rtv1.UnsubscribeConfigurationRequest) (*rtv1.UnsubscribeConfigurationResponse, error) {
	if !s.d.configs.cancel(in.GetId()) {
		return &rtv1.UnsubscribeConfigurationResponse{Message: noSubscription(in.GetId())}, nil
	}
	return &rtv1.UnsubscribeConfigurationResponse{Ok: true}, nil
}

// UnsubscribeConfigurationAlpha1 is the name it had before.
func (s *runtime) UnsubscribeConfigurationAlpha1(ctx context.Context, in *rtv1.UnsubscribeConfigurationRequest) (*rtv1.UnsubscribeConfigurationResponse, error) {
	return s.UnsubscribeConfiguration(ctx, in)
}
