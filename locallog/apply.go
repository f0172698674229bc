package locallog

import (
	"fmt"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/codec"
	"github.com/quipu-run/quipu/internal/resolve"
)

// What the data of a KindSystem record starts with.
const (
	systemCreate byte = 1 // then the name of the book
	systemTrim   byte = 2 // then book u64, point u64, tag
)

// booksMax and tagTrimsMax bound tables that are kept in memory.
const (
	booksMax    = 1 << 16
	tagTrimsMax = 1 << 16
)

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
	books  map[quipu.Book]*book
	names  map[string]*book
	open   *generation
	frozen *generation // being saved, or nil
	window *resolve.Window
	index  *index
	end    checkpoint
	saved  quipu.Seq // the index has everything up to here
	moved  bool      // a trim point moved since the last freeze
	sealed uint32    // of segments before it, the index has everything
	group  []located // scratch
	wake   []chan struct{}
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
		res.code, err = s.applySystem(head.data)
		return res, err
	}
	b := s.books[head.book]
	if b == nil {
		return res, fmt.Errorf("record %s is in book %d, which was not created", head.seq, head.book)
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

func (s *state) applySystem(data []byte) (quipu.Code, error) {
	switch {
	case len(data) > 1 && data[0] == systemCreate:
		return s.applyCreate(strings.Clone(view(data[1:]))), nil
	case len(data) >= 17 && data[0] == systemTrim:
		b := s.books[quipu.Book(le.Uint64(data[1:]))]
		if b == nil {
			return "", fmt.Errorf("a trim of a book that was not created")
		}
		return s.applyTrim(b, strings.Clone(view(data[17:])), quipu.Seq(le.Uint64(data[9:]))), nil
	}
	return "", fmt.Errorf("unknown system record % x", data[:min(len(data), 20)])
}

func (s *state) applyCreate(name string) quipu.Code {
	if s.names[name] != nil {
		return quipu.CodeBookExists
	}
	if len(s.books) >= booksMax {
		return quipu.CodeOverloaded
	}
	b := &book{id: quipu.Book(len(s.books) + 1), name: name}
	s.addBook(b)
	s.open.part(b.id)
	return ""
}

func (s *state) addBook(b *book) { s.books[b.id], s.names[b.name] = b, b }

// applyTrim moves a point up, never down.
func (s *state) applyTrim(b *book, tag string, upto quipu.Seq) quipu.Code {
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
		b.tagTrims[tag] = upto
		p.trims, s.moved = append(p.trims, tag), true
		s.open.bytes += len(tag) + postingBytes
		return ""
	}
	b.trim, s.moved = upto, true
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
	g.end, g.moved, s.moved = s.end, s.moved, false
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
