// Package mapping says which types of Dapr's components are served by the log, and what such a component asks of it.
//
// An application that was written for Redis, Kafka or PostgreSQL behind Dapr starts without them: its component files
// stay as they are, and where they say how to reach a server, nobody looks. What changes behaviour for the application
// does count: prefixes of keys, consumers, scopes and the outbox.
//
// Types of services in a cloud are not here: who names one means an account of theirs, and would look there for the data.
// The table is also docs/reference/dapr-components.md; a test keeps the two the same.
package mapping

import (
	"fmt"
	"slices"
	"strings"

	"github.com/quipu-run/quipu"
)

// Policy is the one switch: what the node's --components says.
type Policy string

// Values of Policy.
const (
	Log    Policy = "log"    // every type of the table is served by the log; the default
	Strict Policy = "strict" // only those that mean no other server
)

// ParsePolicy reads one; "" means Log. CodeUsage.
func ParsePolicy(text string) (Policy, error) {
	switch p := Policy(text); p {
	case "":
		return Log, nil
	case Log, Strict:
		return p, nil
	}
	return "", &quipu.Error{Code: quipu.CodeUsage, Op: "components.policy", Text: fmt.Sprintf("--components is %.40q", text), Hint: "write log or strict"}
}

// Family is what a type is, and so which of this package's functions reads its metadata.
type Family string

// Values of Family.
const (
	FamilyState         Family = "state"         // StateOf
	FamilyPubSub        Family = "pubsub"        // PubSubOf
	FamilyLock          Family = "lock"          // whose metadata make no difference
	FamilyConfiguration Family = "configuration" // nor here
	FamilyQueue         Family = "bindings"      // an input or output binding that is a topic: package component/bindings
)

// row is one type that is served.
type row struct {
	Type     string
	Versions string // with spaces between them
	Own      bool   // it means no other server, so Strict serves it too
	// Queue names, of a binding, the metadata of the topics that come in, and of the one that goes out.
	In, Out string
}

var table = []row{
	{Type: "state.quipu", Versions: "v1", Own: true},
	{Type: "state.in-memory", Versions: "v1", Own: true},
	{Type: "state.redis", Versions: "v1"},
	{Type: "state.sqlite", Versions: "v1"},
	{Type: "state.sqlite3", Versions: "v1"},
	{Type: "state.postgresql", Versions: "v1 v2"},
	{Type: "state.postgres", Versions: "v1 v2"},
	{Type: "state.cockroachdb", Versions: "v1 v2"},
	{Type: "state.yugabytedb", Versions: "v1 v2"},
	{Type: "state.yugabyte", Versions: "v1 v2"},
	{Type: "state.mysql", Versions: "v1"},
	{Type: "state.sqlserver", Versions: "v1"},
	{Type: "state.oracledatabase", Versions: "v1"},
	{Type: "state.mongodb", Versions: "v1"},
	{Type: "state.couchbase", Versions: "v1"},
	{Type: "state.cassandra", Versions: "v1"},
	{Type: "state.rethinkdb", Versions: "v1"},
	{Type: "state.ravendb", Versions: "v1"},
	{Type: "state.aerospike", Versions: "v1"},
	{Type: "state.coherence", Versions: "v1"},
	{Type: "state.hazelcast", Versions: "v1"},
	{Type: "state.memcached", Versions: "v1"},
	{Type: "state.etcd", Versions: "v1 v2"},
	{Type: "state.zookeeper", Versions: "v1"},
	{Type: "state.hashicorp.consul", Versions: "v1"},
	{Type: "state.consul", Versions: "v1"},
	{Type: "state.jetstream", Versions: "v1"},

	{Type: "pubsub.quipu", Versions: "v1", Own: true},
	{Type: "pubsub.in-memory", Versions: "v1", Own: true},
	{Type: "pubsub.redis", Versions: "v1"},
	{Type: "pubsub.kafka", Versions: "v1"},
	{Type: "pubsub.rabbitmq", Versions: "v1"},
	{Type: "pubsub.mqtt3", Versions: "v1"},
	{Type: "pubsub.mqtt", Versions: "v1"},
	{Type: "pubsub.jetstream", Versions: "v1"},
	{Type: "pubsub.pulsar", Versions: "v1"},
	{Type: "pubsub.rocketmq", Versions: "v1"},
	{Type: "pubsub.kubemq", Versions: "v1"},
	{Type: "pubsub.solace.amqp", Versions: "v1"},

	{Type: "lock.quipu", Versions: "v1", Own: true},
	{Type: "lock.in-memory", Versions: "v1", Own: true},
	{Type: "lock.redis", Versions: "v1"},

	{Type: "configuration.quipu", Versions: "v1", Own: true},
	{Type: "configuration.in-memory", Versions: "v1", Own: true},
	{Type: "configuration.redis", Versions: "v1"},
	{Type: "configuration.postgresql", Versions: "v1"},
	{Type: "configuration.postgres", Versions: "v1"},

	{Type: "bindings.kafka", Versions: "v1", In: "topics", Out: "publishTopic"},
	{Type: "bindings.rabbitmq", Versions: "v1", In: "queueName", Out: "queueName"},
	{Type: "bindings.mqtt3", Versions: "v1", In: "topic", Out: "topic"},
	{Type: "bindings.mqtt", Versions: "v1", In: "topic", Out: "topic"},
	{Type: "bindings.kubemq", Versions: "v1", In: "channel", Out: "channel"},
}

func (r row) family() Family {
	block, _, _ := strings.Cut(r.Type, ".")
	return Family(block)
}

// find ignores case, and takes no version and v0 for v1, as daprd does.
func find(typ, version string) (row, bool) {
	if version = strings.ToLower(version); version == "" || version == "v0" {
		version = "v1"
	}
	i := slices.IndexFunc(table, func(r row) bool { return strings.EqualFold(r.Type, typ) })
	if i < 0 || !slices.Contains(strings.Fields(table[i].Versions), version) {
		return row{}, false
	}
	return table[i], true
}

// Served tells whether the log serves a type with this policy, and as what.
func (p Policy) Served(typ, version string) (Family, bool) {
	r, ok := find(typ, version)
	if !ok || p == Strict && !r.Own {
		return "", false
	}
	return r.family(), true
}

// Unknown is the error of a component that nobody serves: neither the log, nor what is built in, nor a pluggable component.
// CodeManifest.
func (p Policy) Unknown(name, typ, version string) error {
	e := &quipu.Error{Code: quipu.CodeManifest, Op: "component.make", Text: fmt.Sprintf("component %q has the type %s/%s, which is not there", name, typ, version)}
	r, ok := find(typ, version)
	known := slices.IndexFunc(table, func(r row) bool { return strings.EqualFold(r.Type, typ) })
	switch {
	case ok && p == Strict:
		e.Text = fmt.Sprintf("component %q has the type %s, which the log may not serve because of --components=strict", name, r.Type)
		e.Hint = "start with --components=log, or start a pluggable component of that type"
	case known >= 0:
		e.Hint = "write one of the versions " + table[known].Versions
	default:
		e.Hint = "start a pluggable component of that type, or use one of docs/reference/dapr-components.md; with ignoreErrors: true the application starts without it"
	}
	return e
}
