package dapr

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu/internal/component"
	"google.golang.org/grpc/codes"
)

// safe has one key, "k", and no real cipher: what it seals is turned round bit by bit, with a tag of one byte.
type safe struct{ private ed25519.PrivateKey }

func newSafe() safe { return safe{ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))} }

var errNoKey = errors.New("there is no such key; the PIN is hunter2")

func (safe) turn(c component.Cipher, data []byte) ([]byte, error) {
	if c.Key != "k" {
		return nil, errNoKey
	}
	out := bytes.Clone(data)
	for i := range out {
		out[i] ^= 0xff
	}
	return out, nil
}

func (s safe) Encrypt(_ context.Context, c component.Cipher, plain []byte) ([]byte, []byte, error) {
	out, err := s.turn(c, plain)
	return out, []byte{7}, err
}

func (s safe) Decrypt(_ context.Context, c component.Cipher, data, tag []byte) ([]byte, error) {
	if !bytes.Equal(tag, []byte{7}) || string(c.AAD) != "aad" {
		return nil, errors.New("the tag is not this")
	}
	return s.turn(c, data)
}

func (s safe) WrapKey(_ context.Context, c component.Cipher, plain []byte) ([]byte, []byte, error) {
	out, err := s.turn(c, plain)
	return out, nil, err
}

func (s safe) UnwrapKey(_ context.Context, c component.Cipher, data, _ []byte) ([]byte, error) {
	return s.turn(c, data)
}

func (s safe) PublicKey(_ context.Context, key string) (any, error) {
	if key != "k" {
		return nil, errors.New("key not found")
	}
	return s.private.Public(), nil
}

func (s safe) Sign(_ context.Context, c component.Cipher, digest []byte) ([]byte, error) {
	if c.Key != "k" {
		return nil, errNoKey
	}
	return ed25519.Sign(s.private, digest), nil
}

func (s safe) Verify(_ context.Context, c component.Cipher, digest, signature []byte) (bool, error) {
	if c.Key != "k" {
		return false, errNoKey
	}
	return ed25519.Verify(s.private.Public().(ed25519.PublicKey), digest, signature), nil
}

const cryptoPath = "PUT /v1.0-alpha1/crypto/safe/"

func TestADocumentIsSealedAndOpenedOverHTTP(t *testing.T) {
	h := open(t)
	h.want(500, "ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED", cryptoPath+"encrypt", "x")
	h.with(loaded("safe", "crypto.other", newSafe()))
	const key, algorithm = "dapr-key-name: k", "dapr-key-wrap-algorithm: a256kw"
	status, document, head := h.ask(cryptoPath+"encrypt", "secret plans", key, algorithm, "dapr-omit-decryption-key-name: true")
	if status != 200 || !strings.HasPrefix(document, "dapr.io/enc/v1\n") || strings.Contains(document, "plans") || head.Get("Content-Type") != "application/octet-stream" {
		t.Fatalf("%d %q", status, document)
	}
	h.want(200, "secret plans", cryptoPath+"decrypt", document, key)
	h.want(500, "ERR_CRYPTO", cryptoPath+"decrypt", document) // it does not name its key
	h.want(500, "failed to perform operation: ", cryptoPath+"decrypt", document[:len(document)-1], key)
	h.want(400, "missing header 'dapr-key-name'", cryptoPath+"encrypt", "x", algorithm)
	h.want(400, "missing header 'dapr-key-wrap-algorithm'", cryptoPath+"encrypt", "x", key)
	h.want(400, "crypto provider none not found", "PUT /v1.0-alpha1/crypto/none/encrypt", "x", key, algorithm)
	h.want(413, "ERR_BODY_READ", cryptoPath+"encrypt", strings.Repeat("x", 5000), key, algorithm)
	h.want(405, "", "POST /v1.0-alpha1/crypto/safe/encrypt", "x")
}

// sealed sends a document in parts and reads what becomes of it.
func (c *callSide) sealed(options *rtv1.EncryptRequestOptions, parts ...string) (string, error) {
	c.t.Helper()
	s, err := c.EncryptAlpha1(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	for i, part := range parts {
		m := &rtv1.EncryptRequest{Payload: &commonv1.StreamPayload{Data: []byte(part), Seq: uint64(i)}}
		if i == 0 {
			m.Options = options
		}
		if err := s.Send(m); err != nil {
			break // the answer tells why
		}
	}
	_ = s.CloseSend()
	var out bytes.Buffer
	for seq := uint64(0); ; seq++ {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return out.String(), nil
		}
		if err != nil {
			return "", err
		}
		if m.GetPayload().GetSeq() != seq {
			c.t.Errorf("message %d has the number %d", seq, m.GetPayload().GetSeq())
		}
		out.Write(m.GetPayload().GetData())
	}
}

func TestADocumentIsSealedAndOpenedAsAStream(t *testing.T) {
	h := open(t)
	h.opt.BodyBytesMax = 4 << 20
	h.with(loaded("safe", "crypto.other", newSafe()))
	c := h.grpc()
	long := strings.Repeat("0123456789abcdef", 10_000)
	o := &rtv1.EncryptRequestOptions{ComponentName: "safe", KeyName: "k", KeyWrapAlgorithm: "A256KW"}
	document, err := c.sealed(o, "", long[:100], long[100:])
	if err != nil || len(document) < len(long) {
		t.Fatalf("%d bytes: %v", len(document), err)
	}
	s, err := c.DecryptAlpha1(t.Context())
	if err == nil {
		err = s.Send(&rtv1.DecryptRequest{Options: &rtv1.DecryptRequestOptions{ComponentName: "safe"}, Payload: &commonv1.StreamPayload{Data: []byte(document)}})
	}
	if err == nil {
		err = s.CloseSend()
	}
	var plain strings.Builder
	for err == nil {
		var m *rtv1.DecryptResponse
		if m, err = s.Recv(); err == nil {
			plain.Write(m.GetPayload().GetData())
		}
	}
	if err != io.EOF || plain.String() != long {
		t.Errorf("%d bytes: %v", plain.Len(), err)
	}
	for says, o := range map[string]*rtv1.EncryptRequestOptions{
		"invalid request: first message does not contain the required options":        nil,
		"invalid request: missing property 'keyName' in the options message":          {},
		"invalid request: missing property 'keyWrapAlgorithm' in the options message": {KeyName: "k"},
		"invalid request: missing component name":                                     {KeyName: "k", KeyWrapAlgorithm: "A256KW"},
		"crypto provider none not found":                                              {KeyName: "k", KeyWrapAlgorithm: "A256KW", ComponentName: "none"},
	} {
		_, err := c.sealed(o, "x")
		c.fails(err, codes.InvalidArgument, "", says)
	}
	_, err = c.sealed(&rtv1.EncryptRequestOptions{ComponentName: "safe", KeyName: "k", KeyWrapAlgorithm: "ROT13"}, "x")
	c.fails(err, codes.Internal, "", "failed to perform operation: ")
	bad, err := c.EncryptAlpha1(t.Context())
	for seq := range 2 {
		if err == nil {
			err = bad.Send(&rtv1.EncryptRequest{Options: map[int]*rtv1.EncryptRequestOptions{0: o}[seq], Payload: &commonv1.StreamPayload{Data: []byte("x"), Seq: uint64(seq * 5)}})
		}
	}
	for err == nil {
		_, err = bad.Recv()
	}
	c.fails(err, codes.Internal, "", "invalid sequence number received: 5 (expected: 1)")
}

func TestSubtleCryptoDoesOneOperationWithAKey(t *testing.T) {
	h := open(t)
	h.with(loaded("safe", "crypto.other", newSafe()))
	const to = "POST /v1.0-alpha1/subtlecrypto/safe/"
	plain := base64.StdEncoding.EncodeToString([]byte("hi"))
	h.want(200, `"ciphertext":"l5Y="`, to+"encrypt", `{"plaintext":"`+plain+`","keyName":"k","algorithm":"A"}`)
	h.want(200, `"plaintext":"`+plain+`"`, to+"decrypt", `{"ciphertext":"l5Y=","tag":"Bw==","keyName":"k","associatedData":"YWFk"}`)
	h.want(500, "failed to perform operation: failed to decrypt", to+"decrypt", `{"ciphertext":"l5Y=","keyName":"k"}`)
	h.want(200, `"wrappedKey":`, to+"wrapkey", `{"plaintextKey":"MDEyMzQ1Njc4OWFiY2RlZg==","keyName":"k"}`)
	h.want(500, "failed to parse plaintext key", to+"wrapkey", `{"keyName":"k"}`)
	h.want(200, `"plaintextKey":"`+plain+`"`, to+"unwrapkey", `{"wrappedKey":"l5Y=","keyName":"k"}`)
	h.want(200, "-----BEGIN PUBLIC KEY-----", to+"getkey", `{"name":"k"}`)
	h.want(200, `\"crv\":\"Ed25519\"`, to+"getkey", `{"name":"k","format":"JSON"}`)
	h.want(400, "invalid key format", to+"getkey", `{"name":"k","format":9}`)
	h.want(500, "failed to retrieve key no: key not found", to+"getkey", `{"name":"no"}`)
	for _, method := range []string{"encrypt", "unwrapkey", "sign", "verify"} {
		status, body, _ := h.ask(to+method, `{"keyName":"no"}`)
		if status != 500 || !strings.Contains(body, "failed to perform operation: failed to ") || strings.Contains(body, "hunter2") {
			t.Errorf("%s: %d %s", method, status, body)
		}
	}
	h.want(400, "crypto provider none not found", "POST /v1.0-alpha1/subtlecrypto/none/sign", `{}`)
	h.want(404, "ERR_DIRECT_INVOKE", to+"what", `{}`)
	h.want(405, "", "GET /v1.0-alpha1/subtlecrypto/safe/sign", "")
	c := h.grpc()
	signed, err := c.SubtleSignAlpha1(t.Context(), &rtv1.SubtleSignRequest{ComponentName: "safe", KeyName: "k", Digest: []byte("d")})
	if err != nil {
		t.Fatal(err)
	}
	for digest, want := range map[string]bool{"d": true, "e": false} {
		got, err := c.SubtleVerifyAlpha1(t.Context(), &rtv1.SubtleVerifyRequest{ComponentName: "safe", KeyName: "k", Digest: []byte(digest), Signature: signed.GetSignature()})
		if err != nil || got.GetValid() != want {
			t.Errorf("%s: %v %v", digest, got, err)
		}
	}
}
