package crypto

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	kit "github.com/dapr/kit/crypto"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/xtest"
)

var ctx = context.Background()

// keyDir has a key of each kind: rsa.pem, ec256.json, …, and symmetric ones by the number of their bytes.
func keyDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, data []byte, err error) {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	write("rsa.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err)
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err = x509.MarshalPKCS8PrivateKey(edwards)
	write("ed.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err)
	for name, curve := range map[string]elliptic.Curve{"ec256.json": elliptic.P256(), "ec384.json": elliptic.P384(), "ec512.json": elliptic.P521()} {
		raw, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		text, err := asJWK(raw)
		write(name, text, err)
	}
	for _, size := range []int{16, 24, 32, 48, 64} {
		key := bytes.Repeat([]byte{0xfe}, size) // no base64
		write("bytes"+string(rune('0'+size/8)), key, nil)
		write("base64-"+string(rune('0'+size/8)), []byte(base64.StdEncoding.EncodeToString(key)+"\n"), nil)
	}
	return dir
}

func asJWK(raw any) ([]byte, error) {
	key, err := jwk.FromRaw(raw)
	if err != nil {
		return nil, err
	}
	return json.Marshal(key)
}

func open(t *testing.T, kind, dir string, m component.Metadata) component.Crypto {
	t.Helper()
	is, err := Factories()[kind](ctx, component.Host{Dir: dir, Clock: xtest.NewClock(time.Unix(0, 0))}, component.Spec{Metadata: m})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := is.(interface{ Close() error }).Close(); err != nil {
			t.Error(err)
		}
	})
	return is.(component.Crypto)
}

func local(t *testing.T) (component.Crypto, string) {
	dir := keyDir(t)
	return open(t, "crypto.dapr.localstorage", dir, component.Metadata{"path": "."}), dir
}

// cases are all algorithms that encrypt, with a key for each and the length of its nonce.
func cases() map[string]component.Cipher {
	all := map[string]component.Cipher{}
	add := func(key string, nonce int, names ...string) {
		for _, name := range names {
			all[name] = component.Cipher{Algorithm: name, Key: key, Nonce: make([]byte, nonce)}
		}
	}
	for i, size := range []string{"2", "3", "4"} {
		bits := []string{"128", "192", "256"}[i]
		add("bytes"+size, 16, "A"+bits+"CBC", "A"+bits+"CBC-NOPAD")
		add("bytes"+size, 12, "A"+bits+"GCM")
		add("bytes"+size, 0, "A"+bits+"KW")
	}
	add("base64-4", 16, "A128CBC-HS256")
	add("base64-6", 16, "A192CBC-HS384")
	add("base64-8", 16, "A256CBC-HS512")
	add("bytes4", 12, "C20P", "C20PKW")
	add("bytes4", 24, "XC20P", "XC20PKW")
	add("rsa.pem", 0, "RSA1_5", "RSA-OAEP", "RSA-OAEP-256", "RSA-OAEP-384", "RSA-OAEP-512")
	return all
}

func TestEveryAlgorithmEncryptsWrapsAndComesBack(t *testing.T) {
	c, _ := local(t)
	plain := []byte("0123456789abcdef0123456789abcdef")
	all := cases()
	for _, name := range append(kit.SupportedSymmetricAlgorithms(), kit.SupportedAsymmetricAlgorithms()...) {
		if _, ok := all[name]; !ok {
			t.Errorf("%s of Dapr is not tried", name)
		}
	}
	for name, cipher := range all {
		sealed, tag, err := c.Encrypt(ctx, cipher, plain)
		if err != nil || bytes.Contains(sealed, plain) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if back, err := c.Decrypt(ctx, cipher, sealed, tag); err != nil || !bytes.Equal(back, plain) {
			t.Errorf("%s came back as %q, %v", name, back, err)
		}
		wrapped, tag, err := c.WrapKey(ctx, cipher, plain)
		if err != nil {
			t.Errorf("%s wraps: %v", name, err)
		}
		if back, err := c.UnwrapKey(ctx, cipher, wrapped, tag); err != nil || !bytes.Equal(back, plain) {
			t.Errorf("%s unwrapped %q, %v", name, back, err)
		}
	}
}

func TestWhatWasTamperedWithOrHasAnotherContextIsNotDecrypted(t *testing.T) {
	c, _ := local(t)
	for name, cipher := range cases() {
		authentic := strings.Contains(name, "GCM") || strings.Contains(name, "HS") || strings.Contains(name, "20P") || strings.Contains(name, "OAEP")
		if !authentic {
			continue
		}
		cipher.AAD = []byte("context")
		sealed, tag, err := c.Encrypt(ctx, cipher, []byte("plain"))
		if err != nil {
			t.Fatal(name, err)
		}
		other := cipher
		other.AAD = []byte("another")
		if _, err := c.Decrypt(ctx, other, sealed, tag); err == nil {
			t.Errorf("%s decrypts in another context", name)
		}
		sealed[0] ^= 1
		if _, err := c.Decrypt(ctx, cipher, sealed, tag); err == nil {
			t.Errorf("%s decrypts what was tampered with", name)
		}
	}
}

func TestEveryAlgorithmSignsAndOnlyItsOwnSignatureIsValid(t *testing.T) {
	c, _ := local(t)
	short, long := sha256.Sum256([]byte("x")), sha512.Sum512([]byte("x"))
	middle := sha512.Sum384([]byte("x"))
	digests := map[string][]byte{"256": short[:], "384": middle[:], "512": long[:], "DSA": []byte("the whole message")}
	tried := map[string]bool{}
	for _, name := range kit.SupportedSignatureAlgorithms() {
		digest := digests[name[len(name)-3:]]
		key := "rsa.pem"
		switch {
		case strings.HasPrefix(name, "ES"):
			key = "ec" + name[2:] + ".json"
		case name == "EdDSA":
			key = "ed.pem"
		}
		cipher := component.Cipher{Algorithm: name, Key: key}
		signature, err := c.Sign(ctx, cipher, digest)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if ok, err := c.Verify(ctx, cipher, digest, signature); err != nil || !ok {
			t.Errorf("%s: its signature is not valid, %v", name, err)
		}
		signature[len(signature)-1] ^= 1
		if ok, err := c.Verify(ctx, cipher, digest, signature); err != nil || ok {
			t.Errorf("%s: another signature is %v, %v", name, ok, err)
		}
		tried[name] = true
	}
	if len(tried) < 10 {
		t.Errorf("only %v were tried", tried)
	}
}

func TestThePublicPartOfAKeyIsGivenAwayAndNoSymmetricKeyIs(t *testing.T) {
	c, _ := local(t)
	for name, is := range map[string]func(any) bool{
		"rsa.pem":    func(k any) bool { _, ok := k.(*rsa.PublicKey); return ok },
		"ec256.json": func(k any) bool { _, ok := k.(*ecdsa.PublicKey); return ok },
		"ed.pem":     func(k any) bool { _, ok := k.(ed25519.PublicKey); return ok },
	} {
		if key, err := c.PublicKey(ctx, name); err != nil || !is(key) {
			t.Errorf("%s is %T, %v", name, key, err)
		}
	}
	for _, name := range []string{"bytes2", "missing"} {
		if key, err := c.PublicKey(ctx, name); !errors.Is(err, ErrKeyNotFound) {
			t.Errorf("%s is %v, %v", name, key, err)
		}
	}
}

func TestAKeyThatCannotBeUsedIsRefusedAndNotTold(t *testing.T) {
	c, dir := local(t)
	if err := os.WriteFile(filepath.Join(dir, "broken.json"), []byte(`{"kty":"hunter2"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(outside, bytes.Repeat([]byte{0xff}, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for name, cipher := range map[string]component.Cipher{
		"a broken file": {Key: "broken.json", Algorithm: "A256KW"}, "a way out": {Key: "../key", Algorithm: "A256KW"}, "a link": {Key: "link", Algorithm: "A256KW"},
		"a folder": {Key: "", Algorithm: "A256KW"}, "another kind": {Key: "rsa.pem", Algorithm: "A256KW"}, "no algorithm": {Key: "bytes4", Algorithm: "ROT13"},
		"another size": {Key: "bytes2", Algorithm: "A256KW"}, "no nonce": {Key: "bytes4", Algorithm: "A256GCM"}, "a short nonce": {Key: "bytes4", Algorithm: "XC20P", Nonce: []byte("1")},
	} {
		if _, _, err := c.Encrypt(ctx, cipher, make([]byte, 32)); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := c.Decrypt(ctx, cipher, make([]byte, 48), nil); err == nil {
			t.Errorf("%s decrypts", name)
		}
		if _, err := c.Sign(ctx, cipher, make([]byte, 32)); err == nil {
			t.Errorf("%s signs", name)
		}
	}
	if _, _, err := c.Encrypt(ctx, component.Cipher{Key: "bytes4", Algorithm: "A256CBC", Nonce: make([]byte, 16)}, make([]byte, dataBytesMax+1)); err == nil {
		t.Error("more than the most was encrypted")
	}
	for _, m := range []component.Metadata{nil, {"path": "nowhere"}} {
		if _, err := NewLocalStorage(ctx, component.Host{Dir: dir}, component.Spec{Metadata: m}); err == nil {
			t.Errorf("%v was accepted", m)
		}
	}
}

const set = `{"keys":[{"kty":"oct","kid":"any","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
	{"kty":"oct","kid":"wraps","alg":"A256KW","key_ops":["wrapKey","unwrapKey"],"k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
	{"kty":"oct","kid":"signs","use":"sig","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}`

func TestKeysOfASetAreFoundByTheirIDAndDoWhatTheyMay(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "keys.json"), []byte(set), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{set, base64.StdEncoding.EncodeToString([]byte(set)), "keys.json"} {
		c := open(t, "crypto.dapr.jwks", dir, component.Metadata{"jwks": where})
		wrap := component.Cipher{Key: "wraps", Algorithm: "A256KW"}
		wrapped, _, err := c.WrapKey(ctx, wrap, make([]byte, 32))
		if err != nil {
			t.Fatal(err)
		}
		if back, err := c.UnwrapKey(ctx, component.Cipher{Key: "any", Algorithm: "A256KW"}, wrapped, nil); err != nil || len(back) != 32 {
			t.Errorf("%x, %v", back, err)
		}
		if _, _, err := c.Encrypt(ctx, wrap, make([]byte, 32)); err == nil {
			t.Error("a key that may only wrap encrypted")
		}
		if _, _, err := c.WrapKey(ctx, component.Cipher{Key: "signs", Algorithm: "A256KW"}, make([]byte, 32)); err == nil {
			t.Error("a key that may only sign wrapped")
		}
		wrap.Algorithm = "A256GCM"
		if _, _, err := c.WrapKey(ctx, wrap, make([]byte, 32)); err == nil || !strings.Contains(err.Error(), "algorithm") {
			t.Errorf("a key for another algorithm: %v", err)
		}
		if _, _, err := c.WrapKey(ctx, component.Cipher{Key: "none", Algorithm: "A256KW"}, make([]byte, 32)); !errors.Is(err, ErrKeyNotFound) {
			t.Errorf("a key that there is not: %v", err)
		}
	}
	for _, m := range []component.Metadata{nil, {"jwks": "hunter2"}, {"jwks": set, "requestTimeout": "x"}, {"jwks": set, "minRefreshInterval": "x"}} {
		if _, err := NewJWKS(ctx, component.Host{Dir: dir}, component.Spec{Metadata: m}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v: %v", m, err)
		}
	}
}
