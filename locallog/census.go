package locallog

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/quipu-run/quipu"
)

// move is a record that is live, and where it goes.
type move struct {
	book quipu.Book
	from posting
	to   uint32 // offset in the kept segment
}

// census is what is found in segments that are to be given up. It is what the saved trim points say: what is trimmed meanwhile is moved
// in vain, and that is all.
type census struct {
	x        *index
	log      *Log
	live     []move
	gone     []move // trimmed in all of their tags, but not by the book's own point
	refs     []ref
	points   map[quipu.Book]bookPoints
	kept     *segment // nil if nothing is live
	failed   bool     // a segment is damaged, so it must stay
	segments []uint32
}

// ref says that a stream has a record: the one at index at of live, or, if at is negative, the one at -at-1 of gone.
type ref struct {
	streamName
	at int
}

// at answers the trim points of a book.
func (c *census) at(id quipu.Book) (bookPoints, error) {
	if at, ok := c.points[id]; ok {
		return at, nil
	}
	var one points
	at, err := one.of(c.x, id)
	if err != nil {
		return bookPoints{}, c.x.wrap(err)
	}
	c.points[id] = at
	return at, nil
}

// segment counts one segment, and corrects h.
func (c *census) segment(h *holding) error {
	c.log.mu.RLock()
	s := c.log.segments[h.id]
	c.log.mu.RUnlock()
	before := len(c.live)
	c.segments = append(c.segments, h.id)
	var err error
	if isKept(h.id) {
		err = c.keptSegment(s)
	} else {
		err = c.logSegment(s)
	}
	if errors.Is(err, errDamaged) {
		c.leave(h.id, err)
		return nil
	}
	if err != nil {
		return err // c may still be in use
	}
	h.live = 0
	for _, m := range c.live[before:] {
		h.live += int64(m.from.size)
	}
	return err
}

// leave excludes a segment with a record that cannot be read. Whoever reads the record is told; here it only means that
// the segment cannot be given up.
func (c *census) leave(segment uint32, err error) {
	c.log.opts.Logger.Error("a segment stays as it is because a record in it cannot be read", "segment", segmentName(segment), "err", err)
	c.log.cleaner.damaged[segment], c.failed = true, true
}

var errDamaged = errors.New("it cannot be read")

// logSegment goes by the postings. Records have to be looked at only in books that were trimmed by tag.
func (c *census) logSegment(s *segment) error {
	before := len(c.live)
	look, err := c.postings(s)
	if err != nil || !look {
		return c.x.wrap(err)
	}
	found := c.live[before:]
	c.live = c.live[:before]
	sortByPlace(found)
	w := window{s: s}
	for _, m := range found {
		r, _, err := w.record(m)
		if err != nil {
			return err
		}
		c.sort(m, &r)
	}
	return nil
}

// postings adds what the index has in a segment to the live ones, and tells whether some of it may be trimmed by tag.
func (c *census) postings(s *segment) (look bool, err error) {
	err = c.x.eachShare(s.id, func(id quipu.Book, of share) error {
		at, err := c.at(id)
		if err != nil || of.last <= at.book {
			return err
		}
		look = look || len(at.tags) > 0
		err = c.x.eachIn(id, quipu.TagAll, max(at.book+1, of.first), of.last, func(p posting) bool {
			if p.segment == s.id {
				c.live = append(c.live, move{book: id, from: p})
			}
			return true
		})
		return errors.Join(err, c.log.ending())
	})
	return look, err
}

// keptSegment reads all of it, and asks the index what of it is still here.
func (c *census) keptSegment(s *segment) error {
	end := int64(segmentHeaderBytes)
	err := s.eachBatch(end, func(batch []byte, h *batchHeader) error {
		end += int64(h.size)
		return errors.Join(c.log.ending(), eachRecord(batch, h, func(r *record, at int) error {
			points, err := c.at(r.book)
			if err != nil || r.seq <= points.book {
				return err
			}
			m := move{book: r.book, from: posting{r.seq, s.id, uint32(h.offset) + uint32(at), uint32(r.size)}}
			here, err := c.isHere(m)
			if here {
				c.sort(m, r)
			}
			return err
		}))
	})
	if err == nil && end != s.size {
		err = fmt.Errorf("the batch at %d is not good: %w", end, errDamaged)
	}
	return err
}

// isHere tells whether the index has a record where it was found. It has not if the log was restored up to a seq before it.
func (c *census) isHere(m move) (bool, error) {
	p, err := c.x.posting(m.book, m.from.seq)
	return p == m.from, err
}

// sort puts a record that the book's own point did not trim with the live ones or the others.
func (c *census) sort(m move, r *record) {
	if at := c.points[m.book]; at.isLive(r) {
		c.live = append(c.live, m)
		return
	}
	c.gone = append(c.gone, m)
}

func sortByPlace(all []move) {
	slices.SortFunc(all, func(a, b move) int {
		return cmp.Or(cmp.Compare(a.from.segment, b.from.segment), cmp.Compare(a.from.offset, b.from.offset))
	})
}

// window reads records of a segment in the order of their offsets, many at once.
type window struct {
	s   *segment
	at  int64
	buf []byte
}

// record is valid until the next.
func (w *window) record(m move) (record, []byte, error) {
	from, size := int64(m.from.offset), int64(m.from.size)
	if from < w.at || from+size > w.at+int64(len(w.buf)) {
		n := min(max(size, windowBytes), w.s.size-from)
		w.at, w.buf = from, slices.Grow(w.buf[:0], int(max(n, 0)))[:max(n, 0)]
		if n < size {
			return record{}, nil, fmt.Errorf("record %s ends behind the segment: %w", m.from.seq, errDamaged)
		}
		if err := w.s.readAt(w.buf, from); err != nil {
			w.buf = w.buf[:0]
			return record{}, nil, fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	b := w.buf[from-w.at : from-w.at+size]
	r, err := parseRecord(b, true)
	if err != nil || r.size != len(b) || r.seq != m.from.seq || r.book != m.book {
		return record{}, nil, fmt.Errorf("record %s at %d is not what was written: %w", m.from.seq, from, errDamaged)
	}
	return r, b, nil
}

// copyTo writes all that is live, in the order in which it lies on the disk, and notes which streams have it.
func (c *census) copyTo(w *keptWriter) (*segment, error) {
	sortByPlace(c.live)
	in, l := window{}, c.log
	tags := tagNames{}
	for i := range c.live {
		m := &c.live[i]
		if in.s == nil || in.s.id != m.from.segment {
			l.mu.RLock()
			in = window{s: l.segments[m.from.segment], buf: in.buf[:0]}
			l.mu.RUnlock()
		}
		r, b, err := in.record(*m)
		if err != nil {
			c.leave(in.s.id, err)
		}
		if err == nil {
			m.to, err = w.add(r.seq, b)
		}
		if err == nil && i%1024 == 0 {
			err = l.ending()
		}
		if err != nil {
			return nil, err
		}
		c.refs = append(c.refs, ref{streamName{m.book, quipu.TagAll}, i})
		r.eachTag(func(tag string) { c.refs = append(c.refs, ref{streamName{m.book, tags.of(tag)}, i}) })
	}
	return w.finish()
}

// tagNames shares the memory of tags that come again.
type tagNames map[string]string

const tagNamesMax = 1 << 12

func (t tagNames) of(tag string) string {
	known, ok := t[tag]
	if !ok {
		known = strings.Clone(tag)
		if len(t) < tagNamesMax {
			t[known] = known
		}
	}
	return known
}

// shares is what each book has in the kept segment.
func (c *census) shares() map[quipu.Book]share {
	all := map[quipu.Book]share{}
	for _, m := range c.live {
		s, ok := all[m.book]
		if !ok {
			s = share{first: m.from.seq, last: m.from.seq}
		}
		s.first, s.last, s.bytes = min(s.first, m.from.seq), max(s.last, m.from.seq), s.bytes+int64(m.from.size)
		all[m.book] = s
	}
	return all
}

// place changes the index in one step, durably: every stream finds the moved records where they are now, those that are gone
// are no place any more, and the shares follow.
func (x *index) place(c *census, from []holding) error {
	b := x.db.NewBatch() // not closed: after a failure Pebble may still hold it
	for i, m := range c.gone {
		c.refs = append(c.refs, ref{streamName{m.book, quipu.TagAll}, -i - 1})
	}
	slices.SortFunc(c.refs, func(a, b ref) int {
		return cmp.Or(cmp.Compare(a.book, b.book), cmp.Compare(a.tag, b.tag), cmp.Compare(c.posting(a).seq, c.posting(b).seq))
	})
	if err := c.rewrite(b); err != nil {
		return err
	}
	books := c.shares()
	for id, of := range books {
		if err := b.Set(shareKey(keySegment, c.kept.id, id), of.encode(), nil); err != nil {
			return err
		}
	}
	for _, h := range from {
		if err := dropShares(b, h.id); err != nil {
			return err
		}
	}
	if err := x.apply(b); err != nil {
		return err
	}
	if err := x.flush(); err != nil {
		return err
	}
	return x.cleanDeleted(books)
}

// cleanDeleted takes postings out of the index that came back with a move while their book was deleted.
func (x *index) cleanDeleted(books map[quipu.Book]share) error {
	for id := range books {
		trim, err := x.trim(id)
		if err != nil {
			return err
		}
		if trim != quipu.SeqMax {
			continue
		}
		b := x.db.NewBatch()
		lower, upper := be.AppendUint64([]byte{keyPosting}, uint64(id)), be.AppendUint64([]byte{keyPosting}, uint64(id)+1)
		if err := errors.Join(b.DeleteRange(lower, upper, nil), x.apply(b)); err != nil {
			return err
		}
	}
	return nil
}

// posting is where a ref's record was.
func (c *census) posting(r ref) posting {
	if r.at < 0 {
		return c.gone[-r.at-1].from
	}
	return c.live[r.at].from
}

// target is where a ref's record is from now on.
func (c *census) target(r ref) posting {
	p := c.posting(r)
	if r.at < 0 {
		p.segment, p.offset = 0, 1
		return p
	}
	p.segment, p.offset = c.kept.id, c.live[r.at].to
	return p
}

// rewrite changes the blocks of all streams in refs, which are sorted.
func (c *census) rewrite(b *pebble.Batch) (err error) {
	it, err := c.x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyPosting}, UpperBound: []byte{keyPosting + 1}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	w := rewriter{census: c, it: it, batch: b}
	for refs := c.refs; len(refs) > 0; {
		n := 1
		for n < len(refs) && refs[n].streamName == refs[0].streamName {
			n++
		}
		if err := w.stream(refs[:n]); err != nil {
			return err
		}
		refs = refs[n:]
	}
	return it.Error()
}

// rewriter changes blocks of postings.
type rewriter struct {
	*census
	it      *pebble.Iterator
	batch   *pebble.Batch
	key     []byte
	block   []posting
	foldKey []byte // of the block that was folded last, and what the batch has there
	folded  []posting
}

// stream changes the blocks that have the refs, which are of one stream.
func (w *rewriter) stream(refs []ref) error {
	name := refs[0].streamName
	for len(refs) > 0 {
		w.key = postingKey(w.key[:0], name.book, name.tag, w.posting(refs[0]).seq)
		prefix := len(w.key) - 8
		if !w.it.SeekGE(w.key) || string(w.it.Key()[:min(prefix, len(w.it.Key()))]) != string(w.key[:prefix]) || len(w.it.Key()) != len(w.key) {
			return w.it.Error() // trimmed, or the book was deleted
		}
		w.key = append(w.key[:0], w.it.Key()...)
		last := quipu.Seq(be.Uint64(w.key[prefix:]))
		n := 0
		for n < len(refs) && w.posting(refs[n]).seq <= last {
			n++
		}
		if err := w.change(name, refs[:n]); err != nil {
			return err
		}
		refs = refs[n:]
	}
	return nil
}

// change writes the block that the iterator stands at anew.
func (w *rewriter) change(name streamName, refs []ref) error {
	value, err := w.it.ValueAndErr()
	if err != nil {
		return err
	}
	w.block = w.block[:0]
	changed, places := false, false
	err = eachPosting(w.key, value, func(p posting) bool {
		for len(refs) > 0 && w.posting(refs[0]).seq < p.seq {
			refs = refs[1:]
		}
		if len(refs) > 0 && w.posting(refs[0]) == p {
			p, changed = w.target(refs[0]), true
		}
		places = places || p.isPlace()
		w.block = append(w.block, p)
		return true
	})
	if err != nil || !changed {
		return err
	}
	if !places && name.tag == quipu.TagAll {
		return w.fold()
	}
	return w.batch.Set(w.key, appendBlock(nil, w.block), nil)
}

// fold joins a block without a place to the one before it, if that has none either, so that what is gone takes no more of the
// index the more there is of it.
func (w *rewriter) fold() error {
	prefix := w.key[:len(w.key)-8]
	if w.it.Prev() && len(w.it.Key()) == len(w.key) && string(w.it.Key()[:len(prefix)]) == string(prefix) {
		before, err := w.blockBefore()
		if err != nil {
			return err
		}
		if joined := join(before, w.block); joined != nil {
			w.block = joined
			if err := w.batch.Delete(append([]byte(nil), w.it.Key()...), nil); err != nil {
				return err
			}
		}
	}
	w.foldKey, w.folded = append(w.foldKey[:0], w.key...), slices.Clone(w.block)
	return w.batch.Set(w.key, appendBlock(nil, w.block), nil)
}

// blockBefore is the block at the iterator as the batch has it; nil if it has places.
func (w *rewriter) blockBefore() ([]posting, error) {
	if string(w.foldKey) == string(w.it.Key()) {
		return w.folded, nil
	}
	value, err := w.it.ValueAndErr()
	if err != nil {
		return nil, err
	}
	var block []posting
	places := false
	err = eachPosting(w.it.Key(), value, func(p posting) bool {
		block, places = append(block, p), p.isPlace()
		return !places
	})
	if places {
		return nil, err
	}
	return block, err
}

// join makes one block of two without places; nil if it cannot. From postingBlockMax records on it is one posting
// for all of them.
func join(a, b []posting) []posting {
	if len(a) == 0 {
		return nil
	}
	all := slices.Concat(a, b)
	records, bytes := uint64(0), uint64(0)
	for _, p := range all {
		records, bytes = records+uint64(p.offset), bytes+uint64(p.size)
	}
	switch {
	case records < postingBlockMax:
		return all
	case max(records, bytes) > 1<<32-1:
		return nil
	}
	return []posting{{seq: all[len(all)-1].seq, offset: uint32(records), size: uint32(bytes)}}
}

// note makes the bytes of shares exact, since their segments are not given up after all. A share still begins with the first
// record that the book's own point did not trim and ends with its last: what is gone in between has postings.
func (x *index) note(c *census) error {
	live := map[segmentBook]int64{}
	for _, m := range c.live {
		live[segmentBook{m.from.segment, m.book}] += int64(m.from.size)
	}
	b := x.db.NewBatch()
	for _, id := range c.segments {
		err := x.eachShare(id, func(book quipu.Book, of share) error {
			first := max(of.first, c.points[book].book+1)
			if first > of.last {
				return nil // trimmed
			}
			of = share{first: first, last: of.last, bytes: live[segmentBook{id, book}]}
			return b.Set(shareKey(keySegment, id, book), of.encode(), nil)
		})
		err = errors.Join(err, b.DeleteRange(shareKey(keyTrimmed, id, 0), shareKey(keyTrimmed, id+1, 0), nil))
		if err != nil {
			return err
		}
	}
	return x.apply(b)
}
