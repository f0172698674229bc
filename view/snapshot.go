package view

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
)

// snapshotsKept generations stay: if the newest turns out to be unreadable, the one before it and the
// log after that are enough.
const snapshotsKept = 2

// snapshot is a checked copy of the store.
type snapshot struct {
	number  uint64                  // grows with each snapshot; its folder is named by it
	applied map[quipu.Book]position // how far it goes; nil for one that was found at start
}

func (n snapshot) folder() string { return fmt.Sprintf("%016x", n.number) }

// note counts applied log bytes and asks for a snapshot when it is time.
func (s *Store) note(bytes int) {
	if s.pending.Add(int64(bytes)) < s.o.SnapshotBytes {
		return
	}
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

func (s *Store) snapshotLoop(ctx context.Context) {
	defer close(s.stopped)
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.kick:
		}
		s.pending.Store(0)
		if err := s.Snapshot(ctx); err != nil && ctx.Err() == nil {
			// Nothing is lost: the log keeps what no snapshot covers, and the next interval tries again.
			s.o.Logger.Error("snapshot of the views failed; the log is not trimmed", "err", err)
		}
	}
}

// Snapshot copies the store, reads back what of the copy was not read before, drops the oldest copy and trims every
// book behind the older of those that are left.
func (s *Store) Snapshot(ctx context.Context) error {
	s.snapping.Lock()
	defer s.snapping.Unlock()
	if err := s.db.Flush(); err != nil {
		return fmt.Errorf("flush views: %w", err)
	}
	snap, err := s.copyOut()
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.snaps = append(s.snaps, snap)
	drop := s.snaps[:max(0, len(s.snaps)-snapshotsKept)]
	s.snaps = slices.Clone(s.snaps[len(drop):])
	older := s.snaps[0]
	trim := len(s.snaps) == snapshotsKept
	s.mu.Unlock()
	for _, old := range drop {
		if err := s.fs.RemoveAll(s.path("snap", old.folder())); err != nil {
			return fmt.Errorf("drop old snapshot: %w", err)
		}
	}
	if !trim {
		return nil
	}
	for _, b := range s.openBooks() {
		if err := s.trim(ctx, b, older); err != nil {
			return err
		}
	}
	return nil
}

// trim gives back the log of b that the older snapshot covers, if the live store durably has it too.
func (s *Store) trim(ctx context.Context, b *Book, older snapshot) error {
	upto := older.applied[b.id].seq
	durable, err := s.durable(b)
	if err != nil || upto == 0 || durable < upto {
		return err
	}
	if err := b.log.Trim(ctx, b.id, quipu.TagAll, upto); err != nil {
		return fmt.Errorf("trim book %d: %w", b.id, err)
	}
	return nil
}

// durable is the applied seq of b that is on disk, not merely in memory.
func (s *Store) durable(b *Book) (quipu.Seq, error) {
	key := appliedKey(b.prefix)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: key, UpperBound: append(key, 0), OnlyReadGuaranteedDurable: true})
	if err != nil {
		return 0, fmt.Errorf("read durable position: %w", err)
	}
	defer it.Close()
	if !it.First() {
		return 0, it.Error()
	}
	at, err := decodePosition(it.Value())
	return at.seq, err
}

// copyOut makes a checked snapshot under its final name.
func (s *Store) copyOut() (snapshot, error) {
	snap := snapshot{number: s.lastNumber() + 1, applied: map[quipu.Book]position{}}
	temp := s.path("snap", snap.folder()+".tmp")
	if err := s.fs.RemoveAll(temp); err != nil {
		return snap, fmt.Errorf("clear snapshot folder: %w", err)
	}
	if err := s.db.Checkpoint(temp); err != nil {
		return snap, fmt.Errorf("copy views: %w", err)
	}
	if err := s.check(snap, temp); err != nil {
		return snap, fmt.Errorf("check snapshot %s: %w", snap.folder(), err)
	}
	if err := s.fs.Rename(temp, s.path("snap", snap.folder())); err != nil {
		return snap, fmt.Errorf("name snapshot: %w", err)
	}
	return snap, s.syncDir(s.path("snap"))
}

func (s *Store) lastNumber() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.snaps) == 0 {
		return 0
	}
	return s.snaps[len(s.snaps)-1].number
}

// check opens the copy in dir, notes how far it goes, and reads its tables. Those that an earlier snapshot has read are
// not read again: a table never changes, and the copy shares it. So a snapshot costs what was written since the
// last one, however much the store holds.
func (s *Store) check(snap snapshot, dir string) error {
	o := s.pebbleOptions()
	o.ReadOnly = true
	db, err := pebble.Open(dir, o)
	if err != nil {
		return err
	}
	for _, b := range s.openBooks() {
		if snap.applied[b.id], err = readPosition(db, b.prefix); err != nil {
			return errors.Join(err, db.Close())
		}
	}
	if err := db.Close(); err != nil {
		return err
	}
	return s.checkTables(dir, o)
}

const tableSuffix = ".sst"

// checkTables reads every block of the tables that are not known to be sound. Only Snapshot calls it.
func (s *Store) checkTables(dir string, o *pebble.Options) error {
	names, err := s.fs.List(dir)
	if err != nil {
		return err
	}
	sound := make(map[string]bool, len(names))
	for _, name := range names {
		if !strings.HasSuffix(name, tableSuffix) {
			continue // opening has read it
		}
		if !s.sound[name] {
			if err := s.checkTable(s.fs.PathJoin(dir, name), o); err != nil {
				return fmt.Errorf("table %s: %w", name, err)
			}
		}
		sound[name] = true
	}
	s.sound = sound
	return nil
}

func (s *Store) checkTable(path string, o *pebble.Options) error {
	file, err := s.fs.Open(path)
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(file)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	r, err := sstable.NewReader(context.Background(), readable, o.MakeReaderOptions())
	if err != nil {
		return errors.Join(err, readable.Close())
	}
	return errors.Join(r.ValidateBlockChecksums(), r.Close())
}

// findSnapshots lists the finished snapshots and removes unfinished ones. How far they go is asked only of
// those that this run makes, so they are not opened.
func (s *Store) findSnapshots() error {
	names, err := s.fs.List(s.path("snap"))
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	for _, name := range names {
		number, err := strconv.ParseUint(name, 16, 64)
		if err == nil && len(name) == 16 {
			s.snaps = append(s.snaps, snapshot{number: number})
			continue
		}
		if err := s.fs.RemoveAll(s.path("snap", name)); err != nil {
			return fmt.Errorf("remove unfinished snapshot: %w", err)
		}
	}
	slices.SortFunc(s.snaps, func(a, b snapshot) int { return cmp.Compare(a.number, b.number) })
	return nil
}

// restore puts a copy of a snapshot in the place of the live store.
func (s *Store) restore(snap snapshot) error {
	temp := s.path("db.tmp")
	if err := errors.Join(s.fs.RemoveAll(temp), s.fs.RemoveAll(s.path("db"))); err != nil {
		return fmt.Errorf("clear view store: %w", err)
	}
	ok, err := vfs.Clone(s.fs, s.fs, s.path("snap", snap.folder()), temp, vfs.CloneSync)
	if err == nil && !ok {
		err = fmt.Errorf("it is not there")
	}
	if err != nil {
		return fmt.Errorf("copy snapshot %s: %w", snap.folder(), err)
	}
	if err := s.fs.Rename(temp, s.path("db")); err != nil {
		return fmt.Errorf("name view store: %w", err)
	}
	return s.syncDir(s.o.Dir)
}

func (s *Store) syncDir(dir string) error {
	d, err := s.fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("open view folder: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// digest hashes all keys and values under prefix; nil is everything.
func digest(db *pebble.DB, prefix []byte) (string, error) {
	o := &pebble.IterOptions{LowerBound: prefix}
	if prefix != nil {
		o.UpperBound = append(slices.Clone(prefix), 0xff)
	}
	it, err := db.NewIter(o)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for ok := it.First(); ok; ok = it.Next() {
		fmt.Fprintf(h, "%d %d ", len(it.Key()), len(it.Value()))
		h.Write(it.Key())
		h.Write(it.Value())
	}
	return hex.EncodeToString(h.Sum(nil)), it.Close()
}
