// Package component is what a component of Dapr is to the platform: what its resource says, what it is given, and what
// each building block asks of it. Implementations are in package components; a door finds them by name in a Set.
//
// A component acts at once: what it does is not part of any atomic call, unless its comment says so. A component of
// an application is made when the application's resources are loaded, and closed when they change or the application goes.
package component

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/quipu-run/quipu"
)

// Spec is a component as its resource declares it; references to secrets and to the environment are resolved.
type Spec struct {
	Name     string
	Type     string // like bindings.http
	Version  string // v1 if the resource says nothing
	Metadata Metadata
}

// Host is what a component is given.
type Host struct {
	Namespace string
	App       string // the app id whose component it is; "" for all clients of a namespace
	Dir       string // that relative paths of its metadata are below; "" is the node's own
	// Env is the environment of the application, which is not the node's.
	Env map[string]string
	// State is the log's, outside of calls. A component keeps what it has in stores of its own, like "lock:NAME".
	State quipu.State
	// Watch tells of each key of a store that is written or deleted from when ready is called on, until ctx ends or changed
	// fails. A slow watcher is told of the last state of a key only; a deleted key has no value.
	Watch  func(ctx context.Context, store string, ready func(), changed func([]quipu.Item) error) error
	Topics quipu.Topics
	Client *http.Client // for the world outside
	Clock  quipu.Clock
	Logger *slog.Logger
}

// Factory makes a component, or says why its metadata cannot be used. What it makes is of one or more of the types below,
// and an io.Closer if something is to be given back. It must not wait for longer than ctx.
type Factory func(ctx context.Context, h Host, s Spec) (any, error)

// State says where a state store has its keys: on the log, or elsewhere.
type State struct {
	// Store is one of quipu.State's on the log, where it takes part in atomic calls.
	Store string
	// Foreign, if set, has the keys instead, and acts at once; it is asked for Store.
	Foreign quipu.State
	// Outbox, if set, publishes what transactions change.
	Outbox *Outbox
	Guard  Guard // of its operations; who uses the state applies it
}

// Capabilities are what metadata tells, in Dapr's words.
func (s State) Capabilities() []string {
	if s.Foreign == nil {
		return []string{"ETAG", "TRANSACTIONAL", "TTL", "QUERY_API", "DELETE_WITH_PREFIX", "KEYS_LIKE"}
	}
	if teller, ok := s.Foreign.(interface{ Features() []string }); ok {
		return teller.Features()
	}
	return []string{}
}

// Outbox is where the changes of a state store are published, in the same commit.
type Outbox struct {
	PubSub, Topic string // of the events
	// DiscardWhenMissingState belongs to Dapr's outbox on two systems and has no meaning on one log.
	DiscardWhenMissingState bool
}

// PubSub says where a pub/sub component has its topics: on the log, or elsewhere.
type PubSub struct {
	// Topics starts the names of its topics on the log: "" for those of quipu.PubSubDefault, else like "NAME/".
	Topics string
	// Foreign, if set, has the topics instead.
	Foreign ForeignPubSub
	Scopes  Scopes
	// Consumer is the name of the subscriptions, "" for the app id.
	Consumer string
	// Earliest has a new subscription start with the oldest event that is kept, instead of with what comes.
	Earliest bool
	Guard    Guard // of publishing; who publishes applies it
}

// Capabilities are what metadata tells, in Dapr's words.
func (p PubSub) Capabilities() []string {
	if p.Foreign == nil {
		return []string{"MESSAGE_TTL", "BULK_PUBSUB"}
	}
	return p.Foreign.Features()
}

// ForeignPubSub is a pub/sub that is not on the log. What it delivers is at least once, as far as it can.
type ForeignPubSub interface {
	Publish(ctx context.Context, m ForeignMessage) error
	// Subscribe delivers until ctx ends; an error of deliver asks for the message again.
	Subscribe(ctx context.Context, topic string, metadata map[string]string, deliver func(context.Context, ForeignMessage) error) error
	Features() []string
}

// ForeignMessage is one of a ForeignPubSub.
type ForeignMessage struct {
	Topic, ContentType string
	Data               []byte
	Metadata           map[string]string
}

// Scopes say which topics an app may use; nil lists say nothing.
type Scopes struct {
	Publish, Subscribe map[string][]string // topics by app id; an app that is named may use those alone
	Allowed            []string            // all topics there are
	Protected          []string            // topics only for apps that Publish or Subscribe name them for
}

// MayPublish tells whether an app may publish to a topic, MaySubscribe whether it may subscribe to it: an app that a list of scopes
// names may use those topics alone, any other all that are not protected.
func (s Scopes) MayPublish(app, topic string) bool { return s.may(s.Publish, app, topic) }

// MaySubscribe is the other half of MayPublish.
func (s Scopes) MaySubscribe(app, topic string) bool { return s.may(s.Subscribe, app, topic) }

func (s Scopes) may(scopes map[string][]string, app, topic string) bool {
	if len(s.Allowed) > 0 && !slices.Contains(s.Allowed, topic) {
		return false
	}
	scoped, named := scopes[app]
	if !named {
		return !slices.Contains(s.Protected, topic)
	}
	return slices.Contains(scoped, topic)
}

// BindingRequest asks an output binding for an operation.
type BindingRequest struct {
	Operation string
	Data      []byte
	Metadata  map[string]string
}

// BindingReply is what became of it. Without data and without metadata, nil both, there is nothing to tell, which HTTP says with 204.
type BindingReply struct {
	Data     []byte
	Metadata map[string]string
}

// OutputBinding does something in the world outside.
type OutputBinding interface {
	Operations() []string
	Invoke(ctx context.Context, r BindingRequest) (BindingReply, error)
}

// BindingEvent comes in by an input binding.
type BindingEvent struct {
	Data        []byte
	ContentType string
	Metadata    map[string]string
}

// InputBinding brings events in until ctx ends. What deliver answers is the application's reply; its error asks for the event again, if
// the binding can.
type InputBinding interface {
	Read(ctx context.Context, deliver func(context.Context, BindingEvent) ([]byte, error)) error
}

// InputTopic is an input binding that is a topic on the log: its events are delivered as those of a subscription.
type InputTopic interface{ InputTopic() quipu.TopicTrigger }

// InputSchedule is an input binding that is a schedule of the platform: one tick for each due time, whatever is restarted.
type InputSchedule interface{ InputSchedule() quipu.ScheduleTrigger }

// ConfigItem is one of a configuration store.
type ConfigItem struct {
	Value    string            `json:"value"`
	Version  string            `json:"version,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// Configuration is a configuration store.
type Configuration interface {
	// Get answers the items that there are; no keys means all.
	Get(ctx context.Context, keys []string, metadata map[string]string) (map[string]ConfigItem, error)
	// Subscribe tells of each change of the keys, no keys meaning all, until ctx ends. A deleted key has no value and no
	// version. ready is called once, when no change will be missed from then on.
	Subscribe(ctx context.Context, keys []string, metadata map[string]string, ready func(), changed func(map[string]ConfigItem)) error
}

// Unlocked is what became of an unlock, with the numbers of Dapr.
type Unlocked int

// Values of Unlocked.
const (
	UnlockDone Unlocked = iota
	UnlockMissing
	UnlockOthers
	UnlockFailed
)

// Lock is a lock store. Locks end by themselves when they expire.
type Lock interface {
	// TryLock answers a fencing token, greater than those of all locks of the resource before, and whether it locked.
	TryLock(ctx context.Context, resource, owner string, expiry time.Duration) (token uint64, locked bool, err error)
	// Renew gives a lock that the owner has another expiry. Its token stays.
	Renew(ctx context.Context, resource, owner string, expiry time.Duration) (Unlocked, error)
	Unlock(ctx context.Context, resource, owner string) (Unlocked, error)
}

// SecretStore answers secrets; each is a set of named values. One that is not there is nil.
type SecretStore interface {
	Secret(ctx context.Context, name string, metadata map[string]string) (map[string]string, error)
	Secrets(ctx context.Context, metadata map[string]string) (map[string]map[string]string, error)
}

// Cipher are the parameters of an operation with a key.
type Cipher struct {
	Algorithm, Key string
	Nonce, AAD     []byte
}

// Crypto has keys and uses them, without giving them away.
type Crypto interface {
	// PublicKey answers the public part of a key: one of *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey.
	PublicKey(ctx context.Context, key string) (any, error)
	Encrypt(ctx context.Context, c Cipher, plain []byte) (sealed, tag []byte, err error)
	Decrypt(ctx context.Context, c Cipher, sealed, tag []byte) ([]byte, error)
	WrapKey(ctx context.Context, c Cipher, plain []byte) (wrapped, tag []byte, err error)
	UnwrapKey(ctx context.Context, c Cipher, wrapped, tag []byte) ([]byte, error)
	Sign(ctx context.Context, c Cipher, digest []byte) ([]byte, error)
	Verify(ctx context.Context, c Cipher, digest, signature []byte) (bool, error)
}

// Conversation talks to a language model. Messages, tools and choices are those of OpenAI's chat completions.
type Conversation interface {
	Converse(ctx context.Context, r ConversationRequest) (ConversationReply, error)
}

// ConversationRequest is one turn.
type ConversationRequest struct {
	Messages    []ConversationMessage
	Tools       []ConversationTool
	ToolChoice  string // "", auto, none, required, or the name of a tool
	Temperature *float64
	ContextID   string
	Metadata    map[string]string
	Parameters  map[string]any
	CacheTTL    time.Duration
	Format      json.RawMessage // JSON schema of the answer
}

// ConversationMessage is one of a conversation.
type ConversationMessage struct {
	Role       string // system, developer, user, assistant, tool
	Name       string
	Content    string
	ToolCallID string
	ToolCalls  []ConversationToolCall
}

// ConversationTool is one that the model may call.
type ConversationTool struct {
	Name, Description string
	Parameters        map[string]any
}

// ConversationToolCall is a call that the model asks for.
type ConversationToolCall struct{ ID, Name, Arguments string }

// ConversationReply is what the model answers.
type ConversationReply struct {
	Choices   []ConversationChoice
	ContextID string
	Model     string
	Usage     *ConversationUsage
}

// ConversationUsage counts tokens.
type ConversationUsage struct{ Prompt, Completion, Total int64 }

// ConversationChoice is one answer.
type ConversationChoice struct {
	FinishReason string
	Message      ConversationMessage
}

// Middleware is a step of an HTTP pipeline.
type Middleware func(http.Handler) http.Handler
