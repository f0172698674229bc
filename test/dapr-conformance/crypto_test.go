package conformance

import (
	"bytes"
	"context"
	"net/http"
	"strings"

	contrib "github.com/dapr/components-contrib/crypto"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	kit "github.com/dapr/kit/crypto"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// keys is a store of keys. The messages of both protocols are the same, so that the only difference is how they are sent.
type keys struct {
	component
	overHTTP bool
}

func (k *keys) Init(_ context.Context, m contrib.Metadata) error { return k.declare(m.Properties) }

// call does one operation of Dapr's subtle cryptography.
func (k *keys) call(ctx context.Context, operation string, in, out proto.Message) error {
	if !k.overHTTP {
		return k.conn.Invoke(ctx, "/"+rtv1.Dapr_ServiceDesc.ServiceName+"/Subtle"+operation+"Alpha1", in, out)
	}
	body, err := protojson.Marshal(in)
	if err != nil {
		return err
	}
	_, got, err := k.do(ctx, http.MethodPost, "/v1.0-alpha1/subtlecrypto/"+k.name+"/"+strings.ToLower(operation), nil, body)
	if err != nil {
		return err
	}
	return protojson.Unmarshal(got, out)
}

// SupportedEncryptionAlgorithms are all of Dapr's: its API does not tell them.
func (k *keys) SupportedEncryptionAlgorithms() []string {
	return append(kit.SupportedSymmetricAlgorithms(), kit.SupportedAsymmetricAlgorithms()...)
}

// SupportedSignatureAlgorithms are all of Dapr's.
func (k *keys) SupportedSignatureAlgorithms() []string { return kit.SupportedSignatureAlgorithms() }

// GetKey asks for either form of a key, which must be the same key.
func (k *keys) GetKey(ctx context.Context, name string) (jwk.Key, error) {
	var found []jwk.Key
	for _, form := range []rtv1.SubtleGetKeyRequest_KeyFormat{rtv1.SubtleGetKeyRequest_JSON, rtv1.SubtleGetKeyRequest_PEM} {
		var out rtv1.SubtleGetKeyResponse
		if err := k.call(ctx, "GetKey", &rtv1.SubtleGetKeyRequest{ComponentName: k.name, Name: name, Format: form}, &out); err != nil {
			return nil, err
		}
		key, err := jwk.ParseKey([]byte(out.GetPublicKey()), jwk.WithPEM(form == rtv1.SubtleGetKeyRequest_PEM))
		if err != nil {
			return nil, err
		}
		found = append(found, key)
	}
	if !jwk.Equal(found[0], found[1]) {
		k.t.Errorf("key %s is another in PEM than in JSON", name)
	}
	return found[0], nil
}

func (k *keys) Encrypt(ctx context.Context, plain []byte, algorithm, key string, nonce, data []byte) (sealed, tag []byte, err error) {
	var out rtv1.SubtleEncryptResponse
	err = k.call(ctx, "Encrypt", &rtv1.SubtleEncryptRequest{ComponentName: k.name, Plaintext: plain, Algorithm: algorithm, KeyName: key, Nonce: nonce, AssociatedData: data}, &out)
	return something(out.GetCiphertext()), something(out.GetTag()), err
}

func (k *keys) Decrypt(ctx context.Context, sealed []byte, algorithm, key string, nonce, tag, data []byte) ([]byte, error) {
	var out rtv1.SubtleDecryptResponse
	err := k.call(ctx, "Decrypt", &rtv1.SubtleDecryptRequest{ComponentName: k.name, Ciphertext: sealed, Algorithm: algorithm, KeyName: key, Nonce: nonce, Tag: tag, AssociatedData: data}, &out)
	return out.GetPlaintext(), err
}

func (k *keys) WrapKey(ctx context.Context, plain jwk.Key, algorithm, key string, nonce, data []byte) (wrapped, tag []byte, err error) {
	var raw []byte
	if err := plain.Raw(&raw); err != nil {
		return nil, nil, err
	}
	var out rtv1.SubtleWrapKeyResponse
	err = k.call(ctx, "WrapKey", &rtv1.SubtleWrapKeyRequest{ComponentName: k.name, PlaintextKey: raw, Algorithm: algorithm, KeyName: key, Nonce: nonce, AssociatedData: data}, &out)
	return something(out.GetWrappedKey()), something(out.GetTag()), err
}

func (k *keys) UnwrapKey(ctx context.Context, wrapped []byte, algorithm, key string, nonce, tag, data []byte) (jwk.Key, error) {
	var out rtv1.SubtleUnwrapKeyResponse
	err := k.call(ctx, "UnwrapKey", &rtv1.SubtleUnwrapKeyRequest{ComponentName: k.name, WrappedKey: wrapped, Algorithm: algorithm, KeyName: key, Nonce: nonce, Tag: tag, AssociatedData: data}, &out)
	if err != nil {
		return nil, err
	}
	return jwk.FromRaw(bytes.Clone(out.GetPlaintextKey()))
}

func (k *keys) Sign(ctx context.Context, digest []byte, algorithm, key string) ([]byte, error) {
	var out rtv1.SubtleSignResponse
	err := k.call(ctx, "Sign", &rtv1.SubtleSignRequest{ComponentName: k.name, Digest: digest, Algorithm: algorithm, KeyName: key}, &out)
	return out.GetSignature(), err
}

func (k *keys) Verify(ctx context.Context, digest, signature []byte, algorithm, key string) (bool, error) {
	var out rtv1.SubtleVerifyResponse
	err := k.call(ctx, "Verify", &rtv1.SubtleVerifyRequest{ComponentName: k.name, Digest: digest, Signature: signature, Algorithm: algorithm, KeyName: key}, &out)
	return out.GetValid(), err
}
