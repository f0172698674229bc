package quipu

import (
	"fmt"
	"strconv"
)

// Seq is the place of a record in its log: a term of 20 bits, then a position of 44 bits.
//
// Positions count the records of the physical log, so they are sparse within one book.
// The term grows with every unclean open, so that a seq whose record was lost before it
// was acknowledged is never given to another record. Seqs of a book only grow.
// In JSON a seq is a string of 16 hexadecimal digits, since 64-bit numbers do not survive
// most JSON readers.
type Seq uint64

const (
	posBits = 44
	// PosMax is the largest position within one term.
	PosMax = 1<<posBits - 1
	// TermMax is the largest term.
	TermMax = 1<<20 - 1
	// SeqMax is after every record.
	SeqMax = ^Seq(0)
)

// MakeSeq joins a term and a position.
func MakeSeq(term uint32, pos uint64) Seq {
	if term > TermMax || pos > PosMax {
		panic(fmt.Sprintf("quipu: seq out of range: term %d, position %d", term, pos))
	}
	return Seq(uint64(term)<<posBits | pos)
}

// Term is the high 20 bits.
func (s Seq) Term() uint32 { return uint32(s >> posBits) }

// Pos is the low 44 bits: the count of records before this one in the physical log, plus one.
func (s Seq) Pos() uint64 { return uint64(s) & PosMax }

// String is the 16 hexadecimal digits of s.
func (s Seq) String() string { return fmt.Sprintf("%016x", uint64(s)) }

// MarshalText is String.
func (s Seq) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is ParseSeq.
func (s *Seq) UnmarshalText(text []byte) error {
	v, err := ParseSeq(string(text))
	if err == nil {
		*s = v
	}
	return err
}

// ParseSeq reads the text form: 1 to 16 hexadecimal digits.
func ParseSeq(text string) (Seq, error) {
	v, err := strconv.ParseUint(text, 16, 64)
	if err != nil || len(text) > 16 {
		return 0, &Error{Code: CodeUsage, Op: "seq.parse",
			Text: fmt.Sprintf("%q is not a seq", text),
			Hint: "a seq is up to 16 hexadecimal digits, as printed by quipu log read"}
	}
	return Seq(v), nil
}
