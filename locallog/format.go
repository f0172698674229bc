package locallog

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"unsafe"

	"github.com/quipu-run/quipu"
)

const (
	formatVersion      = 1
	segmentHeaderBytes = 4096
	batchHeaderBytes   = 64
	recordHeaderBytes  = 40
	producerBytes      = 20
	condBytes          = 10 // and the tag
	// appendBytesMax bounds one append with all its headers and tags; a batch holds at least one.
	appendBytesMax = 2 * quipu.TxBytesMax
	batchBytesMax  = appendBytesMax + batchHeaderBytes

	segmentMagic = 0x47455351 // "QSEG"
	batchMagic   = 0x54414251 // "QBAT"

	flagProducer = 1
	flagCond     = 2
	flagJoined   = 4

	batchGaps = 1 // flag of a batch: its seqs have gaps, as in a kept segment
)

var (
	le       = binary.LittleEndian
	crcTable = crc32.MakeTable(crc32.Castagnoli)

	errBatch  = errors.New("no valid batch")
	errRecord = errors.New("no valid record")
)

func checksum(b []byte) uint32 { return crc32.Checksum(b, crcTable) }

// aligned is n rounded up to a multiple of 8.
func aligned(n int) int { return (n + 7) &^ 7 }

// segmentHeader is the first page of a segment.
type segmentHeader struct {
	id    uint32
	epoch uint64
	size  int64
}

func (h segmentHeader) encode() []byte {
	page := make([]byte, segmentHeaderBytes)
	le.PutUint32(page[4:], segmentMagic)
	le.PutUint32(page[8:], formatVersion)
	le.PutUint32(page[12:], h.id)
	le.PutUint64(page[16:], h.epoch)
	le.PutUint64(page[24:], uint64(h.size))
	le.PutUint32(page, checksum(page[4:]))
	return page
}

func parseSegmentHeader(page []byte) (segmentHeader, error) {
	if len(page) != segmentHeaderBytes || le.Uint32(page) != checksum(page[4:]) ||
		le.Uint32(page[4:]) != segmentMagic || le.Uint32(page[8:]) != formatVersion {
		return segmentHeader{}, errors.New("no valid segment header")
	}
	return segmentHeader{id: le.Uint32(page[12:]), epoch: le.Uint64(page[16:]), size: int64(le.Uint64(page[24:]))}, nil
}

// batchHeader is the first 64 bytes of a batch. Its crc is known only from the whole.
type batchHeader struct {
	crc    uint32
	size   int
	count  int
	epoch  uint64
	first  quipu.Seq
	offset int64
	synced int64
	prev   uint32
	gaps   bool // the seqs of its records go up, but not by one
}

// put writes the header in front of finished records and seals the batch with its crc.
func (h *batchHeader) put(batch []byte) {
	le.PutUint32(batch[4:], batchMagic)
	le.PutUint32(batch[8:], uint32(len(batch)))
	le.PutUint32(batch[12:], uint32(h.count))
	le.PutUint64(batch[16:], h.epoch)
	le.PutUint64(batch[24:], uint64(h.first))
	le.PutUint64(batch[32:], uint64(h.offset))
	le.PutUint64(batch[40:], uint64(h.synced))
	le.PutUint32(batch[48:], h.prev)
	if h.gaps {
		le.PutUint32(batch[52:], batchGaps)
	}
	h.size, h.crc = len(batch), checksum(batch[4:])
	le.PutUint32(batch, h.crc)
}

// parseBatchHeader reads a header that stands at offset of a segment with the given epoch. The crc is still to
// be checked, but sizes are within bounds.
func parseBatchHeader(b []byte, epoch uint64, offset int64) (batchHeader, error) {
	if len(b) < batchHeaderBytes || le.Uint32(b[4:]) != batchMagic {
		return batchHeader{}, errBatch
	}
	h := batchHeader{
		crc: le.Uint32(b), size: int(le.Uint32(b[8:])), count: int(le.Uint32(b[12:])),
		epoch: le.Uint64(b[16:]), first: quipu.Seq(le.Uint64(b[24:])),
		offset: int64(le.Uint64(b[32:])), synced: int64(le.Uint64(b[40:])), prev: le.Uint32(b[48:]), gaps: le.Uint32(b[52:]) == batchGaps,
	}
	if h.epoch != epoch || h.offset != offset || h.size%8 != 0 || h.size > batchBytesMax ||
		h.count < 1 || h.size < batchHeaderBytes+h.count*recordHeaderBytes || h.synced > offset {
		return batchHeader{}, errBatch
	}
	return h, nil
}

// record is a parsed record. All slices share memory with the bytes it was parsed from.
type record struct {
	size     int
	seq      quipu.Seq
	book     quipu.Book
	stamp    int64
	kind     quipu.Kind
	version  uint8
	flags    uint8
	tagCount int
	producer quipu.Producer
	condLast quipu.Seq
	condTag  string
	tags     []byte
	data     []byte
}

// eachTag visits tags in order.
func (r *record) eachTag(visit func(tag string)) {
	rest := r.tags
	for range r.tagCount {
		n := int(le.Uint16(rest))
		visit(view(rest[2 : 2+n]))
		rest = rest[2+n:]
	}
}

// public is the record as readers see it.
func (r *record) public() quipu.Record {
	out := quipu.Record{Book: r.book, Seq: r.seq, Kind: r.kind, Version: r.version, Stamp: r.stamp, Data: r.data}
	if r.tagCount > 0 {
		out.Tags = make([]string, 0, r.tagCount)
		r.eachTag(func(tag string) { out.Tags = append(out.Tags, tag) })
	}
	return out
}

// parseRecord reads the record at the start of b. check asks for its crc too, which a caller
// that checked the batch can spare.
func parseRecord(b []byte, check bool) (record, error) {
	if len(b) < recordHeaderBytes {
		return record{}, errRecord
	}
	r := record{
		size: int(le.Uint32(b[4:])), seq: quipu.Seq(le.Uint64(b[8:])), book: quipu.Book(le.Uint64(b[16:])),
		stamp: int64(le.Uint64(b[24:])), kind: quipu.Kind(b[32]), version: b[33], flags: b[34], tagCount: int(b[35]),
	}
	if r.size < recordHeaderBytes || r.size > len(b) || r.size%8 != 0 || check && le.Uint32(b) != checksum(b[4:r.size]) {
		return record{}, errRecord
	}
	rest := b[recordHeaderBytes:r.size]
	rest, ok := r.parseOptions(rest)
	if !ok {
		return record{}, errRecord
	}
	end := 0
	for range r.tagCount {
		if len(rest) < end+2 || len(rest) < end+2+int(le.Uint16(rest[end:])) {
			return record{}, errRecord
		}
		end += 2 + int(le.Uint16(rest[end:]))
	}
	r.tags, rest = rest[:end:end], rest[end:]
	n := int(le.Uint32(b[36:]))
	if n > len(rest) || len(rest)-n > 7 {
		return record{}, errRecord
	}
	r.data = rest[:n:n]
	return r, nil
}

// parseOptions reads the producer and the condition and answers what follows them.
func (r *record) parseOptions(rest []byte) ([]byte, bool) {
	if r.flags&flagProducer != 0 {
		if len(rest) < producerBytes {
			return nil, false
		}
		r.producer = quipu.Producer{ID: le.Uint64(rest), N: le.Uint64(rest[8:]), Epoch: le.Uint32(rest[16:])}
		rest = rest[producerBytes:]
	}
	if r.flags&flagCond != 0 {
		if len(rest) < condBytes || len(rest) < condBytes+int(le.Uint16(rest[8:])) {
			return nil, false
		}
		n := int(le.Uint16(rest[8:]))
		r.condLast, r.condTag = quipu.Seq(le.Uint64(rest)), view(rest[condBytes:condBytes+n])
		rest = rest[condBytes+n:]
	}
	return rest, true
}

// recordBytes is the size of a draft on disk.
func recordBytes(d *quipu.Draft) int {
	n := recordHeaderBytes + len(d.Data)
	if d.Producer != (quipu.Producer{}) {
		n += producerBytes
	}
	if d.Cond != nil {
		n += condBytes + len(d.Cond.Tag)
	}
	for _, tag := range d.Tags {
		n += 2 + len(tag)
	}
	return aligned(n)
}

// appendRecord adds the draft to buf as a record that lacks its seq, stamp and crc: see finishRecord.
func appendRecord(buf []byte, book quipu.Book, d *quipu.Draft, joined bool) []byte {
	var head [recordHeaderBytes]byte
	start := len(buf)
	le.PutUint32(head[4:], uint32(recordBytes(d)))
	le.PutUint64(head[16:], uint64(book))
	head[32], head[33], head[34], head[35] = byte(d.Kind), d.Version, draftFlags(d, joined), byte(len(d.Tags))
	le.PutUint32(head[36:], uint32(len(d.Data)))
	buf = append(buf, head[:]...)
	if d.Producer != (quipu.Producer{}) {
		buf = le.AppendUint64(buf, d.Producer.ID)
		buf = le.AppendUint64(buf, d.Producer.N)
		buf = le.AppendUint32(buf, d.Producer.Epoch)
	}
	if d.Cond != nil {
		buf = le.AppendUint64(buf, uint64(d.Cond.Last))
		buf = le.AppendUint16(buf, uint16(len(d.Cond.Tag)))
		buf = append(buf, d.Cond.Tag...)
	}
	for _, tag := range d.Tags {
		buf = le.AppendUint16(buf, uint16(len(tag)))
		buf = append(buf, tag...)
	}
	buf = append(buf, d.Data...)
	for (len(buf)-start)%8 != 0 {
		buf = append(buf, 0)
	}
	return buf
}

func draftFlags(d *quipu.Draft, joined bool) byte {
	var flags byte
	if d.Producer != (quipu.Producer{}) {
		flags |= flagProducer
	}
	if d.Cond != nil {
		flags |= flagCond
	}
	if joined {
		flags |= flagJoined
	}
	return flags
}

// finishRecord patches what only the writer knows into the record at the start of b, and answers its size.
func finishRecord(b []byte, seq quipu.Seq, stamp int64) int {
	size := int(le.Uint32(b[4:]))
	le.PutUint64(b[8:], uint64(seq))
	le.PutUint64(b[24:], uint64(stamp))
	le.PutUint32(b, checksum(b[4:size]))
	return size
}

// eachRecord visits the records of a batch whose crc was checked, with their offsets in it. It fails if
// they do not fill the batch exactly, or do not count up from its first seq, unless it has gaps. A visited record is
// valid until the next.
func eachRecord(batch []byte, h *batchHeader, visit func(r *record, at int) error) error {
	at := batchHeaderBytes
	var r record // one for all: visit makes it escape
	for i := range h.count {
		var err error
		if r, err = parseRecord(batch[at:], false); err != nil {
			return err
		}
		if r.seq != h.first+quipu.Seq(i) && !h.gaps {
			return errRecord
		}
		if err := visit(&r, at); err != nil {
			return err
		}
		at += r.size
	}
	if at != len(batch) {
		return errBatch
	}
	return nil
}

// view is b as a string without a copy. b must not change while the string lives.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
