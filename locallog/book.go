package locallog

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
)

// CreateBook implements quipu.Log.
func (l *Log) CreateBook(ctx context.Context, name string, o quipu.BookOptions) (quipu.Book, error) {
	if !quipu.ValidBookName(name) {
		return 0, usage("log.create", fmt.Sprintf("a book's name has 1 to %d bytes of UTF-8, without control characters", quipu.BookNameMax))
	}
	if err := o.Check(); err != nil {
		return 0, err
	}
	exists := &quipu.Error{Code: quipu.CodeBookExists, Op: "log.create", Text: fmt.Sprintf("there is a book %q already", name)}
	if _, err := l.OpenBook(ctx, name); err == nil {
		return 0, exists
	} else if quipu.CodeOf(err) != quipu.CodeNoBook {
		return 0, err
	}
	res, err := l.appendSystem(ctx, append(appendOptions([]byte{systemCreate}, o), name...))
	switch {
	case err != nil:
		return 0, err
	case res.code == quipu.CodeBookExists:
		return 0, exists
	case res.code == quipu.CodeOverloaded:
		return 0, &quipu.Error{Code: res.code, Op: "log.create", Text: fmt.Sprintf("there are %d books already", quipu.BooksMax), Hint: "delete some"}
	case res.code != "":
		return 0, res.err()
	}
	return l.OpenBook(ctx, name)
}

// SetBook implements quipu.Log.
func (l *Log) SetBook(ctx context.Context, id quipu.Book, o quipu.BookOptions) error {
	if err := o.Check(); err != nil {
		return err
	}
	return l.changeBook(ctx, "log.set", id, appendOptions(le.AppendUint64([]byte{systemSet}, uint64(id)), o))
}

// DeleteBook implements quipu.Log.
func (l *Log) DeleteBook(ctx context.Context, id quipu.Book) error {
	return l.changeBook(ctx, "log.delete", id, le.AppendUint64([]byte{systemDelete}, uint64(id)))
}

// changeBook adds a record of the log's own about a book that is there.
func (l *Log) changeBook(ctx context.Context, op string, id quipu.Book, data []byte) error {
	l.mu.RLock()
	_, err := l.book(op, id)
	l.mu.RUnlock()
	if err != nil {
		return err
	}
	res, err := l.appendSystem(ctx, data)
	switch {
	case err != nil:
		return err
	case res.code == quipu.CodeNoBook:
		return noBook(op, id) // it was deleted in between
	}
	return res.err()
}

// OpenBook implements quipu.Log.
func (l *Log) OpenBook(_ context.Context, name string) (quipu.Book, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.cause != nil {
		return 0, stopped(l.cause)
	}
	if b := l.state.names[name]; b != nil {
		return b.id, nil
	}
	return 0, &quipu.Error{Code: quipu.CodeNoBook, Op: "log.open", Text: fmt.Sprintf("there is no book %q", name)}
}

// Books implements quipu.Log.
func (l *Log) Books(context.Context) ([]quipu.BookInfo, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.cause != nil {
		return nil, stopped(l.cause)
	}
	infos := make([]quipu.BookInfo, 0, len(l.state.books))
	for _, b := range l.state.books {
		infos = append(infos, b.info())
	}
	slices.SortFunc(infos, func(a, b quipu.BookInfo) int { return strings.Compare(a.Name, b.Name) })
	return infos, nil
}

func (b *book) info() quipu.BookInfo {
	held := b.held()
	return quipu.BookInfo{Name: b.name, ID: b.id, Tail: b.tail, Trim: b.trim, Records: held.records, Bytes: held.bytes, Options: b.options}
}

// Producer implements quipu.Log.
func (l *Log) Producer(_ context.Context, id quipu.Book, producer uint64) (quipu.Producer, error) {
	if err := l.enterRead(); err != nil {
		return quipu.Producer{}, err
	}
	defer l.life.RUnlock()
	l.mu.RLock()
	defer l.mu.RUnlock()
	if _, err := l.book("log.producer", id); err != nil {
		return quipu.Producer{}, err
	}
	p, err := l.state.producer(producerKey{id, producer})
	out := quipu.Producer{ID: producer}
	if p != nil {
		out.Epoch, out.N = p.epoch, p.outcomes[len(p.outcomes)-1].n
	}
	return out, err
}

// Trim implements quipu.Log. Trims go one at a time, so that what one takes away is counted once.
func (l *Log) Trim(ctx context.Context, id quipu.Book, tag string, upto quipu.Seq) error {
	if len(tag) > quipu.TagBytesMax {
		return usage("log.trim", fmt.Sprintf("a tag has at most %d bytes", quipu.TagBytesMax))
	}
	l.trimMu.Lock()
	defer l.trimMu.Unlock()
	l.mu.RLock()
	b, err := l.book("log.trim", id)
	var tail quipu.Seq
	var c tally
	if err == nil {
		tail, c = b.tail, tally{floor: b.floor(tag), tagged: b.goneUpto(), below: b.below, gone: b.gone}
	}
	l.mu.RUnlock()
	switch {
	case err != nil:
		return err
	case upto > tail:
		return usage("log.trim", fmt.Sprintf("%s is above the tail of the book, %s", upto, tail))
	case upto <= c.floor:
		return nil
	}
	if err := l.countTrim(ctx, id, tag, upto, &c); err != nil {
		return err
	}
	data := le.AppendUint64(le.AppendUint64([]byte{systemTrim}, uint64(id)), uint64(upto))
	for _, v := range []volume{c.below, c.gone} {
		data = le.AppendUint64(le.AppendUint64(data, uint64(v.records)), uint64(v.bytes))
	}
	// Begun, it is seen through whoever gives up: the next trim goes on counting from what this one leaves.
	return l.changeBook(context.WithoutCancel(ctx), "log.trim", id, append(data, tag...))
}

// volumeOf counts what a book holds in [from, to].
func (l *Log) volumeOf(ctx context.Context, id quipu.Book, from, to quipu.Seq) (v volume, err error) {
	err = l.eachHeld(ctx, id, from, to, func(_ quipu.Seq, held volume) bool {
		v.add(held.records, held.bytes)
		return true
	})
	return v, err
}

// eachHeld visits the visible records of a book in [from, to] in order, those that are trimmed in all their tags too, until
// visit answers false. Many of the latter may come as one, with the seq of the last.
func (l *Log) eachHeld(ctx context.Context, id quipu.Book, from, to quipu.Seq, visit func(quipu.Seq, volume) bool) error {
	for {
		next, err := l.eachHeldSaved(id, from, to, visit)
		if err != nil || next > to {
			return err
		}
		// Again if a checkpoint moved postings from memory to the index in between.
		if done := l.eachHeldRecent(id, next, to, visit); done {
			return nil
		}
		if from = next; ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// eachHeldSaved visits what the index has, and answers where memory goes on; SeqMax and no record if visit ended it.
func (l *Log) eachHeldSaved(id quipu.Book, from, to quipu.Seq, visit func(quipu.Seq, volume) bool) (next quipu.Seq, err error) {
	if err := l.enterRead(); err != nil {
		return 0, err
	}
	defer l.life.RUnlock()
	l.mu.RLock()
	saved := l.state.saved
	l.mu.RUnlock()
	if next = max(from, saved+1); from > saved {
		return next, nil
	}
	for end := min(to, saved); from <= end; {
		found, err := l.index().held(id, from, end)
		if err != nil {
			return 0, err
		}
		for _, h := range found {
			if !visit(h.seq, h.volume) {
				return quipu.SeqMax, nil
			}
		}
		if len(found) < heldMax {
			break
		}
		from = found[len(found)-1].seq + 1
	}
	return next, nil
}

// heldMax is how many postings are read at once when a book's content is counted.
const heldMax = 4096

// heldAt is what the index has of a book at a seq: a record, or many that are trimmed in all their tags.
type heldAt struct {
	seq quipu.Seq
	volume
}

// held answers the first heldMax of a book in [from, to].
func (x *index) held(id quipu.Book, from, to quipu.Seq) ([]heldAt, error) {
	var found []heldAt
	err := x.eachIn(id, quipu.TagAll, from, to, func(p posting) bool {
		found = append(found, heldAt{p.seq, p.held()})
		return len(found) < heldMax
	})
	return found, err
}

// eachHeldRecent visits what memory has. It answers false, and visits nothing, if memory does not begin at from any more.
func (l *Log) eachHeldRecent(id quipu.Book, from, to quipu.Seq, visit func(quipu.Seq, volume) bool) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.state.saved >= from {
		return false
	}
	for _, g := range []*generation{l.state.frozen, l.state.open} {
		if g == nil {
			continue
		}
		if s := g.stream(id, quipu.TagAll); s != nil {
			for _, p := range s.postings[s.from(from):] {
				if p.seq > to || !visit(p.seq, p.held()) {
					return true
				}
			}
		}
	}
	return true
}

const optionsBytes = 24

// appendOptions encodes the options of a book: age in nanoseconds, bytes, quota.
func appendOptions(b []byte, o quipu.BookOptions) []byte {
	b = le.AppendUint64(b, uint64(o.MaxAge))
	b = le.AppendUint64(b, uint64(o.MaxBytes))
	return le.AppendUint64(b, uint64(o.Quota))
}

// parseOptions reads what appendOptions wrote.
func parseOptions(b []byte) quipu.BookOptions {
	return quipu.BookOptions{MaxAge: time.Duration(le.Uint64(b)), MaxBytes: int64(le.Uint64(b[8:])), Quota: int64(le.Uint64(b[16:]))}
}
