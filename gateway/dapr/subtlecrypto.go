package dapr

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	kit "github.com/dapr/kit/crypto"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/quipu-run/quipu/internal/component"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// The methods here are those of upstream's build tag subtlecrypto. Failures tell nothing of their cause, which goes to nobody: an
// error that is too exact is an oracle (Vaudenay, "Security Flaws Induced by CBC Padding", 2002).

// SubtleGetKeyAlpha1 answers the public part of a key.
func (s *runtime) SubtleGetKeyAlpha1(ctx context.Context, in *rtv1.SubtleGetKeyRequest) (*rtv1.SubtleGetKeyResponse, error) {
	r := requestOf(ctx)
	c, err := s.d.cryptoOf(r, in.GetComponentName())
	if err != nil {
		return nil, err
	}
	encode := map[rtv1.SubtleGetKeyRequest_KeyFormat]func(any) ([]byte, error){rtv1.SubtleGetKeyRequest_PEM: publicPEM, rtv1.SubtleGetKeyRequest_JSON: publicJSON}[in.GetFormat()]
	if encode == nil {
		return nil, badParameter("invalid key format")
	}
	key, err := c.PublicKey(r.Context(), in.GetName())
	var text []byte
	if err == nil {
		text, err = encode(key)
	}
	if err != nil {
		return nil, &problem{status: http.StatusInternalServerError, code: codes.Internal, tag: "ERR_CRYPTO_KEY", message: fmt.Sprintf("failed to retrieve key %.200s: %v", in.GetName(), err)}
	}
	return &rtv1.SubtleGetKeyResponse{Name: in.GetName(), PublicKey: string(text)}, nil
}

func publicPEM(key any) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

func publicJSON(key any) ([]byte, error) {
	k, err := jwk.FromRaw(key)
	if err != nil {
		return nil, err
	}
	return json.Marshal(k)
}

// cipherAsk is what methods with a cipher say.
type cipherAsk interface {
	GetAlgorithm() string
	GetKeyName() string
	GetNonce() []byte
	GetAssociatedData() []byte
}

func cipherOf(in cipherAsk) component.Cipher {
	return component.Cipher{Algorithm: in.GetAlgorithm(), Key: in.GetKeyName(), Nonce: in.GetNonce(), AAD: in.GetAssociatedData()}
}

// SubtleEncryptAlpha1 encrypts a small message.
func (s *runtime) SubtleEncryptAlpha1(ctx context.Context, in *rtv1.SubtleEncryptRequest) (*rtv1.SubtleEncryptResponse, error) {
	c, err := s.d.cryptoOf(requestOf(ctx), in.GetComponentName())
	if err != nil {
		return nil, err
	}
	out, tag, err := c.Encrypt(ctx, cipherOf(in), in.GetPlaintext())
	if err != nil {
		return nil, cryptoProblem("failed to encrypt")
	}
	return &rtv1.SubtleEncryptResponse{Ciphertext: out, Tag: tag}, nil
}

// SubtleDecryptAlpha1 decrypts a small message.
func (s *runtime) SubtleDecryptAlpha1(ctx context.Context, in *rtv1.SubtleDecryptRequest) (*rtv1.SubtleDecryptResponse, error) {
	c, err := s.d.cryptoOf(requestOf(ctx), in.GetComponentName())
	if err != nil {
		return nil, err
	}
	out, err := c.Decrypt(ctx, cipherOf(in), in.GetCiphertext(), in.GetTag())
	if err != nil {
		return nil, cryptoProblem("failed to decrypt")
	}
	return &rtv1.SubtleDecryptResponse{Plaintext: out}, nil
}

// SubtleWrapKeyAlpha1 encrypts a key, which may come as bytes, as base64, as PEM or as a JSON web key.
func (s *runtime) SubtleWrapKeyAlpha1(ctx context.Context, in *rtv1.SubtleWrapKeyRequest) (*rtv1.SubtleWrapKeyResponse, error) {
	c, err := s.d.cryptoOf(requestOf(ctx), in.GetComponentName())
	if err != nil {
		return nil, err
	}
	var plain []byte
	key, err := kit.ParseKey(in.GetPlaintextKey(), "")
	if err == nil {
		plain, err = kit.SerializeKey(key)
	}
	if err != nil {
		return nil, cryptoProblem("failed to parse plaintext key")
	}
	out, tag, err := c.WrapKey(ctx, cipherOf(in), plain)
	if err != nil {
		return nil, cryptoProblem("failed to wrap key")
	}
	return &rtv1.SubtleWrapKeyResponse{WrappedKey: out, Tag: tag}, nil
}

// SubtleUnwrapKeyAlpha1 decrypts a key.
func (s *runtime) SubtleUnwrapKeyAlpha1(ctx context.Context, in *rtv1.SubtleUnwrapKeyRequest) (*rtv1.SubtleUnwrapKeyResponse, error) {
	c, err := s.d.cryptoOf(requestOf(ctx), in.GetComponentName())
	if err != nil {
		return nil, err
	}
	out, err := c.UnwrapKey(ctx, cipherOf(in), in.GetWrappedKey(), in.GetTag())
	if err != nil {
		return nil, cryptoProblem("failed to unwrap key")
	}
	return &rtv1.SubtleUnwrapKeyResponse{PlaintextKey: out}, nil
}

// SubtleSignAlpha1 signs a digest.
func (s *runtime) SubtleSignAlpha1(ctx context.Context, in *rtv1.SubtleSignRequest) (*rtv1.SubtleSignResponse, error) {
	c, err := s.d.cryptoOf(requestOf(ctx), in.GetComponentName())
	if err != nil {
		return nil, err
	}
	out, err := c.Sign(ctx, component.Cipher{Algorithm: in.GetAlgorithm(), Key: in.GetKeyName()}, in.GetDigest())
	if err != nil {
		return nil, cryptoProblem("failed to sign")
	}
	return &rtv1.SubtleSignResponse{Signature: out}, nil
}

// SubtleVerifyAlpha1 tells whether a signature is that of a digest.
func (s *runtime) SubtleVerifyAlpha1(ctx context.Context, in *rtv1.SubtleVerifyRequest) (*rtv1.SubtleVerifyResponse, error) {
	c, err := s.d.cryptoOf(requestOf(ctx), in.GetComponentName())
	if err != nil {
		return nil, err
	}
	valid, err := c.Verify(ctx, component.Cipher{Algorithm: in.GetAlgorithm(), Key: in.GetKeyName()}, in.GetDigest(), in.GetSignature())
	if err != nil {
		return nil, cryptoProblem("failed to verify signature")
	}
	return &rtv1.SubtleVerifyResponse{Valid: valid}, nil
}

// subtleAsk is a request that names its component.
type subtleAsk interface {
	proto.Message
	rtv1.SubtleCryptoRequests
}

// subtle serves a method over HTTP.
func subtle[In subtleAsk, Out proto.Message](do func(*runtime, context.Context, In) (Out, error), in func() In) func(*Door, http.ResponseWriter, *http.Request, string) {
	return func(d *Door, w http.ResponseWriter, r *http.Request, name string) {
		overHTTP(d, w, r, tagCrypto, in(), false, func(ctx context.Context, in In) (Out, error) {
			in.SetComponentName(name)
			return do(&runtime{d: d}, ctx, in)
		})
	}
}

// subtleMethods are POST subtlecrypto/{component}/…
var subtleMethods = map[string]func(d *Door, w http.ResponseWriter, r *http.Request, name string){
	"getkey":    subtle((*runtime).SubtleGetKeyAlpha1, func() *rtv1.SubtleGetKeyRequest { return &rtv1.SubtleGetKeyRequest{} }),
	"encrypt":   subtle((*runtime).SubtleEncryptAlpha1, func() *rtv1.SubtleEncryptRequest { return &rtv1.SubtleEncryptRequest{} }),
	"decrypt":   subtle((*runtime).SubtleDecryptAlpha1, func() *rtv1.SubtleDecryptRequest { return &rtv1.SubtleDecryptRequest{} }),
	"wrapkey":   subtle((*runtime).SubtleWrapKeyAlpha1, func() *rtv1.SubtleWrapKeyRequest { return &rtv1.SubtleWrapKeyRequest{} }),
	"unwrapkey": subtle((*runtime).SubtleUnwrapKeyAlpha1, func() *rtv1.SubtleUnwrapKeyRequest { return &rtv1.SubtleUnwrapKeyRequest{} }),
	"sign":      subtle((*runtime).SubtleSignAlpha1, func() *rtv1.SubtleSignRequest { return &rtv1.SubtleSignRequest{} }),
	"verify":    subtle((*runtime).SubtleVerifyAlpha1, func() *rtv1.SubtleVerifyRequest { return &rtv1.SubtleVerifyRequest{} }),
}

func (d *Door) subtleCrypto(w http.ResponseWriter, r *http.Request, name, method string) {
	if allow(w, r, http.MethodPost) {
		subtleMethods[method](d, w, r, name)
	}
}
