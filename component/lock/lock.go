// Package lock is the lock store on the log. A lock is a key with an owner and a time to live, taken by a write that asks
// for no such key, so of all who try at once one succeeds; it survives the node, and ends by itself.
//
// The fencing token of a lock is the seq of the record that took it: greater than those of all locks before, of this and
// every other resource. What a lock guards should refuse a token smaller than one it has seen (Kleppmann, "How to do
// distributed locking", 2016), since an owner that was stopped for long does not know that its lock has ended.
package lock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
)

// Limits of a lock.
const (
	ExpiryMax = 366 * 24 * time.Hour
	ownerMax  = 1024 // bytes
)

// Type is what the component is called in a resource.
const Type = "lock.quipu"

// New makes a lock store whose locks are those of all stores of its name in the namespace.
func New(_ context.Context, h component.Host, s component.Spec) (any, error) {
	return &Store{state: h.State, store: "lock:" + s.Name}, nil
}

// Store is component.Lock.
type Store struct {
	state quipu.State
	store string
}

var _ component.Lock = (*Store)(nil)

// held is the value of a lock. Token is 0 until it is renewed: then it is that of the record that took it.
type held struct {
	Owner string `json:"owner"`
	Token uint64 `json:"token,omitempty"`
}

// TryLock takes the lock of a resource that nobody has. CodeUsage: it cannot be one.
func (s *Store) TryLock(ctx context.Context, resource, owner string, expiry time.Duration) (token uint64, locked bool, err error) {
	value, err := s.value(held{Owner: owner}, expiry)
	if err != nil {
		return 0, false, err
	}
	err = s.state.Apply(ctx, s.store, []quipu.Change{{Key: resource, Value: value, FirstWrite: true, TTL: expiry}})
	if quipu.CodeOf(err) == quipu.CodeETag {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	now, found, err := s.find(ctx, resource)
	if err != nil || found != component.UnlockDone || now.Owner != owner {
		return 0, false, err // it has expired already
	}
	return now.Token, true, nil
}

// value is what a lock becomes, if it can be one.
func (s *Store) value(h held, expiry time.Duration) ([]byte, error) {
	switch {
	case h.Owner == "" || len(h.Owner) > ownerMax:
		return nil, &quipu.Error{Code: quipu.CodeUsage, Op: "lock", Text: fmt.Sprintf("the owner of a lock has 1 to %d bytes", ownerMax)}
	case expiry <= 0 || expiry > ExpiryMax:
		return nil, &quipu.Error{Code: quipu.CodeUsage, Op: "lock", Text: fmt.Sprintf("a lock expires after 1 second to %s", ExpiryMax)}
	}
	return json.Marshal(h)
}

// current is a lock as it is now.
type current struct {
	held
	etag string
}

// find answers UnlockMissing if nobody has the lock.
func (s *Store) find(ctx context.Context, resource string) (current, component.Unlocked, error) {
	items, err := s.state.Get(ctx, s.store, resource)
	if err != nil {
		return current{}, component.UnlockFailed, err
	}
	if !items[0].Exists() {
		return current{}, component.UnlockMissing, nil
	}
	now := current{etag: items[0].ETag}
	if err := json.Unmarshal(items[0].Value, &now.held); err != nil {
		return current{}, component.UnlockFailed, fmt.Errorf("lock of %q: %w", resource, err)
	}
	if now.Token == 0 {
		if now.Token, err = tokenOf(now.etag); err != nil {
			return current{}, component.UnlockFailed, err
		}
	}
	return now, component.UnlockDone, nil
}

func tokenOf(etag string) (uint64, error) {
	seq, err := quipu.ParseSeq(etag)
	return uint64(seq), err
}

// Renew gives a lock another expiry, from now on.
func (s *Store) Renew(ctx context.Context, resource, owner string, expiry time.Duration) (component.Unlocked, error) {
	return s.change(ctx, resource, owner, func(now current) (c quipu.Change, err error) {
		c = quipu.Change{Key: resource, ETag: now.etag, TTL: expiry}
		c.Value, err = s.value(now.held, expiry)
		return c, err
	})
}

// Unlock gives a lock back.
func (s *Store) Unlock(ctx context.Context, resource, owner string) (component.Unlocked, error) {
	return s.change(ctx, resource, owner, func(now current) (quipu.Change, error) {
		return quipu.Change{Key: resource, ETag: now.etag, Delete: true}, nil
	})
}

// changesMax bounds how often a lock may change hands while its owner acts on it.
const changesMax = 10

// change does something to a lock that its owner has.
func (s *Store) change(ctx context.Context, resource, owner string, with func(current) (quipu.Change, error)) (component.Unlocked, error) {
	for range changesMax {
		now, found, err := s.find(ctx, resource)
		if err != nil || found != component.UnlockDone {
			return found, err
		}
		if now.Owner != owner {
			return component.UnlockOthers, nil
		}
		c, err := with(now)
		if err != nil {
			return component.UnlockFailed, err
		}
		err = s.state.Apply(ctx, s.store, []quipu.Change{c})
		if quipu.CodeOf(err) != quipu.CodeETag { // else it was renewed, or expired, meanwhile
			return map[bool]component.Unlocked{true: component.UnlockDone, false: component.UnlockFailed}[err == nil], err
		}
	}
	return component.UnlockFailed, errors.New("the lock of " + strconv.Quote(resource) + " changes too often")
}
