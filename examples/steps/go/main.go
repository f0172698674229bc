// Command go is a durable function: an order that reserves, charges, has large orders approved by a person, and ships; or undoes what was done
// as soon as one refuses.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/quipu-run/quipu/sdk/step"
)

type order struct {
	ID    string `json:"id"`
	Cents int    `json:"cents"`
}

type outcome struct {
	ID     string `json:"id"`
	State  string `json:"state"`
	Why    string `json:"why,omitempty"`
	Parcel string `json:"parcel,omitempty"`
}

var threeTimes = step.Retry{Attempts: 3, Backoff: 100 * time.Millisecond}

func main() { log.Fatal(step.Serve(handle)) }

func handle(c *step.Call) (any, error) {
	var o order
	if err := c.Input(&o); err != nil {
		return nil, err
	}
	saga := c.Saga()
	parcel, err := deliver(c, o, saga)
	if err != nil {
		saga.Undo(threeTimes)
		return outcome{ID: o.ID, State: "cancelled", Why: err.Error()}, nil
	}
	return outcome{ID: o.ID, State: "shipped", Parcel: parcel}, nil
}

func deliver(c *step.Call, o order, saga *step.Saga) (string, error) {
	for _, one := range [][2]string{{"reserve", "release"}, {"charge", "refund"}} {
		key := c.Key()
		if _, err := step.Do(c, one[0], ask(one[0], o, key), threeTimes); err != nil {
			return "", err
		}
		saga.OnUndo(one[1], func(ctx context.Context) error {
			_, err := ask(one[1], o, key+"/undo")(ctx)
			return err
		})
	}
	if o.Cents > 10_000 {
		answer, err := step.WaitEvent[string](c, "approval", 7*24*time.Hour)
		if err != nil {
			return "", err
		}
		if answer != "yes" {
			return "", errors.New("not approved")
		}
	}
	return step.Do(c, "ship", ask("ship", o, c.Key()), threeTimes)
}

// ask asks a department, which leaves out doubles by the key.
func ask(action string, o order, key string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		body, err := json.Marshal(o)
		if err != nil {
			return "", err
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("%s/%s/%s", os.Getenv("SHOP_URL"), action, o.ID), bytes.NewReader(body))
		if err != nil {
			return "", err
		}
		r.Header.Set("Idempotency-Key", key)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		switch {
		case err != nil:
			return "", err
		case resp.StatusCode >= 500:
			return "", errors.New(string(text))
		case resp.StatusCode >= 400:
			return "", step.Final(errors.New(string(text)))
		}
		return string(text), nil
	}
}
