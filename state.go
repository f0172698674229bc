package quipu

import (
	"context"
	"time"
)

// Names of the state stores that every namespace has. Others are those of components, "KIND:NAME" and, for keys with a prefix
// of their own, "KIND:NAME:PREFIX"; they are there without being made.
const (
	StoreDefault = "statestore" // keys prefixed by function: "function||key"
	StoreShared  = "shared"     // one key space for the namespace
	StoreActors  = "actor"      // starts the stores of actors: actor:COMPONENT:APP||TYPE||ID
)

// Limits of state.
const (
	KeyBytesMax    = 1024
	ValueBytesMax  = 32 << 20
	InlineBytesMax = 64 << 10 // larger values go to blobs first
	TxOpsMax       = 100_000
)

// Item is a key as it was at one snapshot.
type Item struct {
	Key     string
	Value   []byte
	ETag    string // changes with every write; "" if the key does not exist
	Expires int64  // Unix nanoseconds; 0 never
}

// Exists tells whether the key had a value.
func (i Item) Exists() bool { return i.ETag != "" }

// Change is one write to one key.
type Change struct {
	Key    string
	Value  []byte
	Delete bool
	// ETag, if set, must be the key's; otherwise CodeETag.
	ETag string
	// FirstWrite without an ETag asks that the key does not exist.
	FirstWrite bool
	// TTL is the time to live; 0 keeps the key for ever.
	TTL time.Duration
}

// ListRequest asks for keys in order of their bytes.
type ListRequest struct {
	Prefix string
	After  string // keys greater than this
	Limit  int    // 0 means 1000, which is also the most
}

// Page is a part of a listing. Next, if set, is the After of the following page.
type Page struct {
	Items []Item
	Next  string
}

// State is keyed values in named stores. Inside an atomic call all methods see the call's
// snapshot and its own writes, and Apply only buffers; elsewhere each call is a commit of its own and
// Apply returns when it is durable and applied.
// Keys are given without the prefix of the function. CodeNoStore, CodeKey, CodeValueSize.
type State interface {
	// Get answers one item per key, in order, all from one snapshot.
	Get(ctx context.Context, store string, keys ...string) ([]Item, error)
	// List answers a page of items, from one snapshot.
	List(ctx context.Context, store string, r ListRequest) (Page, error)
	// Apply does all changes or none. CodeETag if a condition does not hold.
	Apply(ctx context.Context, store string, changes []Change) error
}

// BlobRef names bytes that are kept outside the log, by their content.
type BlobRef struct {
	Hash string `json:"hash"` // SHA-256, hexadecimal
	Size int64  `json:"size"`
}
