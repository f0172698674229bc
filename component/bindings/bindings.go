// Package bindings has the bindings that need nothing but the machine and the log: schedules, HTTP, files, and the queues of
// brokers, which here are topics.
//
// Schedules and topics are the platform's own, so that what they bring in is durable and comes at least once. HTTP and files
// act at once, outside of any atomic call. Bindings of others come as pluggable components.
package bindings

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
)

// Operations of Dapr.
const (
	opCreate    = "create"
	opGet       = "get"
	opList      = "list"
	opDelete    = "delete"
	opIncrement = "increment"
)

// Factories are the types of this package.
func Factories() map[string]component.Factory {
	return map[string]component.Factory{
		"bindings.cron":         NewCron,
		"bindings.http":         NewHTTP,
		"bindings.localstorage": NewLocalStorage,
		"bindings.redis":        NewRedis,
		"bindings.quipu.topic":  queueFactory(queueNames{read: []string{"topic"}, write: []string{"publishTopic", "topic"}}),
		"bindings.kafka":        queueFactory(queueNames{read: []string{"topics"}, write: []string{"publishTopic"}}),
		"bindings.rabbitmq":     queueFactory(queueNames{read: []string{"queueName"}, write: []string{"queueName"}}),
		"bindings.kubemq":       queueFactory(queueNames{read: []string{"channel"}, write: []string{"channel"}}),
		"bindings.mqtt":         queueFactory(queueNames{read: []string{"topic"}, write: []string{"topic"}, override: "topic"}),
		"bindings.mqtt3":        queueFactory(queueNames{read: []string{"topic"}, write: []string{"topic"}, override: "topic"}),
	}
}

// directions are what metadata says that a binding is for; nothing said means whatever it can.
func directions(m component.Metadata) (in, out bool) {
	said := m.Get("direction")
	if said == "" {
		return true, true
	}
	for d := range strings.SplitSeq(strings.ToLower(said), ",") {
		in = in || strings.TrimSpace(d) == "input"
		out = out || strings.TrimSpace(d) == "output"
	}
	return in, out
}

// route is the path of the application that an input binding calls: the one of its metadata, or its name.
func route(s component.Spec) string {
	if path := s.Metadata.Get("route"); path != "" {
		return "/" + strings.TrimLeft(path, "/")
	}
	return "/" + s.Name
}

// retryDefault is how often an event is delivered again, if nothing else is said.
func retryDefault() quipu.RetrySpec {
	return quipu.RetrySpec{Max: quipu.RetriesDefault, Backoff: quipu.Duration(quipu.BackoffDefault)}
}

// ttlMax keeps seconds within a time.Duration.
const ttlMax = 100 * 366 * 24 * time.Hour

// ttl reads Dapr's ttlInSeconds; 0 if there is none.
func ttl(m map[string]string) (time.Duration, error) {
	seconds, err := component.Metadata(m).Int(0, 1, int(ttlMax/time.Second), "ttlInSeconds", "ttl")
	return time.Duration(seconds) * time.Second, err
}

// contentType is what metadata says of data, or what can be seen.
func contentType(m component.Metadata, data []byte) string {
	if said := m.Get("contentType", "Content-Type", "datacontenttype"); said != "" {
		return said
	}
	if json.Valid(data) {
		return "application/json"
	}
	return "application/octet-stream"
}

func unsupported(kind, operation string) error {
	return fmt.Errorf("%s has no operation %.40q", kind, operation)
}
