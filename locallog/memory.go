package locallog

import (
	"sort"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/resolve"
)

// Estimates of what index entries cost in memory.
const (
	postingBytes  = 24
	streamBytes   = 160
	outcomeBytes  = 64
	bookDirtBytes = 256
)

// posting says where a visible record of a stream is.
type posting struct {
	seq     quipu.Seq
	segment uint32
	offset  uint32
	size    uint32
}

// stream is the newest part of the records of one (book, tag), by seq.
type stream struct{ postings []posting }

// from is the index of the first posting with a seq >= seq.
func (s *stream) from(seq quipu.Seq) int {
	return sort.Search(len(s.postings), func(i int) bool { return s.postings[i].seq >= seq })
}

// book is the state of one book. The log's mutex guards it.
type book struct {
	id       quipu.Book
	name     string
	tail     quipu.Seq            // newest record, void or not
	newest   quipu.Seq            // newest that is not void
	trim     quipu.Seq            // of the whole book
	tagTrims map[string]quipu.Seq // only those above trim
	waiting  chan struct{}        // if not nil, closed at the next record
	options  quipu.BookOptions
	born     quipu.Seq // of the record that created it; 0 if an older version did
	total    volume    // visible records that there ever were
	below    volume    // of these, up to trim
	gone     volume    // of these, above trim but trimmed in all of their tags
	// uncounted says that an older version did not keep total, below or gone: Open counts anew.
	uncounted bool
}

// volume counts records and the bytes that they take on disk.
type volume struct{ records, bytes int64 }

func (v *volume) add(records, bytes int64) { v.records, v.bytes = v.records+records, v.bytes+bytes }

// less is v without w; nothing if w is more.
func (v volume) less(w volume) volume {
	return volume{max(0, v.records-w.records), max(0, v.bytes-w.bytes)}
}

// held is what a read of the whole book finds.
func (b *book) held() volume { return b.total.less(b.below).less(b.gone) }

// goneUpto is the newest point of a tag: no record above it is gone. 0 if there is none.
func (b *book) goneUpto() (newest quipu.Seq) {
	for _, point := range b.tagTrims {
		newest = max(newest, point)
	}
	return newest
}

// isGone tells whether a record is trimmed in all of its tags.
func (b *book) isGone(seq quipu.Seq, tags []string) bool {
	for _, tag := range tags {
		if b.tagTrims[tag] < seq {
			return false
		}
	}
	return len(tags) > 0
}

// floor is the trim point that reads of tag meet.
func (b *book) floor(tag string) quipu.Seq {
	if len(b.tagTrims) == 0 {
		return b.trim
	}
	return max(b.trim, b.tagTrims[tag])
}

// outcome is what a producer number was answered.
type outcome struct {
	n     uint64
	first quipu.Seq
	count uint32
	resolve.Verdict
}

// producerKey names a producer of a book.
type producerKey struct {
	book quipu.Book
	id   uint64
}

// producer remembers the newest outcomes of the newest epoch, oldest first, at most quipu.ProducerWindow.
type producer struct {
	epoch    uint32
	outcomes []outcome
}

// generation is what was added to the index since a checkpoint. The open one collects; a frozen one is being
// saved and no longer changes.
type generation struct {
	end       checkpoint
	bytes     int
	moved     bool         // a trim point moved, or a book was deleted: there may be space to give back
	created   quipu.Book   // the newest id that was given
	deleted   []quipu.Book // books of which the index may still have something
	books     map[quipu.Book]*bookPart
	producers map[producerKey]*producer
}

// bookPart is the part of a book in one generation.
type bookPart struct {
	all      stream
	tags     map[string]*stream
	segments []segmentShare
	trims    []string // tags whose trim point moved
	saved    book     // as it was when the generation froze
}

// segmentShare is what a generation added to the share of a book in a segment.
type segmentShare struct {
	segment uint32
	share
}

func newGeneration() *generation {
	return &generation{books: map[quipu.Book]*bookPart{}, producers: map[producerKey]*producer{}}
}

// part is the part of a book, made if it is not there.
func (g *generation) part(id quipu.Book) *bookPart {
	p := g.books[id]
	if p == nil {
		p = &bookPart{tags: map[string]*stream{}}
		g.books[id] = p
		g.bytes += bookDirtBytes
	}
	return p
}

// stream is the part of a stream, nil if there is none.
func (g *generation) stream(id quipu.Book, tag string) *stream {
	p := g.books[id]
	switch {
	case g.books == nil || p == nil:
		return nil
	case tag == quipu.TagAll:
		return &p.all
	}
	return p.tags[tag]
}

// add enters a visible record. A tag that is given twice counts once.
func (g *generation) add(p *bookPart, at posting, r *record) {
	p.all.postings = append(p.all.postings, at)
	g.bytes += postingBytes
	r.eachTag(func(tag string) {
		s := p.tags[tag]
		if s == nil {
			s = new(stream)
			p.tags[strings.Clone(tag)] = s
			g.bytes += streamBytes + len(tag)
		}
		if n := len(s.postings); n > 0 && s.postings[n-1].seq == at.seq {
			return
		}
		s.postings = append(s.postings, at)
		g.bytes += postingBytes
	})
}

// touch notes that the segment holds records of the book, with so many bytes that are visible.
func (p *bookPart) touch(segment uint32, s share) {
	if n := len(p.segments); n > 0 && p.segments[n-1].segment == segment {
		p.segments[n-1].add(s)
		return
	}
	p.segments = append(p.segments, segmentShare{segment, s})
}

// scan appends to out what the stream has in [from, to], at most max in all.
func (g *generation) scan(id quipu.Book, tag string, from, to quipu.Seq, out []posting, max int) []posting {
	s := g.stream(id, tag)
	if s == nil {
		return out
	}
	for i := s.from(from); i < len(s.postings) && s.postings[i].seq <= to && len(out) < max; i++ {
		out = append(out, s.postings[i])
	}
	return out
}

// last is the newest posting of the stream with a seq <= to.
func (g *generation) last(id quipu.Book, tag string, to quipu.Seq) (posting, bool) {
	s := g.stream(id, tag)
	if s == nil {
		return posting{}, false
	}
	i := sort.Search(len(s.postings), func(i int) bool { return s.postings[i].seq > to })
	if i == 0 {
		return posting{}, false
	}
	return s.postings[i-1], true
}

// find is the outcome of number n, nil if it is not remembered.
func (p *producer) find(q quipu.Producer) *outcome {
	if p == nil || p.epoch != q.Epoch {
		return nil
	}
	for i := range p.outcomes {
		if p.outcomes[i].n == q.N {
			return &p.outcomes[i]
		}
	}
	return nil
}

// follows tells whether q is the number that may come now.
func (p *producer) follows(q quipu.Producer) bool {
	if p == nil {
		return q.N == 1
	}
	return q.Epoch == p.epoch && q.N == p.outcomes[len(p.outcomes)-1].n+1 || q.Epoch > p.epoch && q.N == 1
}

// with is the producer after one more outcome. p, which readers may hold, stays as it is.
func (p *producer) with(epoch uint32, o outcome) *producer {
	next := &producer{epoch: epoch}
	if p != nil && p.epoch == epoch {
		next.outcomes = append(next.outcomes, p.outcomes[max(0, len(p.outcomes)+1-quipu.ProducerWindow):]...)
	}
	next.outcomes = append(next.outcomes, o)
	return next
}
