// Package shop is an application written for Dapr with its Go SDK, the same for HTTP and gRPC. Every event that
// it handles it tells to the topic "seen", so that a check can follow it.
package shop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"

	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
)

const pubsub = "pubsub"

// Seen is what the application tells of an event.
type Seen struct {
	App     string `json:"app"`
	Route   string `json:"route"`
	Topic   string `json:"topic"`
	ID      string `json:"id"`
	Data    string `json:"data"`
	Attempt int    `json:"attempt"`
}

type shop struct {
	name string
	dapr client.Client

	mu       sync.Mutex // guards attempts
	attempts map[string]int
}

// Serve registers everything with a service and serves until it is interrupted.
func Serve(name string, s common.Service) error {
	dapr, err := client.NewClient()
	if err != nil {
		return err
	}
	defer dapr.Close()
	sh := &shop{name: name, dapr: dapr, attempts: map[string]int{}}
	for _, sub := range []struct {
		common.Subscription
		then func(attempt int) (retry bool, err error)
	}{
		{common.Subscription{Topic: "orders", Route: "/orders"}, succeed},
		{common.Subscription{Topic: "orders", Route: "/widgets", Match: `event.type == "widget"`, Priority: 1}, succeed},
		{common.Subscription{Topic: "bytes", Route: "/bytes", Metadata: map[string]string{"rawPayload": "true"}}, succeed},
		{common.Subscription{Topic: "flaky", Route: "/flaky"}, func(attempt int) (bool, error) {
			if attempt < 3 {
				return true, errors.New("not yet")
			}
			return false, nil
		}},
		{common.Subscription{Topic: "poison", Route: "/poison", DeadLetterTopic: "poison-dead"}, func(int) (bool, error) {
			return false, errors.New("never")
		}},
	} {
		sub.PubsubName = pubsub
		if err := s.AddTopicEventHandler(&sub.Subscription, sh.handler(sub.Route, sub.then)); err != nil {
			return err
		}
	}
	for method, handle := range map[string]common.ServiceInvocationHandler{"/echo": echo, "/fail": fail, "/count": sh.count, "/secret": sh.secret, "/declared": sh.declared} {
		if err := s.AddServiceInvocationHandler(method, handle); err != nil {
			return err
		}
	}
	return run(s)
}

func run(s common.Service) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- s.Start() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return s.Stop()
	}
}

func succeed(int) (bool, error) { return false, nil }

// handler tells what it got, and then does as it is told.
func (s *shop) handler(route string, then func(int) (bool, error)) common.TopicEventHandler {
	return func(ctx context.Context, e *common.TopicEvent) (bool, error) {
		s.mu.Lock()
		key := e.Topic + " " + e.ID
		s.attempts[key]++
		attempt := s.attempts[key]
		s.mu.Unlock()
		data := Seen{s.name, route, e.Topic, e.ID, string(e.RawData), attempt}
		if err := s.dapr.PublishEvent(ctx, pubsub, "seen", data); err != nil {
			return true, err
		}
		return then(attempt)
	}
}

// declared is the route of a subscription that subscriptions.yaml declares: an event comes in its envelope.
func (s *shop) declared(ctx context.Context, in *common.InvocationEvent) (*common.Content, error) {
	var e struct {
		ID    string          `json:"id"`
		Topic string          `json:"topic"`
		Data  json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(in.Data, &e); err != nil {
		return nil, err
	}
	return nil, s.dapr.PublishEvent(ctx, pubsub, "seen", Seen{s.name, "/declared", e.Topic, e.ID, string(e.Data), 1})
}

func echo(_ context.Context, in *common.InvocationEvent) (*common.Content, error) {
	return &common.Content{Data: fmt.Appendf(nil, "%s %s %s", in.Verb, in.QueryString, in.Data), ContentType: in.ContentType}, nil
}

func fail(context.Context, *common.InvocationEvent) (*common.Content, error) {
	return nil, errors.New("this method always fails")
}

// secret answers a secret of the application, read alone and with all others.
func (s *shop) secret(ctx context.Context, _ *common.InvocationEvent) (*common.Content, error) {
	one, err := s.dapr.GetSecret(ctx, "secretstore", "GREETING", nil)
	if err != nil {
		return nil, err
	}
	all, err := s.dapr.GetBulkSecret(ctx, "secretstore", nil)
	if err != nil {
		return nil, err
	}
	return &common.Content{Data: []byte(one["GREETING"] + ", " + all["GREETING"]["GREETING"]), ContentType: "text/plain"}, nil
}

// count adds one to a number in the application's own state.
func (s *shop) count(ctx context.Context, _ *common.InvocationEvent) (*common.Content, error) {
	item, err := s.dapr.GetState(ctx, "statestore", "count", nil)
	if err != nil {
		return nil, err
	}
	n := 0
	if len(item.Value) > 0 {
		if err := json.Unmarshal(item.Value, &n); err != nil {
			return nil, err
		}
	}
	text := fmt.Appendf(nil, "%d", n+1)
	if err := s.dapr.SaveState(ctx, "statestore", "count", text, nil); err != nil {
		return nil, err
	}
	return &common.Content{Data: text, ContentType: "application/json"}, nil
}
