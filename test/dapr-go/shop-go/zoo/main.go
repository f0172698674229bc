// Program zoo hosts actors with the official SDK: cats that count what they eat, with timers and reminders.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/dapr/go-sdk/actor"
	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/http"
)

func main() {
	c, err := client.NewClient()
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	s := http.NewService("127.0.0.1:" + os.Getenv("PORT"))
	s.RegisterActorImplFactoryContext(func() actor.ServerContext { return &Cat{client: c} })
	if err := s.Start(); err != nil {
		log.Fatal(err)
	}
}

// Cat is an actor.
type Cat struct {
	actor.ServerImplBaseCtx
	client client.Client
}

// Type is that of the actors.
func (c *Cat) Type() string { return "goCat" }

// Feed adds to what the cat has eaten, and answers how much that is.
func (c *Cat) Feed(ctx context.Context, n int) (int, error) {
	total, err := c.eaten(ctx, "eaten")
	if err != nil {
		return 0, err
	}
	return total + n, c.GetStateManager().Set(ctx, "eaten", total+n)
}

// Fail eats, too, but that does not count.
func (c *Cat) Fail(ctx context.Context, n int) (int, error) {
	if _, err := c.Feed(ctx, n); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("no")
}

// Calls answers how often a timer or a reminder came.
func (c *Cat) Calls(ctx context.Context, name string) (int, error) { return c.eaten(ctx, name) }

// Remind sets a reminder.
func (c *Cat) Remind(ctx context.Context, name string) (int, error) {
	return 0, c.client.RegisterActorReminder(ctx, &client.RegisterActorReminderRequest{ActorType: c.Type(), ActorID: c.ID(), Name: name, DueTime: "1500ms", Data: []byte(`"fish"`)})
}

// Tick sets a timer that comes three times.
func (c *Cat) Tick(ctx context.Context, name string) (int, error) {
	return 0, c.client.RegisterActorTimer(ctx, &client.RegisterActorTimerRequest{ActorType: c.Type(), ActorID: c.ID(), Name: name, DueTime: "10ms", Period: "R3/PT1S",
		CallBack: "OnTimer", Data: []byte(`"` + name + `"`)})
}

// OnTimer is the timer's.
func (c *Cat) OnTimer(ctx context.Context, name string) error { return c.count(ctx, name) }

// ReminderCall is the reminder's.
func (c *Cat) ReminderCall(name string, state []byte, due, period string) {
	if err := c.count(context.Background(), name+"="+string(state)); err != nil {
		log.Print(err)
	}
	if err := c.GetStateManager().Save(context.Background()); err != nil {
		log.Print(err)
	}
}

func (c *Cat) count(ctx context.Context, name string) error {
	n, err := c.eaten(ctx, name)
	if err != nil {
		return err
	}
	return c.GetStateManager().Set(ctx, name, n+1)
}

func (c *Cat) eaten(ctx context.Context, key string) (n int, err error) {
	there, err := c.GetStateManager().Contains(ctx, key)
	if err != nil || !there {
		return 0, err
	}
	return n, c.GetStateManager().Get(ctx, key, &n)
}
