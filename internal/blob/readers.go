package blob

import (
	"math"
	"sync"
)

// readers are those who read at a snapshot of what refers to blobs. Ticks tell what was first: they count the blobs that
// came, and the times at which Collect has asked for references.
type readers struct {
	mu   sync.Mutex // guards all below; last of all locks
	tick uint64
	of   map[*reader]struct{}
}

// reader has a snapshot that was taken between two ticks.
type reader struct{ from, upto uint64 }

// Reading says that a snapshot of references is about to be taken. pinned is to be called when it is, and done when nobody
// reads at it any more. What was referred to at the snapshot stays until done.
func (s *Store) Reading() (pinned, done func()) {
	r := s.readers.enter()
	return func() { s.readers.pin(r) }, func() { s.readers.leave(r) }
}

func (rs *readers) enter() *reader {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r := &reader{from: rs.tick, upto: math.MaxUint64}
	rs.of[r] = struct{}{}
	return r
}

func (rs *readers) pin(r *reader) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r.upto = rs.tick
}

func (rs *readers) leave(r *reader) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	delete(rs.of, r)
}

func (rs *readers) advance() uint64 {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.tick++
	return rs.tick
}

// snapshots are those that are read now, each kind once.
func (rs *readers) snapshots() map[reader]struct{} {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	all := make(map[reader]struct{}, len(rs.of))
	for r := range rs.of {
		all[*r] = struct{}{}
	}
	return all
}

// mayNeed tells whether the snapshot may refer to a blob that came at the tick born, and had lost its last reference
// at the tick died.
func (r reader) mayNeed(born, died uint64) bool { return born <= r.upto && r.from < died }
