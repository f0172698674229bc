package locallog

import (
	"fmt"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/codec"
	"github.com/quipu-run/quipu/internal/resolve"
)

// What the data of a KindSystem record starts with. Numbers that follow have 8 bytes.
const (
	systemCreateV1 byte = 1 // name of the book
	systemTrimV1   byte = 2 // book, point, tag
	systemCreate   byte = 3 // options, name of the book
	systemTrimV2   byte = 4 // book, point, records and bytes that the book had up to there, tag
	systemSet      byte = 5 // book, options
	systemDelete   byte = 6 // book
	systemTrim     byte = 7 // book, point, below (records, bytes), gone (records, bytes), tag
)

// tagTrimsMax bounds a table that is kept in memory.
const tagTrimsMax = 1 << 16

// result is what one append became.
type result struct {
	first quipu.Seq
	count int
	code  quipu.Code // of a lost append, else ""
	seq   quipu.Seq  // the winner, if there is one
}

func (r result) err() error {
	if r.code == "" {
		return nil
	}
	return &quipu.Error{Code: r.code, Op: "log.append", Seq: r.seq}
}

// located is a record and its offset in the segment.
type located struct {
	record
	offset uint32
}

// state is all that follows from the records up to end. It changes only in apply, which the writer and
// recovery run one batch at a time, so that a replay arrives at the same state.
type state struct {
	books   map[quipu.Book]*book
	names   map[string]*book
	created quipu.Book // the newest id that was given
	open    *generation
	frozen  *generation // being saved, or nil
	window  *resolve.Window
	index   *index
	end     checkpoint
	saved   quipu.Seq // the index has everything up to here
	moved   bool      // a trim point moved, or a book was deleted, since the last freeze
	sealed  uint32    // of segments before it, the index has everything
	group   []located // scratch
	wake    []chan struct{}
}

// apply judges and enters a whole batch. An error is the index's, or a record that passed all checksums and
// still cannot be: then the state is undefined and the log must stop.
func (s *state) apply(batch []byte, h *batchHeader, segment uint32, results []result) ([]result, error) {
	s.group = s.group[:0]
	flush := func() error {
		if len(s.group) == 0 {
			return nil
		}
		res, err := s.applyGroup(segment)
		results, s.group = append(results, res), s.group[:0]
		return err
	}
	err := eachRecord(batch, h, func(r *record, at int) error {
		if r.flags&flagJoined == 0 {
			if err := flush(); err != nil {
				return err
			}
		}
		s.group = append(s.group, located{*r, uint32(h.offset) + uint32(at)})
		return nil
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return results, fmt.Errorf("apply batch at %d of %s: %w", h.offset, segmentName(segment), err)
	}
	last := h.first + quipu.Seq(h.count-1)
	s.end = checkpoint{end: place{segment, h.offset + int64(h.size)}, batch: h.offset, seq: last, stamp: s.end.stamp, crc: h.crc}
	return results, nil
}

// applyGroup judges the records of one append and enters them if they win.
func (s *state) applyGroup(segment uint32) (result, error) {
	head := &s.group[0]
	s.end.stamp = head.stamp
	res := result{first: head.seq, count: len(s.group)}
	if head.kind == quipu.KindSystem {
		s.open.part(0).touch(segment, share{first: head.seq, last: head.seq})
		var err error
		res.code, err = s.applySystem(head.seq, head.data)
		return res, err
	}
	b := s.books[head.book]
	switch {
	case b == nil && head.book > s.created:
		return res, fmt.Errorf("record %s is in book %d, which was not created", head.seq, head.book)
	case b == nil:
		res.code = quipu.CodeNoBook // it was deleted while the record was on its way
		return res, nil
	}
	v, err := s.judge(b)
	if err != nil {
		return res, err
	}
	res.code, res.seq = codeOf(v), v.Winner
	return res, s.enter(b, segment, v)
}

// judge looks at the group as a whole, against the state before it.
func (s *state) judge(b *book) (resolve.Verdict, error) {
	for i := range s.group {
		r := &s.group[i]
		if r.flags&flagCond != 0 {
			newest, err := s.newest(b, r.condTag)
			if err != nil {
				return resolve.Verdict{}, err
			}
			if v := resolve.JudgeCond(quipu.Cond{Tag: r.condTag, Last: r.condLast}, newest); v.Outcome != resolve.Won {
				return v, nil
			}
		}
		if r.kind == quipu.KindTx {
			v, err := s.judgeTx(r)
			if err != nil || v.Outcome != resolve.Won {
				return v, err
			}
		}
	}
	return resolve.Verdict{}, nil
}

func (s *state) judgeTx(r *located) (resolve.Verdict, error) {
	tx, err := codec.DecodeConflicts(r.data)
	if err != nil {
		return resolve.Verdict{}, fmt.Errorf("record %s: %w", r.seq, err)
	}
	v, err := s.window.Judge(r.book, r.seq, r.stamp, &tx)
	if err == nil && v.Outcome == resolve.Won {
		s.window.Record(r.book, r.seq, tx.Writes)
	}
	return v, err
}

// enter notes a judged group in its book, and in the index if it won.
func (s *state) enter(b *book, segment uint32, v resolve.Verdict) error {
	head, last := &s.group[0], s.group[len(s.group)-1].seq
	p := s.open.part(b.id)
	p.touch(segment, s.groupShare(v))
	b.tail = last
	if head.flags&flagProducer != 0 {
		if err := s.enterProducer(b.id, head, v); err != nil {
			return err
		}
	}
	if v.Outcome != resolve.Won {
		return nil
	}
	b.newest = last
	for i := range s.group {
		r := &s.group[i]
		b.total.add(1, int64(r.size))
		s.open.add(p, posting{seq: r.seq, segment: segment, offset: r.offset, size: uint32(r.size)}, &r.record)
	}
	if b.waiting != nil {
		s.wake = append(s.wake, b.waiting)
		b.waiting = nil
	}
	return nil
}

// groupShare is what the group adds to the share of its book in its segment.
func (s *state) groupShare(v resolve.Verdict) share {
	of := share{first: s.group[0].seq, last: s.group[len(s.group)-1].seq}
	for i := range s.group {
		if v.Outcome == resolve.Won {
			of.bytes += int64(s.group[i].size)
		}
	}
	return of
}

func (s *state) enterProducer(id quipu.Book, head *located, v resolve.Verdict) error {
	key := producerKey{id, head.producer.ID}
	known, err := s.producer(key)
	if err != nil {
		return err
	}
	s.open.bytes += outcomeBytes
	s.open.producers[key] = known.with(head.producer.Epoch,
		outcome{n: head.producer.N, first: head.seq, count: uint32(len(s.group)), Verdict: v})
	return nil
}

// producer is what is known of a producer; nil if it is new.
func (s *state) producer(key producerKey) (*producer, error) {
	if p := s.open.producers[key]; p != nil {
		return p, nil
	}
	if s.frozen != nil && s.frozen.producers[key] != nil {
		return s.frozen.producers[key], nil
	}
	return s.index.producer(key)
}

// newest is the last record of the tag that is not void, trimmed or not; 0 for none.
func (s *state) newest(b *book, tag string) (quipu.Seq, error) {
	if tag == quipu.TagAll {
		return b.newest, nil
	}
	if p, ok := s.memoryLast(b.id, tag, quipu.SeqMax); ok {
		return p.seq, nil
	}
	p, _, err := s.index.last(b.id, tag, s.saved)
	return p.seq, err
}

// memoryLast is the newest posting in memory with a seq <= to.
func (s *state) memoryLast(id quipu.Book, tag string, to quipu.Seq) (posting, bool) {
	if p, ok := s.open.last(id, tag, to); ok || s.frozen == nil {
		return p, ok
	}
	return s.frozen.last(id, tag, to)
}

func (s *state) applySystem(seq quipu.Seq, data []byte) (quipu.Code, error) {
	bad := func() (quipu.Code, error) {
		return "", fmt.Errorf("unknown system record % x", data[:min(len(data), 40)])
	}
	if len(data) < 2 {
		return bad()
	}
	kind, data := data[0], data[1:]
	switch {
	case kind == systemCreateV1:
		return s.applyCreate(seq, strings.Clone(view(data)), quipu.BookOptions{}), nil
	case kind == systemCreate && len(data) > optionsBytes:
		return s.applyCreate(seq, strings.Clone(view(data[optionsBytes:])), parseOptions(data)), nil
	case len(data) < 8:
		return bad()
	}
	b := s.books[quipu.Book(le.Uint64(data))]
	if b == nil {
		if quipu.Book(le.Uint64(data)) > s.created {
			return "", fmt.Errorf("a change of a book that was not created")
		}
		return quipu.CodeNoBook, nil // it was deleted in between
	}
	switch data = data[8:]; {
	case kind == systemTrimV1 && len(data) >= 8:
		b.uncounted = true
		return s.applyTrim(b, strings.Clone(view(data[8:])), quipu.Seq(le.Uint64(data)), b.below, b.gone), nil
	case kind == systemTrimV2 && len(data) >= 24:
		b.uncounted = true
		return s.applyTrim(b, strings.Clone(view(data[24:])), quipu.Seq(le.Uint64(data)), parseVolume(data[8:]), b.gone), nil
	case kind == systemTrim && len(data) >= 40:
		return s.applyTrim(b, strings.Clone(view(data[40:])), quipu.Seq(le.Uint64(data)), parseVolume(data[8:]), parseVolume(data[24:])), nil
	case kind == systemSet && len(data) == optionsBytes:
		b.options = parseOptions(data)
		s.open.part(b.id)
		return "", nil
	case kind == systemDelete && len(data) == 0:
		s.applyDelete(b)
		return "", nil
	}
	return bad()
}

func (s *state) applyCreate(seq quipu.Seq, name string, o quipu.BookOptions) quipu.Code {
	if s.names[name] != nil {
		return quipu.CodeBookExists
	}
	if len(s.books) >= quipu.BooksMax {
		return quipu.CodeOverloaded
	}
	s.created++
	b := &book{id: s.created, name: name, options: o, born: seq}
	s.addBook(b)
	s.open.part(b.id)
	return ""
}

func (s *state) addBook(b *book) { s.books[b.id], s.names[b.name] = b, b }

// applyDelete forgets a book. What the index has of it goes with the next checkpoint.
func (s *state) applyDelete(b *book) {
	delete(s.books, b.id)
	delete(s.names, b.name)
	s.open.part(b.id)
	s.open.deleted = append(s.open.deleted, b.id)
	s.moved = true
	if b.waiting != nil {
		s.wake = append(s.wake, b.waiting)
	}
}

// parseVolume reads what a trim says of records and bytes.
func parseVolume(b []byte) volume { return volume{int64(le.Uint64(b)), int64(le.Uint64(b[8:]))} }

// applyTrim moves a point up, never down. What is below it and what is gone is as whoever trimmed counted it, so that a
// replay need not read records.
func (s *state) applyTrim(b *book, tag string, upto quipu.Seq, below, gone volume) quipu.Code {
	if upto <= b.floor(tag) {
		return ""
	}
	p := s.open.part(b.id)
	if tag != quipu.TagAll {
		if len(b.tagTrims) >= tagTrimsMax && b.tagTrims[tag] == 0 {
			return quipu.CodeOverloaded
		}
		if b.tagTrims == nil {
			b.tagTrims = map[string]quipu.Seq{}
		}
		b.tagTrims[tag], b.gone = upto, gone
		p.trims, s.moved = append(p.trims, tag), true
		s.open.bytes += len(tag) + postingBytes
		return ""
	}
	b.trim, b.below, b.gone, s.moved = upto, below, gone, true
	for t, point := range b.tagTrims {
		if point <= upto {
			delete(b.tagTrims, t)
			p.trims = append(p.trims, t)
		}
	}
	return ""
}

// freeze ends the open generation, so that it can be saved while new records come in.
func (s *state) freeze() (*generation, *resolve.Generation) {
	g := s.open
	g.end, g.created, g.moved, s.moved = s.end, s.created, s.moved, false
	for id, p := range g.books {
		b := s.books[id]
		if b == nil {
			continue // the system's own
		}
		p.saved = *b
		p.saved.tagTrims = map[string]quipu.Seq{}
		for _, tag := range p.trims {
			if point, ok := b.tagTrims[tag]; ok {
				p.saved.tagTrims[tag] = point
			}
		}
	}
	s.frozen, s.open = g, newGeneration()
	return g, s.window.Seal(s.end.seq)
}

// thaw forgets a frozen generation that is saved.
func (s *state) thaw(g *generation, writes *resolve.Generation) {
	s.frozen = nil
	s.saved, s.sealed = g.end.seq, g.end.end.Segment
	s.window.Saved(writes, s.end.seq)
}

func codeOf(v resolve.Verdict) quipu.Code {
	switch v.Outcome {
	case resolve.Won:
		return ""
	case resolve.Conflict:
		return quipu.CodeConflict
	case resolve.TooOld:
		return quipu.CodeSnapshotOld
	}
	panic(fmt.Sprintf("locallog: no such outcome: %d", v.Outcome))
}
