package locallog

import (
	"context"
	"fmt"
	"iter"

	"github.com/quipu-run/quipu"
)

// chunkMax is how many postings Range and Subscribe look up at once.
const chunkMax = 128

// enterRead lets a read use the index and the segments until it unlocks life.
func (l *Log) enterRead() error {
	l.life.RLock()
	l.mu.RLock()
	cause := l.cause
	l.mu.RUnlock()
	if cause != nil {
		l.life.RUnlock()
		return stopped(cause)
	}
	return nil
}

// Next implements quipu.Log.
func (l *Log) Next(ctx context.Context, id quipu.Book, tag string, from quipu.Seq) (quipu.Record, error) {
	var one [1]posting
	for {
		found, _, err := l.find(ctx, "log.next", id, tag, from, quipu.SeqMax, one[:0], 1, false)
		if err != nil {
			return quipu.Record{}, err
		}
		if len(found) == 0 {
			return quipu.Record{}, notFound("log.next", "there is no record from "+from.String()+" on")
		}
		r, ok, err := l.load(found[0], id)
		switch {
		case err != nil:
			return r, err
		case ok && !l.isGone(id, tag, &r):
			return r, nil
		case ok:
			from = r.Seq + 1
		}
		// If not ok, its segment was deleted in between: from is below the trim point now, or the record is elsewhere.
	}
}

// Prev implements quipu.Log.
func (l *Log) Prev(ctx context.Context, id quipu.Book, tag string, to quipu.Seq) (quipu.Record, error) {
	for {
		p, err := l.findLast(ctx, id, tag, to)
		if err != nil {
			return quipu.Record{}, err
		}
		r, ok, err := l.load(p, id)
		switch {
		case err != nil:
			return r, err
		case ok && !l.isGone(id, tag, &r):
			return r, nil
		case ok:
			to = r.Seq - 1
		}
	}
}

// Range implements quipu.Log.
func (l *Log) Range(ctx context.Context, id quipu.Book, tag string, from, to quipu.Seq) iter.Seq2[quipu.Record, error] {
	return func(yield func(quipu.Record, error) bool) {
		var buf [chunkMax]posting
		for from <= to {
			found, _, err := l.find(ctx, "log.range", id, tag, from, to, buf[:0], chunkMax, false)
			if err != nil {
				yield(quipu.Record{}, err)
				return
			}
			if len(found) == 0 {
				return
			}
			next, ok := l.yieldAll(found, id, tag, from, yield)
			if !ok || next < from {
				return
			}
			from = next
		}
	}
}

// Subscribe implements quipu.Log.
func (l *Log) Subscribe(ctx context.Context, id quipu.Book, tag string, from quipu.Seq) iter.Seq2[quipu.Record, error] {
	return func(yield func(quipu.Record, error) bool) {
		var buf [chunkMax]posting
		for {
			found, wait, err := l.find(ctx, "log.subscribe", id, tag, from, quipu.SeqMax, buf[:0], chunkMax, true)
			if err != nil {
				yield(quipu.Record{}, err)
				return
			}
			if len(found) == 0 {
				select {
				case <-wait:
				case <-l.done:
				case <-ctx.Done():
				}
				continue
			}
			var ok bool
			if from, ok = l.yieldAll(found, id, tag, from, yield); !ok {
				return
			}
		}
	}
}

// yieldAll loads and yields postings. It answers where to go on, and false if that is nowhere.
func (l *Log) yieldAll(found []posting, id quipu.Book, tag string, from quipu.Seq, yield func(quipu.Record, error) bool) (quipu.Seq, bool) {
	all := !l.hasGone(id, tag)
	for _, p := range found {
		r, ok, err := l.load(p, id)
		if !ok && err == nil {
			return from, true // deleted in between: looking again tells the trim point
		}
		from = p.seq + 1
		if err == nil && !all && l.isGone(id, tag, &r) {
			continue
		}
		if !yield(r, err) || err != nil {
			return from, false
		}
	}
	return from, true
}

// hasGone tells whether a stream may have records that are trimmed in all of their tags: only the book's own can.
func (l *Log) hasGone(id quipu.Book, tag string) bool {
	if tag != quipu.TagAll {
		return false
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	b := l.state.books[id]
	return b != nil && len(b.tagTrims) > 0
}

func (l *Log) isGone(id quipu.Book, tag string, r *quipu.Record) bool {
	if tag != quipu.TagAll || len(r.Tags) == 0 {
		return false
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	b := l.state.books[id]
	return b != nil && b.isGone(r.Seq, r.Tags)
}

// find answers up to max postings of a stream in [from, to]; none means that there are none. If wait is asked for
// and there are none, the channel closes at the book's next record.
func (l *Log) find(ctx context.Context, op string, id quipu.Book, tag string, from, to quipu.Seq, out []posting, max int, wait bool) ([]posting, <-chan struct{}, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if err := l.enterRead(); err != nil {
		return nil, nil, err
	}
	defer l.life.RUnlock()
	for {
		l.mu.RLock()
		saved := l.state.saved
		err := l.checkFloor(op, id, tag, from)
		l.mu.RUnlock()
		if err != nil {
			return nil, nil, err
		}
		out = out[:0]
		if from <= saved {
			if out, err = l.index().scan(id, tag, from, min(to, saved), out, max); err != nil || len(out) == max {
				return out, nil, err
			}
		}
		out, waiting, ok := l.findRecent(saved, id, tag, from, to, out, max, wait)
		if ok {
			return out, waiting, nil
		}
		// A checkpoint moved postings from memory to the index in between.
	}
}

// checkFloor answers why reads from seq are refused. l.mu is held.
func (l *Log) checkFloor(op string, id quipu.Book, tag string, from quipu.Seq) error {
	b, err := l.book(op, id)
	if err != nil {
		return err
	}
	if floor := b.floor(tag); floor > 0 && from <= floor {
		return trimmed(op, floor)
	}
	return nil
}

// findRecent adds what memory has, provided that it begins right after saved.
func (l *Log) findRecent(saved quipu.Seq, id quipu.Book, tag string, from, to quipu.Seq, out []posting, max int, wait bool) ([]posting, <-chan struct{}, bool) {
	l.mu.RLock()
	if l.state.saved != saved {
		l.mu.RUnlock()
		return out, nil, false
	}
	if l.state.frozen != nil {
		out = l.state.frozen.scan(id, tag, from, to, out, max)
	}
	out = l.state.open.scan(id, tag, from, to, out, max)
	var last quipu.Seq
	b := l.state.books[id]
	if b != nil {
		last = b.tail
	}
	l.mu.RUnlock()
	if len(out) > 0 || !wait {
		return out, nil, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if b = l.state.books[id]; b == nil || b.tail != last {
		return out, nil, false // look again rather than sleep over a record, or over a deletion
	}
	if b.waiting == nil {
		b.waiting = make(chan struct{})
	}
	return out, b.waiting, true
}

// findLast answers the newest visible posting of a stream with a seq <= to.
func (l *Log) findLast(ctx context.Context, id quipu.Book, tag string, to quipu.Seq) (posting, error) {
	if err := ctx.Err(); err != nil {
		return posting{}, err
	}
	if err := l.enterRead(); err != nil {
		return posting{}, err
	}
	defer l.life.RUnlock()
	l.mu.RLock()
	b, err := l.book("log.prev", id)
	if err != nil {
		l.mu.RUnlock()
		return posting{}, err
	}
	floor, saved := b.floor(tag), l.state.saved
	p, ok := l.state.memoryLast(id, tag, to)
	l.mu.RUnlock()
	if !ok && floor < saved {
		if p, ok, err = l.index().lastPlace(id, tag, floor, min(to, saved)); err != nil {
			return posting{}, err
		}
	}
	switch {
	case ok && p.seq > floor:
		return p, nil
	case floor > 0:
		return posting{}, trimmed("log.prev", floor)
	}
	return posting{}, notFound("log.prev", "there is no record up to "+to.String())
}

// load reads the record of a posting. False without an error says that its segment was deleted, or that it was moved: the
// caller looks again.
func (l *Log) load(p posting, id quipu.Book) (quipu.Record, bool, error) {
	if err := l.enterRead(); err != nil {
		return quipu.Record{}, false, err
	}
	defer l.life.RUnlock()
	l.mu.RLock()
	bytes, s := l.hot.find(p), l.segments[p.segment]
	if bytes == nil && s != nil {
		s.refs.Add(1)
	}
	l.mu.RUnlock()
	switch {
	case bytes != nil:
		l.counts.hot.Add(1)
		r, err := parseRecord(bytes, false)
		return r.public(), true, err
	case s == nil:
		return quipu.Record{}, false, l.checkGone(p, id)
	}
	l.counts.cold.Add(1)
	r, err := s.record(p, id)
	if e := s.release(); err == nil {
		err = e
	}
	return r, err == nil, err
}

// checkGone makes sure that a segment is missing because its records were trimmed or moved: then the index does not place
// them there any more.
func (l *Log) checkGone(p posting, id quipu.Book) error {
	l.mu.RLock()
	b := l.state.books[id]
	gone := b == nil || p.seq <= b.trim
	l.mu.RUnlock()
	if gone {
		return nil
	}
	now, err := l.index().posting(id, p.seq)
	if err != nil || now != p {
		return err
	}
	return corrupt(l.fs.PathJoin(l.dir, indexName), -1, fmt.Sprintf("it places record %s in segment %d, which is not there", p.seq, p.segment))
}

// record reads one record and checks that it is the one the posting means.
func (s *segment) record(p posting, id quipu.Book) (quipu.Record, error) {
	if int64(p.offset)+int64(p.size) > s.size {
		return quipu.Record{}, corrupt(s.path, int64(p.offset), "the index places a record there, beyond the end")
	}
	buf := make([]byte, p.size)
	if err := s.readAt(buf, int64(p.offset)); err != nil {
		return quipu.Record{}, err
	}
	r, err := parseRecord(buf, true)
	if err != nil || r.size != len(buf) || r.seq != p.seq || r.book != id {
		return quipu.Record{}, corrupt(s.path, int64(p.offset), fmt.Sprintf("record %s is not what was written", p.seq))
	}
	return r.public(), nil
}

// SetAux implements quipu.Log. Hints live in memory; the least recently used go first.
func (l *Log) SetAux(_ context.Context, id quipu.Book, seq quipu.Seq, aux []byte) error {
	l.mu.RLock()
	_, err := l.book("log.setaux", id)
	l.mu.RUnlock()
	if err == nil {
		l.aux.set(auxKey{id, seq}, aux)
	}
	return err
}

// Aux implements quipu.Log.
func (l *Log) Aux(_ context.Context, id quipu.Book, seq quipu.Seq) ([]byte, error) {
	l.mu.RLock()
	_, err := l.book("log.aux", id)
	l.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	if aux, ok := l.aux.get(auxKey{id, seq}); ok {
		return aux, nil
	}
	return nil, notFound("log.aux", "there is no hint for "+seq.String())
}
