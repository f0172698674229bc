package call

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/quipu-run/quipu"
)

// A result is read as it was written, whatever of a reply and a request it holds; also one of the time before the
// request's body was kept.
func TestTheRequestsBodyIsKeptBesideTheReplys(t *testing.T) {
	for _, want := range []*result{
		{body: []byte("reply")},
		{input: []byte("request"), Kept: 7, Sent: 7},
		{body: []byte("reply"), input: bytes.Repeat([]byte{0}, quipu.CallBodyKept), Kept: quipu.CallBodyKept, Sent: 1 << 20, Query: "a=1&b"},
	} {
		b, err := want.encode([]byte{7})
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeResult(b[1:])
		if err != nil || !bytes.Equal(got.body, want.body) || !bytes.Equal(got.input, want.input) || got.Sent != want.Sent || got.Query != want.Query {
			t.Errorf("wrote %+v, read %+v, %v", want, got, err)
		}
		for cut := range 20 {
			if got, err := decodeResult(b[1 : 1+cut]); !errors.Is(err, errResult) {
				t.Errorf("cut to %d bytes: %+v, %v", cut, got, err)
			}
		}
	}
	head := []byte(`{"info":{"id":"old"}}`)
	got, err := decodeResult(append(append(binary.AppendUvarint(nil, uint64(len(head))), head...), "reply"...))
	if err != nil || string(got.body) != "reply" || len(got.input) != 0 {
		t.Errorf("an older one: %+v, %v", got, err)
	}
	for _, kept := range []string{"6", "-1"} {
		head := []byte(`{"kept":` + kept + `}`)
		if got, err := decodeResult(append(append(binary.AppendUvarint(nil, uint64(len(head))), head...), "reply"...)); !errors.Is(err, errResult) {
			t.Errorf("kept %s of 5 bytes: %+v, %v", kept, got, err)
		}
	}
}
