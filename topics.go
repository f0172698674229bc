package quipu

import (
	"context"
	"iter"
	"time"
)

// PubSubDefault is the name of the pub/sub component that every namespace has.
const PubSubDefault = "pubsub"

// Limits of topics.
const (
	TopicNameMax       = 249     // bytes
	EventBytesMax      = 1 << 20 // data of one event, envelope included
	PublishMax         = 10_000  // events of one Publish
	BatchEventsMax     = 1000    // events of one call
	RetryMaxMax        = 100     // retries that a trigger may ask for
	TopicsMax          = 10_000  // of a namespace
	TopicKept          = 7 * 24 * time.Hour
	DelayMax           = 366 * 24 * time.Hour
	SubscriptionsMax   = 1000 // of a topic
	MediaCloudEvent    = "application/cloudevents+json"
	MediaCloudBatch    = "application/cloudevents-batch+json"
	PlatformTopicStart = "$" // names of topics that only the platform publishes to
)

// Message is an event on its way to a topic.
type Message struct {
	Topic string
	// ID is the event's id in the sense of CloudEvents, chosen by who publishes it. Two events may have the same:
	// nothing is left out for it.
	ID string
	// ContentType of Data. MediaCloudEvent is an event in structured form, delivered byte for byte as it is here;
	// anything else is raw, and gets its envelope when it is delivered.
	ContentType string
	Data        []byte
	TTL         time.Duration // after which it is not delivered any more; 0 as long as the topic keeps it
	Delay       time.Duration // before which it is not delivered; 0 none
}

// Event is one event of a topic.
type Event struct {
	Topic  string
	Offset uint64 // its place in the topic: 1 for the first ever, without gaps
	Seq    Seq    // of its record
	N      int    // its place in the record
	ID     string
	// Time of publication; never falls within a topic.
	Time        time.Time
	Expires     time.Time // zero never
	ContentType string
	Data        []byte
	Dead        *DeadLetter // set in a dead-letter topic
	Only        string      // the one subscription that gets it, after a redrive; "" all
}

// DeadLetter says why an event was given up, and where it came from.
type DeadLetter struct {
	Topic        string `json:"topic"`
	Subscription string `json:"subscription"`
	Offset       uint64 `json:"offset"`
	Cause        string `json:"cause"` // "expired", "dropped", or what the last attempt failed with
	Attempts     int    `json:"attempts"`
}

// Position is a place in a topic. The zero value is its end: what comes from now on.
type Position struct {
	Earliest bool      // the oldest event that is kept
	Offset   uint64    // this event, or the next one kept
	Seq      Seq       // the first event of this record or a later one
	Time     time.Time // the first event published then or later
}

// TopicSpec is the spec of a Topic in quipu.yaml.
type TopicSpec struct {
	Retention Duration `json:"retention" yaml:"retention"`         // age; 0 means TopicKept
	MaxBytes  Size     `json:"maxBytes,omitempty" yaml:"maxBytes"` // of all its events; 0 unlimited
}

// TopicInfo describes a topic.
type TopicInfo struct {
	Name string `json:"name"`
	App  string `json:"app,omitempty"` // that declares it; "" if it was made on first use
	TopicSpec
	First   uint64 `json:"first"` // offset of the oldest event kept
	Last    uint64 `json:"last"`  // offset of the newest event ever, 0 for none
	Bytes   uint64 `json:"bytes"` // of the events kept
	Delayed int    `json:"delayed"`
	// DeadLetters counts the events that came here because a subscription gave them up and were not redriven.
	DeadLetters   uint64             `json:"deadLetters"`
	Subscriptions []SubscriptionInfo `json:"subscriptions"`
}

// SubscriptionInfo describes a durable subscription.
type SubscriptionInfo struct {
	Name       string    `json:"name"`
	Done       uint64    `json:"done"` // all events up to this offset are done or wait for a retry
	Lag        uint64    `json:"lag"`  // events not yet done
	Retrying   int       `json:"retrying"`
	InFlight   int       `json:"inFlight"`
	Oldest     time.Time `json:"oldest,omitzero"` // of the events not yet done
	DeadLetter string    `json:"deadLetter"`
	Consumers  int       `json:"consumers"` // who takes its events: a function counts as one
	LastError  string    `json:"lastError,omitempty"`
}

// Outcome is what became of one delivered event.
type Outcome uint8

// Outcomes. The zero value is the safe one.
const (
	Retry Outcome = iota // again later; given up after the retries of its subscription
	Ack
	Drop // never again: to the dead-letter topic if one was named, else nowhere
)

// SubscribeRequest asks for the events of a topic as they come.
type SubscribeRequest struct {
	Topic string
	// Name of the durable subscription. Several consumers of one name share its events.
	Name       string
	DeadLetter string // topic for what is given up; "" means Name-dead
	Retry      RetrySpec
	InFlight   int // events that may wait for their outcome at once; 0 means 100
	// Earliest has a subscription that is not there yet start with the oldest event that is kept, instead of with what comes.
	Earliest bool
	// Ready, if set, is called once, when the subscription is there: what is published from then on is delivered.
	Ready func()
}

// Publisher is where events come in. Inside an atomic call they are published when the call commits, and not at
// all if it fails; elsewhere Publish returns when they are durable and can be delivered: all of them or none.
// CodeTopicName, CodeEventSize, CodeDelay, CodeTTL, CodeTooMany.
type Publisher interface {
	Publish(ctx context.Context, ms []Message) error
	// Cancel takes back delayed messages of a topic that are not due yet, by their id. CodeNotFound.
	Cancel(ctx context.Context, topic, id string) error
}

// Topics is what a namespace publishes and who gets it.
type Topics interface {
	Publisher
	// Topic describes one. CodeNoTopic.
	Topic(ctx context.Context, name string) (TopicInfo, error)
	// Topics lists all but the platform's own, by name.
	Topics(ctx context.Context) ([]TopicInfo, error)
	// DeleteTopic removes a topic with its events, dead or alive, and its subscriptions. A function that
	// subscribes to it subscribes to what is published later under the name. CodeNoTopic.
	DeleteTopic(ctx context.Context, name string) error
	// Events yields the events of a topic from a position on, and then, if follow is set, each new one until
	// ctx ends. It acknowledges nothing. A topic that does not exist yet is empty. An error comes last.
	Events(ctx context.Context, topic string, from Position, follow bool) iter.Seq2[Event, error]
	// Subscribe hands events to deliver, several at a time, until ctx ends. The subscription is made if it is not
	// there, at the end of the topic; it outlives its consumers. CodeSubscribed if a function has it.
	Subscribe(ctx context.Context, r SubscribeRequest, deliver func(context.Context, Event) Outcome) error
	// Unsubscribe removes a durable subscription. CodeNoSubscription.
	Unsubscribe(ctx context.Context, topic, name string) error
	// Seek moves a subscription: what comes after the position is delivered, again if need be. CodeNoSubscription.
	Seek(ctx context.Context, topic, name string, to Position) error
	// Redrive publishes dead letters again, each to the subscription that gave it up, and answers how many. topic
	// is a dead-letter topic, or one whose subscriptions have such. CodeNoTopic.
	Redrive(ctx context.Context, topic string) (int, error)
}
