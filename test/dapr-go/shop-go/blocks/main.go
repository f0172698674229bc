// Program blocks uses the Go SDK of Dapr, unmodified, as an application that uses every building block beside those of
// the shop: bindings in and out, configuration and its changes, locks, secrets, sealed documents, conversation, metadata and
// queries. It declares them in resource files, runs under quipu run, and prints "ok" last, or fails.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
	daprd "github.com/dapr/go-sdk/service/grpc"
)

func main() {
	log.SetFlags(0)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	b := &blocks{came: map[string]chan string{"queue": make(chan string, 100), "tick": make(chan string, 100)}}
	if err := b.listen(":" + os.Getenv("APP_PORT")); err != nil {
		log.Fatal(err)
	}
	var err error
	if b.Client, err = client.NewClient(); err != nil {
		log.Fatal(err)
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"a binding goes out", b.bindingOut}, {"a binding comes in", b.bindingIn}, {"configuration and its changes", b.configuration},
		{"locks", b.lock}, {"secrets", b.secrets}, {"documents are sealed and opened", b.crypto},
		{"conversation", b.conversation}, {"queries", b.query}, {"jobs", b.schedule}, {"metadata", b.metadata},
	} {
		if err := step.do(ctx); err != nil {
			log.Fatalf("%s: %v", step.name, err)
		}
		fmt.Println(step.name)
	}
	fmt.Println("ok")
}

type blocks struct {
	client.Client
	came   map[string]chan string // data of input bindings
	jobs   chan *common.JobEvent
	failed map[string]bool // jobs, by name
}

// listen takes what input bindings bring.
func (b *blocks) listen(address string) error {
	s, err := daprd.NewService(strings.Replace(address, ":", "127.0.0.1:", 1))
	if err != nil {
		return err
	}
	for name, came := range b.came {
		err = errors.Join(err, s.AddBindingInvocationHandler(name, func(_ context.Context, in *common.BindingEvent) ([]byte, error) {
			select {
			case came <- string(in.Data):
			default: // nobody wants more
			}
			return nil, nil
		}))
	}
	err = errors.Join(err, b.jobsInto(s))
	go func() {
		if err := s.Start(); err != nil {
			log.Fatal(err)
		}
	}()
	return err
}

func (b *blocks) bindingOut(ctx context.Context) error {
	file := map[string]string{"fileName": "go/report.txt"}
	if _, err := b.InvokeBinding(ctx, &client.InvokeBindingRequest{Name: "files", Operation: "create", Data: []byte("42 sold"), Metadata: file}); err != nil {
		return err
	}
	got, err := b.InvokeBinding(ctx, &client.InvokeBindingRequest{Name: "files", Operation: "get", Metadata: file})
	if err != nil {
		return err
	}
	if string(got.Data) != "42 sold" {
		return fmt.Errorf("the file has %q", got.Data)
	}
	if err := b.InvokeOutputBinding(ctx, &client.InvokeBindingRequest{Name: "files", Operation: "delete", Metadata: file}); err != nil {
		return err
	}
	if _, err = b.InvokeBinding(ctx, &client.InvokeBindingRequest{Name: "files", Operation: "burn"}); err == nil || !strings.Contains(err.Error(), "does not support operation burn") {
		return fmt.Errorf("an operation that is none: %v", err)
	}
	return nil
}

func (b *blocks) bindingIn(ctx context.Context) error {
	if err := b.queueBrings(ctx, "order 1"); err != nil {
		return err
	}
	select {
	case <-b.came["tick"]:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// queueBrings sends until something comes: nothing tells a client when the node has heard its application.
func (b *blocks) queueBrings(ctx context.Context, order string) error {
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for {
		if err := b.InvokeOutputBinding(ctx, &client.InvokeBindingRequest{Name: "queue", Operation: "create", Data: []byte(order)}); err != nil {
			return err
		}
		select {
		case got := <-b.came["queue"]:
			if got != order {
				return fmt.Errorf("the queue brought %q", got)
			}
			return nil
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// write changes configuration, which Dapr's API only reads.
func write(ctx context.Context, key, value string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, os.Getenv("QUIPU_NODE")+"/-/v1/state/configuration:settings/"+key, strings.NewReader(value))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return errors.New(resp.Status)
	}
	return nil
}

func (b *blocks) configuration(ctx context.Context) error {
	if err := write(ctx, "go-color", "red"); err != nil {
		return err
	}
	one, err := b.GetConfigurationItem(ctx, "settings", "go-color")
	if err != nil || one.Value != "red" || one.Version == "" {
		return fmt.Errorf("%+v %w", one, err)
	}
	changed := make(chan string, 10)
	id, err := b.SubscribeConfigurationItems(ctx, "settings", []string{"go-color"}, func(_ string, items map[string]*client.ConfigurationItem) {
		if item := items["go-color"]; item != nil {
			changed <- item.Value
		}
	})
	if err != nil {
		return err
	}
	if err := write(ctx, "go-color", "blue"); err != nil {
		return err
	}
	select {
	case got := <-changed:
		if got != "blue" {
			return fmt.Errorf("it changed to %q", got)
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	return b.UnsubscribeConfigurationItems(ctx, "settings", id)
}

func (b *blocks) lock(ctx context.Context) error {
	for _, c := range []struct {
		owner string
		want  bool
	}{{"ada", true}, {"eve", false}} {
		got, err := b.TryLockAlpha1(ctx, "locks", &client.LockRequest{ResourceID: "go-till", LockOwner: c.owner, ExpiryInSeconds: 60})
		if err != nil || got.Success != c.want {
			return fmt.Errorf("the lock of %s: %+v %w", c.owner, got, err)
		}
	}
	for _, c := range []struct{ owner, want string }{{"eve", "LOCK_BELONGS_TO_OTHERS"}, {"ada", "SUCCESS"}, {"ada", "LOCK_DOES_NOT_EXIST"}} {
		got, err := b.UnlockAlpha1(ctx, "locks", &client.UnlockRequest{ResourceID: "go-till", LockOwner: c.owner})
		if err != nil || got.Status != c.want {
			return fmt.Errorf("the unlock of %s: %+v %w", c.owner, got, err)
		}
	}
	return nil
}

func (b *blocks) secrets(ctx context.Context) error {
	all, err := b.GetBulkSecret(ctx, "vault", nil)
	if err != nil || all["db:password"]["db:password"] != "lovelace" {
		return fmt.Errorf("%d secrets, %w", len(all), err)
	}
	one, err := b.GetSecret(ctx, "vault", "db:user", nil)
	if err != nil || one["db:user"] != "ada" {
		return fmt.Errorf("%d values, %w", len(one), err)
	}
	return nil
}

func (b *blocks) crypto(ctx context.Context) error {
	plain := bytes.Repeat([]byte("the same again. "), 20_000) // several chunks
	in, err := b.Encrypt(ctx, bytes.NewReader(plain), client.EncryptOptions{ComponentName: "keys", KeyName: "rsa.pem", KeyWrapAlgorithm: "RSA"})
	if err != nil {
		return err
	}
	sealed, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	if bytes.Contains(sealed, []byte("the same again")) {
		return errors.New("it is not sealed")
	}
	out, err := b.Decrypt(ctx, bytes.NewReader(sealed), client.DecryptOptions{ComponentName: "keys"})
	if err != nil {
		return err
	}
	if got, err := io.ReadAll(out); err != nil || !bytes.Equal(got, plain) {
		return fmt.Errorf("%d bytes of %d came back: %w", len(got), len(plain), err)
	}
	sealed[len(sealed)-1] ^= 1
	if out, err = b.Decrypt(ctx, bytes.NewReader(sealed), client.DecryptOptions{ComponentName: "keys"}); err == nil {
		_, err = io.Copy(io.Discard, out)
	}
	if err == nil {
		return errors.New("what was changed was opened")
	}
	return nil
}

func (b *blocks) conversation(ctx context.Context) error {
	text := "is it open?"
	got, err := b.ConverseAlpha2(ctx, client.ConversationRequestAlpha2{Name: "model", Inputs: []*client.ConversationInputAlpha2{{Messages: []*client.ConversationMessageAlpha2{
		{ConversationMessageOfUser: &client.ConversationMessageOfUserAlpha2{Content: []*client.ConversationMessageContentAlpha2{{Text: &text}}}}}}}})
	if err != nil || len(got.Outputs) != 1 || len(got.Outputs[0].Choices) != 1 || got.Outputs[0].Choices[0].Message.Content != text {
		return fmt.Errorf("%+v %w", got, err)
	}
	return nil
}

func (b *blocks) query(ctx context.Context) error {
	var items []*client.SetStateItem
	for _, one := range []struct{ key, city string }{{"go-1", "Lima"}, {"go-2", "Cusco"}, {"go-3", "Lima"}} {
		items = append(items, &client.SetStateItem{Key: one.key, Value: []byte(`{"city":"` + one.city + `"}`), Metadata: map[string]string{"contentType": "application/json"}})
	}
	if err := b.SaveBulkState(ctx, "orders", items...); err != nil {
		return err
	}
	got, err := b.QueryStateAlpha1(ctx, "orders", `{"filter":{"EQ":{"city":"Lima"}},"sort":[{"key":"city"}]}`, nil)
	if err != nil || len(got.Results) != 2 {
		return fmt.Errorf("%+v %w", got, err)
	}
	return nil
}

func (b *blocks) metadata(ctx context.Context) error {
	if err := b.SetMetadata(ctx, "shift", "night"); err != nil {
		return err
	}
	got, err := b.GetMetadata(ctx)
	if err != nil || got.ID != os.Getenv("APP_ID") || got.ExtendedMetadata["shift"] != "night" {
		return fmt.Errorf("%+v %w", got, err)
	}
	kinds := map[string]string{}
	for _, c := range got.RegisteredComponents {
		kinds[c.Name] = c.Type
	}
	for name, kind := range map[string]string{"orders": "state.redis", "locks": "lock.redis", "model": "conversation.echo", "tick": "bindings.cron"} {
		if kinds[name] != kind {
			return fmt.Errorf("component %s is %q", name, kinds[name])
		}
	}
	return nil
}
