package kv

import (
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

func TestAnOperationSaysWhatItDoes(t *testing.T) {
	name, err := keyName("f", quipu.StoreDefault, "a/b")
	if err != nil {
		t.Fatal(err)
	}
	blob := encodeRef(quipu.BlobRef{Hash: "00000000000000000000000000000000000000000000000000000000000000ff", Size: 1 << 20})
	for want, op := range map[string][]byte{
		"set statestore/f||a/b, 5 bytes":         encodeSet(name, entry{value: []byte("value")}),
		"set statestore/f||a/b, 1048576 bytes":   encodeSet(name, entry{form: inBlob, value: blob}),
		"delete statestore/f||a/b":               encodeDelete(name),
		"forget the expiry of statestore/f||a/b": encodeForget(indexKey(7, name)),
		"malformed operation":                    {opSet, 1, 2},
	} {
		if got := DescribeOp(op); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for key, want := range map[string]string{name: "statestore/f||a/b", "dshared\x00": "shared/", view.After("dshared\x00"): "", "x": "expiry index"} {
		if got := DescribeKey(key); got != want {
			t.Errorf("%q is %q, want %q", key, got, want)
		}
	}
}
