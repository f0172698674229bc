package bindings

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/test/fake"
	"github.com/quipu-run/quipu/xtest"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// load makes a component of a type.
func load(t *testing.T, h component.Host, kind string, m component.Metadata) any {
	t.Helper()
	is, err := tryLoad(h, kind, m)
	if err != nil {
		t.Fatal(err)
	}
	return is
}

func tryLoad(h component.Host, kind string, m component.Metadata) (any, error) {
	if h.Clock == nil {
		h.Clock = xtest.NewClock(start)
	}
	return Factories()[kind](context.Background(), h, component.Spec{Name: "door", Type: kind, Metadata: m})
}

func invoke(b any, operation, data string, metadata map[string]string) (component.BindingReply, error) {
	return b.(component.OutputBinding).Invoke(context.Background(), component.BindingRequest{Operation: operation, Data: []byte(data), Metadata: metadata})
}

func refused(t *testing.T, kind string, m component.Metadata, why string) {
	t.Helper()
	if _, err := tryLoad(component.Host{Dir: t.TempDir()}, kind, m); err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("%s with %v: %v; want %q", kind, m, err, why)
	}
}

func TestACronBindingIsAScheduleOfThePlatform(t *testing.T) {
	for _, c := range []struct {
		m    component.Metadata
		want quipu.ScheduleTrigger
	}{
		{component.Metadata{"schedule": "*/5 * * * *"}, quipu.ScheduleTrigger{Cron: "*/5 * * * *", Path: "/door", Timezone: "UTC"}},
		{component.Metadata{"schedule": "0 30 * * * *", "direction": "input"}, quipu.ScheduleTrigger{Cron: "0 30 * * * *", Path: "/door", Timezone: "UTC"}},
		{component.Metadata{"Schedule": "@every 15m", "route": "tick"}, quipu.ScheduleTrigger{Cron: "@every 15m0s", Path: "/tick", Timezone: "UTC"}},
		{component.Metadata{"schedule": "@every 100ms"}, quipu.ScheduleTrigger{Cron: "@every 1s", Path: "/door", Timezone: "UTC"}},
		{component.Metadata{"schedule": "CRON_TZ=Asia/Tokyo 0 8 * * *"}, quipu.ScheduleTrigger{Cron: "0 8 * * *", Path: "/door", Timezone: "Asia/Tokyo"}},
		{component.Metadata{"schedule": "@daily", "timezone": "Europe/Berlin"}, quipu.ScheduleTrigger{Cron: "@daily", Path: "/door", Timezone: "Europe/Berlin"}},
	} {
		got := load(t, component.Host{}, "bindings.cron", c.m).(component.InputSchedule).InputSchedule()
		c.want.Missed, c.want.Retry = quipu.MissedLast, retryDefault()
		if got != c.want {
			t.Errorf("%v: %+v; want %+v", c.m, got, c.want)
		}
	}
	refused(t, "bindings.cron", nil, "required")
	refused(t, "bindings.cron", component.Metadata{"schedule": "often"}, "often")
	refused(t, "bindings.cron", component.Metadata{"schedule": "0 0 30 2 *"}, "no day")
	refused(t, "bindings.cron", component.Metadata{"schedule": "@daily", "timezone": "Mars"}, "time zone")
	refused(t, "bindings.cron", component.Metadata{"schedule": "@daily", "direction": "output"}, "input binding")
}

func TestAQueueOfABrokerIsATopicInBothDirections(t *testing.T) {
	for kind, c := range map[string]struct {
		m        component.Metadata
		from, to string
	}{
		"bindings.quipu.topic": {component.Metadata{"topic": "t"}, "t", "t"},
		"bindings.kafka":       {component.Metadata{"topics": "a", "publishTopic": "b", "brokers": "nobody:9092"}, "a", "b"},
		"bindings.rabbitmq":    {component.Metadata{"queueName": "q", "host": "amqp://nobody"}, "q", "q"},
		"bindings.kubemq":      {component.Metadata{"channel": "c"}, "c", "c"},
		"bindings.mqtt":        {component.Metadata{"topic": "m/1"}, "m/1", "m/1"},
		"bindings.mqtt3":       {component.Metadata{"topic": "m/1", "url": "tcp://nobody"}, "m/1", "m/1"},
	} {
		n := fake.New()
		b := load(t, component.Host{Topics: n}, kind, c.m)
		in := b.(component.InputTopic).InputTopic()
		if in.Name != c.from || in.Path != "/door" || !in.Raw || in.Batch != 1 || in.Retry.Max == 0 {
			t.Errorf("%s reads %+v", kind, in)
		}
		if _, err := invoke(b, "create", `{"n":1}`, map[string]string{"ttlInSeconds": "60"}); err != nil {
			t.Fatal(err)
		}
		if _, err := invoke(b, "create", `bytes`, nil); err != nil {
			t.Fatal(err)
		}
		var got []quipu.Event
		for e, err := range n.Events(context.Background(), c.to, quipu.Position{Earliest: true}, false) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e)
		}
		if len(got) != 2 || string(got[0].Data) != `{"n":1}` || got[0].ContentType != "application/json" || !got[0].Expires.Equal(fake.Epoch.Add(time.Minute)) ||
			got[1].ContentType != "application/octet-stream" || !got[1].Expires.IsZero() || got[0].ID == got[1].ID {
			t.Errorf("%s published %+v", kind, got)
		}
		if _, err := invoke(b, "get", "", nil); err == nil {
			t.Errorf("%s has an operation get", kind)
		}
		if _, err := invoke(b, "create", "", map[string]string{"ttlInSeconds": "-1"}); err == nil {
			t.Errorf("%s takes a negative time to live", kind)
		}
	}
}

func TestADirectionLeavesTheOtherOut(t *testing.T) {
	in := load(t, component.Host{}, "bindings.kafka", component.Metadata{"topics": "a", "publishTopic": "b", "direction": "input", "initialOffset": "oldest"})
	if _, out := in.(component.OutputBinding); out || in.(component.InputTopic).InputTopic().From != quipu.FromEarliest {
		t.Errorf("an input binding is %T, %+v", in, in)
	}
	out := load(t, component.Host{}, "bindings.rabbitmq", component.Metadata{"queueName": "q", "direction": "output"})
	if _, in := out.(component.InputTopic); in {
		t.Error("an output binding reads")
	}
	if _, reads := load(t, component.Host{}, "bindings.kafka", component.Metadata{"publishTopic": "b"}).(component.InputTopic); reads {
		t.Error("a binding without a topic to read reads")
	}
	refused(t, "bindings.kafka", component.Metadata{"brokers": "b"}, "required")
	refused(t, "bindings.kafka", component.Metadata{"topics": "a,b"}, "several")
	refused(t, "bindings.mqtt3", component.Metadata{"topic": "a/#"}, "wildcards")
	refused(t, "bindings.quipu.topic", component.Metadata{"topic": "$tick"}, "name of a topic")
}

func TestAnMQTTRequestMayNameItsTopic(t *testing.T) {
	n := fake.New()
	b := load(t, component.Host{Topics: n}, "bindings.mqtt3", component.Metadata{"topic": "a"})
	if _, err := invoke(b, "create", "x", map[string]string{"topic": "b"}); err != nil {
		t.Fatal(err)
	}
	if info, err := n.Topic(context.Background(), "b"); err != nil || info.Last != 1 {
		t.Errorf("topic b: %+v, %v", info, err)
	}
	if _, err := invoke(b, "create", "x", map[string]string{"topic": "+"}); err == nil {
		t.Error("a wildcard was published to")
	}
}
