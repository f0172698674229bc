package server

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// ledger is an atomic consumer: it notes each event under its id, in the store shared, and misbehaves as an event's
// data says, once per event or always.
const ledger = `
import json, lib, os, time
def misbehave(r, how):
    if how == "crash":
        os._exit(7)
    if how == "hang":
        time.sleep(60)
    if how == "garbage":
        r.wfile.write(b"this is no HTTP\r\n\r\n")
        r.wfile.flush()
        r.close_connection = True
        return True
    if how == "fail":
        r.answer(500, "no")
        return True
def handle(r):
    if r.command == "GET":
        return r.answer(200, "ready")
    events = json.loads(r.body)
    for e in events if isinstance(events, list) else [events]:
        once = e["data"].get("once")
        if once and not os.path.exists(once):
            open(once, "w").close()
            if misbehave(r, e["data"]["how"]):
                return
        elif not once and e["data"].get("how") and misbehave(r, e["data"]["how"]):
            return
    for e in events if isinstance(events, list) else [events]:
        n = int(lib.state("GET", "shared/" + e["id"])[1] or 0) + 1
        lib.state("POST", "shared/", json.dumps([{"key": e["id"], "value": n}]))
    r.answer(200, "ok")
lib.serve(handle)`

func (n *node) ledger(trigger string, more ...string) {
	n.t.Helper()
	manifest := "apiVersion: quipu.dev/v1\nkind: Function\nmetadata: {name: ledger}\nspec:\n  source: ./f.py\n  runtime: python\n  atomic: true\n  " +
		strings.Join(append(more, "triggers: [{http: {path: /ledger/}}, "+trigger+"]"), "\n  ") + "\n"
	n.deploy(files{"quipu.yaml": manifest, "f.py": ledger})
}

// publish publishes data under an id.
func (n *node) publish(topic, id string, data map[string]string) {
	n.t.Helper()
	text, err := json.Marshal(data)
	if err == nil {
		_, err = n.client.Publish(n.t.Context(), topic, sdk.Publication{ID: id, ContentType: "application/json", Data: text})
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) topic(name string) quipu.TopicInfo {
	n.t.Helper()
	info, err := n.client.Topic(n.t.Context(), name)
	if err != nil {
		n.t.Fatal(err)
	}
	return info
}

func (n *node) settled(topic string) {
	n.t.Helper()
	eventually(n.t, "nothing of topic "+topic+" is left to do", func() bool {
		for _, s := range n.topic(topic).Subscriptions {
			if s.Lag > 0 {
				return false
			}
		}
		return true
	})
}

// However a consumer fails once, each event has its effect exactly once.
func TestAConsumerThatFailsOnceLosesAndDoublesNothing(t *testing.T) {
	n := start(t, unconfined)
	n.ledger("{topic: {name: t, batch: 10, retry: {backoff: 10ms}}}", "timeout: 1s")
	dir, ids := t.TempDir(), []string{}
	for i, how := range []string{"crash", "hang", "garbage", "fail", "crash", "", ""} {
		id := fmt.Sprintf("e%d", i)
		ids = append(ids, id)
		data := map[string]string{}
		if how != "" {
			data = map[string]string{"how": how, "once": dir + "/" + id}
		}
		n.publish("t", id, data)
	}
	n.settled("t")
	for _, id := range ids {
		if got := n.state(id); got != "1" {
			t.Errorf("event %s had its effect %s times", id, got)
		}
	}
	if _, err := n.client.Topic(t.Context(), "ledger-dead"); quipu.CodeOf(err) != quipu.CodeNoTopic {
		t.Errorf("there are dead letters: %v", err)
	}
}

// One event of a hundred kills its consumer each time: it becomes a dead letter, its neighbours have their effect
// once, and the letter can be returned when the function is mended.
func TestAPoisonedEventOfAHundredIsADeadLetter(t *testing.T) {
	n := start(t)
	for i := range 100 {
		data := map[string]string{}
		if i == 42 {
			data["how"] = "crash"
		}
		n.publish("t", fmt.Sprintf("e%d", i), data)
	}
	n.ledger("{topic: {name: t, batch: 100, from: earliest, retry: {max: 2, backoff: 10ms}}}")
	n.settled("t")
	for i := range 100 {
		want := "1"
		if i == 42 {
			want = ""
		}
		if got := n.state(fmt.Sprintf("e%d", i)); got != want {
			t.Errorf("event %d had its effect %q times, want %q", i, got, want)
		}
	}
	var dead []sdk.Event
	for e, err := range n.client.Events(t.Context(), "ledger-dead", sdk.EventsRequest{From: "earliest"}) {
		if err != nil {
			t.Fatal(err)
		}
		dead = append(dead, e)
	}
	if len(dead) != 1 || dead[0].Dead == nil || dead[0].Dead.Offset != 43 || !strings.Contains(dead[0].Dead.Cause, string(quipu.CodeCrashed)) {
		t.Fatalf("dead letters: %+v", dead)
	}
	n.deploy(files{"quipu.yaml": strings.Replace(manifestOfLedger, "BATCH", "100", 1), "f.py": strings.Replace(ledger, "os._exit(7)", "pass", 1)})
	if got, err := n.client.Redrive(t.Context(), "ledger-dead"); got != 1 || err != nil {
		t.Fatalf("redrive answered %d, %v", got, err)
	}
	n.settled("t")
	if got := n.state("e42"); got != "1" {
		t.Errorf("the returned letter had its effect %q times", got)
	}
}

const manifestOfLedger = `apiVersion: quipu.dev/v1
kind: Function
metadata: {name: ledger}
spec:
  source: ./f.py
  runtime: python
  atomic: true
  triggers: [{topic: {name: t, batch: BATCH}}]
`

// A plain function gets an event again when its answer comes too late.
func TestAnAnswerAfterTheTimeoutIsAFailure(t *testing.T) {
	n := start(t)
	n.ledger("{topic: {name: t, retry: {max: 1, backoff: 10ms}}}", "timeout: 500ms")
	n.publish("t", "late", map[string]string{"how": "hang"})
	n.settled("t")
	if got := n.state("late"); got != "" {
		t.Errorf("it had its effect %s times", got)
	}
	info := n.topic("ledger-dead")
	if info.DeadLetters != 1 {
		t.Errorf("the dead-letter topic is %+v", info)
	}
}

func TestEventsThatCannotBeAreRefusedAtTheDoor(t *testing.T) {
	n := start(t)
	door := "http://" + n.info.DaprHTTP + "/v1.0/publish/"
	for _, c := range []struct {
		why, path, body string
		header          []string
		status          int
	}{
		{"an ordinary one", "pubsub/orders", `{"n":1}`, nil, 204},
		{"a name with a slash", "pubsub/orders/eu", `{"n":1}`, nil, 204},
		{"a name with blanks and umlauts", "pubsub/b%C3%BCro%20post", `x`, nil, 204},
		{"a name of the platform", "pubsub/$tick", `x`, nil, 400},
		{"a name with a control character", "pubsub/a%01b", `x`, nil, 400},
		{"a name that is too long", "pubsub/" + strings.Repeat("n", 250), `x`, nil, 400},
		{"no name", "pubsub", `x`, nil, 404},
		{"an unknown pubsub", "kafka/orders", `x`, nil, 404},
		{"an event over the limit", "pubsub/orders", strings.Repeat("x", quipu.EventBytesMax+1), nil, 413},
		{"a CloudEvent without a type", "pubsub/orders", `{"specversion":"1.0","id":"1","source":"s","type":""}`, []string{"Content-Type", quipu.MediaCloudEvent}, 400},
		{"a CloudEvent that is no JSON", "pubsub/orders", `{`, []string{"Content-Type", quipu.MediaCloudEvent}, 400},
		{"JSON that is none", "pubsub/orders", `{`, []string{"Content-Type", "application/json"}, 204}, // as text, like Dapr
		{"a bad time to live", "pubsub/orders?metadata.ttlInSeconds=soon", `x`, nil, 400},
	} {
		if got := ask("POST", door+c.path, c.body, c.header...); got.status != c.status {
			t.Errorf("%s: %d %.200s, want %d", c.why, got.status, got.body, c.status)
		}
	}
	list, err := n.client.Topics(t.Context())
	if err != nil || len(list) != 3 {
		t.Fatalf("the topics are %+v, %v", list, err)
	}
	for _, info := range list {
		if want := map[string]uint64{"orders": 2, "orders/eu": 1, "büro post": 1}[info.Name]; info.Last != want {
			t.Errorf("topic %q has %d events, want %d", info.Name, info.Last, want)
		}
	}
}

func TestTriggersThatCannotBeAreRefused(t *testing.T) {
	n := start(t)
	for trigger, want := range map[string]string{
		"{schedule: {cron: '0 0 30 2 *'}}":                           "no day that ever comes",
		"{schedule: {cron: '* * *'}}":                                "cannot be read",
		"{schedule: {cron: '* * * * *', timezone: Mars/Crater}}":     "no time zone",
		"{schedule: {cron: '* * * * *', missed: some}}":              "missed",
		"{topic: {name: ''}}":                                        "name of a topic",
		"{topic: {name: $tick}}":                                     "name of a topic",
		"{topic: {name: t, batch: 0}}":                               "batch",
		"{topic: {name: t, batch: 1001}}":                            "batch",
		"{topic: {name: t, retry: {max: -1}}}":                       "retry.max",
		"{topic: {name: t, retry: {backoff: 1h}}}":                   "retry.backoff",
		"{topic: {name: t, deadLetter: t}}":                          "its own dead-letter topic",
		"{topic: {name: f-dead}}":                                    "its own dead-letter topic",
		"{topic: {name: t, from: yesterday}}":                        "from",
		"{topic: {name: t, routes: []}}":                             "unknown field routes",
		"{topic: {name: t}, http: {path: /x}}":                       "one of http, topic and schedule",
		"{topic: {name: t}}, {topic: {name: t, path: /other}}":       "two triggers",
		"{schedule: {cron: '@daily'}}, {schedule: {cron: '@daily'}}": "twice",
	} {
		manifest := "apiVersion: quipu.dev/v1\nkind: Function\nmetadata: {name: f}\nspec:\n  source: ./f.py\n  runtime: python\n  triggers: [" + trigger + "]\n"
		_, err := n.client.Deploy(t.Context(), "app", files{"quipu.yaml": manifest, "f.py": ledger}.pack(t))
		if quipu.CodeOf(err) != quipu.CodeManifest || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "quipu.yaml:7") {
			t.Errorf("%s: %v, want %q and its line", trigger, err, want)
		}
	}
}

// A schedule calls; events of it are no topic that people see; lag and deliveries are figures.
func TestScheduleAndFigures(t *testing.T) {
	n := start(t)
	n.ledger("{schedule: {cron: '* * * * * *', path: /tick}}, {topic: {name: t}}")
	n.publish("t", "e1", map[string]string{})
	eventually(t, "it has ticked twice", func() bool {
		page, err := n.client.State(quipu.StoreShared, "").List(t.Context(), quipu.ListRequest{Prefix: "ledger-"})
		return err == nil && len(page.Items) >= 2
	})
	n.settled("t")
	list, err := n.client.Topics(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "t" {
		t.Errorf("the topics are %+v, %v", list, err)
	}
	figures := n.get("/-/metrics").body
	for _, want := range []string{`quipu_subscription_lag{namespace="default",subscription="ledger",topic="t"} 0`,
		`quipu_deliveries_total{namespace="default",outcome="done",subscription="ledger"}`, `quipu_topic_events{namespace="default",topic="t"} 1`} {
		if !strings.Contains(figures, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// A message that is delayed, and one that is taken back, through the API, over a restart.
func TestDelayedEventsSurviveARestart(t *testing.T) {
	n := start(t)
	n.ledger("{topic: {name: t}}")
	for _, id := range []string{"later", "never"} {
		if _, err := n.client.Publish(t.Context(), "t", sdk.Publication{ID: id, ContentType: "application/json", Data: []byte("{}"), Delay: 2 * time.Second}); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.client.CancelDelayed(t.Context(), "t", "never"); err != nil {
		t.Fatal(err)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n.run()
	if got := n.state("later"); got != "" {
		t.Fatal("it came before its time")
	}
	eventually(t, "it is there", func() bool { return n.state("later") == "1" })
	if got := n.state("never"); got != "" {
		t.Error("what was taken back came")
	}
}
