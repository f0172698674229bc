package ledger

import (
	"context"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/quipu-run/quipu"
)

// Entry is one entry of a ledger. Data is shared with caches: it must not be changed.
type Entry struct {
	ID   int64
	Time time.Time // when the log took it
	Data []byte
}

// foreignMax bounds how many records that are not entries may follow the last entry: a fence, a seal, and what somebody
// put into the book who should not have.
const foreignMax = 1000

// Reader reads a ledger. Its methods may be called concurrently; it holds nothing that must be closed.
type Reader struct {
	log  quipu.Log
	book quipu.Book
	name string
}

// Info tells how the ledger stands; Bytes is not set.
func (r *Reader) Info(ctx context.Context) (Info, error) {
	last, closed, err := r.seal(ctx)
	if err == nil && !closed {
		last, err = r.newest(ctx, quipu.SeqMax)
	}
	if err != nil {
		return Info{}, fmt.Errorf("look at ledger %s: %w", r.name, err)
	}
	return Info{Name: r.name, Last: last, Closed: closed}, nil
}

// LastConfirmed is the newest entry that can be read, None if there is none. All entries up to it are durable.
func (r *Reader) LastConfirmed(ctx context.Context) (int64, error) {
	info, err := r.Info(ctx)
	return info.Last, err
}

// seal tells whether the ledger is closed, and then its last entry.
func (r *Reader) seal(ctx context.Context) (last int64, closed bool, err error) {
	rec, err := r.log.Next(ctx, r.book, sealTag, 0)
	if quipu.CodeOf(err) == quipu.CodeNotFound {
		return None, false, nil
	}
	if err != nil {
		return None, false, err
	}
	n, err := number(rec)
	return n - 1, err == nil, err
}

// newest is the last entry up to a seq.
func (r *Reader) newest(ctx context.Context, upto quipu.Seq) (int64, error) {
	for range foreignMax {
		rec, err := r.log.Prev(ctx, r.book, quipu.TagAll, upto)
		if quipu.CodeOf(err) == quipu.CodeNotFound {
			return None, nil
		}
		if err != nil {
			return None, err
		}
		if rec.Version == versionEntry {
			return number(rec)
		}
		upto = rec.Seq - 1
	}
	return None, &quipu.Error{Code: quipu.CodeCorrupt, Op: "ledger.read", Text: fmt.Sprintf("the book of ledger %s has %d records after its last entry that are none", r.name, foreignMax)}
}

// Read yields the entries from first to last. An error, if any, comes last: CodeNotFound if the ledger ends, or so far
// ends, before last; CodeUsage if first is below 0; CodeNoBook if the ledger was deleted.
func (r *Reader) Read(ctx context.Context, first, last int64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if first > last {
			return
		}
		if first < 0 {
			yield(Entry{}, &quipu.Error{Code: quipu.CodeUsage, Op: "ledger.read", Text: fmt.Sprintf("entry %d: ids start at 0", first)})
			return
		}
		from, err := r.log.Next(ctx, r.book, indexTag(first), 0)
		if err == nil {
			records := r.log.Range(ctx, r.book, quipu.TagAll, from.Seq, quipu.SeqMax)
			if r.yield(records, first, last, yield) {
				return
			}
		}
		if err == nil || quipu.CodeOf(err) == quipu.CodeNotFound {
			err = &quipu.Error{Code: quipu.CodeNotFound, Op: "ledger.read", Text: fmt.Sprintf("ledger %s has no entry %d", r.name, last),
				Hint: "LastConfirmed tells the newest"}
		}
		yield(Entry{}, err)
	}
}

// yield yields the entries from first to last. It answers whether the loop is over: at last, at the seal, by an error, or
// because the caller has enough; not if the records end before.
func (r *Reader) yield(records iter.Seq2[quipu.Record, error], first, last int64, yield func(Entry, error) bool) (over bool) {
	next := int64(None)
	for rec, err := range records {
		var id int64
		if err == nil && rec.Version != versionEntry {
			if rec.Version == versionSeal {
				return false
			}
			continue
		}
		if err == nil {
			id, err = number(rec)
		}
		if err == nil && next != None && id != next {
			err = &quipu.Error{Code: quipu.CodeCorrupt, Op: "ledger.read", Seq: rec.Seq, Text: fmt.Sprintf("ledger %s has entry %d where %d belongs", r.name, id, next)}
		}
		if err != nil {
			yield(Entry{}, fmt.Errorf("read ledger %s: %w", r.name, err))
			return true
		}
		if next = id + 1; id < first {
			continue
		}
		if !yield(Entry{ID: id, Time: time.Unix(0, rec.Stamp), Data: rec.Data[idBytes:]}, nil) || id == last {
			return true
		}
	}
	return false
}

// Follow yields the entries from first on, waits for more, and ends after the last entry of a closed ledger. It ends with
// ctx too, yielding ctx's error. An error, if any, comes last. A ledger whose writer is gone stays open until
// somebody opens it; until then Follow waits.
func (r *Reader) Follow(ctx context.Context, first int64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		from, over, err := r.place(ctx, max(first, 0))
		if err != nil {
			yield(Entry{}, fmt.Errorf("follow ledger %s: %w", r.name, err))
		}
		if over || err != nil {
			return
		}
		records := r.log.Subscribe(ctx, r.book, quipu.TagAll, from)
		r.yield(records, max(first, 0), math.MaxInt64, yield)
	}
}

// place is where an entry will be found, now or later; over tells that it never will. The order of the three questions
// matters: a seal that is not seen comes after the tail.
func (r *Reader) place(ctx context.Context, id int64) (from quipu.Seq, over bool, err error) {
	tail, err := r.log.Tail(ctx, r.book, quipu.Local)
	if err != nil {
		return 0, false, err
	}
	_, closed, err := r.seal(ctx)
	if err != nil {
		return 0, false, err
	}
	rec, err := r.log.Next(ctx, r.book, indexTag(id), 0)
	if quipu.CodeOf(err) == quipu.CodeNotFound {
		return tail + 1, closed, nil
	}
	return rec.Seq, false, err
}
