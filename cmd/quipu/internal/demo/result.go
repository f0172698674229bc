package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// topicName is in quipu.yaml of the application, in any language.
const topicName = "flights"

// Waiting for what the functions do by themselves.
const (
	settleMax = 60 * time.Second
	pollEvery = 20 * time.Millisecond
)

// until polls until done says so.
func until(ctx context.Context, what string, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, settleMax, fmt.Errorf("not after %s: %s", settleMax, what))
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		ok, err := done(ctx)
		if ok || err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// settled waits until the events of the topic are done.
func settled(ctx context.Context, client *sdk.Client) (topic quipu.TopicInfo, err error) {
	err = until(ctx, "all events are done", func(ctx context.Context) (bool, error) {
		if topic, err = client.Topic(ctx, topicName); err != nil {
			return false, err
		}
		lag, err := lagOf(topic)
		return lag == 0, err
	})
	return topic, err
}

// lagOf is how many events are not done by all who subscribe.
func lagOf(topic quipu.TopicInfo) (lag uint64, err error) {
	if len(topic.Subscriptions) == 0 {
		return 0, fmt.Errorf("nobody subscribes to %s", topic.Name)
	}
	for _, s := range topic.Subscriptions {
		lag = max(lag, s.Lag)
	}
	return lag, nil
}

// published counts the events of the topic so far.
func published(ctx context.Context, client *sdk.Client) (uint64, error) {
	topic, err := client.Topic(ctx, topicName)
	if quipu.CodeOf(err) == quipu.CodeNoTopic {
		return 0, nil
	}
	return topic.Last, err
}

// deadLetters counts the events of a topic that were given up.
func deadLetters(ctx context.Context, client *sdk.Client, topic quipu.TopicInfo) (n uint64, err error) {
	for _, s := range topic.Subscriptions {
		dead, err := client.Topic(ctx, s.DeadLetter)
		if err != nil && quipu.CodeOf(err) != quipu.CodeNoTopic {
			return n, err
		}
		n += dead.DeadLetters
	}
	return n, nil
}

// report is what the function of that name serves.
type report struct {
	table   Table
	summary summary
}

// summary is what the function hourly writes.
type summary struct {
	Written int             `json:"written"`
	Flights int             `json:"flights"`
	Hours   map[string]Hour `json:"hours"`
}

// report reads everything, once there is a summary that was written after this was called. It has all that was done by
// then: a call of hourly that read the sums before that would lose its commit.
func (f *feed) report(ctx context.Context) (r report, err error) {
	var before summary
	if err := f.get(ctx, "/hours", &before); err != nil {
		return r, err
	}
	err = until(ctx, "the next summary is written", func(ctx context.Context) (bool, error) {
		err := f.get(ctx, "/hours", &r.summary)
		return r.summary.Written > before.Written, err
	})
	if err == nil {
		err = f.get(ctx, "/table", &r.table)
	}
	return r, err
}

func (f *feed) get(ctx context.Context, path string, out any) error {
	r, err := http.NewRequestWithContext(ctx, "GET", f.host+path, nil)
	if err != nil {
		return err
	}
	resp, err := f.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(out)
}
