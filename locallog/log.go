package locallog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/codec"
)

// Log is a quipu.Log in one directory. Open makes one.
type Log struct {
	opts Options
	fs   vfs.FS
	dir  string
	lock io.Closer

	life sync.RWMutex // held for reading while the index or a segment is read; Close takes it
	done chan struct{}
	stop sync.Once
	shut sync.Once
	left error // what Close answered

	mu       sync.RWMutex // guards below
	cause    error        // why the log stopped, nil while it runs
	state    state
	segments map[uint32]*segment
	hot      hot
	aux      auxCache

	manifestMu sync.Mutex // guards below; taken before mu
	manifest   *manifest
	unplaced   []uint32 // kept segments that Open is to remove

	trimMu  sync.Mutex // held while a trim counts what it takes away and is written
	spares  spares
	queue   *queue
	writer  writer
	keeper  keeper
	cleaner cleaner
	counts  counters
	low     atomic.Bool // the disk is under its reserve
}

// Open opens the log in opts.Dir, or makes one, and recovers what a crash left. It does not read history: its time
// follows what was appended since the last checkpoint.
// CodeDataInUse, CodeDataFormat, CodeCorrupt, CodeUsage.
func Open(opts Options) (_ *Log, err error) {
	if err := opts.fill(); err != nil {
		return nil, err
	}
	l := &Log{
		opts: opts, fs: opts.FS, dir: opts.Dir, done: make(chan struct{}), segments: map[uint32]*segment{},
		queue: newQueue(opts.QueueBytesMax), hot: hot{bytesMax: opts.HotBytesMax}, aux: newAuxCache(opts.AuxBytesMax),
		cleaner: cleaner{wake: make(chan struct{}, 1), asked: make(chan chan struct{}), damaged: map[uint32]bool{}, trimmed: map[streamName]bool{}, all: true},
		spares:  spares{fs: opts.FS, size: opts.SegmentBytesMax, bytesMax: opts.SpareBytesMax},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.releaseAll())
		}
	}()
	if err := makeDir(l.fs, l.dir); err != nil {
		return nil, err
	}
	if l.lock, err = lockDir(l.fs, l.dir); err != nil {
		return nil, err
	}
	if err := l.recover(); err != nil {
		return nil, err
	}
	l.start()
	return l, nil
}

// makeDir makes a directory that outlives a power cut: the name of each new one is synced in its parent.
func makeDir(fs vfs.FS, dir string) error {
	if _, err := fs.Stat(dir); err == nil {
		return nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	parent := fs.PathDir(dir)
	if parent != dir {
		if err := makeDir(fs, parent); err != nil {
			return err
		}
	}
	if err := fs.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	return syncDir(fs, parent)
}

func lockDir(fs vfs.FS, dir string) (io.Closer, error) {
	lock, err := fs.Lock(fs.PathJoin(dir, "LOCK"))
	var path *os.PathError
	if err != nil && !errors.As(err, &path) {
		return nil, &quipu.Error{Code: quipu.CodeDataInUse, Op: "log.open", Text: dir + " is in use by another node", Err: err,
			Hint: "stop that node, or choose another directory with --data"}
	}
	return lock, err
}

// start runs the writer and the keeper.
func (l *Log) start() {
	l.keeper.start(l)
	l.writer.done = make(chan struct{})
	go l.write()
}

// halt stops the log: nothing more is acknowledged, and every method answers CodeLogStopped.
func (l *Log) halt(cause error) {
	l.stop.Do(func() {
		l.mu.Lock()
		l.cause = cause
		l.mu.Unlock()
		l.queue.close(cause)
		close(l.done)
	})
}

var errClosed = errors.New("the log was closed")

// Close ends the log. Appends that wait are refused. After a failure it only releases the directory. Closing
// again answers the same.
func (l *Log) Close() error {
	l.shut.Do(func() { l.left = l.close() })
	return l.left
}

func (l *Log) close() error {
	l.halt(errClosed)
	<-l.writer.done
	l.keeper.stop()
	l.life.Lock()
	defer l.life.Unlock()
	var err error
	switch {
	case l.cleaner.failed != nil:
		err = l.cleaner.failed
	case l.index() != nil && errors.Is(l.cause, errClosed):
		err = l.settle()
	}
	return errors.Join(err, l.releaseAll())
}

// settle leaves the directory so that the next Open has nothing to recover.
func (l *Log) settle() error {
	if err := l.syncActive(); err != nil {
		return err
	}
	if err := l.checkpointNow(); err != nil {
		return err
	}
	if err := l.deleteDead(); err != nil {
		return err
	}
	l.manifestMu.Lock()
	defer l.manifestMu.Unlock()
	l.manifest.Clean = &l.state.end.end
	if err := l.manifest.write(l.fs, l.dir); err != nil {
		return fmt.Errorf("note the clean end: %w", err)
	}
	return nil
}

// releaseAll closes every file. It may be called again.
func (l *Log) releaseAll() error {
	var errs []error
	for id, s := range l.segments {
		errs = append(errs, s.release())
		delete(l.segments, id)
	}
	errs = append(errs, l.spares.close())
	if l.index() != nil {
		errs = append(errs, l.index().close())
		l.state.index = nil
	}
	if l.lock != nil {
		errs = append(errs, l.lock.Close())
		l.lock = nil
	}
	return errors.Join(errs...)
}

func (l *Log) index() *index { return l.state.index }

// Tail implements quipu.Log. On one node both consistencies are the same.
func (l *Log) Tail(_ context.Context, id quipu.Book, _ quipu.Consistency) (quipu.Seq, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	b, err := l.book("log.tail", id)
	if err != nil {
		return 0, err
	}
	return b.tail, nil
}

// book finds a book. l.mu is held.
func (l *Log) book(op string, id quipu.Book) (*book, error) {
	if l.cause != nil {
		return nil, stopped(l.cause)
	}
	if b := l.state.books[id]; b != nil {
		return b, nil
	}
	return nil, noBook(op, id)
}

// Append implements quipu.Log.
func (l *Log) Append(ctx context.Context, id quipu.Book, d quipu.Draft) (quipu.Seq, error) {
	res, err := l.append(ctx, id, []quipu.Draft{d})
	return res.first, err
}

// AppendBatch implements quipu.Log.
func (l *Log) AppendBatch(ctx context.Context, id quipu.Book, ds []quipu.Draft) ([]quipu.Seq, error) {
	res, err := l.append(ctx, id, ds)
	if err != nil {
		return nil, err
	}
	seqs := make([]quipu.Seq, res.count)
	for i := range seqs {
		seqs[i] = res.first + quipu.Seq(i)
	}
	return seqs, nil
}

func (l *Log) append(ctx context.Context, id quipu.Book, ds []quipu.Draft) (result, error) {
	size, err := checkDrafts(ds)
	if err != nil {
		return result{}, err
	}
	l.mu.RLock()
	_, err = l.book("log.append", id)
	l.mu.RUnlock()
	if err != nil {
		return result{}, err
	}
	r := newRequest(size)
	r.count, r.book, r.producer = len(ds), id, ds[0].Producer
	for i := range ds {
		d := ds[i]
		if d.Kind == 0 {
			d.Kind = quipu.KindRaw
		}
		r.buf = appendRecord(r.buf, id, &d, i > 0)
	}
	r.traced = beginTrace(ctx)
	res, err := l.queue.do(ctx, r)
	r.traced.end(err, err == nil)
	if err != nil {
		return result{}, err // the writer may still hold r
	}
	recycle(r)
	if err := res.err(); err != nil {
		return result{}, err
	}
	return res, nil
}

// appendSystem adds a record of the log's own.
func (l *Log) appendSystem(ctx context.Context, data []byte) (result, error) {
	d := quipu.Draft{Kind: quipu.KindSystem, Version: 1, Data: data}
	return l.queue.do(ctx, &request{buf: appendRecord(nil, 0, &d, false), count: 1, system: true, done: make(chan struct{}, 1)})
}

// checkDrafts answers the bytes that drafts take on disk, or CodeRecord.
func checkDrafts(ds []quipu.Draft) (int, error) {
	if len(ds) == 0 || len(ds) > quipu.BatchMax {
		return 0, badRecord("a batch has 1 to %d records, not %d", quipu.BatchMax, len(ds))
	}
	size, data := 0, 0
	for i := range ds {
		if err := checkDraft(&ds[i], len(ds) == 1); err != nil {
			return 0, err
		}
		if i > 0 && ds[i].Producer != (quipu.Producer{}) {
			return 0, badRecord("only the first record of a batch names a producer, not record %d", i)
		}
		size, data = size+recordBytes(&ds[i]), data+len(ds[i].Data)
	}
	if data > quipu.TxBytesMax || size > appendBytesMax {
		return 0, badRecord("a batch has at most %d bytes of data, not %d", quipu.TxBytesMax, data)
	}
	return size, nil
}

func checkDraft(d *quipu.Draft, alone bool) error {
	switch d.Kind {
	case 0, quipu.KindRaw:
		if len(d.Data) > quipu.DataBytesMax {
			return badRecord("a record has at most %d bytes of data, not %d", quipu.DataBytesMax, len(d.Data))
		}
	case quipu.KindTx:
		if _, err := codec.DecodeTx(d.Data); err != nil {
			return badRecord("%w", err)
		}
		if len(d.Data) > quipu.TxBytesMax || !alone {
			return badRecord("a transaction has at most %d bytes and is no part of a batch", quipu.TxBytesMax)
		}
	default:
		return badRecord("records of kind %d cannot be appended", d.Kind)
	}
	if len(d.Tags) > quipu.TagsMax {
		return badRecord("a record has at most %d tags, not %d", quipu.TagsMax, len(d.Tags))
	}
	for _, tag := range d.Tags {
		if tag == "" || len(tag) > quipu.TagBytesMax {
			return badRecord("a tag has 1 to %d bytes, not %d", quipu.TagBytesMax, len(tag))
		}
	}
	if d.Cond != nil && len(d.Cond.Tag) > quipu.TagBytesMax {
		return badRecord("the tag of a condition has at most %d bytes, not %d", quipu.TagBytesMax, len(d.Cond.Tag))
	}
	if d.Producer != (quipu.Producer{}) && (d.Producer.ID == 0 || d.Producer.N == 0) {
		return badRecord("a producer has an id and numbers from 1, not %+v", d.Producer)
	}
	return nil
}

func badRecord(format string, args ...any) error {
	return &quipu.Error{Code: quipu.CodeRecord, Op: "log.append", Text: fmt.Errorf(format, args...).Error()}
}

var _ quipu.Log = (*Log)(nil)
