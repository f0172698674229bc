package quipu

import (
	"context"
	"slices"
	"time"
)

// Values of Spec.Contract and Spec.Protocol.
const (
	ContractHTTP = "http"
	ContractDapr = "dapr"
	ProtocolHTTP = "http"
	ProtocolGRPC = "grpc"
)

// Spec is the spec of a Function in quipu.yaml, with defaults filled in.
type Spec struct {
	Source       string            `json:"source,omitempty" yaml:"source"`
	Runtime      string            `json:"runtime" yaml:"runtime"`
	Build        []string          `json:"build,omitempty" yaml:"build"`
	Command      []string          `json:"command,omitempty" yaml:"command"`
	Contract     string            `json:"contract" yaml:"contract"`
	Protocol     string            `json:"protocol" yaml:"protocol"`
	Atomic       bool              `json:"atomic" yaml:"atomic"`
	Durable      bool              `json:"durable,omitempty" yaml:"durable"` // calls have a journal
	Concurrency  int               `json:"concurrency" yaml:"concurrency"`
	Scale        Scale             `json:"scale" yaml:"scale"`
	Timeout      Duration          `json:"timeout" yaml:"timeout"`
	StartTimeout Duration          `json:"startTimeout" yaml:"startTimeout"`
	Health       string            `json:"health,omitempty" yaml:"health"` // GET there answers 200 to 399 before an instance is called
	Memory       Size              `json:"memory,omitempty" yaml:"memory"`
	CPU          MilliCPU          `json:"cpu,omitempty" yaml:"cpu"`
	Sandbox      Sandbox           `json:"sandbox,omitzero" yaml:"sandbox"`
	Env          map[string]string `json:"env,omitempty" yaml:"env"`
	Triggers     []Trigger         `json:"triggers,omitempty" yaml:"triggers"`
	Async        AsyncSpec         `json:"async,omitzero" yaml:"async"`
}

// Sandbox says what an instance may reach and take. A zero value stands for its default.
type Sandbox struct {
	// Require names layers that must be active where the function runs; quipu doctor lists them.
	Require   []string `json:"require,omitempty" yaml:"require"`
	Network   string   `json:"network,omitempty" yaml:"network"`     // machine (default), public or none
	Allow     []string `json:"allow,omitempty" yaml:"allow"`         // besides: addresses as 10.0.0.0/8, 10.1.2.3:5432, *:443
	Tmp       Size     `json:"tmp,omitempty" yaml:"tmp"`             // of /tmp
	Processes int      `json:"processes,omitempty" yaml:"processes"` // and threads
}

// Values of Sandbox.Network.
const (
	NetworkMachine = "machine" // what the machine reaches, its loopback too, but not the node's listeners
	NetworkPublic  = "public"  // public addresses
	NetworkNone    = "none"
)

// Defaults of Sandbox.
const (
	TmpDefault       = 512 << 20
	ProcessesDefault = 512
)

// AsyncSpec says what becomes of calls that nobody waits for. A call keeps the rules under which it was accepted.
type AsyncSpec struct {
	Retry     RetrySpec   `json:"retry" yaml:"retry"`
	MaxAge    Duration    `json:"maxAge" yaml:"maxAge"` // after it no attempt is begun
	OnSuccess Destination `json:"onSuccess,omitzero" yaml:"onSuccess"`
	OnFailure Destination `json:"onFailure,omitzero" yaml:"onFailure"` // none means the topic FUNCTION-dead
}

// Destination is where an event about the end of a call goes: one of the two, or nowhere.
type Destination struct {
	Function string `json:"function,omitempty" yaml:"function"`
	Topic    string `json:"topic,omitempty" yaml:"topic"`
}

// AsyncDefault is what quipu.yaml leaves out.
func AsyncDefault() AsyncSpec {
	return AsyncSpec{Retry: RetrySpec{Max: AsyncRetriesDefault, Backoff: Duration(AsyncBackoffDefault)}, MaxAge: Duration(AsyncMaxAgeDefault)}
}

// Defaults of AsyncSpec, and the longest time that a call may wait.
const (
	AsyncRetriesDefault = 3
	AsyncBackoffDefault = time.Second
	AsyncMaxAgeDefault  = 6 * time.Hour
	AsyncMaxAgeMax      = 14 * 24 * time.Hour
)

// Scale bounds the instances of a function.
type Scale struct {
	Min      int      `json:"min" yaml:"min"`
	Max      int      `json:"max" yaml:"max"`
	Idle     Duration `json:"idle" yaml:"idle"`
	Warm     int      `json:"warm" yaml:"warm"`
	Queue    int      `json:"queue,omitempty" yaml:"queue"`       // calls that may wait for a place; 0 means 1000
	Reserved int      `json:"reserved,omitempty" yaml:"reserved"` // calls at a time that others of the namespace leave room for
	// Window is what the calls at a time are averaged over, where an instance takes many; 0 means 60 s.
	Window Duration `json:"window,omitempty" yaml:"window"`
}

// Trigger is one cause of calls. Exactly one field is set.
type Trigger struct {
	HTTP     *HTTPTrigger     `json:"http,omitempty" yaml:"http"`
	Topic    *TopicTrigger    `json:"topic,omitempty" yaml:"topic"`
	Schedule *ScheduleTrigger `json:"schedule,omitempty" yaml:"schedule"`
}

// TopicTrigger delivers the events of a topic. The subscription has the function's name.
type TopicTrigger struct {
	Name       string    `json:"name" yaml:"name"`
	Path       string    `json:"path" yaml:"path"`
	Batch      int       `json:"batch" yaml:"batch"` // up to so many that wait; over 1 a call always gets an array
	Key        string    `json:"key,omitempty" yaml:"key"`
	Retry      RetrySpec `json:"retry" yaml:"retry"`
	DeadLetter string    `json:"deadLetter,omitempty" yaml:"deadLetter"` // "" means FUNCTION-dead
	From       string    `json:"from,omitempty" yaml:"from"`             // where a new subscription starts: latest (default) or earliest

	// What a Dapr application may ask for besides.
	Routes []Route `json:"routes,omitempty" yaml:"-"` // the first that matches has the path; else Path
	Raw    bool    `json:"raw,omitempty" yaml:"-"`    // events come without regard to the envelope they were published in
	// PubSub is Dapr's component that the topic is of, "" for PubSubDefault. Then Name is that of the topic on the log.
	PubSub string `json:"pubsub,omitempty" yaml:"-"`
	// Binding, if set, is the input binding of Dapr that the events come in by: as their data alone.
	Binding string `json:"binding,omitempty" yaml:"-"`
}

// UnmarshalYAML fills in what quipu.yaml leaves out.
func (t *TopicTrigger) UnmarshalYAML(unmarshal func(any) error) error {
	type plain TopicTrigger
	*t = TopicTrigger{Path: "/", Batch: 1, Retry: retryDefault()}
	return unmarshal((*plain)(t))
}

// Route is a path for the events that a CEL expression matches.
type Route struct {
	Match string `json:"match"`
	Path  string `json:"path"`
}

// RetrySpec says how often and when an event is delivered again. A conflict is no attempt.
type RetrySpec struct {
	Max     int      `json:"max" yaml:"max"`         // retries of an event alone, then it is a dead letter
	Backoff Duration `json:"backoff" yaml:"backoff"` // before the first, then doubling up to BackoffMax
}

func retryDefault() RetrySpec {
	return RetrySpec{Max: RetriesDefault, Backoff: Duration(BackoffDefault)}
}

// Defaults of RetrySpec.
const (
	RetriesDefault = 10
	BackoffDefault = 200 * time.Millisecond
	BackoffMax     = 30 * time.Second
)

// DeadLetterTopic is where events go that a subscription has given up, if nothing else is said.
func DeadLetterTopic(subscription string) string { return subscription + "-dead" }

// Values of TopicTrigger.From and ScheduleTrigger.Missed; the first of each is the default.
const (
	FromLatest   = "latest"
	FromEarliest = "earliest"
	MissedLast   = "last"
	MissedNone   = "none"
	MissedAll    = "all"
)

// ScheduleTrigger calls at times that a cron expression names, once for each.
type ScheduleTrigger struct {
	Cron     string    `json:"cron" yaml:"cron"` // 5 fields, or 6 with seconds first, or @hourly, @every 5m, …
	Path     string    `json:"path" yaml:"path"`
	Timezone string    `json:"timezone" yaml:"timezone"`       // IANA name
	Missed   string    `json:"missed,omitempty" yaml:"missed"` // ticks while no node ran: last (default: one call, for the last of them), none, all
	Retry    RetrySpec `json:"retry" yaml:"retry"`
	Binding  string    `json:"binding,omitempty" yaml:"-"` // as a TopicTrigger's
}

// HTTPTrigger is a route. Path is a pattern of net/http.ServeMux without method and host.
type HTTPTrigger struct {
	Path    string   `json:"path" yaml:"path"`
	Methods []string `json:"methods,omitempty" yaml:"methods"`
}

// UnmarshalYAML fills in what quipu.yaml leaves out.
func (t *ScheduleTrigger) UnmarshalYAML(unmarshal func(any) error) error {
	type plain ScheduleTrigger
	*t = ScheduleTrigger{Path: "/", Timezone: "UTC", Missed: MissedLast, Retry: retryDefault()}
	return unmarshal((*plain)(t))
}

// Function is a deployed function at one of its revisions. A revision is immutable.
type Function struct {
	Name     string    `json:"name" yaml:"name"`
	Revision string    `json:"revision" yaml:"revision"` // changes with source or spec
	Number   int       `json:"number" yaml:"number"`     // of the revision: 1 for the function's first
	App      string    `json:"app" yaml:"app"`           // functions of one app are deployed and replaced together
	Spec     Spec      `json:"spec" yaml:"spec"`
	Bundle   BlobRef   `json:"bundle" yaml:"bundle"` // the app's sources, tar and gzip
	Deployed time.Time `json:"deployed" yaml:"deployed"`
	// Subscriptions are those that a Dapr application asked for when it was deployed.
	Subscriptions []TopicTrigger `json:"subscriptions,omitempty" yaml:"subscriptions,omitempty"`
	// Bindings are the triggers that stand for its input bindings.
	Bindings []Trigger `json:"bindings,omitempty" yaml:"bindings,omitempty"`
	// Actors are the types that it hosts, by what it said when it was deployed.
	Actors []ActorType `json:"actors,omitempty" yaml:"actors,omitempty"`
}

// Asked is what a Dapr application turns out to want when it is deployed.
type Asked struct {
	Subscriptions []TopicTrigger
	Bindings      []Trigger
	Actors        []ActorType
}

// RevisionAttached is the revision of an application that runs by itself: it may come back when it is gone.
const RevisionAttached = "attached"

// Topics are the subscriptions of the function: its triggers', and what its application asked for.
func (f Function) Topics() []TopicTrigger {
	var all []TopicTrigger
	for _, t := range slices.Concat(f.Spec.Triggers, f.Bindings) {
		if t.Topic != nil {
			all = append(all, *t.Topic)
		}
	}
	return append(all, f.Subscriptions...)
}

// Schedules are all those that call the function.
func (f Function) Schedules() (all []ScheduleTrigger) {
	for _, t := range slices.Concat(f.Spec.Triggers, f.Bindings) {
		if t.Schedule != nil {
			all = append(all, *t.Schedule)
		}
	}
	return all
}

// AsyncRules are those of the function's spec. An application that is attached, or was deployed before there were any,
// has the defaults.
func (f Function) AsyncRules() AsyncSpec {
	rules := f.Spec.Async
	if rules.MaxAge == 0 {
		rules = AsyncDefault()
	}
	if rules.OnFailure == (Destination{}) {
		rules.OnFailure.Topic = DeadLetterTopic(f.Name)
	}
	return rules
}

// Functions is what is deployed in a namespace. Where a method takes one revision of a function, that is its name, its
// number or an alias. What changes is durable on return, and counts for calls that come then; calls under way, and those
// that wait for an instance, finish on their revision.
type Functions interface {
	// Function finds one by name, at the newest revision that has traffic: its triggers are the function's. CodeNoFunction.
	Function(name string) (Function, error)
	// Functions lists all, by name, each as Function does.
	Functions() []Function
	// Deploy checks, builds, starts and commits an application as a whole; on return it takes traffic.
	// CodeManifest, CodeSource, CodeBuild, CodeRoute, CodeNoTool, CodeBundleSize, CodeRefused, CodePinned: nothing changed.
	Deploy(ctx context.Context, app string, bundle []byte, o DeployOptions) ([]Function, error)
	// Remove takes a function away, with all its revisions; calls under way finish. CodeNoFunction.
	Remove(ctx context.Context, name string) error

	// Revisions lists what is remembered of a function, the newest first. CodeNoFunction.
	Revisions(name string) ([]Revision, error)
	// Split gives each revision its part of the calls that name none, and answers Revisions. The parts are whole percents,
	// 100 in all. CodeNoFunction, CodeNoRevision, CodeSplit; CodeRoute if the triggers that would then count collide.
	Split(ctx context.Context, name string, parts []Part) ([]Revision, error)
	// Rollback gives all traffic to a revision, "" for the one from which the newest with traffic took over. Nothing is
	// built or tried. CodeNoFunction, CodeNoRevision, CodeNoFormer, CodeRoute.
	Rollback(ctx context.Context, name, revision string) ([]Revision, error)
	// SetAlias names a revision, or takes the name away if revision is "". CodeNoFunction, CodeNoRevision, CodeUsage,
	// CodeTooMany.
	SetAlias(ctx context.Context, name, alias, revision string) error
}
