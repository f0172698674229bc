package crypto

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	kit "github.com/dapr/kit/crypto"
	"github.com/quipu-run/quipu/internal/component"
)

// TestNoLengthBreaksTheNode tries all lengths around those that algorithms have: a caller chooses them, and a panic would be
// everybody's.
func TestNoLengthBreaksTheNode(t *testing.T) {
	c, _ := local(t)
	all := slices.Sorted(maps.Keys(cases()))
	keys := []string{"bytes2", "bytes4", "base64-6", "rsa.pem", "ec256.json", "ed.pem"}
	refused, done := 0, 0
	count := func(err error) {
		if err != nil {
			refused++
		} else {
			done++
		}
	}
	for _, name := range all {
		own := cases()[name].Key
		for _, key := range append(keys, own) {
			for _, nonce := range []int{0, 1, 12, 16, 24, 25} {
				if key == "rsa.pem" && nonce > 0 {
					continue // slow, and without nonces or tags
				}
				lengths := []int{0, 1, 7, 8, 15, 16, 17, 24, 31, 32, 33, 48, 256}
				if key != own {
					lengths = []int{0, 16}
				}
				for _, length := range lengths {
					cipher := component.Cipher{Algorithm: name, Key: key, Nonce: make([]byte, nonce)}
					data := make([]byte, length, length+64)
					_, _, err := c.Encrypt(ctx, cipher, data)
					count(err)
					if !bytes.Equal(data[:cap(data)], make([]byte, cap(data))) {
						t.Fatalf("%s changed what it was given", name)
					}
					for _, tag := range []int{0, 15, 16, 32} {
						if key == "rsa.pem" && tag > 0 {
							continue
						}
						sealed := make([]byte, length, length+64)
						_, err := c.Decrypt(ctx, cipher, sealed, bytes.Repeat([]byte{1}, tag))
						count(err)
						if !bytes.Equal(sealed[:cap(sealed)], make([]byte, cap(sealed))) {
							t.Fatalf("%s changed what it was to decrypt", name)
						}
					}
				}
			}
		}
	}
	for _, name := range kit.SupportedSignatureAlgorithms() {
		for _, key := range keys {
			for _, length := range []int{0, 1, 20, 32, 48, 64, 65, 256} {
				cipher := component.Cipher{Algorithm: name, Key: key}
				_, err := c.Sign(ctx, cipher, make([]byte, length))
				count(err)
				_, err = c.Verify(ctx, cipher, make([]byte, 32), make([]byte, length))
				count(err)
			}
		}
	}
	if refused == 0 || done == 0 {
		t.Errorf("%d were refused and %d done", refused, done)
	}
}
