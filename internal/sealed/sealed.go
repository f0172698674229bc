// Package sealed is Dapr's scheme for documents, dapr.io/enc/v1: a header with a wrapped key, then segments of 64 KiB, each
// encrypted and authenticated on its own.
//
//	dapr.io/enc/v1 \n
//	{"k": name of the key, "kw": algorithm of wrapping, "wfk": wrapped key, "cph": cipher, "np": start of the nonces} \n
//	base64(HMAC-SHA-256(HKDF(key, "header"), the two lines above)) \n
//	segment…    AEAD(HKDF(key, "payload", salt np), nonce: np, number of the segment, 1 in the last one and else 0)
//
// A document of any size passes through bounded memory. What Open has written when it fails is authentic but not whole, so
// that it must not be used. A document that was cut off right behind its header opens as an empty one: the scheme does not
// tell them apart. Upstream's library is what the tests compare with, and not used here: it reads a header from a buffer
// that it has given to others already.
package sealed

import (
	"bufio"
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/quipu-run/quipu/internal/component"
	"golang.org/x/crypto/chacha20poly1305"
)

const (
	scheme       = "dapr.io/enc/v1"
	segmentBytes = 64 << 10
	tagBytes     = 16
	keyBytes     = 32
	prefixBytes  = 7
)

// Errors of Open.
var (
	ErrKeyName   = errors.New("document's manifest does not contain a key name, and no key name was provided")
	ErrSignature = errors.New("failed to validate the document's signature")
	ErrSegment   = errors.New("failed to decrypt segment")
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

// The scheme's numbers of algorithms and ciphers.
var (
	algorithms = []string{1: "A256KW", 2: "A128CBC-NOPAD", 3: "A192CBC-NOPAD", 4: "A256CBC-NOPAD", 5: "RSA-OAEP-256"}
	ciphers    = []string{1: "AES-GCM", 2: "CHACHA20-POLY1305"}
	aliases    = map[string]string{"AES": "A256KW", "RSA": "RSA-OAEP-256"}
)

// manifest is the second line of a header.
type manifest struct {
	Key       string `json:"k,omitempty"`
	Algorithm int    `json:"kw"`
	Wrapped   []byte `json:"wfk"`
	Cipher    int    `json:"cph"`
	Prefix    []byte `json:"np"`
}

// numberOf finds a name in a list, by its number; 0 if it is not there.
func numberOf(list []string, name string) int {
	for n := 1; n < len(list); n++ {
		if list[n] == name {
			return n
		}
	}
	return 0
}

func (o Options) manifest() (manifest, error) {
	algorithm, name := strings.ToUpper(o.Algorithm), strings.ToUpper(o.Cipher)
	if real, ok := aliases[algorithm]; ok {
		algorithm = real
	}
	if name == "" {
		name = ciphers[1]
	}
	m := manifest{Algorithm: numberOf(algorithms, algorithm), Cipher: numberOf(ciphers, name)}
	switch {
	case o.Key == "":
		return m, errors.New("the name of the key is required")
	case m.Algorithm == 0:
		return m, fmt.Errorf("algorithm %.40q is not supported", o.Algorithm)
	case m.Cipher == 0:
		return m, fmt.Errorf("cipher %.40q is not supported", o.Cipher)
	case o.OmitKey:
	case o.DecryptionKey != "":
		m.Key = o.DecryptionKey
	default:
		m.Key = o.Key
	}
	return m, nil
}

// Seal reads a document and writes it sealed. Nothing was written if the options or the key cannot be used.
func Seal(ctx context.Context, out io.Writer, in io.Reader, c component.Crypto, o Options) error {
	m, err := o.manifest()
	if err != nil {
		return err
	}
	random := make([]byte, keyBytes+prefixBytes)
	rand.Read(random) // never fails
	key := random[:keyBytes]
	m.Prefix = random[keyBytes:]
	m.Wrapped, _, err = c.WrapKey(ctx, component.Cipher{Algorithm: algorithms[m.Algorithm], Key: o.Key}, key)
	if err != nil {
		return fmt.Errorf("failed to wrap the file key: %w", err)
	}
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	mac, err := sign(key, line)
	if err != nil {
		return err
	}
	header := fmt.Sprintf("%s\n%s\n%s\n", scheme, line, base64.StdEncoding.EncodeToString(mac))
	if len(header) > segmentBytes {
		return errors.New("the header is too long")
	}
	s, err := newSegments(key, m)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(out, header); err != nil {
		return err
	}
	return s.pass(ctx, out, bufio.NewReaderSize(in, segmentBytes), segmentBytes, func(to, nonce, segment []byte) ([]byte, error) {
		return s.aead.Seal(to, nonce, segment, nil), nil
	})
}

// Open reads a sealed document and writes it as it was. key, if it is not "", is used instead of the one in its header.
// ErrKeyName, ErrSignature, ErrSegment. A key that is not there is no other error than a wrong one, as in Dapr.
func Open(ctx context.Context, out io.Writer, in io.Reader, c component.Crypto, key string) error {
	buffered := bufio.NewReaderSize(in, segmentBytes)
	line, mac, err := readHeader(buffered)
	if err != nil {
		return fmt.Errorf("invalid header: %w", err)
	}
	var m manifest
	if json.Unmarshal(line, &m) != nil || m.Algorithm < 1 || m.Algorithm >= len(algorithms) || m.Cipher < 1 || m.Cipher >= len(ciphers) ||
		len(m.Wrapped) == 0 || len(m.Prefix) != prefixBytes {
		return errors.New("invalid header: invalid manifest")
	}
	if key == "" {
		key = m.Key
	}
	if key == "" {
		return ErrKeyName
	}
	fileKey, err := c.UnwrapKey(ctx, component.Cipher{Algorithm: algorithms[m.Algorithm], Key: key}, m.Wrapped, nil)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil || len(fileKey) != keyBytes {
		return ErrSignature
	}
	want, err := sign(fileKey, line)
	if err != nil {
		return err
	}
	if !hmac.Equal(mac, want) {
		return ErrSignature
	}
	s, err := newSegments(fileKey, m)
	if err != nil {
		return err
	}
	return s.pass(ctx, out, buffered, segmentBytes+tagBytes, func(to, nonce, segment []byte) ([]byte, error) {
		opened, err := s.aead.Open(to, nonce, segment, nil)
		if err != nil {
			return nil, ErrSegment
		}
		return opened, nil
	})
}

// readHeader reads the three lines of a header; none is longer than the reader's buffer.
func readHeader(in *bufio.Reader) (line, mac []byte, err error) {
	var lines [3][]byte
	for i := range lines {
		read, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, bufio.ErrBufferFull):
			return nil, nil, errors.New("it is not whole, or too long")
		case err != nil:
			return nil, nil, err
		case i == 0 && string(read) != scheme+"\n":
			return nil, nil, errors.New("unsupported scheme")
		}
		lines[i] = bytes.Clone(read[:len(read)-1])
	}
	mac, err = base64.StdEncoding.Strict().DecodeString(string(lines[2]))
	return lines[1], mac, err
}

// sign authenticates a manifest.
func sign(key, line []byte) ([]byte, error) {
	headerKey, err := hkdf.Key(sha256.New, key, nil, "header", keyBytes)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, headerKey)
	fmt.Fprintf(mac, "%s\n%s\n", scheme, line)
	return mac.Sum(nil), nil
}

// segments are the payload of a document.
type segments struct {
	aead   cipher.AEAD
	prefix []byte
}

func newSegments(key []byte, m manifest) (*segments, error) {
	payloadKey, err := hkdf.Key(sha256.New, key, m.Prefix, "payload", keyBytes)
	if err != nil {
		return nil, err
	}
	s := &segments{prefix: m.Prefix}
	if ciphers[m.Cipher] != "AES-GCM" {
		s.aead, err = chacha20poly1305.New(payloadKey)
		return s, err
	}
	block, err := aes.NewCipher(payloadKey)
	if err != nil {
		return nil, err
	}
	s.aead, err = cipher.NewGCM(block)
	return s, err
}

// pass turns segments of size bytes, of which the last may have less, into those that are written. An empty document has none.
func (s *segments) pass(ctx context.Context, out io.Writer, in *bufio.Reader, size int, turn func(to, nonce, segment []byte) ([]byte, error)) error {
	segment, turned := make([]byte, size), make([]byte, 0, segmentBytes+tagBytes)
	for number := uint64(0); ; number++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := fill(in, segment)
		if err != nil || n == 0 {
			return err
		}
		_, err = in.Peek(1)
		last := err == io.EOF
		switch {
		case err != nil && !last:
			return err
		case !last && number == math.MaxUint32:
			return errors.New("the document is too long")
		}
		result, err := turn(turned, s.nonce(uint32(number), last), segment[:n])
		if err != nil {
			return fmt.Errorf("segment %d: %w", number, err)
		}
		if _, err := out.Write(result); err != nil || last {
			return err
		}
	}
}

// fill reads as much as there is. Other than with io.ReadFull a body that was cut off is no end of a document.
func fill(in io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var read int
		read, err = in.Read(p[n:])
		n += read
	}
	if err == io.EOF { // itself: what wraps it is no end
		err = nil
	}
	return n, err
}

func (s *segments) nonce(number uint32, last bool) []byte {
	nonce := append(make([]byte, 0, prefixBytes+5), s.prefix...)
	nonce = binary.BigEndian.AppendUint32(nonce, number)
	if last {
		return append(nonce, 1)
	}
	return append(nonce, 0)
}
