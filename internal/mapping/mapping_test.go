package mapping

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
)

const (
	page  = "../../docs/reference/dapr-components.md"
	start = "<!-- table -->\n"
	end   = "<!-- end of table -->"
)

// The page has the table of the code: QUIPU_UPDATE=1 go test ./internal/mapping writes it.
func TestThePageHasTheTableOfTheCode(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), start)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", page)
	}
	var b strings.Builder
	for _, r := range table {
		own := ""
		if r.Own {
			own = " *"
		}
		fmt.Fprintf(&b, "| `%s`%s | %s |\n", r.Type, own, strings.ReplaceAll(r.Versions, " ", ", "))
	}
	want := before + start + b.String() + end + after
	if os.Getenv("QUIPU_UPDATE") != "" {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(text) != want {
		t.Errorf("%s has another table: run QUIPU_UPDATE=1 go test ./internal/mapping", page)
	}
}

func TestTheTableHasEachTypeOnceAndInAFamily(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range table {
		if seen[r.Type] || r.Type != strings.ToLower(r.Type) || r.Versions == "" {
			t.Errorf("%+v", r)
		}
		seen[r.Type] = true
		switch r.family() {
		case FamilyState, FamilyPubSub, FamilyLock, FamilyConfiguration:
			if r.In != "" || r.Out != "" {
				t.Errorf("%+v is a queue", r)
			}
		case FamilyQueue:
			if r.In == "" || r.Out == "" || r.Own {
				t.Errorf("%+v names no queue", r)
			}
		default:
			t.Errorf("%s is in no family", r.Type)
		}
		if own := strings.HasSuffix(r.Type, ".quipu") || strings.HasSuffix(r.Type, ".in-memory"); own != r.Own {
			t.Errorf("%+v", r)
		}
	}
}

func TestTheSwitchSaysWhatTheLogServes(t *testing.T) {
	for _, c := range []struct {
		typ, version string
		log, strict  Family
	}{
		{"state.redis", "v1", FamilyState, ""},
		{"State.Redis", "", FamilyState, ""},
		{"state.redis", "v0", FamilyState, ""},
		{"state.redis", "v3", "", ""},
		{"state.postgresql", "V2", FamilyState, ""},
		{"state.in-memory", "v1", FamilyState, FamilyState},
		{"pubsub.quipu", "v1", FamilyPubSub, FamilyPubSub},
		{"pubsub.kafka", "v1", FamilyPubSub, ""},
		{"lock.redis", "v1", FamilyLock, ""},
		{"configuration.redis", "v1", FamilyConfiguration, ""},
		{"bindings.rabbitmq", "v1", FamilyQueue, ""},
		{"bindings.http", "v1", "", ""},
		{"state.azure.cosmosdb", "v1", "", ""},
		{"redis", "v1", "", ""},
	} {
		for policy, want := range map[Policy]Family{Log: c.log, Strict: c.strict} {
			if got, ok := policy.Served(c.typ, c.version); got != want || ok != (want != "") {
				t.Errorf("%s %s/%s: %q %v, want %q", policy, c.typ, c.version, got, ok, want)
			}
		}
	}
	for text, want := range map[string]Policy{"": Log, "log": Log, "strict": Strict} {
		if p, err := ParsePolicy(text); err != nil || p != want {
			t.Error(p, err)
		}
	}
	if _, err := ParsePolicy("redis"); quipu.CodeOf(err) != quipu.CodeUsage {
		t.Error(err)
	}
}

func TestATypeThatNobodyServesIsToldWithWhatToDo(t *testing.T) {
	for _, c := range []struct {
		policy             Policy
		typ, version, want string
		hint               string
	}{
		{Strict, "state.redis", "v1", `component "c" has the type state.redis, which the log may not serve because of --components=strict`, "--components=log"},
		{Log, "state.redis", "v7", `component "c" has the type state.redis/v7, which is not there`, "versions v1"},
		{Log, "state.azure.cosmosdb", "v1", `component "c" has the type state.azure.cosmosdb/v1, which is not there`, "pluggable"},
	} {
		e := quipu.AsError(c.policy.Unknown("c", c.typ, c.version))
		if e.Code != quipu.CodeManifest || e.Text != c.want || !strings.Contains(e.Hint, c.hint) {
			t.Errorf("%+v", e)
		}
	}
}

func spec(name, typ string, metadata ...string) component.Spec {
	s := component.Spec{Name: name, Type: typ, Version: "v1", Metadata: component.Metadata{}}
	for _, one := range metadata {
		key, value, _ := strings.Cut(one, ": ")
		s.Metadata[key] = value
	}
	return s
}

func TestAStateStoreHasItsKeysByNameAndPrefix(t *testing.T) {
	for _, c := range []struct {
		name, app, namespace, prefix, want string
	}{
		{"statestore", "shop", "dev", "", quipu.StoreDefault},
		{"statestore", "shop", "dev", "AppID", quipu.StoreDefault},
		{"statestore", "shop", "dev", "name", "state:statestore:statestore"},
		{"statestore", "", "dev", "", "state:statestore"},
		{"orders", "shop", "dev", "", "state:orders:shop"},
		{"orders", "shop", "dev", "namespace", "state:orders:dev.shop"},
		{"orders", "shop", "", "namespace", "state:orders:shop"},
		{"orders", "shop", "dev", "none", "state:orders"},
		{"orders", "shop", "dev", "name", "state:orders:orders"},
		{"orders", "shop", "dev", "Team:A", "state:orders:team:a"},
	} {
		got, err := StateOf(spec(c.name, "state.redis", "KEYPREFIX: "+c.prefix), c.app, c.namespace)
		if err != nil || got.Store != c.want || got.Outbox != nil || got.Foreign != nil {
			t.Errorf("%+v: %+v %v", c, got, err)
		}
	}
	for want, s := range map[string]component.Spec{
		"has a primaryEncryptionKey": spec("s", "state.redis", "primaryEncryptionKey: 0123"),
		"keyPrefix with ||":          spec("s", "state.redis", "keyPrefix: a||b"),
		"or a control character":     spec("s", "state.redis", "keyPrefix: a\x00b"),
		"has a colon in its name":    spec("a:b", "state.redis"),
		"has only one of outboxPub":  spec("s", "state.redis", "outboxPublishTopic: t"),
	} {
		_, err := StateOf(s, "shop", "dev")
		if quipu.CodeOf(err) != quipu.CodeManifest || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "0123") {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestAnOutboxIsReadWhole(t *testing.T) {
	got, err := StateOf(spec("s", "state.redis", "outboxPublishPubsub: p", "outboxPublishTopic: t", "outboxPubsub: q", "outboxDiscardWhenMissingState: Yes"), "shop", "dev")
	if err != nil || got.Outbox == nil || *got.Outbox != (component.Outbox{PubSub: "p", Topic: "t", DiscardWhenMissingState: true}) {
		t.Errorf("%+v %v", got.Outbox, err)
	}
	if !ActorStore(spec("s", "state.redis", "actorstatestore: true")) || ActorStore(spec("s", "state.redis", "actorStateStore: false")) {
		t.Error("actorStateStore")
	}
}

func TestANewSubscriptionStartsWhereItDoesWithTheServerOfItsType(t *testing.T) {
	for _, c := range []struct {
		spec     component.Spec
		earliest bool
	}{
		{spec("p", "pubsub.redis"), true}, {spec("p", "PubSub.Redis"), true}, {spec("p", "pubsub.quipu"), false}, {spec("p", "pubsub.in-memory"), false},
		{spec("p", "pubsub.rabbitmq"), false}, {spec("p", "pubsub.kafka"), false}, {spec("p", "pubsub.kafka", "initialoffset: oldest"), true},
		{spec("p", "pubsub.pulsar"), false}, {spec("p", "pubsub.pulsar", "subscribeInitialPosition: earliest"), true},
	} {
		if got, err := PubSubOf(c.spec); err != nil || got.Earliest != c.earliest {
			t.Errorf("%s %v: %v, %v", c.spec.Type, c.spec.Metadata, got.Earliest, err)
		}
	}
}

func TestAPubSubHasItsTopicsAndScopes(t *testing.T) {
	got, err := PubSubOf(spec("pubsub", "pubsub.redis"))
	if err != nil || !reflect.DeepEqual(got, component.PubSub{Earliest: true}) {
		t.Errorf("%+v %v", got, err)
	}
	got, err = PubSubOf(spec("orders", "pubsub.kafka", "consumerID:  workers ", "publishingScopes: a = x, y, x ;b=;a=z;", "subscriptionscopes: c=x", "allowedTopics: x, y,x", "protectedTopics: ,"))
	want := component.PubSub{Topics: "orders/", Consumer: "workers", Scopes: component.Scopes{Publish: map[string][]string{"a": {"x", "y", "z"}, "b": {}},
		Subscribe: map[string][]string{"c": {"x"}}, Allowed: []string{"x", "y"}, Protected: []string{}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v, want %+v", got, err, want)
	}
	for want, s := range map[string]component.Spec{
		`has publishingScopes with "a" in it`:       spec("p", "pubsub.redis", "publishingScopes: a"),
		`has subscriptionScopes with "a=b=c" in it`: spec("p", "pubsub.redis", "subscriptionScopes: x=y;a=b=c"),
		`has publishingScopes with "=b" in it`:      spec("p", "pubsub.redis", "publishingScopes: =b"),
		"has a name that no topic can start with":   spec("$p", "pubsub.redis"),
	} {
		if _, err := PubSubOf(s); quipu.CodeOf(err) != quipu.CodeManifest || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := PubSubOf(spec(strings.Repeat("p", quipu.TopicNameMax), "pubsub.redis")); quipu.CodeOf(err) != quipu.CodeManifest {
		t.Error(err)
	}
}
