package mapping

import (
	"fmt"
	"slices"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
)

// Strategies of keyPrefix; any other word is the prefix itself.
const (
	prefixApp       = "appid"
	prefixName      = "name"
	prefixNamespace = "namespace"
	prefixNone      = "none"
)

const separator = "||" // between the prefix and the key, for Dapr

// StateOf says where a state store that the log serves has the keys of an app. namespace is what keyPrefix: namespace
// puts before the app id; "" is nothing, as for daprd outside of Kubernetes. CodeManifest.
func StateOf(s component.Spec, app, namespace string) (component.State, error) {
	if s.Metadata.Get("primaryEncryptionKey") != "" {
		return component.State{}, fault(s, "has a primaryEncryptionKey, but what the log keeps is not encrypted by key",
			"remove it, and encrypt the disk of the data directory, or values in the application")
	}
	prefix, err := prefixOf(s, app, namespace)
	if err != nil {
		return component.State{}, err
	}
	outbox, err := outboxOf(s)
	return component.State{Store: storeName(s.Name, prefix, app), Outbox: outbox}, err
}

// storeName keeps the keys of a component with another name, or of another prefix, apart. The store that every
// namespace has is that of its name, so that an app finds its keys whether it declares the store or not.
func storeName(name, prefix, app string) string {
	switch {
	case name == quipu.StoreDefault && app != "" && prefix == app:
		return quipu.StoreDefault
	case prefix == "":
		return "state:" + name
	}
	return "state:" + name + ":" + prefix
}

func prefixOf(s component.Spec, app, namespace string) (string, error) {
	if strings.Contains(s.Name, ":") {
		return "", fault(s, "has a colon in its name", "choose a name without one for a state store")
	}
	switch prefix := strings.ToLower(s.Metadata.Get("keyPrefix")); prefix {
	case "", prefixApp:
		return app, nil
	case prefixName:
		return s.Name, nil
	case prefixNone:
		return "", nil
	case prefixNamespace:
		if app == "" || namespace == "" {
			return app, nil
		}
		return namespace + "." + app, nil
	default:
		if strings.Contains(prefix, separator) || strings.ContainsFunc(prefix, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return "", fault(s, "has a keyPrefix with || or a control character in it", "write appid, name, namespace, none, or a word of your own")
		}
		return prefix, nil // in lower case, as daprd does
	}
}

// outboxOf is nil if there is none. Half of one is an error: it would lose what it should publish.
func outboxOf(s component.Spec) (*component.Outbox, error) {
	o := component.Outbox{PubSub: s.Metadata.Get("outboxPublishPubsub"), Topic: s.Metadata.Get("outboxPublishTopic"),
		DiscardWhenMissingState: truthy(s.Metadata.Get("outboxDiscardWhenMissingState"))}
	switch {
	case o.PubSub == "" && o.Topic == "":
		return nil, nil
	case o.PubSub == "" || o.Topic == "":
		return nil, fault(s, "has only one of outboxPublishPubsub and outboxPublishTopic", "write both for an outbox, or neither")
	}
	return &o, nil
}

// ActorStore tells whether a state store is the one for actors.
func ActorStore(s component.Spec) bool { return truthy(s.Metadata.Get("actorStateStore")) }

// truthy is any of Dapr's words for yes; everything else is no.
func truthy(text string) bool {
	return slices.Contains([]string{"y", "yes", "true", "t", "on", "1"}, strings.ToLower(strings.TrimSpace(text)))
}

// PubSubOf says where a pub/sub that the log serves has its topics, and who may use them. CodeManifest.
func PubSubOf(s component.Spec) (component.PubSub, error) {
	p := component.PubSub{Consumer: strings.TrimSpace(s.Metadata.Get("consumerGroup", "consumerID")), Earliest: startsEarliest(s)}
	if s.Name != quipu.PubSubDefault {
		p.Topics = s.Name + "/"
	}
	if len(p.Topics) >= quipu.TopicNameMax || strings.HasPrefix(p.Topics, quipu.PlatformTopicStart) {
		return p, fault(s, "has a name that no topic can start with", fmt.Sprintf("choose a shorter one, that does not start with %s", quipu.PlatformTopicStart))
	}
	var err error
	if p.Scopes.Publish, err = scopesOf(s, "publishingScopes"); err != nil {
		return p, err
	}
	if p.Scopes.Subscribe, err = scopesOf(s, "subscriptionScopes"); err != nil {
		return p, err
	}
	p.Scopes.Allowed, p.Scopes.Protected = topicsOf(s.Metadata.Get("allowedTopics")), topicsOf(s.Metadata.Get("protectedTopics"))
	return p, nil
}

// startsEarliest tells whether a new subscription gets what is there already: with Redis it always does.
func startsEarliest(s component.Spec) bool {
	switch strings.ToLower(s.Type) {
	case "pubsub.redis":
		return true
	case "pubsub.kafka":
		return strings.EqualFold(s.Metadata.Get("initialOffset"), "oldest")
	case "pubsub.pulsar":
		return strings.EqualFold(s.Metadata.Get("subscribeInitialPosition"), "earliest")
	}
	return false
}

// scopesOf reads app1=topic1,topic2;app2= of which the latter may use none. Spaces make no difference. Where daprd
// ignores what it cannot read, and so lets an app do everything, this is an error.
func scopesOf(s component.Spec, name string) (map[string][]string, error) {
	text := strings.ReplaceAll(s.Metadata.Get(name), " ", "")
	if text == "" {
		return nil, nil
	}
	out := map[string][]string{}
	for one := range strings.SplitSeq(text, ";") {
		if one == "" {
			continue
		}
		app, topics, ok := strings.Cut(one, "=")
		if !ok || app == "" || strings.Contains(topics, "=") {
			return nil, fault(s, fmt.Sprintf("has %s with %.80q in it", name, one), "write app1=topic1,topic2;app2= where app2 may use none")
		}
		out[app] = append(append([]string{}, out[app]...), topicsOf(topics)...)
	}
	return out, nil
}

// topicsOf reads a list with commas, each topic once; nil if there is no list.
func topicsOf(text string) (topics []string) {
	if text == "" {
		return nil
	}
	topics = []string{}
	for topic := range strings.SplitSeq(strings.ReplaceAll(text, " ", ""), ",") {
		if topic != "" && !slices.Contains(topics, topic) {
			topics = append(topics, topic)
		}
	}
	return topics
}

func fault(s component.Spec, text, hint string) error {
	return &quipu.Error{Code: quipu.CodeManifest, Op: "component.make", Text: fmt.Sprintf("component %q (%s) %s", s.Name, s.Type, text), Hint: hint}
}
