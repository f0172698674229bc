// Package codec is the byte form of a Tx inside a record.
//
// Version 1, all integers unsigned varints unless said otherwise:
//
//	snapshot  8 bytes little-endian
//	notAfter  8 bytes little-endian
//	reads     count, then length and bytes of each; one that begins with NUL, as no view's key does, was read later: 8 bytes
//	          little-endian are the seq that wrote it, the rest is the key
//	ranges    count, then both ends of each as length and bytes
//	writes    count, then length and bytes of each
//	ops       count, then view and body of each as length and bytes
//
// What the resolver needs comes first, so that it never reads the operations. Decoded strings and
// bodies of operations share memory with the input.
package codec

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"github.com/quipu-run/quipu"
)

// TxVersion is the version of the encoding that EncodeTx writes.
const TxVersion = 1

// ErrTx is what malformed input gets.
var ErrTx = errors.New("malformed transaction record")

// EncodeTx appends the byte form of tx to buf. Tags are not part of it: they belong to the record.
func EncodeTx(buf []byte, tx *quipu.Tx) []byte {
	buf = binary.LittleEndian.AppendUint64(buf, uint64(tx.Snapshot))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(tx.NotAfter))
	buf = binary.AppendUvarint(buf, uint64(len(tx.Reads)+len(tx.Later)))
	for _, key := range tx.Reads {
		buf = appendString(buf, key)
	}
	for _, l := range tx.Later {
		buf = append(binary.AppendUvarint(buf, uint64(laterHead+len(l.Key))), 0)
		buf = append(binary.LittleEndian.AppendUint64(buf, uint64(l.At)), l.Key...)
	}
	buf = binary.AppendUvarint(buf, uint64(len(tx.Ranges)))
	for _, r := range tx.Ranges {
		buf = appendString(appendString(buf, r.From), r.To)
	}
	buf = appendStrings(buf, tx.Writes)
	buf = binary.AppendUvarint(buf, uint64(len(tx.Ops)))
	for _, op := range tx.Ops {
		buf = appendString(buf, op.View)
		buf = binary.AppendUvarint(buf, uint64(len(op.Body)))
		buf = append(buf, op.Body...)
	}
	return buf
}

// DecodeTx reads a whole transaction. It never panics and allocates in proportion to its input.
func DecodeTx(data []byte) (quipu.Tx, error) {
	tx, d := decodeConflicts(data)
	if n := d.count(2); n > 0 {
		tx.Ops = make([]quipu.Op, n)
		for i := range tx.Ops {
			tx.Ops[i] = quipu.Op{View: d.str(), Body: d.bytes()}
		}
	}
	if d.bad || len(d.rest) > 0 {
		return quipu.Tx{}, ErrTx
	}
	return tx, nil
}

// DecodeConflicts reads a transaction without its operations: all that judging it needs.
func DecodeConflicts(data []byte) (quipu.Tx, error) {
	tx, d := decodeConflicts(data)
	if d.bad {
		return quipu.Tx{}, ErrTx
	}
	return tx, nil
}

func decodeConflicts(data []byte) (quipu.Tx, *decoder) {
	d := &decoder{rest: data}
	var tx quipu.Tx
	tx.Snapshot = quipu.Seq(d.fixed64())
	tx.NotAfter = int64(d.fixed64())
	d.reads(&tx)
	if n := d.count(2); n > 0 {
		tx.Ranges = make([]quipu.KeyRange, n)
		for i := range tx.Ranges {
			tx.Ranges[i] = quipu.KeyRange{From: d.str(), To: d.str()}
		}
	}
	tx.Writes = d.strings()
	return tx, d
}

// laterHead is what comes before the key of a later read.
const laterHead = 9

func (d *decoder) reads(tx *quipu.Tx) {
	n := d.count(1)
	if n > 0 {
		tx.Reads = make([]string, 0, n)
	}
	for range n {
		key := d.str()
		switch {
		case key == "" || key[0] != 0:
			tx.Reads = append(tx.Reads, key)
		case len(key) < laterHead:
			d.fail()
		default:
			at := binary.LittleEndian.Uint64([]byte(key[1:laterHead]))
			tx.Later = append(tx.Later, quipu.LaterRead{Key: key[laterHead:], At: quipu.Seq(at)})
		}
	}
	if len(tx.Reads) == 0 {
		tx.Reads = nil
	}
}

func appendStrings(buf []byte, list []string) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(list)))
	for _, s := range list {
		buf = appendString(buf, s)
	}
	return buf
}

func appendString(buf []byte, s string) []byte {
	return append(binary.AppendUvarint(buf, uint64(len(s))), s...)
}

// decoder reads from rest until something is wrong; then bad stays set and all answers are zero.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) fixed64() uint64 {
	if len(d.rest) < 8 {
		d.fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(d.rest)
	d.rest = d.rest[8:]
	return v
}

// count reads how many items follow; each takes at least size bytes, which bounds what a
// bad count can make us allocate.
func (d *decoder) count(size int) int {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || v > uint64(len(d.rest)-n)/uint64(size) {
		d.fail()
		return 0
	}
	d.rest = d.rest[n:]
	return int(v)
}

func (d *decoder) bytes() []byte {
	n := d.count(1)
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) str() string {
	b := d.bytes()
	return unsafe.String(unsafe.SliceData(b), len(b))
}

func (d *decoder) strings() []string {
	n := d.count(1)
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = d.str()
	}
	return list
}

func (d *decoder) fail() { d.bad, d.rest = true, nil }
