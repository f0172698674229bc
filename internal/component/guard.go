package component

import (
	"context"
	"io"
	"time"

	"github.com/quipu-run/quipu"
)

// Guard runs an operation of a component within bounds: in time, again if it fails, or not at all. nil has none.
type Guard func(ctx context.Context, op func(context.Context) error) error

// Run is op within the guard, if there is one.
func (g Guard) Run(ctx context.Context, op func(context.Context) error) error {
	if g == nil {
		return op(ctx)
	}
	return g(ctx, op)
}

// Guarded is a component whose operations run within a guard. What brings events in is left as it is.
func Guarded(is any, g Guard) any {
	switch c := is.(type) {
	case State:
		c.Guard = g
		return c
	case PubSub:
		c.Guard = g
		return c
	case OutputBinding:
		return guardedBinding{c, g, closing{is}}
	case SecretStore:
		return guardedSecrets{c, g, closing{is}}
	case Configuration:
		return guardedConfiguration{c, g, closing{is}}
	case Lock:
		return guardedLock{c, g, closing{is}}
	case Crypto:
		return guardedCrypto{c, g, closing{is}}
	case Conversation:
		return guardedConversation{c, g, closing{is}}
	}
	return is
}

// closing closes what is guarded.
type closing struct{ is any }

func (c closing) Close() error {
	if closer, ok := c.is.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}

// do runs an operation that answers something.
func do[T any](ctx context.Context, g Guard, op func(context.Context) (T, error)) (out T, err error) {
	err = g.Run(ctx, func(ctx context.Context) error {
		out, err = op(ctx)
		return err
	})
	return out, err
}

// GuardedState is a state whose operations run within a guard.
func GuardedState(s quipu.State, g Guard) quipu.State {
	if g == nil {
		return s
	}
	return guardedState{s, g}
}

type guardedState struct {
	quipu.State
	g Guard
}

func (s guardedState) Get(ctx context.Context, store string, keys ...string) ([]quipu.Item, error) {
	return do(ctx, s.g, func(ctx context.Context) ([]quipu.Item, error) { return s.State.Get(ctx, store, keys...) })
}

func (s guardedState) List(ctx context.Context, store string, r quipu.ListRequest) (quipu.Page, error) {
	return do(ctx, s.g, func(ctx context.Context) (quipu.Page, error) { return s.State.List(ctx, store, r) })
}

func (s guardedState) Apply(ctx context.Context, store string, changes []quipu.Change) error {
	return s.g.Run(ctx, func(ctx context.Context) error { return s.State.Apply(ctx, store, changes) })
}

type guardedBinding struct {
	OutputBinding
	g Guard
	closing
}

func (b guardedBinding) Invoke(ctx context.Context, r BindingRequest) (BindingReply, error) {
	return do(ctx, b.g, func(ctx context.Context) (BindingReply, error) { return b.OutputBinding.Invoke(ctx, r) })
}

type guardedSecrets struct {
	SecretStore
	g Guard
	closing
}

func (s guardedSecrets) Secret(ctx context.Context, name string, metadata map[string]string) (map[string]string, error) {
	return do(ctx, s.g, func(ctx context.Context) (map[string]string, error) { return s.SecretStore.Secret(ctx, name, metadata) })
}

func (s guardedSecrets) Secrets(ctx context.Context, metadata map[string]string) (map[string]map[string]string, error) {
	return do(ctx, s.g, func(ctx context.Context) (map[string]map[string]string, error) {
		return s.SecretStore.Secrets(ctx, metadata)
	})
}

type guardedConfiguration struct {
	Configuration
	g Guard
	closing
}

func (c guardedConfiguration) Get(ctx context.Context, keys []string, metadata map[string]string) (map[string]ConfigItem, error) {
	return do(ctx, c.g, func(ctx context.Context) (map[string]ConfigItem, error) {
		return c.Configuration.Get(ctx, keys, metadata)
	})
}

type guardedLock struct {
	Lock
	g Guard
	closing
}

func (l guardedLock) TryLock(ctx context.Context, resource, owner string, expiry time.Duration) (token uint64, locked bool, err error) {
	err = l.g.Run(ctx, func(ctx context.Context) error {
		token, locked, err = l.Lock.TryLock(ctx, resource, owner, expiry)
		return err
	})
	return token, locked, err
}

func (l guardedLock) Renew(ctx context.Context, resource, owner string, expiry time.Duration) (Unlocked, error) {
	return do(ctx, l.g, func(ctx context.Context) (Unlocked, error) { return l.Lock.Renew(ctx, resource, owner, expiry) })
}

func (l guardedLock) Unlock(ctx context.Context, resource, owner string) (Unlocked, error) {
	return do(ctx, l.g, func(ctx context.Context) (Unlocked, error) { return l.Lock.Unlock(ctx, resource, owner) })
}

type guardedCrypto struct {
	Crypto
	g Guard
	closing
}

// sealed is what Encrypt and WrapKey answer.
type sealed struct{ data, tag []byte }

func (c guardedCrypto) Encrypt(ctx context.Context, by Cipher, plain []byte) ([]byte, []byte, error) {
	out, err := do(ctx, c.g, func(ctx context.Context) (s sealed, err error) {
		s.data, s.tag, err = c.Crypto.Encrypt(ctx, by, plain)
		return s, err
	})
	return out.data, out.tag, err
}

func (c guardedCrypto) Decrypt(ctx context.Context, by Cipher, data, tag []byte) ([]byte, error) {
	return do(ctx, c.g, func(ctx context.Context) ([]byte, error) { return c.Crypto.Decrypt(ctx, by, data, tag) })
}

func (c guardedCrypto) WrapKey(ctx context.Context, by Cipher, plain []byte) ([]byte, []byte, error) {
	out, err := do(ctx, c.g, func(ctx context.Context) (s sealed, err error) {
		s.data, s.tag, err = c.Crypto.WrapKey(ctx, by, plain)
		return s, err
	})
	return out.data, out.tag, err
}

func (c guardedCrypto) UnwrapKey(ctx context.Context, by Cipher, wrapped, tag []byte) ([]byte, error) {
	return do(ctx, c.g, func(ctx context.Context) ([]byte, error) { return c.Crypto.UnwrapKey(ctx, by, wrapped, tag) })
}

type guardedConversation struct {
	Conversation
	g Guard
	closing
}

func (c guardedConversation) Converse(ctx context.Context, r ConversationRequest) (ConversationReply, error) {
	return do(ctx, c.g, func(ctx context.Context) (ConversationReply, error) { return c.Conversation.Converse(ctx, r) })
}
