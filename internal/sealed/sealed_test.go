package sealed

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	kit "github.com/dapr/kit/crypto"
	enc "github.com/dapr/kit/schemes/enc/v1"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/quipu-run/quipu/internal/component"
)

var ctx = context.Background()

// box has one symmetric key, under two names.
type box struct {
	component.Crypto
	key jwk.Key
}

func newBox(t *testing.T) box {
	key, err := jwk.FromRaw(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return box{key: key}
}

var errNoKey = errors.New("no such key")

func (b box) WrapKey(_ context.Context, c component.Cipher, plain []byte) (wrapped, tag []byte, err error) {
	if c.Key != "k" && c.Key != "k2" {
		return nil, nil, errNoKey
	}
	return kit.Encrypt(plain, c.Algorithm, b.key, c.Nonce, c.AAD)
}

func (b box) UnwrapKey(_ context.Context, c component.Cipher, wrapped, tag []byte) ([]byte, error) {
	if c.Key != "k" && c.Key != "k2" {
		return nil, errNoKey
	}
	return kit.Decrypt(wrapped, c.Algorithm, b.key, c.Nonce, tag, c.AAD)
}

// documents have lengths around those of segments.
func documents() [][]byte {
	var all [][]byte
	for _, size := range []int{0, 1, enc.SegmentSize - 1, enc.SegmentSize, enc.SegmentSize + 1, 3*enc.SegmentSize + 17} {
		all = append(all, bytes.Repeat([]byte("doc"), size/3+1)[:size])
	}
	return all
}

func TestDocumentsPassBetweenDaprAndHere(t *testing.T) {
	b := newBox(t)
	for _, cipher := range []string{"", "AES-GCM", "chacha20-poly1305"} {
		for _, doc := range documents() {
			var ours, back bytes.Buffer
			if err := Seal(ctx, &ours, bytes.NewReader(doc), b, Options{Key: "k", Algorithm: "aes", Cipher: cipher}); err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(ours.String(), "dapr.io/enc/v1\n") {
				t.Errorf("the document starts with %.20q", ours.String())
			}
			theirs, err := enc.Decrypt(&ours, enc.DecryptOptions{UnwrapKeyFn: func(w []byte, a, k string, n, tag []byte) ([]byte, error) {
				return b.UnwrapKey(ctx, component.Cipher{Algorithm: a, Key: k}, w, tag)
			}})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(theirs); err != nil || !bytes.Equal(got, doc) {
				t.Errorf("Dapr opens %d bytes as %d, %v", len(doc), len(got), err)
			}
			sealed, err := enc.Encrypt(bytes.NewReader(doc), enc.EncryptOptions{KeyName: "k", Algorithm: enc.KeyAlgorithmAES, WrapKeyFn: func(p []byte, a, k string, n []byte) ([]byte, []byte, error) {
				return b.WrapKey(ctx, component.Cipher{Algorithm: a, Key: k}, p)
			}})
			if err != nil {
				t.Fatal(err)
			}
			if err := Open(ctx, &back, sealed, b, ""); err != nil || !bytes.Equal(back.Bytes(), doc) {
				t.Errorf("%d bytes of Dapr are opened as %d, %v", len(doc), back.Len(), err)
			}
		}
	}
}

func TestTheHeaderNamesTheKeyUnlessItMayNot(t *testing.T) {
	b := newBox(t)
	seal := func(o Options) *bytes.Buffer {
		o.Algorithm = "A256KW"
		var out bytes.Buffer
		if err := Seal(ctx, &out, strings.NewReader("x"), b, o); err != nil {
			t.Fatal(err)
		}
		return &out
	}
	open := func(in io.Reader, key string) error {
		return Open(ctx, io.Discard, in, b, key)
	}
	if err := open(seal(Options{Key: "k", DecryptionKey: "k2"}), ""); err != nil {
		t.Error(err)
	}
	if err := open(seal(Options{Key: "k", DecryptionKey: "k3"}), ""); err == nil {
		t.Error("opened with a key that there is not")
	}
	if err := open(seal(Options{Key: "k", DecryptionKey: "k3"}), "k"); err != nil {
		t.Error(err)
	}
	if err := open(seal(Options{Key: "k", OmitKey: true}), ""); !errors.Is(err, ErrKeyName) {
		t.Errorf("without a name: %v", err)
	}
	if err := open(seal(Options{Key: "k", OmitKey: true}), "k"); err != nil {
		t.Error(err)
	}
}

func TestNothingIsWrittenIfTheOptionsCannotBeAndNoTamperedDocumentIsOpened(t *testing.T) {
	b := newBox(t)
	for _, o := range []Options{{Key: "other", Algorithm: "AES"}, {Key: "k"}, {Algorithm: "AES"}, {Key: "k", Algorithm: "ROT13"}, {Key: "k", Algorithm: "AES", Cipher: "ROT13"}} {
		var out bytes.Buffer
		if err := Seal(ctx, &out, strings.NewReader("x"), b, o); err == nil || out.Len() != 0 {
			t.Errorf("%+v wrote %d bytes, %v", o, out.Len(), err)
		}
	}
	var sealed bytes.Buffer
	if err := Seal(ctx, &sealed, strings.NewReader("some text"), b, Options{Key: "k", Algorithm: "AES"}); err != nil {
		t.Fatal(err)
	}
	header := sealed.Len() - len("some text") - enc.SegmentOverhead
	for at := range sealed.Len() {
		text := bytes.Clone(sealed.Bytes())
		text[at] ^= 1
		if err := Open(ctx, io.Discard, bytes.NewReader(text), b, ""); err == nil {
			t.Errorf("opened although byte %d was changed", at)
		}
		if at == header { // the scheme cannot tell this from an empty document
			continue
		}
		if err := Open(ctx, io.Discard, bytes.NewReader(sealed.Bytes()[:at]), b, ""); err == nil {
			t.Errorf("opened although it ends after byte %d", at)
		}
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errNoKey }

func TestManyDocumentsPassAtOnce(t *testing.T) {
	b := newBox(t)
	doc := bytes.Repeat([]byte("many"), enc.SegmentSize)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var sealed, back bytes.Buffer
			if err := Seal(ctx, &sealed, bytes.NewReader(doc), b, Options{Key: "k", Algorithm: "AES"}); err != nil {
				t.Error(err)
			}
			if err := Open(ctx, &back, &sealed, b, ""); err != nil || !bytes.Equal(back.Bytes(), doc) {
				t.Errorf("opened as %d bytes, %v", back.Len(), err)
			}
		})
	}
	wg.Wait()
}

func TestASlowReaderMakesTheSameDocument(t *testing.T) {
	b := newBox(t)
	for _, doc := range documents() {
		var sealed, back bytes.Buffer
		if err := Seal(ctx, &sealed, iotest.HalfReader(bytes.NewReader(doc)), b, Options{Key: "k", Algorithm: "AES"}); err != nil {
			t.Fatal(err)
		}
		if err := Open(ctx, &back, iotest.DataErrReader(iotest.HalfReader(&sealed)), b, ""); err != nil || !bytes.Equal(back.Bytes(), doc) {
			t.Errorf("%d bytes are opened as %d, %v", len(doc), back.Len(), err)
		}
	}
	cut := io.MultiReader(strings.NewReader("half a bo"), iotest.ErrReader(io.ErrUnexpectedEOF))
	if err := Seal(ctx, io.Discard, cut, b, Options{Key: "k", Algorithm: "AES"}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a body that was cut off: %v", err)
	}
	if err := Seal(ctx, io.Discard, iotest.ErrReader(errNoKey), b, Options{Key: "k", Algorithm: "AES"}); !errors.Is(err, errNoKey) {
		t.Errorf("a reader that breaks: %v", err)
	}
}

func TestAWriterThatBreaksAndAContextThatEndsAreTold(t *testing.T) {
	b := newBox(t)
	o := Options{Key: "k", Algorithm: "AES"}
	if err := Seal(ctx, broken{}, strings.NewReader("x"), b, o); !errors.Is(err, errNoKey) {
		t.Errorf("the writer's error: %v", err)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if err := Seal(over, io.Discard, strings.NewReader("x"), b, o); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}
