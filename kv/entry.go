package kv

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// Keys of the view start with what they are.
const (
	dataPrefix   = "d" // then store, NUL, key: an entry
	expiryPrefix = "x" // then the time in 8 bytes big-endian and the name of the entry: nothing
)

// Forms of a value.
const (
	inline byte = iota
	inBlob
)

// entry is what the view keeps for a key: 8 bytes seq, 8 bytes expiry in Unix nanoseconds, both
// little-endian, 1 byte form, then the value or the reference to its blob.
type entry struct {
	seq     quipu.Seq
	expires int64
	form    byte
	value   []byte
}

const entryHead = 17

func (e entry) encode() []byte {
	b := make([]byte, 0, entryHead+len(e.value))
	b = binary.LittleEndian.AppendUint64(b, uint64(e.seq))
	b = binary.LittleEndian.AppendUint64(b, uint64(e.expires))
	b = append(b, e.form)
	return append(b, e.value...)
}

func decodeEntry(b []byte) (entry, error) {
	if len(b) < entryHead {
		return entry{}, fmt.Errorf("entry of %d bytes", len(b))
	}
	return entry{
		seq:     quipu.Seq(binary.LittleEndian.Uint64(b)),
		expires: int64(binary.LittleEndian.Uint64(b[8:])),
		form:    b[16],
		value:   b[entryHead:],
	}, nil
}

func (e entry) liveAt(now int64) bool { return e.expires == 0 || e.expires > now }

// size is the bytes of the value, wherever it lies.
func (e entry) size() int64 {
	if e.form == inline {
		return int64(len(e.value))
	}
	ref, err := decodeRef(e.value)
	if err != nil {
		return 0 // loading it will report this
	}
	return ref.Size
}

// A reference is the 32 bytes of the hash and the size in 8 bytes little-endian.
const refBytes = 40

func encodeRef(ref quipu.BlobRef) []byte {
	hash, err := hex.DecodeString(ref.Hash)
	if err != nil || len(hash) != refBytes-8 {
		panic(fmt.Sprintf("kv: blob hash %q", ref.Hash))
	}
	return binary.LittleEndian.AppendUint64(hash, uint64(ref.Size))
}

func decodeRef(b []byte) (quipu.BlobRef, error) {
	if len(b) != refBytes {
		return quipu.BlobRef{}, fmt.Errorf("blob reference of %d bytes", len(b))
	}
	return quipu.BlobRef{Hash: hex.EncodeToString(b[:32]), Size: int64(binary.LittleEndian.Uint64(b[32:]))}, nil
}

// Operations: a byte that tells which, then
//
//	set     8 bytes expiry little-endian, 1 byte form, length of the name as varint, name, value
//	delete  name
//	forget  key of the expiry index
const (
	opSet byte = iota + 1
	opDelete
	opForget
)

func encodeSet(name string, e entry) []byte {
	b := make([]byte, 0, 12+len(name)+len(e.value))
	b = append(b, opSet)
	b = binary.LittleEndian.AppendUint64(b, uint64(e.expires))
	b = append(b, e.form)
	b = binary.AppendUvarint(b, uint64(len(name)))
	b = append(b, name...)
	return append(b, e.value...)
}

func encodeDelete(name string) []byte { return append([]byte{opDelete}, name...) }

func encodeForget(index string) []byte { return append([]byte{opForget}, index...) }

// indexKey is the entry of the expiry index for name.
func indexKey(expires int64, name string) string {
	return expiryPrefix + string(binary.BigEndian.AppendUint64(nil, uint64(expires))) + name
}

// parseIndex takes an entry of the expiry index apart.
func parseIndex(key string) (expires int64, name string, err error) {
	if len(key) < 9 {
		return 0, "", fmt.Errorf("expiry index key of %d bytes", len(key))
	}
	return int64(binary.BigEndian.Uint64([]byte(key[1:9]))), key[9:], nil
}

var errOp = errors.New("malformed operation")

// Apply writes what one operation does; it is the view.Machine of this package.
func (s *Store) Apply(b *view.Batch, op []byte, at view.At) error {
	if len(op) == 0 {
		return errOp
	}
	body := op[1:]
	switch op[0] {
	case opSet:
		return s.applySet(b, body, at)
	case opDelete, opForget:
		s.watch.note(string(body))
		return b.Delete(Name, string(body))
	}
	return errOp
}

func (s *Store) applySet(b *view.Batch, body []byte, at view.At) error {
	name, e, ok := parseSet(body)
	if !ok {
		return errOp
	}
	s.watch.note(name)
	e.seq = at.Seq
	if e.expires != 0 {
		if err := b.Set(Name, indexKey(e.expires, name), nil); err != nil {
			return err
		}
	}
	return b.Set(Name, name, e.encode())
}

// parseSet takes the operation set apart, but for its seq.
func parseSet(body []byte) (key string, e entry, ok bool) {
	if len(body) < 9 {
		return "", e, false
	}
	size, n := binary.Uvarint(body[9:])
	rest := body[9+max(n, 0):]
	if n <= 0 || size > uint64(len(rest)) {
		return "", e, false
	}
	return string(rest[:size]), entry{expires: int64(binary.LittleEndian.Uint64(body)), form: body[8], value: rest[size:]}, true
}
