package logv1

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/quipu-run/quipu"
)

// The messages of AppendStream are read and written here without their generated types, which cost more than all else
// that happens to a small append: every field an allocation, and data copied. The tests compare both ways.

// Numbers of fields, as in log.proto.
const (
	streamAppends = 1 // AppendStreamRequest
	streamResults = 1 // AppendStreamResponse

	appendBook   = 1
	appendDrafts = 2
	appendID     = 3

	draftData     = 1
	draftTags     = 2
	draftCond     = 3
	draftProducer = 4
	draftKind     = 5
	draftVersion  = 6

	condTag  = 1
	condLast = 2

	producerID    = 1
	producerEpoch = 2
	producerN     = 3

	resultID    = 1
	resultSeqs  = 2
	resultError = 3

	errorCode = 1
	errorText = 2
	errorHint = 3
	errorSeq  = 4
)

// Append is an AppendRequest of a stream.
type Append struct {
	ID     uint64
	Book   quipu.Book
	Drafts []quipu.Draft
	// Bad is CodeRecord if a draft has a kind or version that none can have.
	Bad error

	one [1]quipu.Draft // room for Drafts, since there is nearly always one
}

// Result is an AppendResult.
type Result struct {
	ID   uint64
	Seqs []quipu.Seq
	Err  *quipu.Error // nil unless the append failed
}

// PutAppend adds an append to the bytes of an AppendStreamRequest.
func PutAppend(to []byte, id uint64, book quipu.Book, ds []quipu.Draft) []byte {
	size := varintField(appendID, id) + varintField(appendBook, uint64(book))
	for i := range ds {
		size += bytesField(appendDrafts, draftSize(&ds[i]))
	}
	to = putHead(to, streamAppends, size)
	to = putVarint(to, appendBook, uint64(book))
	for i := range ds {
		to = putHead(to, appendDrafts, draftSize(&ds[i]))
		to = putDraft(to, &ds[i])
	}
	return putVarint(to, appendID, id)
}

func draftSize(d *quipu.Draft) int {
	size := varintField(draftKind, uint64(d.Kind)) + varintField(draftVersion, uint64(d.Version))
	if len(d.Data) > 0 {
		size += bytesField(draftData, len(d.Data))
	}
	for _, t := range d.Tags {
		size += bytesField(draftTags, len(t))
	}
	if d.Cond != nil {
		size += bytesField(draftCond, condSize(d.Cond))
	}
	if d.Producer != (quipu.Producer{}) {
		size += bytesField(draftProducer, producerSize(&d.Producer))
	}
	return size
}

func condSize(c *quipu.Cond) int {
	size := fixedField(condLast, uint64(c.Last))
	if c.Tag != "" {
		size += bytesField(condTag, len(c.Tag))
	}
	return size
}

func producerSize(p *quipu.Producer) int {
	return fixedField(producerID, p.ID) + varintField(producerEpoch, uint64(p.Epoch)) + varintField(producerN, p.N)
}

func putDraft(to []byte, d *quipu.Draft) []byte {
	if len(d.Data) > 0 {
		to = append(putHead(to, draftData, len(d.Data)), d.Data...)
	}
	for _, t := range d.Tags {
		to = append(putHead(to, draftTags, len(t)), t...)
	}
	if c := d.Cond; c != nil {
		to = putHead(to, draftCond, condSize(c))
		if c.Tag != "" {
			to = append(putHead(to, condTag, len(c.Tag)), c.Tag...)
		}
		to = putFixed(to, condLast, uint64(c.Last))
	}
	if p := &d.Producer; *p != (quipu.Producer{}) {
		to = putHead(to, draftProducer, producerSize(p))
		to = putFixed(to, producerID, p.ID)
		to = putVarint(to, producerEpoch, uint64(p.Epoch))
		to = putVarint(to, producerN, p.N)
	}
	to = putVarint(to, draftKind, uint64(d.Kind))
	return putVarint(to, draftVersion, uint64(d.Version))
}

// PutResult adds a result to the bytes of an AppendStreamResponse. failed is nil unless the append failed.
func PutResult(to []byte, id uint64, seqs []quipu.Seq, failed *Error) []byte {
	size := varintField(resultID, id)
	if len(seqs) > 0 {
		size += bytesField(resultSeqs, 8*len(seqs))
	}
	if failed != nil {
		size += bytesField(resultError, errorSize(failed))
	}
	to = putHead(to, streamResults, size)
	to = putVarint(to, resultID, id)
	if len(seqs) > 0 {
		to = putHead(to, resultSeqs, 8*len(seqs))
		for _, s := range seqs {
			to = protowire.AppendFixed64(to, uint64(s))
		}
	}
	if failed != nil {
		to = putHead(to, resultError, errorSize(failed))
		to = putText(to, errorCode, failed.GetCode())
		to = putText(to, errorText, failed.GetText())
		to = putText(to, errorHint, failed.GetHint())
		to = putFixed(to, errorSeq, failed.GetSeq())
	}
	return to
}

func errorSize(e *Error) int {
	size := fixedField(errorSeq, e.GetSeq())
	for _, f := range []string{e.GetCode(), e.GetText(), e.GetHint()} {
		if f != "" {
			size += bytesField(errorText, len(f))
		}
	}
	return size
}

// What follows leaves out zeros, as proto3 does. All numbers of fields here are below 16: their tags have one byte.

func putHead(to []byte, field protowire.Number, size int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(to, field, protowire.BytesType), uint64(size))
}

func putText(to []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return to
	}
	return append(putHead(to, field, len(s)), s...)
}

func putVarint(to []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return to
	}
	return protowire.AppendVarint(protowire.AppendTag(to, field, protowire.VarintType), v)
}

func putFixed(to []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return to
	}
	return protowire.AppendFixed64(protowire.AppendTag(to, field, protowire.Fixed64Type), v)
}

func bytesField(_ protowire.Number, size int) int { return 1 + protowire.SizeBytes(size) }

func varintField(_ protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

func fixedField(_ protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeFixed64()
}

var errWire = &quipu.Error{Code: quipu.CodeUsage, Op: "log.stream", Text: "a message is malformed", Hint: "the protocol is api/log/v1/log.proto"}

// field is one field of a message.
type field struct {
	number protowire.Number
	kind   protowire.Type
	v      uint64 // of a number
	bytes  []byte // of bytes and messages; shared with the message
}

// fields calls visit for each field of a message; those of unknown kinds are left out.
func fields(b []byte, visit func(field) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 || !number.IsValid() {
			return errWire
		}
		b = b[n:]
		f := field{number: number, kind: kind}
		switch kind {
		case protowire.VarintType:
			f.v, n = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			f.v, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return errWire
		}
		b = b[n:]
		if err := visit(f); err != nil {
			return err
		}
	}
	return nil
}

func (f *field) is(number protowire.Number, kind protowire.Type) bool {
	return f.number == number && f.kind == kind
}

// EachAppend calls visit for each append of an AppendStreamRequest. Data is shared with the message; so is nothing else.
func EachAppend(message []byte, visit func(*Append) error) error {
	return fields(message, func(f field) error {
		if !f.is(streamAppends, protowire.BytesType) {
			return nil
		}
		a := &Append{}
		if err := a.parse(f.bytes); err != nil {
			return err
		}
		return visit(a)
	})
}

func (a *Append) parse(b []byte) error {
	return fields(b, func(f field) error {
		switch {
		case f.is(appendBook, protowire.VarintType):
			a.Book = quipu.Book(f.v)
		case f.is(appendID, protowire.VarintType):
			a.ID = f.v
		case f.is(appendDrafts, protowire.BytesType):
			if a.Drafts == nil {
				a.Drafts = a.one[:0]
			}
			a.Drafts = append(a.Drafts, quipu.Draft{})
			return a.parseDraft(&a.Drafts[len(a.Drafts)-1], f.bytes)
		}
		return nil
	})
}

func (a *Append) parseDraft(d *quipu.Draft, b []byte) error {
	var kind, version uint32
	err := fields(b, func(f field) error {
		switch {
		case f.is(draftData, protowire.BytesType):
			d.Data = f.bytes
		case f.is(draftTags, protowire.BytesType):
			d.Tags = append(d.Tags, string(f.bytes))
		case f.is(draftCond, protowire.BytesType):
			if d.Cond == nil {
				d.Cond = &quipu.Cond{}
			}
			return parseCond(d.Cond, f.bytes)
		case f.is(draftProducer, protowire.BytesType):
			return parseProducer(&d.Producer, f.bytes)
		case f.is(draftKind, protowire.VarintType):
			kind = uint32(f.v)
		case f.is(draftVersion, protowire.VarintType):
			version = uint32(f.v)
		}
		return nil
	})
	if kind > math.MaxUint8 || version > math.MaxUint8 {
		a.Bad = badKind(kind, version)
	}
	d.Kind, d.Version = quipu.Kind(kind), uint8(version)
	return err
}

func parseCond(c *quipu.Cond, b []byte) error {
	return fields(b, func(f field) error {
		switch {
		case f.is(condTag, protowire.BytesType):
			c.Tag = string(f.bytes)
		case f.is(condLast, protowire.Fixed64Type):
			c.Last = quipu.Seq(f.v)
		}
		return nil
	})
}

func parseProducer(p *quipu.Producer, b []byte) error {
	return fields(b, func(f field) error {
		switch {
		case f.is(producerID, protowire.Fixed64Type):
			p.ID = f.v
		case f.is(producerEpoch, protowire.VarintType):
			p.Epoch = uint32(f.v)
		case f.is(producerN, protowire.VarintType):
			p.N = f.v
		}
		return nil
	})
}

// EachResult calls visit for each result of an AppendStreamResponse.
func EachResult(message []byte, visit func(Result)) error {
	return fields(message, func(f field) error {
		if !f.is(streamResults, protowire.BytesType) {
			return nil
		}
		var r Result
		if err := r.parse(f.bytes); err != nil {
			return err
		}
		visit(r)
		return nil
	})
}

func (r *Result) parse(b []byte) error {
	return fields(b, func(f field) error {
		switch {
		case f.is(resultID, protowire.VarintType):
			r.ID = f.v
		case f.is(resultSeqs, protowire.Fixed64Type): // as proto allows
			r.Seqs = append(r.Seqs, quipu.Seq(f.v))
		case f.is(resultSeqs, protowire.BytesType):
			if len(f.bytes)%8 != 0 {
				return errWire
			}
			for b := f.bytes; len(b) > 0; b = b[8:] {
				v, _ := protowire.ConsumeFixed64(b) // there are eight bytes
				r.Seqs = append(r.Seqs, quipu.Seq(v))
			}
		case f.is(resultError, protowire.BytesType):
			if r.Err == nil {
				r.Err = &quipu.Error{}
			}
			return parseError(r.Err, f.bytes)
		}
		return nil
	})
}

func parseError(e *quipu.Error, b []byte) error {
	return fields(b, func(f field) error {
		switch {
		case f.is(errorCode, protowire.BytesType):
			e.Code = quipu.Code(f.bytes)
		case f.is(errorText, protowire.BytesType):
			e.Text = string(f.bytes)
		case f.is(errorHint, protowire.BytesType):
			e.Hint = string(f.bytes)
		case f.is(errorSeq, protowire.Fixed64Type):
			e.Seq = quipu.Seq(f.v)
		}
		return nil
	})
}
