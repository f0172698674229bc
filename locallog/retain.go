package locallog

import (
	"context"
	"fmt"

	"github.com/quipu-run/quipu"
)

// retainAll trims books to what their options ask for, until the log ends. A trim of retention is one like any other: in the
// log, durable, told to readers.
func (l *Log) retainAll() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for {
		select {
		case <-l.done:
			return
		case <-l.opts.Clock.After(l.opts.RetainEvery):
		}
		for _, id := range l.bounded() {
			err := l.retain(ctx, id)
			switch quipu.CodeOf(err) {
			case quipu.CodeLogStopped, quipu.CodeUnknown:
				return
			}
			if err != nil {
				l.counts.retentionFailures.Add(1)
				l.opts.Logger.Warn("retention of a book failed, and is tried again", "book", id, "err", err)
			}
		}
	}
}

// bounded are the books with a retention.
func (l *Log) bounded() (ids []quipu.Book) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for id, b := range l.state.books {
		if b.options.MaxAge > 0 || b.options.MaxBytes > 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

// retain trims one book. One that was deleted meanwhile needs nothing.
func (l *Log) retain(ctx context.Context, id quipu.Book) error {
	l.mu.RLock()
	b := l.state.books[id]
	if b == nil {
		l.mu.RUnlock()
		return nil
	}
	o, trim, held, tail, tagged := b.options, b.trim, b.held(), b.tail, quipu.Seq(0)
	if b.gone != (volume{}) {
		tagged = b.goneUpto()
	}
	l.mu.RUnlock()
	upto := trim
	if o.MaxBytes > 0 && held.bytes > o.MaxBytes {
		err := l.eachLive(ctx, id, trim+1, tail, tagged, func(seq quipu.Seq, v volume) bool {
			upto, held.bytes = seq, held.bytes-v.bytes
			return held.bytes > o.MaxBytes
		})
		if err != nil {
			return unlessDeleted(fmt.Errorf("look for the oldest records: %w", err))
		}
	}
	if o.MaxAge > 0 {
		old, err := l.newestUntil(ctx, id, upto, tail, l.opts.Clock.Now().Add(-o.MaxAge).UnixNano())
		if err != nil {
			return unlessDeleted(fmt.Errorf("look for old records: %w", err))
		}
		upto = max(upto, old)
	}
	if upto == trim {
		return nil
	}
	return unlessDeleted(l.Trim(ctx, id, quipu.TagAll, upto))
}

// unlessDeleted is err, but that of a book that was deleted, or trimmed further, in between.
func unlessDeleted(err error) error {
	switch quipu.CodeOf(err) {
	case quipu.CodeNoBook, quipu.CodeTrimmed:
		return nil
	}
	return err
}

// newestUntil is the newest visible record in (from, to] whose stamp is not above the given one; 0 if there is none. Stamps
// do not fall, so it halves the seqs and reads one record for each half.
func (l *Log) newestUntil(ctx context.Context, id quipu.Book, from, to quipu.Seq, stamp int64) (newest quipu.Seq, err error) {
	for from < to {
		mid := from + (to-from+1)/2
		p, err := l.findLast(ctx, id, quipu.TagAll, mid)
		code := quipu.CodeOf(err)
		if err != nil && code != quipu.CodeNotFound && code != quipu.CodeTrimmed {
			return 0, err
		}
		if err != nil || p.seq <= from {
			from = mid // there is none in between
			continue
		}
		r, ok, err := l.load(p, id)
		switch {
		case err != nil:
			return 0, err
		case !ok:
			return newest, nil // its segment was deleted meanwhile: somebody trims this book
		case r.Stamp <= stamp:
			from, newest = mid, p.seq
		default:
			to = p.seq - 1
		}
	}
	return newest, nil
}
