package locallog

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/quipu-run/quipu"
)

const (
	trimmedMax   = 1 << 16         // streams that wait to be cleaned by name; beyond it all with a point are looked at
	cleanBytes   = 1 << 20         // of changes to the index at once
	lookDelay    = 5 * time.Second // until a segment of which less was live than before is looked at again
	cleanStreams = 1 << 12         // of a segment, cleaned at once
)

// cleaner gives space back: after each checkpoint that saved a trim it takes postings that nobody can reach out of the index, deletes
// segments in which nothing is live, and moves what is live out of those in which little is. It has a goroutine of its own, so
// that neither appends nor checkpoints wait for it. Nobody else changes postings, shares or segments that a checkpoint has left behind.
type cleaner struct {
	wake    chan struct{}      // has a value when there may be something to do
	asked   chan chan struct{} // wakes too; all is done at once, then what came in is closed
	failed  error              // why it ended; read when it has
	damaged map[uint32]bool    // segments of which a record could not be read: they stay as they are
	live    map[uint32]int64   // by estimate, in each segment, when they were looked at last

	mu      sync.Mutex          // guards below
	trimmed map[streamName]bool // streams by tag whose point moved
	all     bool                // look at all of them
}

// streamName names a stream.
type streamName struct {
	book quipu.Book
	tag  string
}

// note takes over what a saved generation trimmed.
func (c *cleaner) note(g *generation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, p := range g.books {
		for tag := range p.saved.tagTrims {
			c.trimmed[streamName{id, tag}] = true
		}
	}
	if len(c.trimmed) > trimmedMax {
		c.trimmed, c.all = map[streamName]bool{}, true
	}
	c.signal()
}

func (c *cleaner) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// take answers the streams to look at, or that it is all.
func (c *cleaner) take() (map[streamName]bool, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	trimmed, all := c.trimmed, c.all
	c.trimmed, c.all = map[streamName]bool{}, false
	return trimmed, all
}

// clean is the cleaner's goroutine.
func (l *Log) clean() {
	var later <-chan time.Time
	for {
		var done chan struct{}
		select {
		case <-later:
		case <-l.done:
			return
		case <-l.cleaner.wake:
		case done = <-l.cleaner.asked:
		}
		err := l.cleanTrimmed()
		again := false
		if err == nil {
			again, err = l.reclaim(done != nil)
		}
		if later = nil; again {
			later = l.opts.Clock.After(lookDelay)
		}
		if done != nil {
			close(done)
		}
		if errors.Is(err, errEnding) {
			return
		}
		if err != nil {
			l.opts.Logger.Error("log stopped", "err", err)
			l.cleaner.failed = err
			l.halt(err)
			return
		}
	}
}

// errEnding ends work that the next run may do as well.
var errEnding = errors.New("the log is being closed")

func (l *Log) ending() error {
	select {
	case <-l.done:
		return errEnding
	default:
		return nil
	}
}

// cleanTrimmed takes the trimmed beginnings of streams by tag out of the index, and notes in the shares what they had.
func (l *Log) cleanTrimmed() error {
	trimmed, all := l.cleaner.take()
	s := sweep{x: l.index()}
	if all {
		err := s.x.each([]byte{keyTagTrim}, []byte{keyTagTrim + 1}, func(key, _ []byte) error {
			if len(key) < 10 {
				return errIndex
			}
			return errors.Join(s.stream(quipu.Book(be.Uint64(key[1:])), string(key[9:])), l.ending())
		})
		return s.end(err)
	}
	for _, id := range inOrder(trimmed) {
		if err := errors.Join(s.stream(id.book, id.tag), l.ending()); err != nil {
			return s.end(err)
		}
	}
	return s.end(nil)
}

// inOrder sorts names of streams as the index has them.
func inOrder(names map[streamName]bool) []streamName {
	return slices.SortedFunc(maps.Keys(names), func(a, b streamName) int {
		return cmp.Or(cmp.Compare(a.book, b.book), cmp.Compare(len(a.tag), len(b.tag)), cmp.Compare(a.tag, b.tag))
	})
}

// sweep takes what was trimmed out of the index, many streams in one change.
type sweep struct {
	x      *index
	batch  *pebble.Batch
	fallen map[segmentBook]int64 // bytes that were trimmed by tag
	points points
}

type segmentBook struct {
	segment uint32
	book    quipu.Book
}

// stream cleans one stream, by the points that the index has.
func (s *sweep) stream(id quipu.Book, tag string) error {
	at, err := s.points.of(s.x, id)
	if err != nil {
		return err
	}
	if s.batch == nil {
		s.batch, s.fallen = s.x.db.NewBatch(), map[segmentBook]int64{}
	}
	if at.book == quipu.SeqMax {
		return nil // the book is deleted, and the checkpoint that did it cleaned all of it
	}
	if tag == quipu.TagAll {
		err = s.batch.DeleteRange(postingKey(nil, id, tag, 0), append(postingKey(nil, id, tag, at.book), 0), nil)
	} else {
		err = s.byTag(id, tag, at)
	}
	if err == nil && s.batch.Len() >= cleanBytes {
		err = s.apply()
	}
	return err
}

// byTag cleans a stream by tag. Its newest posting stays, without a place if it is trimmed.
func (s *sweep) byTag(id quipu.Book, tag string, at bookPoints) error {
	floor := at.floor(tag)
	it, err := s.x.db.NewIter(&pebble.IterOptions{LowerBound: postingKey(nil, id, tag, 0), UpperBound: streamEnd(id, tag)})
	if err != nil {
		return err
	}
	more := true
	for ok := it.First(); ok && more && err == nil; {
		var value []byte
		if value, err = it.ValueAndErr(); err != nil {
			break
		}
		key := append([]byte(nil), it.Key()...)
		var left []posting
		cut := false
		err = eachPosting(key, value, func(p posting) bool {
			if p.seq > floor {
				left = append(left, p)
				return true
			}
			cut = cut || p.isPlace() || len(value) > postingEncoded
			if p.isPlace() && p.seq > at.book {
				s.fallen[segmentBook{p.segment, id}] += int64(p.size)
			}
			return true
		})
		ok, more = it.Next(), len(left) == 0
		switch {
		case err != nil:
		case len(left) > 0 && cut:
			err = s.batch.Set(key, appendBlock(nil, left), nil)
		case len(left) == 0 && ok:
			err = s.batch.Delete(key, nil)
		case len(left) == 0 && cut:
			err = s.batch.Set(key, appendBlock(nil, []posting{{seq: quipu.Seq(be.Uint64(key[len(key)-8:]))}}), nil)
		}
	}
	return errors.Join(err, it.Error(), it.Close())
}

// apply makes the changes so far, in one step: what is taken out of a stream is noted once. They need not be durable.
func (s *sweep) apply() error {
	if s.batch == nil {
		return nil
	}
	for at, bytes := range s.fallen {
		known, err := s.x.fallen(at)
		if err == nil {
			err = s.batch.Set(shareKey(keyTrimmed, at.segment, at.book), be.AppendUint64(nil, uint64(known+bytes)), nil)
		}
		if err != nil {
			return err
		}
	}
	b := s.batch
	s.batch = nil
	if b.Empty() {
		return b.Close()
	}
	return s.x.apply(b)
}

// end is apply, unless something failed.
func (s *sweep) end(err error) error {
	if err == nil {
		err = s.apply()
	}
	return s.x.wrap(err)
}

// fallen is how many bytes of a share were trimmed by tag, at most.
func (x *index) fallen(at segmentBook) (int64, error) {
	value, closer, err := x.db.Get(shareKey(keyTrimmed, at.segment, at.book))
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, errors.Join(errIndex, closer.Close())
	}
	return int64(be.Uint64(value)), closer.Close()
}

// bookPoints are the saved trim points of a book.
type bookPoints struct {
	book quipu.Seq // SeqMax if it was deleted
	tags map[string]quipu.Seq
}

// floor is the point that reads of tag meet.
func (p *bookPoints) floor(tag string) quipu.Seq { return max(p.book, p.tags[tag]) }

// isLive tells whether anybody can read the record.
func (p *bookPoints) isLive(r *record) bool {
	if r.seq <= p.book {
		return false
	}
	live := r.tagCount == 0
	if len(p.tags) == 0 {
		return true
	}
	r.eachTag(func(tag string) { live = live || p.tags[tag] < r.seq })
	return live
}

// points remembers the points of the book that was asked for last: most questions are about the same.
type points struct {
	known bool
	id    quipu.Book
	at    bookPoints
}

// of answers what the index has: newer points are not safe from a power cut yet if the log is not synced.
func (p *points) of(x *index, id quipu.Book) (bookPoints, error) {
	if p.known && p.id == id {
		return p.at, nil
	}
	trim, err := x.trim(id)
	if err != nil {
		return bookPoints{}, err
	}
	tags, err := x.tagTrims(id)
	if err != nil {
		return bookPoints{}, err
	}
	*p = points{true, id, bookPoints{trim, tags}}
	return p.at, nil
}

// forget takes what is trimmed out of all streams that have records in a segment, and forgets its shares.
func (l *Log) forget(s *segment) error {
	x := l.index()
	return x.wrap(x.forget(s))
}

func (x *index) forget(s *segment) error {
	w := sweep{x: x}
	seen := map[streamName]bool{}
	drain := func() error {
		for _, id := range inOrder(seen) {
			if err := w.stream(id.book, id.tag); err != nil {
				return err
			}
		}
		clear(seen)
		return w.apply()
	}
	see := func(book quipu.Book, tag string) {
		if !seen[streamName{book, tag}] {
			seen[streamName{book, strings.Clone(tag)}] = true
		}
	}
	err := s.eachBatch(segmentHeaderBytes, func(batch []byte, h *batchHeader) error {
		err := eachRecord(batch, h, func(r *record, _ int) error {
			if r.kind == quipu.KindSystem {
				return nil
			}
			see(r.book, quipu.TagAll)
			r.eachTag(func(tag string) { see(r.book, tag) })
			return nil
		})
		if err == nil && len(seen) >= cleanStreams {
			err = drain()
		}
		return err
	})
	if err == nil {
		err = drain()
	}
	if err != nil {
		return err
	}
	b := x.db.NewBatch()
	return errors.Join(dropShares(b, s.id), x.apply(b))
}
