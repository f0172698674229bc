package locallog

import (
	"encoding/binary"

	"github.com/quipu-run/quipu"
)

// postingBlockMax is how many postings of a stream share an entry of the index. One entry each would cost the
// index as much processor time as the log itself; a read decodes at most one block more than it needs.
const postingBlockMax = 128

// A block's key ends with the seq of its last posting, so that a seek for a seq finds the block that would hold it. One
// posting alone is segment u32, offset u32, size u32, and its seq is the key's; the first version of the index had only
// such entries. A block of several is the first posting (seq u64, segment, offset, size), then for each further one
// as uvarints: what its seq adds, what its segment adds, its offset (what that adds, in the same segment), its size. What
// is added to segments and offsets wraps around: a record that was moved may lie before the one before it.
//
// A posting in segment 0, which there never is, names no place. The newest of a stream by tag stays in the index as such when
// the stream is trimmed wholly, because conditions need its seq. In the stream of the whole book it stands for records that
// are trimmed in all of their tags, up to its seq: offset says how many, and size their bytes, which are in the book's total
// until its own trim point passes them.
const (
	postingEncoded = 12
	blockEncoded   = 20 // of the first posting of several
)

// appendBlock encodes 1 to postingBlockMax postings of a stream, by seq.
func appendBlock(b []byte, postings []posting) []byte {
	first := postings[0]
	if len(postings) > 1 {
		b = be.AppendUint64(b, uint64(first.seq))
	}
	b = be.AppendUint32(be.AppendUint32(be.AppendUint32(b, first.segment), first.offset), first.size)
	before := first
	for _, p := range postings[1:] {
		b = binary.AppendUvarint(b, uint64(p.seq-before.seq))
		b = binary.AppendUvarint(b, uint64(p.segment-before.segment))
		if p.segment == before.segment {
			b = binary.AppendUvarint(b, uint64(p.offset-before.offset))
		} else {
			b = binary.AppendUvarint(b, uint64(p.offset))
		}
		b = binary.AppendUvarint(b, uint64(p.size))
		before = p
	}
	return b
}

// eachPosting visits the postings of an entry in order until visit answers false. It fails if the entry is none that
// appendBlock made.
func eachPosting(key, value []byte, visit func(posting) bool) error {
	if len(key) < 8 || len(value) < postingEncoded {
		return errIndex
	}
	last := quipu.Seq(be.Uint64(key[len(key)-8:]))
	p := posting{seq: last}
	if len(value) != postingEncoded {
		if len(value) < blockEncoded {
			return errIndex
		}
		p.seq, value = quipu.Seq(be.Uint64(value)), value[8:]
	}
	p.segment, p.offset, p.size = be.Uint32(value), be.Uint32(value[4:]), be.Uint32(value[8:])
	for rest := value[postingEncoded:]; ; {
		if p.seq > last || len(rest) == 0 && p.seq != last {
			return errIndex
		}
		if !visit(p) || len(rest) == 0 {
			return nil
		}
		var ok bool
		if p, rest, ok = p.next(rest); !ok {
			return errIndex
		}
	}
}

func (p posting) isPlace() bool { return p.segment != 0 }

// held is what a posting of a whole book stands for.
func (p posting) held() volume {
	if p.isPlace() {
		return volume{1, int64(p.size)}
	}
	return volume{int64(p.offset), int64(p.size)}
}

// next decodes the posting after p.
func (p posting) next(b []byte) (posting, []byte, bool) {
	var v [4]uint64
	for i := range v {
		n := 0
		if v[i], n = binary.Uvarint(b); n <= 0 {
			return posting{}, nil, false
		}
		b = b[n:]
	}
	if v[0] == 0 || p.seq+quipu.Seq(v[0]) < p.seq || max(v[1], v[2], v[3]) > 1<<32-1 {
		return posting{}, nil, false
	}
	out := posting{p.seq + quipu.Seq(v[0]), p.segment + uint32(v[1]), uint32(v[2]), uint32(v[3])}
	if v[1] == 0 {
		out.offset += p.offset
	}
	return out, b, true
}
