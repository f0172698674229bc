// Package resolve judges records in log order. It is the idea of FoundationDB's resolvers: a
// transaction carries what it read and at which seq, and it loses if a later committed record of its book
// wrote any of that. Given the same records in the same order it gives the same verdicts, on every
// node and on every replay; it reads no clock, no disk and no network of its own.
//
// A Window remembers the newest write of each conflict key. Writes are kept in generations: the newest
// collects, older ones were sealed at a checkpoint of the log's index and may be forgotten once they are
// saved there. A transaction whose snapshot is older than what memory holds is judged with the help of
// Older, which the index implements. Snapshots further behind than quipu.ConflictWindow positions are
// refused, so that saved generations can be dropped too.
package resolve

import (
	"slices"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/tidwall/btree"
)

// keyOverhead is an estimate of what a key costs beyond its bytes.
const keyOverhead = 64

// Outcome is what became of a record.
type Outcome uint8

// Outcomes. All but Won make the record void.
const (
	Won      Outcome = iota
	Conflict         // something it depends on changed
	TooOld           // its snapshot is behind the window, or not in the past at all
)

// Verdict is an outcome, and for Conflict the newest record that caused it; 0 if time did.
type Verdict struct {
	Outcome Outcome
	Winner  quipu.Seq
}

// Older answers for generations that memory has forgotten: the newest write after a seq, 0 for none.
type Older interface {
	NewestWrite(book quipu.Book, key string, after quipu.Seq) (quipu.Seq, error)
	NewestWriteIn(book quipu.Book, span quipu.KeyRange, after quipu.Seq) (quipu.Seq, error)
}

// Generation holds the newest write of each key between two checkpoints. Sealed, it never changes.
type Generation struct {
	last  quipu.Seq // applied when it was sealed
	saved bool
	bytes int
	books map[quipu.Book]*btree.Map[string, quipu.Seq]
}

// Last is the seq up to which the generation knows all writes.
func (g *Generation) Last() quipu.Seq { return g.last }

// Bytes estimates the memory it takes.
func (g *Generation) Bytes() int { return g.bytes }

// Each visits every write of a sealed generation, keys in order within a book, until visit fails.
func (g *Generation) Each(visit func(book quipu.Book, key string, seq quipu.Seq) error) error {
	var err error
	for book, keys := range g.books {
		keys.Scan(func(key string, seq quipu.Seq) bool {
			err = visit(book, key, seq)
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Window judges. It is not safe for concurrent use; sealed generations may be read meanwhile.
type Window struct {
	older    Older
	floor    quipu.Seq     // memory knows all writes after it
	sealed   []*Generation // oldest first
	open     *Generation
	bytesMax int // of saved generations
}

// NewWindow makes a window that knows writes after floor once they are recorded, and asks older
// for the rest. Saved generations are forgotten, oldest first, when they hold more than bytesMax.
func NewWindow(floor quipu.Seq, older Older, bytesMax int) *Window {
	return &Window{floor: floor, older: older, bytesMax: bytesMax, open: newGeneration()}
}

// Judge answers what becomes of tx as the record seq of book, stamped stamp. Its error is Older's.
func (w *Window) Judge(book quipu.Book, seq quipu.Seq, stamp int64, tx *quipu.Tx) (Verdict, error) {
	if len(tx.Reads)+len(tx.Ranges)+len(tx.Later) > 0 {
		if tooOld(tx, seq) {
			return Verdict{Outcome: TooOld}, nil
		}
		winner, err := w.newest(book, tx)
		if winner > 0 || err != nil {
			return Verdict{Conflict, winner}, err
		}
	}
	if tx.NotAfter != 0 && stamp >= tx.NotAfter {
		return Verdict{Outcome: Conflict}, nil
	}
	return Verdict{}, nil
}

// tooOld tells whether something was read at a time that cannot be judged, or that has not been yet.
func tooOld(tx *quipu.Tx, seq quipu.Seq) bool {
	bad := func(at quipu.Seq) bool { return at >= seq || at.Pos()+quipu.ConflictWindow < seq.Pos() }
	return len(tx.Reads)+len(tx.Ranges) > 0 && bad(tx.Snapshot) ||
		slices.ContainsFunc(tx.Later, func(l quipu.LaterRead) bool { return bad(l.At) })
}

// JudgeCond answers what becomes of a record with cond when newest is the last of the tag that counts.
func JudgeCond(cond quipu.Cond, newest quipu.Seq) Verdict {
	if cond.Last != newest {
		return Verdict{Conflict, newest}
	}
	return Verdict{}
}

// Record notes the writes of a committed transaction. Keys may share memory with a buffer: they are copied.
func (w *Window) Record(book quipu.Book, seq quipu.Seq, writes []string) {
	if len(writes) == 0 {
		return
	}
	keys := w.open.books[book]
	if keys == nil {
		keys = new(btree.Map[string, quipu.Seq])
		w.open.books[book] = keys
	}
	for _, key := range writes {
		if _, again := keys.Set(strings.Clone(key), seq); !again {
			w.open.bytes += len(key) + keyOverhead
		}
	}
}

// OpenBytes estimates the memory of what was recorded since the last Seal.
func (w *Window) OpenBytes() int { return w.open.bytes }

// Seal ends the open generation at applied, the last seq judged, and answers it for saving.
func (w *Window) Seal(applied quipu.Seq) *Generation {
	g := w.open
	g.last = applied
	w.sealed = append(w.sealed, g)
	w.open = newGeneration()
	return g
}

// Saved says that Older knows g from now on. applied is the last seq judged.
func (w *Window) Saved(g *Generation, applied quipu.Seq) {
	g.saved = true
	bytes := 0
	for _, s := range w.sealed {
		bytes += s.bytes
	}
	for len(w.sealed) > 0 && w.sealed[0].saved && (bytes > w.bytesMax || Expired(w.sealed[0].last, applied)) {
		bytes -= w.sealed[0].bytes
		w.floor = w.sealed[0].last
		w.sealed = w.sealed[1:]
	}
}

// Expired tells whether writes up to last can matter to no record after applied.
func Expired(last, applied quipu.Seq) bool {
	return last.Pos()+quipu.ConflictWindow <= applied.Pos()
}

// newest is the last write after tx's snapshot of something that tx read.
func (w *Window) newest(book quipu.Book, tx *quipu.Tx) (quipu.Seq, error) {
	var newest quipu.Seq
	for _, key := range tx.Reads {
		seq, err := w.newestKey(book, key, tx.Snapshot)
		if err != nil {
			return 0, err
		}
		newest = max(newest, seq)
	}
	for _, l := range tx.Later {
		seq, err := w.newestKey(book, l.Key, l.At)
		if err != nil {
			return 0, err
		}
		newest = max(newest, seq)
	}
	for _, span := range tx.Ranges {
		seq, err := w.newestIn(book, span, tx.Snapshot)
		if err != nil {
			return 0, err
		}
		newest = max(newest, seq)
	}
	return newest, nil
}

// newestKey goes from the newest generation back: the first that knows the key has its last write.
func (w *Window) newestKey(book quipu.Book, key string, after quipu.Seq) (quipu.Seq, error) {
	for i := len(w.sealed); i >= 0; i-- {
		g := w.generation(i)
		if i < len(w.sealed) && g.last <= after {
			return 0, nil
		}
		if keys := g.books[book]; keys != nil {
			if seq, ok := keys.Get(key); ok {
				return above(seq, after), nil
			}
		}
	}
	if after >= w.floor {
		return 0, nil
	}
	return w.older.NewestWrite(book, key, after)
}

func (w *Window) newestIn(book quipu.Book, span quipu.KeyRange, after quipu.Seq) (quipu.Seq, error) {
	var newest quipu.Seq
	for i := len(w.sealed); i >= 0; i-- {
		g := w.generation(i)
		if i < len(w.sealed) && g.last <= after {
			return newest, nil
		}
		if keys := g.books[book]; keys != nil {
			keys.Ascend(span.From, func(key string, seq quipu.Seq) bool {
				if !span.Contains(key) {
					return false
				}
				newest = max(newest, above(seq, after))
				return true
			})
		}
	}
	if newest > 0 || after >= w.floor {
		return newest, nil
	}
	return w.older.NewestWriteIn(book, span, after)
}

// generation i is a sealed one, or the open one after them.
func (w *Window) generation(i int) *Generation {
	if i == len(w.sealed) {
		return w.open
	}
	return w.sealed[i]
}

func above(seq, after quipu.Seq) quipu.Seq {
	if seq > after {
		return seq
	}
	return 0
}

func newGeneration() *Generation {
	return &Generation{books: map[quipu.Book]*btree.Map[string, quipu.Seq]{}}
}
