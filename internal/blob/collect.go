package blob

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"github.com/quipu-run/quipu"
)

// Grace is how long the dead stay if there is room for them: a log that is restored to an earlier seq may want them.
const Grace = 25 * time.Hour

// roomMin is the least room for the dead.
const roomMin = 32 << 20

// Live calls visit for all that is referred to, once or more often each: what was when Live was called, and what came to
// be and was Released before. It answers how many bytes it had to look at. When it returns, what it says is durable: after
// no crash anything else will be referred to.
type Live func(ctx context.Context, visit func(quipu.BlobRef)) (read int64, err error)

// Collected counts what Collect met. Dead is what nothing refers to and stays, for those who may need it, or for Grace.
type Collected struct {
	Live, Dead, Deleted                int
	LiveBytes, DeadBytes, DeletedBytes int64
}

// Due has a value when enough has come since the last Collect: as much as the dead may take.
func (s *Store) Due() <-chan struct{} { return s.due }

// Collect deletes blobs that live does not visit, that are not held, and that no reader's snapshot may refer to. Of those,
// what was found dead less than Grace ago stays, the last dead first, up to half of what is live and of what had to be
// read to know it. It may run beside everything else; a second one waits. It takes up to 20 bytes of memory for each
// reference, and 200 for each dead blob.
func (s *Store) Collect(ctx context.Context, live Live) (c Collected, err error) {
	s.collecting.Lock()
	defer s.collecting.Unlock()
	s.begin()
	defer s.end()
	if some, err := s.hasAny(); err != nil || !some {
		return c, err
	}
	var refs references
	read, err := live(ctx, refs.add)
	if err != nil {
		return c, fmt.Errorf("ask for references to blobs: %w", err)
	}
	refs.sort()
	died := s.readers.advance() // who takes a snapshot from now on finds what the references say, or later ones
	dead, err := s.census(ctx, refs, died, &c)
	if err != nil {
		return c, err
	}
	room := max(roomMin, (c.LiveBytes+read)/2)
	s.setRoom(room)
	return c, s.bury(ctx, dead, room, &c)
}

func (s *Store) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh, s.written = map[id]struct{}{}, 0
	select {
	case <-s.due:
	default:
	}
}

// end forgets what the next Collect needs not know.
func (s *Store) end() {
	oldest := uint64(math.MaxUint64)
	for r := range s.readers.snapshots() {
		oldest = min(oldest, r.upto)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh = nil
	for blob, born := range s.born {
		if born <= oldest { // so no reader is too old to need it
			delete(s.born, blob)
		}
	}
}

func (s *Store) setRoom(room int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room = room
}

// death is when a blob was found dead.
type death struct {
	tick uint64
	at   time.Time
}

// corpse is a blob that nothing refers to.
type corpse struct {
	hash    string
	size    int64
	written time.Time
	death
}

// census counts the living and answers the dead, which include those that died earlier.
func (s *Store) census(ctx context.Context, refs references, tick uint64, c *Collected) (dead []corpse, err error) {
	now := s.now()
	err = s.each(func(hash string) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		info, err := s.fs.Stat(s.path(quipu.BlobRef{Hash: hash}))
		if err != nil {
			return fmt.Errorf("look at blob: %w", err)
		}
		d, isDead := s.judge(idOf(quipu.BlobRef{Hash: hash}), refs, death{tick, now})
		if isDead {
			dead = append(dead, corpse{hash, info.Size(), info.ModTime(), d})
			return nil
		}
		c.Live++
		c.LiveBytes += info.Size()
		return nil
	})
	return dead, err
}

// judge tells whether a blob is dead, and since when.
func (s *Store) judge(blob id, refs references, now death) (death, bool) {
	referred := refs.has(blob)
	s.mu.Lock()
	defer s.mu.Unlock()
	if referred || s.wanted(blob) {
		delete(s.dead, blob)
		return death{}, false
	}
	if _, known := s.dead[blob]; !known {
		s.dead[blob] = now
	}
	return s.dead[blob], true
}

// wanted tells whether there may be, or have come, a reference that Live did not see. s.mu is held.
func (s *Store) wanted(blob id) bool {
	_, fresh := s.fresh[blob]
	return fresh || s.held[blob] > 0
}

// bury deletes the first that died until the others fit, and all that died long ago.
func (s *Store) bury(ctx context.Context, dead []corpse, room int64, c *Collected) error {
	slices.SortFunc(dead, func(a, b corpse) int { return cmp.Or(a.at.Compare(b.at), a.written.Compare(b.written)) })
	for _, d := range dead {
		c.Dead++
		c.DeadBytes += d.size
	}
	snapshots, now := s.readers.snapshots(), s.now()
	for _, d := range dead {
		if c.DeadBytes <= room && now.Sub(d.at) < Grace {
			return nil // and so are all that died later
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := s.remove(d, snapshots, c); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes a dead blob, unless a reader may need it, or it came to life again.
func (s *Store) remove(d corpse, snapshots map[reader]struct{}, c *Collected) error {
	ref := quipu.BlobRef{Hash: d.hash}
	blob := idOf(ref)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wanted(blob) {
		return nil
	}
	for r := range snapshots {
		if r.mayNeed(s.born[blob], d.tick) {
			return nil
		}
	}
	if err := s.fs.Remove(s.path(ref)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete blob: %w", err)
	}
	delete(s.dead, blob)
	delete(s.born, blob)
	c.Dead--
	c.DeadBytes -= d.size
	c.Deleted++
	c.DeletedBytes += d.size
	return nil
}

var errEnough = errors.New("enough")

func (s *Store) hasAny() (bool, error) {
	err := s.each(func(string) error { return errEnough })
	if errors.Is(err, errEnough) {
		return true, nil
	}
	return false, err
}

// each visits the hashes of all blobs. What has no such name is not ours, and stays.
func (s *Store) each(visit func(hash string) error) error {
	folders, err := s.fs.List(s.dir)
	if err != nil {
		return fmt.Errorf("list blobs: %w", err)
	}
	for _, folder := range folders {
		if len(folder) != 2 {
			continue // temp
		}
		names, err := s.fs.List(s.fs.PathJoin(s.dir, folder))
		if err != nil {
			return fmt.Errorf("list blobs: %w", err)
		}
		for _, name := range names {
			if _, err := hex.DecodeString(folder + name); err != nil || len(name) != 62 {
				continue
			}
			if err := visit(folder + name); err != nil {
				return err
			}
		}
	}
	return nil
}

// id is a hash as bytes.
type id [32]byte

// idOf is the id of a ref that this package, or a record, has made. Of anything else it is none that a blob has.
func idOf(ref quipu.BlobRef) (blob id) {
	if len(ref.Hash) != 2*len(blob) {
		return id{}
	}
	if _, err := hex.Decode(blob[:], []byte(ref.Hash)); err != nil {
		return id{}
	}
	return blob
}

// references has the first 8 bytes of each hash: were two equal there, a dead one would stay.
type references []uint64

func (r *references) add(ref quipu.BlobRef) {
	blob := idOf(ref)
	*r = append(*r, binary.BigEndian.Uint64(blob[:]))
}

func (r references) sort() { slices.Sort(r) }

func (r references) has(blob id) bool {
	_, found := slices.BinarySearch(r, binary.BigEndian.Uint64(blob[:]))
	return found
}
