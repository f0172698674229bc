package lease

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// A lease is its token, its beginning and its end (0 none) in 8 bytes big-endian each, then its owner.
const headBytes = 24

func encode(l quipu.Lease) []byte {
	b := make([]byte, 0, headBytes+len(l.Owner))
	b = binary.BigEndian.AppendUint64(b, uint64(l.Token))
	b = binary.BigEndian.AppendUint64(b, uint64(nanos(l.Since)))
	b = binary.BigEndian.AppendUint64(b, uint64(nanos(l.Until)))
	return append(b, l.Owner...)
}

func decode(name string, b []byte) (quipu.Lease, error) {
	if len(b) < headBytes {
		return quipu.Lease{}, fmt.Errorf("lease %q of %d bytes", name, len(b))
	}
	return quipu.Lease{Name: name, Owner: string(b[headBytes:]), Token: quipu.Seq(binary.BigEndian.Uint64(b)),
		Since: timeOf(binary.BigEndian.Uint64(b[8:])), Until: timeOf(binary.BigEndian.Uint64(b[16:]))}, nil
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func timeOf(n uint64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(n))
}

// Operations: a byte that tells which, the end of the lease that is replaced or removed in 8 bytes (0 none), then
//
//	set     length of the name as varint, name, lease; a token of 0 stands for the record's seq
//	remove  name
const (
	opSet byte = iota + 1
	opRemove
)

func encodeSet(old int64, l quipu.Lease) []byte {
	b := binary.BigEndian.AppendUint64([]byte{opSet}, uint64(old))
	b = append(binary.AppendUvarint(b, uint64(len(l.Name))), l.Name...)
	return append(b, encode(l)...)
}

var errOp = errors.New("malformed operation")

// parse takes an operation apart. The lease of remove is only its name.
func parse(op []byte) (old int64, l quipu.Lease, err error) {
	if len(op) < 9 {
		return 0, l, errOp
	}
	old = int64(binary.BigEndian.Uint64(op[1:]))
	switch rest := op[9:]; op[0] {
	case opRemove:
		return old, quipu.Lease{Name: string(rest)}, nil
	case opSet:
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) {
			return 0, l, errOp
		}
		rest = rest[n:]
		l, err = decode(string(rest[:size]), rest[size:])
		return old, l, err
	}
	return 0, l, errOp
}

// Apply writes what one operation does; it is the view.Machine of this package.
func (v *View) Apply(b *view.Batch, op []byte, at view.At) error {
	old, l, err := parse(op)
	if err != nil {
		return err
	}
	if old != 0 {
		err = b.Delete(Name, indexKey(old, l.Name))
	}
	if op[0] == opRemove {
		return errors.Join(err, b.Delete(Name, byName+l.Name))
	}
	if l.Token == 0 {
		l.Token = at.Seq
	}
	if !l.Until.IsZero() {
		err = errors.Join(err, b.Set(Name, indexKey(nanos(l.Until), l.Name), nil))
	}
	return errors.Join(err, b.Set(Name, byName+l.Name, encode(l)))
}

func indexKey(until int64, name string) string {
	return byUntil + string(binary.BigEndian.AppendUint64(nil, uint64(until))) + name
}

// DescribeOp is what an operation does, in words.
func DescribeOp(op []byte) string {
	_, l, err := parse(op)
	switch {
	case err != nil:
		return err.Error()
	case op[0] == opRemove:
		return fmt.Sprintf("lease %q given back", l.Name)
	case l.Token == 0:
		return fmt.Sprintf("lease %q taken by %q", l.Name, l.Owner)
	}
	return fmt.Sprintf("lease %q of %q renewed", l.Name, l.Owner)
}

// DescribeKey is a key of the view as people know it.
func DescribeKey(key string) string { return fmt.Sprintf("lease %q", strings.TrimPrefix(key, byName)) }
