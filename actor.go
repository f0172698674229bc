package quipu

import (
	"context"
	"time"
)

// Limits of actors.
const (
	ActorTypeMax    = 256 // bytes
	ActorIDMax      = 512 // bytes
	ActorTurnsMax   = 1000
	ActorsActiveMax = 200_000 // of a namespace
	ActorTimersMax  = 100_000 // of a namespace
	ActorTypesMax   = 1000    // of an application
	ActorsListMax   = 1000
)

// Defaults of ActorType; they are Dapr's.
const (
	ActorIdleDefault  = time.Hour
	ActorDrainDefault = 2 * time.Second
	ActorDepthDefault = 32
)

// ActorKey names an actor.
type ActorKey struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

// String is how logs and errors name an actor.
func (k ActorKey) String() string { return k.Type + "/" + k.ID }

// ActorType is what an application says about a type of actors that it hosts.
type ActorType struct {
	Type string `json:"type" yaml:"type"`
	// Idle is how long an actor stays without a turn.
	Idle Duration `json:"idle" yaml:"idle"`
	// Drain is how long the turns of an actor that has to leave its instance may still take; 0 ends them at once.
	Drain Duration `json:"drain" yaml:"drain"`
	// Reentrant lets a chain of calls come back to an actor, Depth times at most.
	Reentrant bool `json:"reentrant,omitempty" yaml:"reentrant,omitempty"`
	Depth     int  `json:"depth" yaml:"depth"`
}

// ActorTurn binds a call to the instance that an actor lives in. Who makes the call gives it; who runs it keeps to it.
type ActorTurn struct {
	ActorKey
	Instance string
	// Lease is whose the actor is. What the call does counts only while it is held.
	Lease Lease
	// Again is called before another run of the call, because what the one before did does not count.
	Again func(ctx context.Context)
	// Joins is called if the call joins the transaction of another. What it answers is called once, when it is known
	// whether what the call did counts; until then the turn goes on.
	Joins func() (ended func(counts bool))
}

// ActorCall asks for a turn of an actor.
type ActorCall struct {
	ActorKey
	Method string
	// CallRequest has the rest: query, header, body, trigger. What it says of function, method and path does not count.
	CallRequest
}

// ActorTimer calls an actor for as long as the actor is active: nothing of it is kept.
type ActorTimer struct {
	ActorKey
	Name     string
	DueTime  string // duration from now, or a time of RFC 3339; "" now
	Period   string // ISO 8601, which may say how often, or a Go duration; "" once
	TTL      string // as DueTime, but from the first due time; "" never
	Callback string
	Data     []byte // JSON
	DataType string // type URL of Data if it is a google.protobuf.Any; "" JSON
}

// ActorInfo is an actor that lives in an instance.
type ActorInfo struct {
	ActorKey
	Function string    `json:"function"`
	Instance string    `json:"instance"`
	Since    time.Time `json:"since"`
	Token    Seq       `json:"token"` // of its lease
	Busy     bool      `json:"busy"`  // a turn is under way
	Waiting  int       `json:"waiting"`
	Timers   int       `json:"timers"`
}

// ActorList asks for actors that are active, by type and id.
type ActorList struct {
	Type  string // "" of all
	After ActorKey
	Limit int // 0 means ActorsListMax, which is also the most
}

// ActorPage is a part of a listing. Next, if set, is the After of the following page.
type ActorPage struct {
	Actors []ActorInfo `json:"actors"`
	Next   *ActorKey   `json:"next,omitempty"`
}

// Actors is what is active in a namespace.
type Actors interface {
	Actors(ctx context.Context, l ActorList) (ActorPage, error)
}
