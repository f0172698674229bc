package locallog

import (
	"context"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/quipu-run/quipu"
)

// A record that is trimmed in all of its tags counts for nothing from then on. Only the record tells its tags, so whoever trims
// reads what may have become such, and the trim says in the log what came of it: every state that follows from the log knows it without a
// read, also after a crash. A record that cannot be read counts until the book's own point passes it.

// tally is what a trim starts from, and what it leaves.
type tally struct {
	floor  quipu.Seq // that reads of the stream meet before
	tagged quipu.Seq // no record above it is gone before
	below  volume
	gone   volume
}

// countTrim makes the counts those after a trim. What a trim of the book passes is counted from postings, unless some but
// not all of what is gone is passed.
func (l *Log) countTrim(ctx context.Context, id quipu.Book, tag string, upto quipu.Seq, c *tally) error {
	if tag != quipu.TagAll {
		more, err := l.goneWith(ctx, id, tag, c.floor+1, upto)
		c.gone.add(more.records, more.bytes)
		return err
	}
	more, err := l.volumeOf(ctx, id, c.floor+1, upto)
	if err != nil {
		return err
	}
	c.below.add(more.records, more.bytes)
	if c.gone == (volume{}) || c.tagged <= upto {
		c.gone = volume{}
		return nil
	}
	passed, err := l.goneIn(ctx, id, c.floor+1, upto)
	c.gone = c.gone.less(passed)
	return err
}

// goneWith counts what else is gone when a stream by tag is trimmed from one seq to another: records of which all other tags
// are trimmed already.
func (l *Log) goneWith(ctx context.Context, id quipu.Book, tag string, from, to quipu.Seq) (v volume, err error) {
	err = l.eachRead(ctx, id, tag, from, to, func(p posting, r *quipu.Record) bool {
		tags := len(r.Tags)
		r.Tags = slices.DeleteFunc(slices.Clone(r.Tags), func(t string) bool { return t == tag })
		if tags > 0 && (len(r.Tags) == 0 || l.isGone(id, quipu.TagAll, r)) {
			v.add(1, int64(p.size))
		}
		return true
	})
	return v, err
}

// goneIn counts what is gone of a book in [from, to], which is above its own point.
func (l *Log) goneIn(ctx context.Context, id quipu.Book, from, to quipu.Seq) (gone volume, err error) {
	if from > to {
		return volume{}, nil
	}
	if gone, err = l.volumeOf(ctx, id, from, to); err != nil {
		return volume{}, err
	}
	err = l.eachLive(ctx, id, from, to, to, func(_ quipu.Seq, v volume) bool {
		gone = gone.less(v)
		return true
	})
	return gone, err
}

// eachLive is eachHeld without what is gone, of which there is none above tagged: up to there it reads records.
func (l *Log) eachLive(ctx context.Context, id quipu.Book, from, to, tagged quipu.Seq, visit func(quipu.Seq, volume) bool) error {
	more := true
	err := l.eachRead(ctx, id, quipu.TagAll, from, min(to, tagged), func(p posting, r *quipu.Record) bool {
		if !l.isGone(id, quipu.TagAll, r) {
			more = visit(p.seq, volume{1, int64(p.size)})
		}
		return more
	})
	if err != nil || !more {
		return err
	}
	return l.eachHeld(ctx, id, max(from, tagged+1), to, visit)
}

// eachRead visits the records of a stream in [from, to], also those that are gone while they have a place, until visit
// answers false. One that is damaged has no tags.
func (l *Log) eachRead(ctx context.Context, id quipu.Book, tag string, from, to quipu.Seq, visit func(posting, *quipu.Record) bool) error {
	var buf [chunkMax]posting
	for from <= to {
		found, _, err := l.find(ctx, "log.trim", id, tag, from, to, buf[:0], chunkMax, false)
		if err != nil || len(found) == 0 {
			return err
		}
		for _, p := range found {
			r, ok, err := l.load(p, id)
			if err != nil && quipu.CodeOf(err) != quipu.CodeCorrupt {
				return err
			}
			if !ok && err == nil {
				break // its segment was deleted in between: it is elsewhere, or gone
			}
			if from = p.seq + 1; !visit(p, &r) {
				return nil
			}
		}
	}
	return nil
}

// putGone saves what is gone. That there is an entry says that it was counted.
func (b *book) putGone(batch *pebble.Batch, id quipu.Book) error {
	key := be.AppendUint64([]byte{keyGone}, uint64(id))
	if b.uncounted {
		return batch.Delete(key, nil)
	}
	return batch.Set(key, be.AppendUint64(be.AppendUint64(nil, uint64(b.gone.records)), uint64(b.gone.bytes)), nil)
}

// loadGone reads what is gone of each book. In one that was trimmed by tag by an older version, that was not counted.
func (l *Log) loadGone() error {
	counted := map[quipu.Book]bool{}
	err := l.index().each([]byte{keyGone}, []byte{keyGone + 1}, func(key, value []byte) error {
		if len(key) != 9 || len(value) != 16 || l.state.books[quipu.Book(be.Uint64(key[1:]))] == nil {
			return errIndex
		}
		b := l.state.books[quipu.Book(be.Uint64(key[1:]))]
		b.gone, counted[b.id] = volume{int64(be.Uint64(value)), int64(be.Uint64(value[8:]))}, true
		return nil
	})
	for id, b := range l.state.books {
		b.uncounted = b.uncounted || !counted[id] && len(b.tagTrims) > 0
	}
	return err
}
