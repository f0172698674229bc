package locallog

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/quipu-run/quipu"
)

// rewind takes away all records after upto from a log that was closed. They stay in their segments as void ones are: without a place in
// the index. Trim points, deletions and options stay as they are. A crash in between leaves a log that is neither; Restore is begun anew then.
func rewind(opts Options, upto quipu.Seq) error {
	l, err := Open(opts)
	if err != nil {
		return err
	}
	err = l.rewind(upto)
	return errors.Join(err, l.Close())
}

func (l *Log) rewind(upto quipu.Seq) error {
	x := l.index()
	b := x.db.NewBatch()
	err := errors.Join(l.rewindPostings(b, upto), l.rewindProducers(b, upto), l.dropNewer(b, upto), x.apply(b))
	if err != nil {
		return fmt.Errorf("rewind the index: %w", x.wrap(err))
	}
	if err := l.rewindBooks(upto); err != nil {
		return fmt.Errorf("rewind books: %w", err)
	}
	l.manifestMu.Lock()
	defer l.manifestMu.Unlock()
	l.manifest.Pruned = true // an index made anew from the segments would have the records again
	return errors.Join(x.flush(), l.manifest.write(l.fs, l.dir))
}

// rewindPostings cuts the blocks that end after upto.
func (l *Log) rewindPostings(b *pebble.Batch, upto quipu.Seq) error {
	return l.index().each([]byte{keyPosting}, []byte{keyPosting + 1}, func(key, value []byte) error {
		at := len(key) - 8
		if at < 0 || quipu.Seq(be.Uint64(key[at:])) <= upto {
			return nil
		}
		var kept []posting
		err := eachPosting(key, value, func(p posting) bool {
			if p.seq <= upto {
				kept = append(kept, p)
			}
			return p.seq <= upto
		})
		if err == nil {
			err = b.Delete(key, nil)
		}
		if err != nil || len(kept) == 0 {
			return err
		}
		last := be.AppendUint64(key[:at:at], uint64(kept[len(kept)-1].seq))
		return b.Set(last, appendBlock(nil, kept), nil)
	})
}

// rewindProducers forgets what was answered after upto. A producer of which nothing is left has to start a new epoch.
func (l *Log) rewindProducers(b *pebble.Batch, upto quipu.Seq) error {
	return l.index().each([]byte{keyProducer}, []byte{keyProducer + 1}, func(key, value []byte) error {
		p, err := parseProducer(value)
		if err != nil {
			return err
		}
		n := len(p.outcomes)
		for n > 0 && p.outcomes[n-1].first > upto {
			n--
		}
		if n == len(p.outcomes) {
			return nil
		}
		if p.outcomes = p.outcomes[:n]; n == 0 {
			return b.Delete(key, nil)
		}
		return b.Set(key, encodeProducer(p), nil)
	})
}

// dropNewer forgets books that were created after upto.
func (l *Log) dropNewer(b *pebble.Batch, upto quipu.Seq) error {
	g := newGeneration()
	for id, book := range l.state.books {
		if book.born > upto {
			g.deleted = append(g.deleted, id)
		}
	}
	return dropBooks(b, g)
}

// rewindBooks notes the new ends of the books that are left, and what they hold.
func (l *Log) rewindBooks(upto quipu.Seq) error {
	x := l.index()
	b := x.db.NewBatch()
	for id, book := range l.state.books {
		if book.born > upto {
			continue
		}
		p, _, err := x.last(id, quipu.TagAll, upto)
		if err != nil {
			return err
		}
		saved := *book
		saved.newest, saved.tail = p.seq, max(p.seq, book.trim)
		saved.below, saved.uncounted = volume{}, false
		if saved.total, err = l.volumeOf(context.Background(), id, book.trim+1, upto); err != nil {
			return err
		}
		if saved.gone, err = l.goneIn(context.Background(), id, book.trim+1, min(upto, book.goneUpto())); err != nil {
			return err
		}
		err = errors.Join(b.Set(be.AppendUint64([]byte{keyBook}, uint64(id)), saved.encode(nil), nil), saved.putGone(b, id))
		if err != nil {
			return err
		}
	}
	return x.apply(b)
}
