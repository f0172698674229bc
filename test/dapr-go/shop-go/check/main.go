// Program check uses the Go SDK of Dapr, unmodified, as a client from outside of a node that runs the shop in both
// its forms. It finds the node by what the SDK reads, DAPR_GRPC_PORT and DAPR_API_TOKEN.
// It prints "ok" last, or fails. It may run any number of times against one node. With an argument it also checks what
// subscriptions.yaml declares.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"slices"
	"strings"
	"time"

	"dapr-go/shop"

	"github.com/dapr/go-sdk/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const store, pubsub = "statestore", "pubsub"

func main() {
	log.SetFlags(0)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dapr, err := client.NewClient()
	if err != nil {
		log.Fatal(err)
	}
	defer dapr.Close()
	c := &check{Client: dapr, run: fmt.Sprintf("run-%d", time.Now().UnixNano())}
	type step struct {
		name string
		do   func(context.Context) error
	}
	steps := []step{
		{"state", c.state}, {"etags", c.etags}, {"transactions", c.transactions}, {"secrets", c.secrets}, {"metadata", c.metadata},
		{"errors", c.errors}, {"invocation", c.invocation}, {"proxying", c.proxying}, {"events", c.events}, {"streams", c.streams},
	}
	if len(os.Args) > 1 { // whoever runs the applications has read their files too
		steps = append(steps, step{"files", c.files})
	}
	for _, step := range steps {
		if err := step.do(ctx); err != nil {
			log.Fatalf("%s: %v", step.name, err)
		}
		fmt.Println(step.name)
	}
	fmt.Println("ok")
}

type check struct {
	client.Client
	run string // in every key and event, so that runs do not meet
}

func (c *check) key(name string) string { return c.run + "-" + name }

// want is an error unless got is what it should be.
func want(what string, got, want any) error {
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		return fmt.Errorf("%s is %s, not %s", what, g, w)
	}
	return nil
}

func (c *check) state(ctx context.Context) error {
	a, b, missing := c.key("a"), c.key("b"), c.key("missing")
	if err := c.SaveState(ctx, store, a, []byte(`{"n": 1}`), nil); err != nil {
		return err
	}
	if err := c.SaveBulkState(ctx, store, &client.SetStateItem{Key: b, Value: []byte("\x00\xff")}, &client.SetStateItem{Key: c.key("brief"), Value: []byte("x"), Metadata: map[string]string{"ttlInSeconds": "60"}}); err != nil {
		return err
	}
	items, err := c.GetBulkState(ctx, store, []string{b, missing, a}, nil, 2)
	if err != nil {
		return err
	}
	one, err := c.GetState(ctx, store, a, nil)
	if err != nil {
		return err
	}
	brief, err := c.GetState(ctx, store, c.key("brief"), nil)
	if err != nil {
		return err
	}
	none, err := c.GetState(ctx, store, missing, nil)
	return errors.Join(err, want("one value", string(one.Value), `{"n": 1}`), want("bulk", len(items), 3), want("bytes", items[0].Value, []byte("\x00\xff")),
		want("what is missing", len(items[1].Value)+len(none.Value)+len(none.Etag), 0), want("has a time to live", brief.Metadata["ttlExpireTime"] != "", true),
		c.DeleteState(ctx, store, a, nil), c.DeleteBulkState(ctx, store, []string{b, missing}, nil), c.gone(ctx, a), c.gone(ctx, b))
}

func (c *check) gone(ctx context.Context, key string) error {
	item, err := c.GetState(ctx, store, key, nil)
	if err == nil && item.Etag != "" {
		err = fmt.Errorf("%s is still there", key)
	}
	return err
}

func (c *check) etags(ctx context.Context) error {
	key := c.key("etag")
	if err := c.SaveState(ctx, store, key, []byte("1"), nil); err != nil {
		return err
	}
	old, err := c.GetState(ctx, store, key, nil)
	if err != nil {
		return err
	}
	first := client.WithConcurrency(client.StateConcurrencyFirstWrite)
	if err := c.SaveStateWithETag(ctx, store, key, []byte("2"), old.Etag, nil, first); err != nil {
		return err
	}
	err = c.SaveStateWithETag(ctx, store, key, []byte("3"), old.Etag, nil, first)
	return errors.Join(want("a wrong etag", code(err), codes.Aborted), c.is(ctx, key, "2"))
}

// code looks through what the SDK wraps around a status.
func code(err error) codes.Code {
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) {
		return s.GRPCStatus().Code()
	}
	return status.Code(err)
}

func (c *check) is(ctx context.Context, key, value string) error {
	item, err := c.GetState(ctx, store, key, nil)
	if err != nil {
		return err
	}
	return want(key, string(item.Value), value)
}

func (c *check) transactions(ctx context.Context) error {
	a, b := c.key("ta"), c.key("tb")
	upsert := func(key, value, etag string) *client.StateOperation {
		item := &client.SetStateItem{Key: key, Value: []byte(value)}
		if etag != "" {
			item.Etag, item.Options = &client.ETag{Value: etag}, &client.StateOptions{Concurrency: client.StateConcurrencyFirstWrite}
		}
		return &client.StateOperation{Type: client.StateOperationTypeUpsert, Item: item}
	}
	remove := &client.StateOperation{Type: client.StateOperationTypeDelete, Item: &client.SetStateItem{Key: a}}
	if err := c.ExecuteStateTransaction(ctx, store, nil, []*client.StateOperation{upsert(a, "1", ""), upsert(b, "1", "")}); err != nil {
		return err
	}
	err := c.ExecuteStateTransaction(ctx, store, nil, []*client.StateOperation{remove, upsert(b, "2", "00000000000000ff")})
	if err == nil {
		return errors.New("a transaction with a wrong etag happened")
	}
	return errors.Join(c.is(ctx, a, "1"), c.is(ctx, b, "1"),
		c.ExecuteStateTransaction(ctx, store, nil, []*client.StateOperation{remove, upsert(b, "3", "")}), c.gone(ctx, a), c.is(ctx, b, "3"))
}

// secrets are those of an application, so it is asked for what it reads.
func (c *check) secrets(ctx context.Context) error {
	for _, app := range apps {
		got, err := c.InvokeMethod(ctx, app, "secret", "post")
		if err != nil {
			return err
		}
		if err := want("the secret of "+app, string(got), "hello from secrets.env, hello from secrets.env"); err != nil {
			return err
		}
	}
	_, err := c.GetSecret(ctx, "vault", "GREETING", nil)
	return want("a store that is not there", code(err), codes.InvalidArgument)
}

func (c *check) metadata(ctx context.Context) error {
	if err := c.SetMetadata(ctx, "color", "blue"); err != nil {
		return err
	}
	m, err := c.GetMetadata(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, one := range m.RegisteredComponents {
		names = append(names, one.Name)
	}
	return errors.Join(want("color", m.ExtendedMetadata["color"], "blue"), contains("components", names, "statestore", "shared", "pubsub", "secretstore"), want("id", m.ID, "default"))
}

func (c *check) errors(ctx context.Context) error {
	_, noStore := c.GetState(ctx, "redis", "k", nil)
	_, badKey := c.GetState(ctx, store, "a||b", nil)
	return errors.Join(want("an unknown store", code(noStore), codes.InvalidArgument), want("a bad key", code(badKey), codes.InvalidArgument),
		want("an unknown pubsub", code(c.PublishEvent(ctx, "kafka", "t", "x")), codes.InvalidArgument),
		want("an empty topic", c.PublishEvent(ctx, pubsub, "", "x") != nil, true),
		want("shutdown", code(c.Shutdown(ctx)), codes.PermissionDenied))
}

var apps = []string{"shop-http", "shop-grpc"}

func (c *check) invocation(ctx context.Context) error {
	for _, app := range apps {
		got, err := c.InvokeMethodWithContent(ctx, app, "echo?x=1", "put", &client.DataContent{Data: []byte("hi"), ContentType: "text/plain"})
		if err != nil {
			return err
		}
		before, err := c.InvokeMethod(ctx, app, "count", "post")
		if err != nil {
			return err
		}
		after, err := c.InvokeMethod(ctx, app, "count", "get")
		if err != nil {
			return err
		}
		var a, b int
		_, failed := c.InvokeMethod(ctx, app, "fail", "post")
		if err := errors.Join(json.Unmarshal(before, &b), json.Unmarshal(after, &a), want("echo of "+app, string(got), "PUT x=1 hi"),
			want("count", a, b+1), want("a method that fails", code(failed), codes.Unknown)); err != nil {
			return err
		}
	}
	_, err := c.InvokeMethod(ctx, "nobody", "x", "get")
	return want("an app that is not there", code(err), codes.Internal)
}

// proxying calls a service of the application's own, by dapr-app-id. It takes a connection of its own, as Dapr's
// documentation does: with a token, the SDK's replaces all other metadata.
func (c *check) proxying(ctx context.Context) error {
	conn, err := grpc.NewClient("127.0.0.1:"+os.Getenv("DAPR_GRPC_PORT"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	health := grpc_health_v1.NewHealthClient(conn)
	to := metadata.AppendToOutgoingContext(ctx, "dapr-api-token", os.Getenv("DAPR_API_TOKEN"), "dapr-app-id", "shop-grpc")
	got, err := health.Check(to, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return err
	}
	_, unknown := health.Check(to, &grpc_health_v1.HealthCheckRequest{Service: "nope"})
	watching, stop := context.WithCancel(to)
	defer stop()
	stream, err := health.Watch(watching, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	stop()
	_, ended := stream.Recv()
	return errors.Join(want("health", got.Status, "SERVING"), want("a service that is not there", code(unknown), codes.NotFound),
		want("the first of a stream", first.Status, "SERVING"), want("a stream that was left", code(ended), codes.Canceled))
}

type order struct {
	Run string `json:"run"`
	N   int    `json:"n"`
}

// events publishes in all ways, and follows each event through both applications.
func (c *check) events(ctx context.Context) error {
	seen, err := c.Subscribe(ctx, client.SubscriptionOptions{PubsubName: pubsub, Topic: "seen"})
	if err != nil {
		return err
	}
	defer seen.Close()
	kind := func(k string) client.PublishEventOption {
		return client.PublishEventWithMetadata(map[string]string{"cloudevent.type": k, "cloudevent.id": c.key(k)})
	}
	own := fmt.Sprintf(`{"specversion":"1.0","id":"%s","source":"check","type":"widget","datacontenttype":"application/json","data":{"run":"%s","n":4}}`, c.key("own"), c.run)
	bulk := c.PublishEvents(ctx, pubsub, "orders", []any{
		client.PublishEventsEvent{EntryID: "1", Data: c.order(5), ContentType: "application/json", Metadata: map[string]string{"cloudevent.id": c.key("bulk1")}},
		client.PublishEventsEvent{EntryID: "2", Data: c.order(6), ContentType: "application/json", Metadata: map[string]string{"cloudevent.id": c.key("bulk2"), "cloudevent.type": "widget"}}})
	if err := errors.Join(bulk.Error,
		c.PublishEvent(ctx, pubsub, "orders", order{c.run, 1}, kind("plain")),
		c.PublishEvent(ctx, pubsub, "orders", order{c.run, 2}, kind("widget")),
		c.PublishEvent(ctx, pubsub, "orders", []byte(own), client.PublishEventWithContentType("application/cloudevents+json")),
		c.PublishEvent(ctx, pubsub, "bytes", []byte(c.run+"\x00"), client.PublishEventWithRawPayload()),
		c.PublishEvent(ctx, pubsub, "flaky", order{c.run, 7}, kind("flaky")),
		c.PublishEvent(ctx, pubsub, "poison", order{c.run, 8}, kind("poison"))); err != nil {
		return err
	}
	missing := map[string]bool{}
	for _, app := range apps {
		for _, line := range []string{"/orders plain 1", "/widgets widget 1", "/widgets own 1", "/orders bulk1 1", "/widgets bulk2 1", "/bytes ? 1",
			"/flaky flaky 1", "/flaky flaky 2", "/flaky flaky 3", "/poison poison 1"} {
			missing[app+" "+line] = true
		}
	}
	for len(missing) > 0 {
		line, err := c.next(seen)
		if err != nil {
			return fmt.Errorf("%w; these did not come: %v", err, missing)
		}
		if line != "" && !missing[line] {
			return fmt.Errorf("%s came, but should not have; these did not come: %v", line, missing)
		}
		delete(missing, line)
	}
	return nil
}

// files publishes to what subscriptions.yaml declares.
func (c *check) files(ctx context.Context) error {
	seen, err := c.Subscribe(ctx, client.SubscriptionOptions{PubsubName: pubsub, Topic: "seen"})
	if err != nil {
		return err
	}
	defer seen.Close()
	for _, topic := range []string{"declared", "declared-old"} {
		if err := c.PublishEvent(ctx, pubsub, topic, order{c.run, 9}, client.PublishEventWithMetadata(map[string]string{"cloudevent.id": c.key(topic)})); err != nil {
			return err
		}
	}
	for missing := map[string]bool{"shop-http /declared declared 1": true, "shop-http /declared declared-old 1": true}; len(missing) > 0; {
		line, err := c.next(seen)
		if err != nil {
			return fmt.Errorf("%w; these did not come: %v", err, missing)
		}
		delete(missing, line)
	}
	return nil
}

func (c *check) order(n int) []byte {
	data, _ := json.Marshal(order{c.run, n})
	return data
}

// next is what an application saw of this run, "" if it was of another.
func (c *check) next(seen *client.Subscription) (string, error) {
	m, err := seen.Receive()
	if err != nil {
		return "", err
	}
	if err := m.Success(); err != nil {
		return "", err
	}
	var s shop.Seen
	if err := json.Unmarshal(m.RawData, &s); err != nil {
		return "", err
	}
	if !strings.Contains(s.Data, c.run) {
		return "", nil
	}
	id, ok := strings.CutPrefix(s.ID, c.run+"-")
	if !ok {
		id = "?"
	}
	return fmt.Sprintf("%s %s %s %d", s.App, s.Route, id, s.Attempt), nil
}

// streams checks what the client's own answers to streamed events do.
func (c *check) streams(ctx context.Context) error {
	topic := c.key("topic")
	got := make(chan *client.SubscriptionMessage)
	sub, err := c.Subscribe(ctx, client.SubscriptionOptions{PubsubName: pubsub, Topic: topic})
	if err != nil {
		return err
	}
	go func() {
		defer close(got)
		for {
			m, err := sub.Receive()
			if err != nil {
				return
			}
			got <- m
		}
	}()
	for _, text := range []string{"one", "two"} {
		if err := c.PublishEvent(ctx, pubsub, topic, text); err != nil {
			return err
		}
	}
	var all bytes.Buffer
	answers := []func(*client.SubscriptionMessage) error{(*client.SubscriptionMessage).Retry, (*client.SubscriptionMessage).Success, (*client.SubscriptionMessage).Drop}
	for tries := map[string]int{}; tries["one"] < 2 || tries["two"] < 1; {
		m, ok := <-got
		if !ok {
			return io.ErrUnexpectedEOF
		}
		text := string(m.RawData)
		fmt.Fprintf(&all, "%s ", text)
		answer := answers[2]
		if text == "one" {
			answer = answers[min(tries["one"], 1)]
		}
		if tries[text]++; tries[text] > 2 {
			return fmt.Errorf("it came too often: %s", &all)
		}
		if err := answer(m); err != nil {
			return err
		}
	}
	if err := sub.Close(); err != nil {
		return err
	}
	m, more := <-got
	if more {
		return fmt.Errorf("after the end came %s", m.RawData)
	}
	return nil
}

// contains wants the built-in ones; a node has more than a fake one.
func contains(what string, got []string, wants ...string) error {
	for _, one := range wants {
		if !slices.Contains(got, one) {
			return fmt.Errorf("%s is %v, without %s", what, got, one)
		}
	}
	return nil
}
