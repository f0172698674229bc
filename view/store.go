package view

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
)

// Options of a Store; a zero field gets the default it names.
type Options struct {
	Dir           string // required
	FS            vfs.FS // nil: the machine's
	Logger        *slog.Logger
	SnapshotBytes int64      // log bytes between snapshots; 0 means 64 MiB
	MemTableBytes int64      // 0 means 4 MiB
	CacheBytes    int64      // 0 means 8 MiB
	Keys          quipu.Book // of a fork: the keys of its book begin as those of this one do; 0 means as its own
	// Reading is called before a transaction takes its snapshot, pinned when it has it, and done when that is gone. It says
	// who may still need what the views do not refer to any more. nil: nobody asks.
	Reading func() (pinned, done func())
	// Failed is told, once, that the store cannot be written any more: whoever has it must stop. What is acknowledged is in the log.
	// A full disk is not meant, which has room again some day. nil: nobody is told.
	Failed func(error)
}

// Store holds the materialised state of the books of a node: one Pebble without a write-ahead log,
// and two snapshots of it.
type Store struct {
	o  Options
	fs vfs.FS
	db *pebble.DB

	once    sync.Once // sets failure and closes failed
	failed  chan struct{}
	failure error
	pending atomic.Int64 // log bytes applied since the last snapshot
	kick    chan struct{}
	stop    context.CancelFunc
	stopped chan struct{}

	snapping sync.Mutex      // held by Snapshot; guards sound
	sound    map[string]bool // tables that a snapshot of this run has read, by name

	mu    sync.Mutex
	books []*Book
	snaps []snapshot // oldest first, at most snapshotsKept
}

// OpenStore opens the store in o.Dir, or makes an empty one. A store that cannot be opened, or was found
// damaged before, is replaced by its newest good snapshot; the books then replay from there.
func OpenStore(o Options) (*Store, error) {
	o.defaults()
	s := &Store{o: o, fs: o.FS, kick: make(chan struct{}, 1), stopped: make(chan struct{}), failed: make(chan struct{})}
	if err := s.fs.MkdirAll(s.path("snap"), 0o700); err != nil {
		return nil, fmt.Errorf("make view folder: %w", err)
	}
	if err := s.findSnapshots(); err != nil {
		return nil, err
	}
	if err := s.openDB(); err != nil {
		return nil, err
	}
	// A snapshot lets the log be trimmed, so the names of the folders must last as long as it does.
	if err := errors.Join(s.syncDir(o.Dir), s.syncDir(s.fs.PathDir(o.Dir))); err != nil {
		return nil, errors.Join(err, s.db.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go s.snapshotLoop(ctx)
	return s, nil
}

func (o *Options) defaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.SnapshotBytes == 0 {
		o.SnapshotBytes = 64 << 20
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 4 << 20
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 8 << 20
	}
	if o.Reading == nil {
		nothing := func() {}
		o.Reading = func() (pinned, done func()) { return nothing, nothing }
	}
	if o.Failed == nil {
		o.Failed = func(error) {}
	}
}

func (s *Store) path(elem ...string) string {
	return s.fs.PathJoin(append([]string{s.o.Dir}, elem...)...)
}

// openDB opens the live store, falling back to snapshots and last to nothing. Falling back is safe:
// OpenBook refuses a store that lacks records which the log does not have any more.
func (s *Store) openDB() error {
	db, err := s.tryOpen()
	for i := len(s.snaps) - 1; err != nil && i >= 0; i-- {
		s.o.Logger.Error("view store cannot be used, going back to a snapshot", "snapshot", s.snaps[i].folder(), "err", err)
		if err = s.restore(s.snaps[i]); err == nil {
			db, err = s.tryOpen()
		}
	}
	if err != nil && isDamage(err) && s.o.Keys != 0 {
		return &quipu.Error{Code: quipu.CodeCorrupt, Op: "view.open", Err: err,
			Text: "the view store of a fork and its snapshots cannot be used, and what it began with is in no log of its own",
			Hint: "quipu rm namespace NAME removes it, or restore the data directory from a backup"}
	}
	if err != nil && isDamage(err) {
		s.o.Logger.Error("view store and its snapshots cannot be used, rebuilding it from the log", "err", err)
		s.snaps = nil
		if err = errors.Join(s.fs.RemoveAll(s.path("db")), s.fs.RemoveAll(s.path("snap"))); err == nil {
			err = s.fs.MkdirAll(s.path("snap"), 0o700)
		}
		if err == nil {
			db, err = s.tryOpen()
		}
	}
	if err != nil {
		return fmt.Errorf("open view store: %w", err)
	}
	s.db = db
	return nil
}

var errMarked = errors.New("the view store is marked as damaged, or is missing")

func isDamage(err error) bool { return errors.Is(err, errMarked) || pebble.IsCorruptionError(err) }

// tryOpen opens the live store unless it is marked as damaged, or missing although there are
// snapshots: a restore that was cut short.
func (s *Store) tryOpen() (*pebble.DB, error) {
	if _, err := s.fs.Stat(s.damageMark()); err == nil {
		return nil, errMarked
	}
	if _, err := s.fs.Stat(s.path("db")); err != nil && len(s.snaps) > 0 {
		return nil, fmt.Errorf("%w: %w", errMarked, err)
	}
	cache := pebble.NewCache(s.o.CacheBytes)
	defer cache.Unref()
	o := s.pebbleOptions()
	o.Cache = cache
	o.EventListener = &pebble.EventListener{DataCorruption: s.markDamage, BackgroundError: s.fail}
	// No compaction before it is open: if opening fails, Pebble closes the tables under one that has begun, and panics.
	var opened atomic.Bool
	o.CompactionConcurrencyRange = func() (lower, upper int) {
		if opened.Load() {
			return 1, 1
		}
		return 0, 1
	}
	db, err := pebble.Open(s.path("db"), o)
	opened.Store(err == nil)
	return db, err
}

func (s *Store) pebbleOptions() *pebble.Options {
	return &pebble.Options{
		FS:                          s.fs,
		DisableWAL:                  true,
		MemTableSize:                uint64(s.o.MemTableBytes),
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      pebbleLogger{s.o.Logger},
	}
}

// damageMark is a file whose presence makes the next start go back to a snapshot.
func (s *Store) damageMark() string { return s.path("db", "DAMAGED") }

// markDamage is told by Pebble that bytes are not what was written.
func (s *Store) markDamage(info pebble.DataCorruptionInfo) {
	s.o.Logger.Error("view store is damaged; the next start rebuilds it", "path", info.Path, "err", info.Details)
	f, err := s.fs.Create(s.damageMark(), "view")
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		s.o.Logger.Error("cannot mark the view store as damaged", "err", err)
	}
}

// fail remembers the first failure to write. Pebble itself tries again for ever, without a pause.
func (s *Store) fail(err error) {
	if errors.Is(err, pebble.ErrCancelledCompaction) || errors.Is(err, context.Canceled) || errors.Is(err, syscall.ENOSPC) {
		return
	}
	s.once.Do(func() {
		s.failure = fmt.Errorf("view store: %w", err)
		close(s.failed)
		s.o.Failed(s.failure)
	})
}

// Close flushes, so that the next start replays nothing. The books must be closed before. A store that has failed stays as it is.
func (s *Store) Close() error {
	s.stop()
	closed := make(chan error, 1)
	go func() {
		<-s.stopped
		err := s.db.Flush()
		closed <- errors.Join(err, s.db.Close())
	}()
	select {
	case err := <-closed:
		return err
	case <-s.failed: // then Pebble does not return
		return s.failure
	}
}

func (s *Store) add(b *Book) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.books = append(s.books, b)
}

func (s *Store) remove(b *Book) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.books = slices.DeleteFunc(s.books, func(x *Book) bool { return x == b })
}

func (s *Store) openBooks() []*Book {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.books)
}

// pebbleLogger passes on what an operator acts on.
type pebbleLogger struct{ log *slog.Logger }

func (pebbleLogger) Infof(string, ...any) {}
func (l pebbleLogger) Errorf(format string, args ...any) {
	l.log.Error("view store", "err", fmt.Sprintf(format, args...))
}
func (l pebbleLogger) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf("view store: "+format, args...))
}

// Prune takes away the keys of books that are not there any more. It looks at no key of one that is.
func (s *Store) Prune(there func(quipu.Book) bool) error {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return fmt.Errorf("find books: %w", err)
	}
	var gone [][]byte
	for ok := it.First(); ok && err == nil; {
		if len(it.Key()) < len(bookPrefix(0)) {
			err = &quipu.Error{Code: quipu.CodeCorrupt, Op: "view.prune", Text: fmt.Sprintf("the view store has the key %x", it.Key()), Hint: "restore the data directory from a backup"}
			break
		}
		prefix := bytes.Clone(it.Key()[:len(bookPrefix(0))])
		if !there(keysOf(prefix)) {
			gone = append(gone, prefix)
		}
		ok = it.SeekGE(after(prefix))
	}
	if err = errors.Join(err, it.Close()); err != nil {
		return err
	}
	for _, prefix := range gone {
		if err := s.db.DeleteRange(prefix, after(prefix), pebble.NoSync); err != nil {
			return fmt.Errorf("take a book away: %w", err)
		}
	}
	return nil
}

// Digest is a hash of everything the machines of a book have written: equal digests mean equal views.
func (b *Book) Digest() (string, error) { return digest(b.store.db, b.prefix) }
