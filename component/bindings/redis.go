package bindings

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
)

// raceTriesMax bounds how often a key is read again because somebody else has written it.
const raceTriesMax = 100

// keys is a bindings.redis: keys of the platform's state, in a store of the component's own.
type keys struct {
	state quipu.State
	store string
	clock quipu.Clock
}

// NewRedis makes a bindings.redis. Where Redis is and how to log in there is of no interest here.
func NewRedis(_ context.Context, h component.Host, s component.Spec) (any, error) {
	return &keys{state: h.State, store: "binding:" + s.Name, clock: h.Clock}, nil
}

// Operations is component.OutputBinding.
func (k *keys) Operations() []string { return []string{opCreate, opDelete, opGet, opIncrement} }

// Invoke is component.OutputBinding. Request metadata: key; ttlInSeconds of create and increment; delete of get.
func (k *keys) Invoke(ctx context.Context, r component.BindingRequest) (component.BindingReply, error) {
	var reply component.BindingReply
	key := r.Metadata["key"]
	if key == "" {
		return reply, component.Failed("binding.redis", errors.New("redis binding: missing key in request metadata"))
	}
	life, err := ttl(r.Metadata)
	if err != nil {
		return reply, err
	}
	switch r.Operation {
	case opCreate:
		err = k.state.Apply(ctx, k.store, []quipu.Change{{Key: key, Value: r.Data, TTL: life}})
	case opDelete:
		err = k.state.Apply(ctx, k.store, []quipu.Change{{Key: key, Delete: true}})
	case opGet:
		reply.Data, err = k.get(ctx, key, r.Metadata["delete"] == "true")
		if reply.Data == nil { // Dapr has an answer to a get, whether there is a value or not
			reply.Data = []byte{}
		}
	case opIncrement:
		err = k.increment(ctx, key, life)
	default:
		err = unsupported("bindings.redis", r.Operation)
	}
	return reply, err
}

// get answers a value, nil if there is none; only one caller gets a value that it takes away.
func (k *keys) get(ctx context.Context, key string, remove bool) (value []byte, err error) {
	err = k.settle(ctx, key, func(old quipu.Item) (*quipu.Change, error) {
		value = old.Value
		if !remove || !old.Exists() {
			return nil, nil
		}
		return &quipu.Change{Key: key, Delete: true, ETag: old.ETag}, nil
	})
	return value, err
}

// increment counts one up, from 0 if there is nothing. The key lives as long as it did if nothing else is said.
func (k *keys) increment(ctx context.Context, key string, life time.Duration) error {
	return k.settle(ctx, key, func(old quipu.Item) (*quipu.Change, error) {
		n := int64(0)
		if old.Exists() {
			var err error
			if n, err = strconv.ParseInt(string(old.Value), 10, 64); err != nil || n == math.MaxInt64 {
				return nil, fmt.Errorf("the value of %.80q is not an integer or out of range", key)
			}
		}
		change := &quipu.Change{Key: key, Value: strconv.AppendInt(nil, n+1, 10), ETag: old.ETag, FirstWrite: !old.Exists(), TTL: life}
		if life == 0 && old.Expires != 0 {
			change.TTL = max(time.Unix(0, old.Expires).Sub(k.clock.Now()), 1)
		}
		return change, nil
	})
}

// settle makes the change that step wants, until nobody else was faster.
func (k *keys) settle(ctx context.Context, key string, step func(quipu.Item) (*quipu.Change, error)) error {
	for range raceTriesMax {
		items, err := k.state.Get(ctx, k.store, key)
		if err != nil {
			return err
		}
		change, err := step(items[0])
		if err != nil || change == nil {
			return err
		}
		err = k.state.Apply(ctx, k.store, []quipu.Change{*change})
		if !errors.Is(err, &quipu.Error{Code: quipu.CodeETag}) {
			return err
		}
	}
	return &quipu.Error{Code: quipu.CodeETag, Op: "binding.redis", Text: fmt.Sprintf("%.80q was written by others %d times", key, raceTriesMax), Hint: "send the request again"}
}
