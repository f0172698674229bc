package locallog

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"
	"github.com/quipu-run/quipu"
)

// share is what a book has in a segment: from which record to which, and the bytes of the visible ones. Shares tell how
// much of a segment is live without a look at it.
type share struct {
	first, last quipu.Seq
	bytes       int64
	// old says that a version wrote it that noted only the last record.
	old bool
}

const (
	shareOldEncoded = 8
	shareEncoded    = 24
)

// add extends a share by later records.
func (s *share) add(more share) {
	if s.last == 0 {
		*s = more
		return
	}
	s.last, s.bytes = more.last, s.bytes+more.bytes
}

// encode leaves an old share old: what its segment had before is not known.
func (s share) encode() []byte {
	b := be.AppendUint64(nil, uint64(s.last))
	if s.old {
		return b
	}
	return be.AppendUint64(be.AppendUint64(b, uint64(s.first)), uint64(s.bytes))
}

func parseShare(b []byte) (share, error) {
	switch len(b) {
	case shareOldEncoded:
		return share{last: quipu.Seq(be.Uint64(b)), old: true}, nil
	case shareEncoded:
		return share{last: quipu.Seq(be.Uint64(b)), first: quipu.Seq(be.Uint64(b[8:])), bytes: int64(be.Uint64(b[16:]))}, nil
	}
	return share{}, errIndex
}

// above estimates the bytes of the share that are above a trim point, as if all its records had one size.
func (s share) above(trim quipu.Seq) int64 {
	switch {
	case trim >= s.last:
		return 0
	case trim < s.first:
		return s.bytes
	}
	span, left := s.last.Pos()-s.first.Pos()+1, s.last.Pos()-min(trim.Pos(), s.last.Pos())
	return int64(float64(s.bytes) * min(1, float64(left)/float64(span)))
}

// shareKey is the key of an entry for each segment and book.
func shareKey(space byte, segment uint32, id quipu.Book) []byte {
	return be.AppendUint64(be.AppendUint32([]byte{space}, segment), uint64(id))
}

// share is the saved share of a book in a segment; zero if it has none.
func (x *index) share(segment uint32, id quipu.Book) (share, error) {
	value, closer, err := x.db.Get(shareKey(keySegment, segment, id))
	if errors.Is(err, pebble.ErrNotFound) {
		return share{}, nil
	}
	if err != nil {
		return share{}, err
	}
	s, err := parseShare(value)
	return s, errors.Join(err, closer.Close())
}

// eachShare visits the shares of a segment by book, without those of the log's own records: they have done their work when the index
// has them.
func (x *index) eachShare(segment uint32, visit func(id quipu.Book, s share) error) error {
	return x.each(shareKey(keySegment, segment, 1), shareKey(keySegment, segment+1, 0), func(key, value []byte) error {
		if len(key) != 13 {
			return errIndex
		}
		s, err := parseShare(value)
		if err != nil {
			return err
		}
		return visit(quipu.Book(be.Uint64(key[5:])), s)
	})
}

// trimmedByTag answers, by book, how many bytes of a segment were trimmed by tag, at most.
func (x *index) trimmedByTag(segment uint32) (map[quipu.Book]int64, error) {
	var sums map[quipu.Book]int64
	err := x.each(shareKey(keyTrimmed, segment, 0), shareKey(keyTrimmed, segment+1, 0), func(key, value []byte) error {
		if len(key) != 13 || len(value) != 8 {
			return errIndex
		}
		if sums == nil {
			sums = map[quipu.Book]int64{}
		}
		sums[quipu.Book(be.Uint64(key[5:]))] = int64(be.Uint64(value))
		return nil
	})
	return sums, err
}

// dropShares forgets the shares in a segment.
func dropShares(b *pebble.Batch, segment uint32) error {
	return errors.Join(
		b.DeleteRange(shareKey(keySegment, segment, 0), shareKey(keySegment, segment+1, 0), nil),
		b.DeleteRange(shareKey(keyTrimmed, segment, 0), shareKey(keyTrimmed, segment+1, 0), nil))
}

// posting is the posting of the whole book for a record; zero if there is none.
func (x *index) posting(id quipu.Book, seq quipu.Seq) (found posting, err error) {
	err = x.eachIn(id, quipu.TagAll, seq, seq, func(p posting) bool {
		found = p
		return false
	})
	return found, err
}

// tagTrims are the saved points of a book's tags, without those that the book's own has passed; nil if there are none.
func (x *index) tagTrims(id quipu.Book) (map[string]quipu.Seq, error) {
	var points map[string]quipu.Seq
	lower, upper := be.AppendUint64([]byte{keyTagTrim}, uint64(id)), be.AppendUint64([]byte{keyTagTrim}, uint64(id)+1)
	err := x.each(lower, upper, func(key, value []byte) error {
		if len(key) < 10 || len(value) != 8 {
			return errIndex
		}
		if points == nil {
			points = map[string]quipu.Seq{}
		}
		points[string(key[9:])] = quipu.Seq(be.Uint64(value))
		return nil
	})
	return points, err
}
