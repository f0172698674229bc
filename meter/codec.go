package meter

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/quipu-run/quipu"
)

// Operations: a byte that tells which, then
//
//	took    the number of functions, and for each its name and usage
//	sample  the hour since 1970 and the bytes that the namespace kept in it
//	prices  JSON of quipu.Prices
//	budget  JSON of quipu.Budget
//	drop    the function whose budget goes
//	told    month, percentage and function of a budget that has told so
//
// Numbers are varints, names have their length before them. A usage is the bits of its fields that are not 0, then those
// fields, in the order of quipu.Usage.Fields.
const (
	opTook byte = iota + 1
	opSample
	opPrices
	opBudget
	opDrop
	opTold
)

var errOp = errors.New("malformed operation of the meter")

func appendName(buf []byte, s string) []byte {
	return append(binary.AppendUvarint(buf, uint64(len(s))), s...)
}

func appendUsage(buf []byte, u quipu.Usage) []byte {
	fields := u.Fields()
	bits := uint64(0)
	for i, n := range fields {
		if *n < 0 {
			panic(fmt.Sprintf("meter: a usage with a negative field: %+v", u))
		}
		if *n != 0 {
			bits |= 1 << i
		}
	}
	buf = binary.AppendUvarint(buf, bits)
	for _, n := range fields {
		if *n != 0 {
			buf = binary.AppendUvarint(buf, uint64(*n))
		}
	}
	return buf
}

func appendTook(buf []byte, all []quipu.FunctionUsage) []byte {
	buf = binary.AppendUvarint(append(buf, opTook), uint64(len(all)))
	for _, one := range all {
		buf = appendUsage(appendName(buf, one.Function), one.Usage)
	}
	return buf
}

// reader reads fields; after the first that is not there it answers zeros, and is bad.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) name() string {
	size := r.uint()
	if size > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return ""
	}
	s := string(r.rest[:size])
	r.rest = r.rest[size:]
	return s
}

func (r *reader) usage() (u quipu.Usage) {
	fields := u.Fields()
	bits := r.uint()
	if bits >= 1<<len(fields) {
		r.bad = true
		return u
	}
	for i, n := range fields {
		if bits&(1<<i) == 0 {
			continue
		}
		v := r.uint()
		if v == 0 || v > 1<<63-1 {
			r.bad = true
			return u
		}
		*n = int64(v)
	}
	return u
}

// end is an error unless all was read, and was there.
func (r *reader) end() error {
	if r.bad || len(r.rest) > 0 {
		return errOp
	}
	return nil
}

func decodeUsage(value []byte) (quipu.Usage, error) {
	r := &reader{rest: value}
	u := r.usage()
	return u, r.end()
}
