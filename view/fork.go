package view

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/quipu-run/quipu"
)

// Fork makes in dir, which is empty or not there yet, a store that holds one book alone: as b was at the record at, or as it is now if
// at is 0. Nothing is copied: the files are links to those of a snapshot, which never change, and what the log has
// from there up to at is applied to them. Machines are new ones of b's kinds.
//
// The fork has its own log, of which nothing is applied yet: it is opened as a store with Options.Keys, for a book that
// begins where the fork does. dir is durable on return. After a crash before that it is to be removed.
//
// CodeTrimmed: at is before what the snapshots and the log still have. CodeUsage: at is after the book's end.
func (s *Store) Fork(ctx context.Context, b *Book, at quipu.Seq, dir string, machines ...Machine) (Forked, error) {
	f := &fork{ctx: ctx, from: s, of: b, at: at, dir: dir, machines: machines}
	err := f.check()
	if err == nil {
		err = f.make()
	}
	return Forked{Keys: keysOf(b.prefix), At: f.at}, err
}

// Forked is what Fork made.
type Forked struct {
	Keys quipu.Book // for Options.Keys
	At   quipu.Seq  // the last record of the parent that it holds
}

// fork is a store in the making.
type fork struct {
	ctx      context.Context
	from     *Store
	of       *Book
	at       quipu.Seq
	dir      string
	machines []Machine
}

// check refuses a record that is not there yet, and waits for one that is not applied yet.
func (f *fork) check() error {
	if f.at == 0 {
		return nil
	}
	tail, err := f.of.log.Tail(f.ctx, f.of.id, quipu.Linearizable)
	if err != nil {
		return fmt.Errorf("tail of book %d: %w", f.of.id, err)
	}
	if f.at > tail {
		return &quipu.Error{Code: quipu.CodeUsage, Op: "fork", Text: fmt.Sprintf("seq %s is after the end of the log, which is %s", f.at, tail),
			Hint: "leave it out to fork what is now"}
	}
	return nil
}

func (f *fork) path(elem ...string) string {
	return f.from.fs.PathJoin(append([]string{f.dir}, elem...)...)
}

func (f *fork) make() (err error) {
	fs := f.from.fs
	if err := fs.MkdirAll(f.path("snap"), 0o700); err != nil {
		return fmt.Errorf("make folder of fork: %w", err)
	}
	f.from.snapping.Lock() // no snapshot is dropped, and no book is trimmed
	defer f.from.snapping.Unlock()
	if err := f.link(); err != nil {
		return err
	}
	o := f.from.pebbleOptions()
	o.DisableAutomaticCompactions = true // which would be waited for, and write what the links share
	db, err := pebble.Open(f.path("db"), o)
	if err != nil {
		return fmt.Errorf("open fork: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := f.advance(db); err != nil {
		return err
	}
	// The first snapshot: what the fork began with is in no log of its own.
	if err := errors.Join(db.Flush(), db.Checkpoint(f.path("snap", snapshot{number: 1}.folder()))); err != nil {
		return fmt.Errorf("keep what the fork begins with: %w", err)
	}
	return errors.Join(f.from.syncDir(f.path("snap")), f.from.syncDir(f.dir), f.from.syncDir(fs.PathDir(f.dir)))
}

// link makes the folder db of links to the newest state that is not after at.
func (f *fork) link() error {
	if f.at == 0 || f.at >= f.of.Applied() {
		if err := f.from.db.Flush(); err != nil {
			return fmt.Errorf("flush views: %w", err)
		}
		if err := f.from.db.Checkpoint(f.path("db")); err != nil {
			return fmt.Errorf("link views: %w", err)
		}
		at, err := f.reached(f.path("db"))
		if err != nil || f.at == 0 || at <= f.at {
			f.at = max(f.at, at)
			return err
		}
		if err := f.from.fs.RemoveAll(f.path("db")); err != nil { // the parent went on meanwhile
			return err
		}
	}
	f.from.mu.Lock()
	snaps := f.from.snaps
	f.from.mu.Unlock()
	for _, snap := range slices.Backward(snaps) {
		folder := f.from.path("snap", snap.folder())
		at, err := f.reached(folder)
		if err != nil {
			return err
		}
		if at <= f.at {
			return f.from.link(folder, f.path("db"))
		}
	}
	return nil // then the log has all, unless it was trimmed
}

// reached is how far the book is applied in a copy.
func (f *fork) reached(dir string) (seq quipu.Seq, err error) {
	o := f.from.pebbleOptions()
	o.ReadOnly = true
	db, err := pebble.Open(dir, o)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", dir, err)
	}
	at, err := readPosition(db, f.of.prefix)
	return at.seq, errors.Join(err, db.Close())
}

// advance takes the other books away, and applies what the log has from there to at.
func (f *fork) advance(db *pebble.DB) error {
	end := binary.BigEndian.AppendUint64(nil, uint64(keysOf(f.of.prefix))+1)
	last := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	if err := errors.Join(db.DeleteRange([]byte{0}, f.of.prefix, pebble.NoSync), db.DeleteRange(end, last, pebble.NoSync)); err != nil {
		return fmt.Errorf("take other books away: %w", err)
	}
	b := newBook(&Store{o: f.from.o, fs: f.from.fs, db: db}, f.of.log, f.of.id, f.of.clock, f.of.prefix, f.machines)
	if err := b.load(f.machines); err != nil {
		return err
	}
	if b.applied.seq < f.at {
		err := b.replay(f.ctx, f.at)
		if quipu.CodeOf(err) == quipu.CodeCorrupt {
			return &quipu.Error{Code: quipu.CodeTrimmed, Op: "fork", Text: fmt.Sprintf("what was at seq %s is not known any more", f.at), Err: err,
				Hint: "choose a later seq: the log is kept from the older of the last two snapshots on"}
		}
		if err != nil {
			return err
		}
	}
	batch := db.NewBatch()
	defer batch.Close()
	for _, m := range f.machines {
		if m, ok := m.(Forgetter); ok {
			if err := m.Forget(&Batch{book: b, b: batch}); err != nil {
				return fmt.Errorf("fork view %s: %w", m.Name(), err)
			}
		}
	}
	begin := position{stamp: b.applied.stamp} // nothing of the fork's own log
	if err := batch.Set(appliedKey(b.prefix), begin.encode(), nil); err != nil {
		return err
	}
	return batch.Commit(pebble.NoSync)
}

// keysOf is the book whose prefix it is.
func keysOf(prefix []byte) quipu.Book { return quipu.Book(binary.BigEndian.Uint64(prefix)) }
