package view

import (
	"github.com/quipu-run/quipu"
	"github.com/tidwall/btree"
)

// flight is a transaction on its way to the log: what it will have written if it wins. A transaction in line behind it may read that
// already, so that functions run while the commit before them is synced. What it reads so it names with the record that wrote it
// (quipu.LaterRead), and it goes to the log only when that record has won: if that one loses, it loses.
type flight struct {
	writes *btree.Map[string, []byte] // by conflict key; nil is deleted. It does not change any more.
	done   chan struct{}              // closed when the two below are set
	seq    quipu.Seq
	err    error
}

func newFlight(writes *btree.Map[string, []byte]) *flight {
	return &flight{writes: writes, done: make(chan struct{})}
}

// landed says what the log made of it.
func (f *flight) landed(seq quipu.Seq, err error) {
	f.seq, f.err = seq, err
	close(f.done)
}

// Eager has the transaction, if its first read has to wait in line, read what those before it are about to commit. Who ends an
// eager transaction without Commit asks Sure.
func (t *Tx) Eager() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.eager = true
}

// Sure tells, of a transaction that is not to be committed, whether what it read was true at one time, which Snapshot answers from then
// on. CodeConflict if that is not known: it is to be run again.
func (t *Tx) Sure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var only *flight
	for _, f := range t.later {
		if only != nil && f != only || len(t.reads)+len(t.ranges) > 0 {
			return outrun("tx.sure")
		}
		only = f
	}
	if only == nil {
		return nil
	}
	<-only.done
	if only.err != nil {
		return outrun("tx.sure")
	}
	t.at.seq = max(t.at.seq, only.seq)
	return nil
}

func outrun(op string) error {
	return &quipu.Error{Code: quipu.CodeConflict, Op: op, Text: "it has read what did not become so"}
}

// ahead finds a key among what is on its way. mu is held.
func (t *Tx) ahead(name string) (value []byte, ok bool) {
	for i := len(t.before) - 1; i >= 0; i-- {
		if value, ok := t.before[i].writes.Get(name); ok {
			if t.later == nil {
				t.later = map[string]*flight{}
			}
			t.later[name] = t.before[i]
			return value, true
		}
	}
	return nil, false
}

// landedBefore waits for what the transaction has read on its way, and answers it as the log wants it. The log lets
// nobody wait for ever.
func (t *Tx) landedBefore() (reads []quipu.LaterRead, err error) {
	t.mu.Lock()
	later := t.later
	t.mu.Unlock()
	for key, f := range later {
		<-f.done
		if f.err != nil {
			return nil, outrun("tx.commit")
		}
		reads = append(reads, quipu.LaterRead{Key: key, At: f.seq})
	}
	return reads, nil
}
