// Flights is the flights example as an application for Dapr, with its Go SDK as it is: it publishes flights, sums them
// up, writes a summary by the clock and serves both. Nothing in it knows about quipu.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"os"
	"slices"

	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
	daprd "github.com/dapr/go-sdk/service/http"
)

const (
	pubsub = "pubsub"
	topic  = "flights"
	store  = "statestore"
)

type app struct{ dapr client.Client }

func main() {
	if err := run(); err != nil && !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

func run() error {
	dapr, err := client.NewClient()
	if err != nil {
		return err
	}
	defer dapr.Close()
	a := app{dapr}
	s := daprd.NewService("127.0.0.1:" + os.Getenv("PORT"))
	if err := s.AddTopicEventHandler(&common.Subscription{PubsubName: pubsub, Topic: topic, Route: "/stats"}, a.stats); err != nil {
		return err
	}
	for path, handle := range map[string]func(context.Context, []byte) (any, error){
		"/flights": a.ingest, "/hourly": a.hourly, "/table": a.table, "/hours": a.hours,
	} {
		if err := s.AddServiceInvocationHandler(path, answer(handle)); err != nil {
			return err
		}
	}
	return s.Start()
}

// answer makes a method of a function.
func answer(function func(context.Context, []byte) (any, error)) common.ServiceInvocationHandler {
	return func(ctx context.Context, in *common.InvocationEvent) (*common.Content, error) {
		reply, err := function(ctx, in.Data)
		if err != nil {
			return nil, err
		}
		data, err := json.Marshal(reply)
		return &common.Content{Data: data, ContentType: "application/json"}, err
	}
}

// ingest publishes each flight of a request.
func (a app) ingest(ctx context.Context, body []byte) (any, error) {
	var flights []any
	if err := json.Unmarshal(body, &flights); err != nil {
		return nil, err
	}
	if res := a.dapr.PublishEvents(ctx, pubsub, topic, flights); res.Error != nil {
		return nil, res.Error
	}
	return map[string]int{"published": len(flights)}, nil
}

// stats adds one flight to the sums of its airport.
func (a app) stats(ctx context.Context, e *common.TopicEvent) (retry bool, err error) {
	var f flight
	if err := json.Unmarshal(e.RawData, &f); err != nil {
		return false, err // it will never be one
	}
	return true, a.add(ctx, f)
}

func (a app) add(ctx context.Context, f flight) error {
	all, err := a.readSums(ctx, []string{f.Origin})
	if err != nil {
		return err
	}
	s, known := all[f.Origin]
	if !known {
		airports, err := a.readAirports(ctx)
		if err != nil {
			return err
		}
		if err := a.set(ctx, "airports", slices.Sorted(slices.Values(append(airports, f.Origin)))); err != nil {
			return err
		}
		s = sums{}
	}
	s.add(f)
	return a.set(ctx, "airport/"+f.Origin, s)
}

// hourly sums all airports up.
func (a app) hourly(ctx context.Context, _ []byte) (any, error) {
	all, err := a.readAll(ctx)
	if err != nil {
		return nil, err
	}
	var last summary
	if err := a.get(ctx, "summary", &last); err != nil {
		return nil, err
	}
	s := sumUp(all)
	s.Written = last.Written + 1
	return s, a.set(ctx, "summary", s)
}

func (a app) table(ctx context.Context, _ []byte) (any, error) { return a.readAll(ctx) }

func (a app) hours(ctx context.Context, _ []byte) (any, error) {
	var s summary
	return &s, a.get(ctx, "summary", &s)
}

func (a app) readAirports(ctx context.Context) (list []string, err error) {
	err = a.get(ctx, "airports", &list)
	return list, err
}

func (a app) readAll(ctx context.Context) (map[string]sums, error) {
	airports, err := a.readAirports(ctx)
	if err != nil {
		return nil, err
	}
	return a.readSums(ctx, airports)
}

func (a app) readSums(ctx context.Context, airports []string) (map[string]sums, error) {
	all := map[string]sums{}
	if len(airports) == 0 {
		return all, nil
	}
	keys := make([]string, len(airports))
	for i, airport := range airports {
		keys[i] = "airport/" + airport
	}
	items, err := a.dapr.GetBulkState(ctx, store, keys, nil, 1)
	if err != nil {
		return nil, err
	}
	for _, item := range items {
		if len(item.Value) == 0 {
			continue
		}
		var s sums
		if err := json.Unmarshal(item.Value, &s); err != nil {
			return nil, err
		}
		all[item.Key[len("airport/"):]] = s
	}
	return all, nil
}

// get reads a value; without one, out stays what it is.
func (a app) get(ctx context.Context, key string, out any) error {
	item, err := a.dapr.GetState(ctx, store, key, nil)
	if err != nil || len(item.Value) == 0 {
		return err
	}
	return json.Unmarshal(item.Value, out)
}

func (a app) set(ctx context.Context, key string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return a.dapr.SaveState(ctx, store, key, data, nil)
}
