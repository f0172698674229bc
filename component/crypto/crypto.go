// Package crypto uses keys that are in files or in sets of keys, without giving them away.
//
// The algorithms and the reading of keys are Dapr's own library, so that what one has encrypted or signed the other can
// decrypt or verify. Nothing is kept besides sets of keys: a file is read for each operation. Keys are in no error.
package crypto

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	kit "github.com/dapr/kit/crypto"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/internal/jwks"
)

const (
	keyBytesMax  = 1 << 20
	dataBytesMax = 64 << 20 // of one operation
)

// ErrKeyNotFound is answered for a key that is not there, or that has no public part and is asked for it.
var ErrKeyNotFound = errors.New("key not found")

// Factories are the types of this package.
func Factories() map[string]component.Factory {
	return map[string]component.Factory{
		"crypto.dapr.localstorage": NewLocalStorage,
		"crypto.dapr.jwks":         NewJWKS,
	}
}

// keys is a component.Crypto for keys that can be found by name.
type keys struct {
	find  func(ctx context.Context, name string) (jwk.Key, error)
	close func() error
}

// NewLocalStorage makes a crypto.dapr.localstorage. Metadata: path, a folder with a file for each key: PEM, a JWK, or the bytes
// of a symmetric key, which may be in base64.
func NewLocalStorage(_ context.Context, h component.Host, s component.Spec) (any, error) {
	said, err := s.Metadata.Need("path")
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(h.Path(said))
	if err != nil {
		return nil, fmt.Errorf("metadata path: %w", err)
	}
	return &keys{func(_ context.Context, name string) (jwk.Key, error) { return readKey(root, name) }, root.Close}, nil
}

// NewJWKS makes a crypto.dapr.jwks. Metadata: jwks, which is the set, an address or a file; requestTimeout; minRefreshInterval.
func NewJWKS(ctx context.Context, h component.Host, s component.Spec) (any, error) {
	where, err := s.Metadata.Need("jwks")
	if err != nil {
		return nil, err
	}
	timeout, err := s.Metadata.Duration(0, "requestTimeout")
	if err != nil {
		return nil, err
	}
	refresh, err := s.Metadata.Duration(0, "minRefreshInterval")
	if err != nil {
		return nil, err
	}
	source, err := jwks.Open(ctx, h, where, timeout, refresh)
	if err != nil {
		return nil, fmt.Errorf("metadata jwks: %w", err)
	}
	find := func(ctx context.Context, name string) (jwk.Key, error) {
		set, err := source.Set(ctx)
		if err != nil {
			return nil, err
		}
		if key, ok := set.LookupKeyID(name); ok {
			return key, nil
		}
		return nil, ErrKeyNotFound
	}
	return &keys{find, func() error { return nil }}, nil
}

// readKey reads one from its file. No name and no link leads out of the folder.
func readKey(root *os.Root, name string) (jwk.Key, error) {
	if strings.Contains(name, "..") {
		return nil, errors.New("invalid key path: cannot contain '..'")
	}
	name = strings.TrimPrefix(path.Join("/", name), "/")
	info, err := root.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, ErrKeyNotFound
	case err != nil:
		return nil, fmt.Errorf("read key %.80q: %w", name, err)
	case !info.Mode().IsRegular() || info.Size() > keyBytesMax:
		return nil, fmt.Errorf("%.80q is no file of at most %d bytes", name, keyBytesMax)
	}
	text, err := root.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read key %.80q: %w", name, err)
	}
	contentType := map[string]string{".json": "application/json", ".pem": "application/x-pem-file"}[strings.ToLower(path.Ext(name))]
	key, err := kit.ParseKey(text, contentType)
	if err != nil {
		return nil, fmt.Errorf("the file of key %.80q has no key that can be read", name) // the cause quotes the file
	}
	return key, nil
}

// Close is io.Closer.
func (k *keys) Close() error { return k.close() }

// PublicKey is component.Crypto.
func (k *keys) PublicKey(ctx context.Context, name string) (any, error) {
	key, err := k.find(ctx, name)
	if err != nil {
		return nil, err
	}
	if key.KeyType() == jwa.OctetSeq {
		return nil, ErrKeyNotFound
	}
	public, err := key.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("failed to obtain public key: %w", err)
	}
	var raw any
	if err := public.Raw(&raw); err != nil {
		return nil, fmt.Errorf("failed to obtain public key: %w", err)
	}
	switch raw.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
		return raw, nil
	}
	return nil, fmt.Errorf("key %.80q has a public part of an unsupported kind", name)
}

// Encrypt is component.Crypto.
func (k *keys) Encrypt(ctx context.Context, c component.Cipher, plain []byte) (sealed, tag []byte, err error) {
	return k.seal(ctx, c, jwk.KeyOpEncrypt, plain)
}

// WrapKey is component.Crypto.
func (k *keys) WrapKey(ctx context.Context, c component.Cipher, plain []byte) (wrapped, tag []byte, err error) {
	return k.seal(ctx, c, jwk.KeyOpWrapKey, plain)
}

// Decrypt is component.Crypto.
func (k *keys) Decrypt(ctx context.Context, c component.Cipher, sealed, tag []byte) ([]byte, error) {
	return k.open(ctx, c, jwk.KeyOpDecrypt, sealed, tag)
}

// UnwrapKey is component.Crypto.
func (k *keys) UnwrapKey(ctx context.Context, c component.Cipher, wrapped, tag []byte) ([]byte, error) {
	return k.open(ctx, c, jwk.KeyOpUnwrapKey, wrapped, tag)
}

// seal clips what it is given: the library appends padding to it in place.
func (k *keys) seal(ctx context.Context, c component.Cipher, use jwk.KeyOperation, plain []byte) (sealed, tag []byte, err error) {
	key, err := k.usable(ctx, c, use, len(plain))
	if err != nil {
		return nil, nil, err
	}
	if isKeyWrap(c.Algorithm) && (len(plain) < 16 || len(plain)%8 != 0) {
		return nil, nil, fmt.Errorf("failed to encrypt data: %w", kit.ErrInvalidPlaintextLength)
	}
	encrypt := kit.Encrypt
	if isUnpadded(c.Algorithm) {
		encrypt = kit.EncryptSymmetric
	}
	if sealed, tag, err = encrypt(slices.Clip(plain), c.Algorithm, key, c.Nonce, c.AAD); err != nil {
		return nil, nil, fmt.Errorf("failed to encrypt data: %w", err)
	}
	return sealed, tag, nil
}

// open clips what it is given: the library appends the tag to it in place.
func (k *keys) open(ctx context.Context, c component.Cipher, use jwk.KeyOperation, sealed, tag []byte) ([]byte, error) {
	key, err := k.usable(ctx, c, use, len(sealed))
	if err != nil {
		return nil, err
	}
	if isKeyWrap(c.Algorithm) && (len(sealed) < 24 || len(sealed)%8 != 0) { // for which the library panics
		return nil, fmt.Errorf("failed to decrypt data: %w", kit.ErrInvalidCiphertextLength)
	}
	decrypt := kit.Decrypt
	if isUnpadded(c.Algorithm) {
		decrypt = kit.DecryptSymmetric
	}
	plain, err := decrypt(slices.Clip(sealed), c.Algorithm, key, c.Nonce, tag, c.AAD)
	if err != nil {
		return nil, fmt.Errorf("failed to decrypt data: %w", err)
	}
	return plain, nil
}

// isUnpadded tells of algorithms that the library has, but not where it chooses one by name.
func isUnpadded(algorithm string) bool { return strings.HasSuffix(algorithm, "CBC-NOPAD") }

// isKeyWrap tells of RFC 3394, which is for whole blocks of 8 bytes, two at least.
func isKeyWrap(algorithm string) bool {
	return algorithm == "A128KW" || algorithm == "A192KW" || algorithm == "A256KW"
}

// Sign is component.Crypto.
func (k *keys) Sign(ctx context.Context, c component.Cipher, digest []byte) ([]byte, error) {
	key, err := k.usable(ctx, c, jwk.KeyOpSign, len(digest))
	if err != nil {
		return nil, err
	}
	signature, err := kit.SignPrivateKey(digest, c.Algorithm, key)
	if err != nil {
		return nil, fmt.Errorf("failed to sign message: %w", err)
	}
	return signature, nil
}

// Verify is component.Crypto.
func (k *keys) Verify(ctx context.Context, c component.Cipher, digest, signature []byte) (bool, error) {
	key, err := k.usable(ctx, c, jwk.KeyOpVerify, len(digest))
	if err != nil {
		return false, err
	}
	valid, err := kit.VerifyPublicKey(digest, signature, c.Algorithm, key)
	if err != nil {
		return false, fmt.Errorf("failed to validate the signature: %w", err)
	}
	return valid, nil
}

// usable finds a key and checks that it may be used so.
func (k *keys) usable(ctx context.Context, c component.Cipher, use jwk.KeyOperation, size int) (jwk.Key, error) {
	if size > dataBytesMax {
		return nil, fmt.Errorf("the data has %d bytes; the most is %d", size, dataBytesMax)
	}
	key, err := k.find(ctx, c.Key)
	if err != nil {
		return nil, fmt.Errorf("failed to retrieve the key: %w", err)
	}
	if !mayDo(key, use) {
		return nil, fmt.Errorf("key cannot perform the '%s' operation", use)
	}
	if algorithm := key.Algorithm().String(); algorithm != "" && algorithm != c.Algorithm {
		return nil, fmt.Errorf("key cannot be used with algorithm '%s'", c.Algorithm)
	}
	return key, nil
}

// mayDo goes by what a key says of itself in key_ops and use; one that says nothing may do all.
func mayDo(key jwk.Key, use jwk.KeyOperation) bool {
	if operations := key.KeyOps(); len(operations) > 0 && !slices.Contains(operations, use) {
		return false
	}
	signs := use == jwk.KeyOpSign || use == jwk.KeyOpVerify
	switch key.KeyUsage() {
	case "":
		return true
	case "sig":
		return signs
	case "enc":
		return !signs
	}
	return false
}
