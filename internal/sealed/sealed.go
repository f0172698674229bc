// Package sealed is Dapr's scheme for documents, dapr.io/enc/v1: a header with a wrapped key, then segments of 64 KiB, each
// encrypted and authenticated on its own.
//
// A document of any size passes through bounded memory. What Open has written when it fails is authentic but not whole, so
// that it must not be used. A document that was cut off right behind its header opens as an empty one: the scheme does not
// tell them apart. The scheme itself is upstream's library, so that documents pass between the two.
package sealed

import (
	"context"
	"errors"
	"io"
	"strings"

	enc "github.com/dapr/kit/schemes/enc/v1"
	"github.com/quipu-run/quipu/internal/component"
)

// Options say how a document is sealed.
type Options struct {
	Key       string // that wraps the document's own
	Algorithm string // of wrapping: A256KW (or AES), RSA-OAEP-256 (or RSA); the scheme has others that need a nonce, which it does not have
	Cipher    string // AES-GCM, which "" is, or CHACHA20-POLY1305
	// DecryptionKey is the name in the header, if it is another one than Key; none is there if OmitKey is set.
	DecryptionKey string
	OmitKey       bool
}

// Seal reads a document and writes it sealed. Nothing was written if the options or the key cannot be used.
func Seal(ctx context.Context, out io.Writer, in io.Reader, c component.Crypto, o Options) error {
	options := enc.EncryptOptions{KeyName: o.Key, Algorithm: enc.KeyAlgorithm(strings.ToUpper(o.Algorithm)), DecryptionKeyName: o.DecryptionKey, OmitKeyName: o.OmitKey,
		WrapKeyFn: func(key []byte, algorithm, name string, nonce []byte) ([]byte, []byte, error) {
			return c.WrapKey(ctx, component.Cipher{Algorithm: algorithm, Key: name, Nonce: nonce}, key)
		}}
	if o.Cipher != "" {
		cipher := enc.Cipher(strings.ToUpper(o.Cipher))
		options.Cipher = &cipher
	}
	sealed, err := enc.Encrypt(reader{ctx, in}, options)
	if err != nil {
		return err
	}
	return pass(out, sealed)
}

// Open reads a sealed document and writes it as it was. key, if it is not "", is used instead of the one in its header.
func Open(ctx context.Context, out io.Writer, in io.Reader, c component.Crypto, key string) error {
	options := enc.DecryptOptions{KeyName: key,
		UnwrapKeyFn: func(wrapped []byte, algorithm, name string, nonce, tag []byte) ([]byte, error) {
			return c.UnwrapKey(ctx, component.Cipher{Algorithm: algorithm, Key: name, Nonce: nonce}, wrapped, tag)
		}}
	opened, err := enc.Decrypt(reader{ctx, in}, options)
	if err != nil {
		return err
	}
	return pass(out, opened)
}

// pass copies what the library makes. If it cannot be written the library's goroutine is ended, as soon as its Read returns.
func pass(out io.Writer, made io.Reader) error {
	_, err := io.Copy(out, made)
	if pipe, ok := made.(*io.PipeReader); ok && err != nil {
		return errors.Join(err, pipe.CloseWithError(err))
	}
	return err
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	in  io.Reader
}

// Read is io.Reader.
func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.in.Read(p)
}
