// Package dapr is how we talk to an application that was written for Dapr: what it subscribes to, in code or in
// files beside it; where an event of a topic goes; what its answer means; and, for one that speaks gRPC, how a
// request becomes a callback (Client).
//
// Everything an application or a file says is checked when it is deployed, and limited. Nothing here is kept: after
// a crash the subscriptions of a revision are where they were stored, and an application is asked again only by the
// next deploy. Of a call it is known whether it reached the application, never done twice: see Client.Do.
package dapr

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/quipu-run/quipu"
)

// Limits of what an application may say about itself.
const (
	sayBytesMax      = 1 << 20
	subscriptionsMax = 1000
	rulesMax         = 100
	bulkDefault      = 100 // events of a bulk if it does not say
)

// App is what can be asked: contract/http's client of an instance, or the Client of this package.
type App interface {
	Do(r *http.Request) (*http.Response, error)
}

// declared is a subscription as applications and files write it, in JSON or YAML.
type declared struct {
	PubSub     string            `json:"pubsubname" yaml:"pubsubname"`
	Topic      string            `json:"topic" yaml:"topic"`
	Route      string            `json:"route" yaml:"route"`
	Routes     routes            `json:"routes" yaml:"routes"`
	Metadata   map[string]string `json:"metadata" yaml:"metadata"`
	DeadLetter string            `json:"deadLetterTopic" yaml:"deadLetterTopic"`
	Bulk       bulk              `json:"bulkSubscribe" yaml:"bulkSubscribe"`
}

type routes struct {
	Rules   []rule `json:"rules" yaml:"rules"`
	Default string `json:"default" yaml:"default"`
}

type rule struct {
	Match string `json:"match" yaml:"match"`
	Path  string `json:"path" yaml:"path"`
}

type bulk struct {
	Enabled  bool `json:"enabled" yaml:"enabled"`
	Max      int  `json:"maxMessagesCount" yaml:"maxMessagesCount"`
	AwaitMax int  `json:"maxAwaitDurationMs" yaml:"maxAwaitDurationMs"` // nothing waits for company here
}

// Subscriptions asks a running application what it subscribes to; none if it has nothing to say about that.
// Whether there is such a pub/sub is for the caller to find out. CodeAppCallback, and what Do answers.
func Subscriptions(ctx context.Context, app App) ([]quipu.TopicTrigger, error) {
	var all []declared
	var err error
	if c, ok := app.(*Client); ok {
		all, err = c.subscriptions(ctx)
	} else {
		err = ask(ctx, app, "/dapr/subscribe", &all)
	}
	if err != nil {
		return nil, err
	}
	if len(all) > subscriptionsMax {
		return nil, callback("the application subscribes to %d topics; the most is %d", len(all), subscriptionsMax)
	}
	out := make([]quipu.TopicTrigger, 0, len(all))
	seen := map[place]bool{}
	for _, d := range all {
		if d.Route == "" && d.Routes.Default == "" && len(d.Routes.Rules) == 0 {
			continue // as in Dapr: it has no place to go
		}
		t, err := d.trigger()
		if err != nil {
			return nil, err
		}
		if seen[placeOf(t)] {
			return nil, callback("the application subscribes to topic %q twice; use routes.rules for several paths", t.Name)
		}
		seen[placeOf(t)] = true
		out = append(out, t)
	}
	return out, nil
}

// place is what can be subscribed to once. Its topic is as the application names it.
type place struct{ pubsub, topic string }

func placeOf(t quipu.TopicTrigger) place { return place{t.PubSub, t.Name} }

// ask reads JSON from a path of an HTTP application. That there is no such path, and an empty body, say nothing.
func ask(ctx context.Context, app App, path string, v any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://app"+path, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json") // as Dapr does
	resp, err := app.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, sayBytesMax+1))
	switch {
	case err != nil:
		return fmt.Errorf("read the reply to GET %s: %w", path, err)
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusMethodNotAllowed, resp.StatusCode == http.StatusNotImplemented:
		return nil
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return callback("GET %s: the application answers with status %d", path, resp.StatusCode)
	case len(body) > sayBytesMax:
		return callback("GET %s: the application answers with more than %d bytes", path, sayBytesMax)
	case len(strings.TrimSpace(string(body))) == 0:
		return nil
	}
	if err := json.Unmarshal(body, v); err != nil {
		return callback("GET %s: the application's answer is not what it should be: %v", path, err)
	}
	return nil
}

// Configuration asks for it; the zero Config if the application has nothing to say. CodeAppCallback.
func Configuration(ctx context.Context, app App) (Config, error) {
	var c Config
	if _, grpc := app.(*Client); grpc {
		return c, nil // over gRPC, Dapr has no such question
	}
	err := ask(ctx, app, "/dapr/config", &c)
	return c, err
}

func callback(format string, args ...any) error {
	return &quipu.Error{Code: quipu.CodeAppCallback, Op: "app.subscribe", Text: fmt.Sprintf(format, args...), Hint: quipu.Codes[quipu.CodeAppCallback].Next}
}

// trigger is the subscription in our words.
func (d declared) trigger() (quipu.TopicTrigger, error) {
	t := quipu.TopicTrigger{Name: d.Topic, DeadLetter: d.DeadLetter, Batch: 1,
		Retry: quipu.RetrySpec{Max: quipu.RetriesDefault, Backoff: quipu.Duration(quipu.BackoffDefault)}}
	switch {
	case d.Topic == "":
		return t, callback("a subscription names no topic")
	case d.PubSub == "":
		return t, callback("the subscription to topic %q names no pub/sub component", d.Topic)
	case len(d.Routes.Rules) > rulesMax:
		return t, callback("the subscription to topic %q has %d rules; the most is %d", d.Topic, len(d.Routes.Rules), rulesMax)
	}
	if d.PubSub != quipu.PubSubDefault {
		t.PubSub = d.PubSub
	}
	if d.Bulk.Enabled {
		t.Batch = d.Bulk.batch()
	}
	err := d.route(&t)
	if err == nil {
		t.Raw, err = d.raw()
	}
	if err == nil {
		_, err = NewRouter(t)
	}
	return t, err
}

// route says where events go. A rule without a match is the default, and ends the list.
func (d declared) route(t *quipu.TopicTrigger) error {
	t.Path = pathOf(d.Route)
	if d.Routes.Default != "" {
		t.Path = pathOf(d.Routes.Default)
	}
	for _, r := range d.Routes.Rules {
		if r.Path == "" {
			return callback("the subscription to topic %q has a rule without a path", d.Topic)
		}
		match := strings.TrimSpace(r.Match)
		if match == "" {
			t.Path = pathOf(r.Path)
			return nil
		}
		t.Routes = append(t.Routes, quipu.Route{Match: match, Path: pathOf(r.Path)})
	}
	return nil
}

func (d declared) raw() (bool, error) {
	text := d.Metadata["rawPayload"]
	if text == "" {
		return false, nil
	}
	raw, err := strconv.ParseBool(text)
	if err != nil {
		return false, callback("the subscription to topic %q has rawPayload %q, which is neither true nor false", d.Topic, text)
	}
	return raw, nil
}

// batch is how many events go together at most.
func (b bulk) batch() int {
	if b.Max == 0 {
		return bulkDefault
	}
	return max(min(b.Max, quipu.BatchEventsMax), 1)
}

// pathOf makes a path of a route, which Dapr lets be one without its leading slash; "" stays "".
func pathOf(route string) string {
	if route == "" {
		return ""
	}
	return (&url.URL{Path: "/" + strings.TrimPrefix(route, "/")}).EscapedPath()
}
