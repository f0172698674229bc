package resolve

import (
	"errors"
	"fmt"
	"testing"

	"github.com/quipu-run/quipu"
	"pgregory.net/rapid"
)

// savedWrites is an Older that remembers whole generations, as the index on disk does.
type savedWrites struct{ gens []*Generation }

func (s *savedWrites) NewestWrite(book quipu.Book, key string, after quipu.Seq) (quipu.Seq, error) {
	return s.NewestWriteIn(book, quipu.KeyRange{From: key, To: key + "\x00"}, after)
}

func (s *savedWrites) NewestWriteIn(book quipu.Book, span quipu.KeyRange, after quipu.Seq) (quipu.Seq, error) {
	var newest quipu.Seq
	for _, g := range s.gens {
		if err := g.Each(func(b quipu.Book, key string, seq quipu.Seq) error {
			if b == book && span.Contains(key) && seq > after {
				newest = max(newest, seq)
			}
			return nil
		}); err != nil {
			return 0, err
		}
	}
	return newest, nil
}

type write struct {
	book quipu.Book
	key  string
	seq  quipu.Seq
}

// naive looks at every write there ever was.
func naive(all []write, book quipu.Book, tx quipu.Tx) quipu.Seq {
	var newest quipu.Seq
	for _, w := range all {
		if w.book != book {
			continue
		}
		for _, l := range tx.Later {
			if l.Key == w.key && w.seq > l.At {
				newest = max(newest, w.seq)
			}
		}
		if w.seq <= tx.Snapshot {
			continue
		}
		for _, key := range tx.Reads {
			if key == w.key {
				newest = max(newest, w.seq)
			}
		}
		for _, span := range tx.Ranges {
			if span.Contains(w.key) {
				newest = max(newest, w.seq)
			}
		}
	}
	return newest
}

func TestVerdictsEqualThoseOfLookingAtEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		saved := &savedWrites{}
		w := NewWindow(0, saved, rapid.IntRange(0, 400).Draw(t, "bytesMax"))
		key := rapid.Custom(func(t *rapid.T) string { return fmt.Sprint("k", rapid.IntRange(0, 20).Draw(t, "n")) })
		var all []write
		var unsaved []*Generation
		for seq := quipu.Seq(1); seq < 60; seq++ {
			switch rapid.IntRange(0, 5).Draw(t, "do") {
			case 0:
				unsaved = append(unsaved, w.Seal(seq-1))
			case 1:
				if len(unsaved) > 0 {
					saved.gens = append(saved.gens, unsaved[0])
					w.Saved(unsaved[0], seq-1)
					unsaved = unsaved[1:]
				}
			}
			book := quipu.Book(rapid.IntRange(1, 2).Draw(t, "book"))
			tx := quipu.Tx{
				Snapshot: quipu.Seq(rapid.IntRange(0, int(seq)-1).Draw(t, "snapshot")),
				Reads:    rapid.SliceOfN(key, 0, 2).Draw(t, "reads"),
				Writes:   rapid.SliceOfN(key, 0, 3).Draw(t, "writes"),
			}
			if rapid.Bool().Draw(t, "lists") {
				tx.Ranges = []quipu.KeyRange{{From: key.Draw(t, "from"), To: rapid.SampledFrom([]string{"", "k15", "k7"}).Draw(t, "to")}}
			}
			if rapid.Bool().Draw(t, "later") {
				tx.Later = []quipu.LaterRead{{Key: key.Draw(t, "laterKey"), At: quipu.Seq(rapid.IntRange(0, int(seq)-1).Draw(t, "at"))}}
			}
			v, err := w.Judge(book, seq, 0, &tx)
			want := naive(all, book, tx)
			if err != nil || v.Winner != want || (v.Outcome == Conflict) != (want > 0) {
				t.Fatalf("seq %d: got %+v, %v, want winner %d for %+v", seq, v, err, want, tx)
			}
			if v.Outcome == Won {
				w.Record(book, seq, tx.Writes)
				for _, k := range tx.Writes {
					all = append(all, write{book, k, seq})
				}
			}
		}
	})
}

func TestASnapshotBehindTheWindowOrInTheFutureIsRefused(t *testing.T) {
	w := NewWindow(0, nil, 0)
	for _, c := range []struct {
		snapshot, seq uint64
		want          Outcome
	}{
		{10, 10 + quipu.ConflictWindow, Won},
		{10, 11 + quipu.ConflictWindow, TooOld},
		{10, 10, TooOld},
		{11, 10, TooOld},
	} {
		tx := quipu.Tx{Snapshot: quipu.MakeSeq(1, c.snapshot), Reads: []string{"k"}}
		w.floor = 0
		w.older = &savedWrites{}
		v, err := w.Judge(1, quipu.MakeSeq(1, c.seq), 0, &tx)
		if err != nil || v.Outcome != c.want {
			t.Errorf("snapshot %d at %d: got %+v, %v, want %d", c.snapshot, c.seq, v, err, c.want)
		}
	}
}

func TestATransactionThatReadNothingNeverLosesToAnother(t *testing.T) {
	w := NewWindow(0, nil, 0)
	w.Record(1, 5, []string{"k"})
	v, err := w.Judge(1, 6, 0, &quipu.Tx{Writes: []string{"k"}})
	if err != nil || v.Outcome != Won {
		t.Fatalf("got %+v, %v", v, err)
	}
}

func TestARecordStampedAtOrAfterItsLimitIsVoid(t *testing.T) {
	w := NewWindow(0, nil, 0)
	for stamp, want := range map[int64]Outcome{99: Won, 100: Conflict, 101: Conflict} {
		v, err := w.Judge(1, 6, stamp, &quipu.Tx{NotAfter: 100})
		if err != nil || v.Outcome != want || v.Winner != 0 {
			t.Errorf("stamp %d: got %+v, %v", stamp, v, err)
		}
	}
}

type broken struct{ err error }

func (b broken) NewestWrite(quipu.Book, string, quipu.Seq) (quipu.Seq, error) { return 0, b.err }
func (b broken) NewestWriteIn(quipu.Book, quipu.KeyRange, quipu.Seq) (quipu.Seq, error) {
	return 0, b.err
}

func TestAFailedLookupIsNoVerdict(t *testing.T) {
	want := errors.New("disk")
	w := NewWindow(50, broken{want}, 0)
	for _, tx := range []quipu.Tx{{Snapshot: 10, Reads: []string{"k"}}, {Snapshot: 10, Ranges: []quipu.KeyRange{{}}}} {
		if _, err := w.Judge(1, 60, 0, &tx); !errors.Is(err, want) {
			t.Errorf("got %v", err)
		}
	}
	recent := quipu.Tx{Snapshot: 50, Reads: []string{"k"}}
	if v, err := w.Judge(1, 60, 0, &recent); err != nil || v.Outcome != Won {
		t.Errorf("a snapshot that memory covers asked the disk: %+v, %v", v, err)
	}
}

func TestTheWindowForgetsOnlyWhatIsSaved(t *testing.T) {
	w := NewWindow(0, &savedWrites{}, 100)
	var gens []*Generation
	for seq := quipu.Seq(1); seq <= 20; seq++ {
		w.Record(1, seq, []string{fmt.Sprintf("a key of some length %d", seq)})
		gens = append(gens, w.Seal(seq))
	}
	if len(w.sealed) != 20 {
		t.Fatalf("%d generations in memory before any was saved", len(w.sealed))
	}
	for _, g := range gens {
		w.Saved(g, 20)
	}
	if len(w.sealed) != 1 || w.floor != 19 {
		t.Fatalf("%d generations left above %d, want 1 above 19", len(w.sealed), w.floor)
	}
}
