package locallog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/resolve"
)

const (
	indexName       = "index"
	indexCacheBytes = 4 << 20
	indexTableBytes = 1 << 20 // memtable
)

// Key spaces of the index. Numbers in keys are big-endian, so that they sort.
const (
	keyCheckpoint byte = 1  // -> checkpoint
	keyBookV1     byte = 2  // book -> tail, newest, trim, name; older versions wrote it
	keyTagTrim    byte = 3  // book, tag -> point
	keyProducer   byte = 4  // book, id -> producer
	keySegment    byte = 5  // segment, book -> share
	keyPosting    byte = 6  // book, bytes of tag (u16), tag, last seq -> block of postings
	keyGeneration byte = 7  // last seq of a resolver generation -> nothing
	keyWrite      byte = 8  // last seq of its generation, book, conflict key -> seq
	keyBook       byte = 9  // book -> tail, newest, trim, born, total and trimmed volume, options, name
	keyCreated    byte = 10 // -> the newest id of a book that was given
	keyGone       byte = 11 // book -> records and bytes above its trim point that are trimmed in all of their tags; older versions had none
	keyTrimmed    byte = 16 // segment, book -> bytes of the share that were trimmed by tag, at most
)

var be = binary.BigEndian

// checkpoint is the position that the index has applied: everything before end, nothing after.
type checkpoint struct {
	end   place
	batch int64 // offset of the last batch before end, in the same segment; it must still be there
	seq   quipu.Seq
	stamp int64
	crc   uint32 // of that batch
}

// index is everything that was kept in memory up to the last checkpoint. It has no log of its own: a
// checkpoint is one Pebble batch and a flush, so after a crash it is there whole or not at all.
type index struct {
	db     *pebble.DB
	once   sync.Once // closes ended
	opened atomic.Bool

	mu     sync.Mutex // guards below
	gens   []quipu.Seq
	failed error         // the first background failure
	broken chan struct{} // closed when failed is set
	ended  chan struct{} // closed when Pebble wanted to end the process
}

func openIndex(fs vfs.FS, dir string, logger *slog.Logger) (*index, error) {
	x := &index{broken: make(chan struct{}), ended: make(chan struct{})}
	cache := pebble.NewCache(indexCacheBytes)
	defer cache.Unref()
	opts := &pebble.Options{
		FS: indexFS{errorfs.Wrap(fs, errorfs.InjectorFunc(x.mayStill))}, Cache: cache, DisableWAL: true, MemTableSize: indexTableBytes, MaxOpenFiles: 256,
		FormatMajorVersion: pebble.FormatNewest, Logger: indexLogger{x, logger}, CompactionConcurrencyRange: x.compactions,
		EventListener: &pebble.EventListener{
			BackgroundError: x.fail,
			DataCorruption:  func(pebble.DataCorruptionInfo) {}, // whoever reads gets the error
		},
	}
	err := x.guard(func() (err error) {
		x.db, err = pebble.Open(dir, opts)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	x.opened.Store(true)
	return x, nil
}

// compactions tells Pebble how many there may be: none before it is open. If opening fails, Pebble closes the tables under one that has
// begun, and that panics; found by TestAnErrorOfAnyFileOperationLosesNothingAcknowledged.
func (x *index) compactions() (lower, upper int) {
	if x.opened.Load() {
		return 1, 1
	}
	return 0, 1
}

// guard does what writes to Pebble, and returns when that is done or when Pebble has ended. Then do is left behind: it may wait
// for ever for what Pebble will not do any more, so it must not touch anything that somebody else uses after that.
func (x *index) guard(do func() error) error {
	if x.hasEnded() {
		return x.failure()
	}
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-x.ended:
		return x.failure()
	}
}

// mayStill stops who wants to write to the index's files once Pebble has ended, where they are: what they would write of the state it
// was left in is not to be trusted, and with an error they would try for ever. They hold no lock that readers want: Pebble gives its main
// one back for input and output. They must not end either: a compaction's deferred calls expect its tables closed, and panic.
func (x *index) mayStill(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && x.hasEnded() {
		select {}
	}
	return nil
}

func (x *index) hasEnded() bool {
	select {
	case <-x.ended:
		return true
	default:
		return false
	}
}

// fail remembers the first failure in the background, where there is nobody to return it to.
func (x *index) fail(err error) {
	if errors.Is(err, pebble.ErrCancelledCompaction) || errors.Is(err, context.Canceled) {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.failed == nil {
		x.failed = err
		close(x.broken)
	}
}

func (x *index) failure() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.failed
}

// indexLogger keeps Pebble's chatter away and turns what it thinks fatal into a failure of the index.
type indexLogger struct {
	x      *index
	logger *slog.Logger
}

func (indexLogger) Infof(string, ...any) {}
func (l indexLogger) Errorf(format string, args ...any) {
	l.logger.Warn("log index", "err", fmt.Sprintf(format, args...))
}

// Fatalf ends its goroutine, and all writing: Pebble relies on Fatalf ending the process, and goes wrong if it returns. The
// goroutine's deferred calls give its locks back, so that readers go on, from memory and files as they were. The log stops, tells,
// and the next process recovers. While Pebble is being opened there are no readers who could want those locks, and the calls would
// close what they find half made, which panics: then the goroutine stays where it is.
func (l indexLogger) Fatalf(format string, args ...any) {
	l.x.fail(fmt.Errorf("log index: "+format, args...))
	l.x.once.Do(func() { close(l.x.ended) })
	if !l.x.opened.Load() {
		select {}
	}
	runtime.Goexit()
}

// isDamage tells damage of the index's files from a disk that cannot be read now.
func isDamage(err error) bool {
	return pebble.IsCorruptionError(err) || errors.Is(err, os.ErrNotExist) || errors.Is(err, errIndex)
}

var errIndex = errors.New("malformed index entry")

// wrap turns damage found while the log runs into an error for users.
func (x *index) wrap(err error) error {
	if err != nil && isDamage(err) {
		return &quipu.Error{Code: quipu.CodeCorrupt, Op: "log.read", Text: "the log's index is damaged", Err: err,
			Hint: "stop the node and start it again: the index is rebuilt from the log if no segment was deleted; otherwise restore a backup"}
	}
	return err
}

// close leaves a Pebble that has ended as it is.
func (x *index) close() error {
	if err := x.guard(x.db.Close); err != nil {
		return fmt.Errorf("close index: %w", err)
	}
	return nil
}

// save makes the generation and the resolver's writes durable, in one step.
func (x *index) save(g *generation, writes *resolve.Generation) error {
	b := x.db.NewBatch() // not closed: after a failure Pebble may still hold it
	err := errors.Join(x.putBooks(b, g), x.putProducers(b, g), x.putWrites(b, writes), x.dropGenerations(b, g.end.seq),
		dropBooks(b, g), b.Set([]byte{keyCreated}, be.AppendUint64(nil, uint64(g.created)), nil),
		b.Set([]byte{keyCheckpoint}, encodeCheckpoint(g.end), nil))
	if err != nil {
		return fmt.Errorf("fill checkpoint: %w", err)
	}
	if err := x.apply(b); err != nil {
		return fmt.Errorf("apply checkpoint: %w", err)
	}
	if err := x.flush(); err != nil {
		return fmt.Errorf("flush checkpoint: %w", err)
	}
	if writes.Bytes() > 0 {
		x.mu.Lock()
		x.gens = append(x.gens, writes.Last())
		x.mu.Unlock()
	}
	return nil
}

func (x *index) apply(b *pebble.Batch) error {
	return x.guard(func() error { return x.db.Apply(b, pebble.NoSync) })
}

// flush waits until everything applied is in synced tables, or a background failure: Pebble would retry for ever.
func (x *index) flush() error {
	var done <-chan struct{}
	err := x.guard(func() (err error) {
		done, err = x.db.AsyncFlush()
		return err
	})
	if err != nil {
		return err
	}
	select {
	case <-done:
		return x.failure()
	case <-x.broken:
		return x.failure()
	}
}

func (x *index) putBooks(b *pebble.Batch, g *generation) error {
	var key, value []byte
	for id, p := range g.books {
		if id == 0 {
			if err := x.putSegments(b, id, p); err != nil {
				return err
			}
			continue
		}
		key = be.AppendUint64(append(key[:0], keyBookV1), uint64(id))
		err := b.Delete(key, nil)
		key[0] = keyBook
		value = p.saved.encode(value[:0])
		err = errors.Join(err, b.Set(key, value, nil), p.saved.putGone(b, id), x.putSegments(b, id, p), putTrims(b, id, p), putStream(b, id, quipu.TagAll, &p.all))
		if err != nil {
			return err
		}
		for tag, s := range p.tags {
			if err := putStream(b, id, tag, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropBooks forgets books that were deleted, whatever else the batch says of them.
func dropBooks(b *pebble.Batch, g *generation) error {
	for _, id := range g.deleted {
		for _, space := range []byte{keyBookV1, keyTagTrim, keyProducer, keyPosting, keyBook, keyGone} {
			lower, upper := be.AppendUint64([]byte{space}, uint64(id)), be.AppendUint64([]byte{space}, uint64(id)+1)
			if err := b.DeleteRange(lower, upper, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// putSegments adds to the shares of a book. Only the first segment of a generation can have one in the index already.
func (x *index) putSegments(b *pebble.Batch, id quipu.Book, p *bookPart) error {
	for i, s := range p.segments {
		if i == 0 {
			known, err := x.share(s.segment, id)
			if err != nil {
				return err
			}
			known.add(s.share)
			s.share = known
		}
		if err := b.Set(shareKey(keySegment, s.segment, id), s.encode(), nil); err != nil {
			return err
		}
	}
	return nil
}

// putTrims saves points of tags that moved, and forgets those that the book's point has passed.
func putTrims(b *pebble.Batch, id quipu.Book, p *bookPart) error {
	for _, tag := range p.trims {
		key := append(be.AppendUint64([]byte{keyTagTrim}, uint64(id)), tag...)
		point, ok := p.saved.tagTrims[tag]
		err := error(nil)
		if ok {
			err = b.Set(key, be.AppendUint64(nil, uint64(point)), nil)
		} else {
			err = b.Delete(key, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func putStream(b *pebble.Batch, id quipu.Book, tag string, s *stream) error {
	key := postingKey(nil, id, tag, 0)
	var value []byte
	for block := range slices.Chunk(s.postings, postingBlockMax) {
		be.PutUint64(key[len(key)-8:], uint64(block[len(block)-1].seq))
		value = appendBlock(value[:0], block)
		if err := b.Set(key, value, nil); err != nil {
			return err
		}
	}
	return nil
}

func (x *index) putProducers(b *pebble.Batch, g *generation) error {
	for k, p := range g.producers {
		key := be.AppendUint64(be.AppendUint64([]byte{keyProducer}, uint64(k.book)), k.id)
		if err := b.Set(key, encodeProducer(p), nil); err != nil {
			return err
		}
	}
	return nil
}

func (x *index) putWrites(b *pebble.Batch, writes *resolve.Generation) error {
	if writes.Bytes() == 0 {
		return nil
	}
	gen := be.AppendUint64([]byte{keyGeneration}, uint64(writes.Last()))
	if err := b.Set(gen, nil, nil); err != nil {
		return err
	}
	var k []byte
	return writes.Each(func(book quipu.Book, key string, seq quipu.Seq) error {
		k = append(writeKey(k[:0], writes.Last(), book), key...)
		return b.Set(k, be.AppendUint64(nil, uint64(seq)), nil)
	})
}

// dropGenerations forgets writes that can matter to no record any more.
func (x *index) dropGenerations(b *pebble.Batch, applied quipu.Seq) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for len(x.gens) > 0 && resolve.Expired(x.gens[0], applied) {
		last := x.gens[0]
		x.gens = x.gens[1:]
		err := errors.Join(b.Delete(be.AppendUint64([]byte{keyGeneration}, uint64(last)), nil),
			b.DeleteRange(writeKey(nil, last, 0), writeKey(nil, last+1, 0), nil))
		if err != nil {
			return err
		}
	}
	return nil
}

// NewestWrite implements resolve.Older.
func (x *index) NewestWrite(id quipu.Book, key string, after quipu.Seq) (quipu.Seq, error) {
	return x.NewestWriteIn(id, quipu.KeyRange{From: key, To: key + "\x00"}, after)
}

// NewestWriteIn implements resolve.Older: it looks into every saved generation that may hold such a write.
func (x *index) NewestWriteIn(id quipu.Book, span quipu.KeyRange, after quipu.Seq) (quipu.Seq, error) {
	x.mu.Lock()
	gens := x.gens
	x.mu.Unlock()
	var newest quipu.Seq
	for i := len(gens) - 1; i >= 0 && gens[i] > after; i-- {
		lower := append(writeKey(nil, gens[i], id), span.From...)
		upper := writeKey(nil, gens[i], id+1)
		if span.To != "" {
			upper = append(writeKey(nil, gens[i], id), span.To...)
		}
		err := x.each(lower, upper, func(_, value []byte) error {
			if seq := quipu.Seq(be.Uint64(value)); seq > after {
				newest = max(newest, seq)
			}
			return nil
		})
		if err != nil || newest > 0 {
			return newest, x.wrap(err)
		}
	}
	return newest, nil
}

// scan appends to out the postings of a stream in [from, to] that name a place, at most max in all.
func (x *index) scan(id quipu.Book, tag string, from, to quipu.Seq, out []posting, max int) ([]posting, error) {
	err := x.eachIn(id, tag, from, to, func(p posting) bool {
		if p.isPlace() && len(out) < max {
			out = append(out, p)
		}
		return len(out) < max
	})
	return out, err
}

// eachIn visits the postings of a stream in [from, to], also those that name no place, until visit answers false.
func (x *index) eachIn(id quipu.Book, tag string, from, to quipu.Seq, visit func(posting) bool) error {
	err := x.each(postingKey(nil, id, tag, from), streamEnd(id, tag), func(key, value []byte) error {
		enough := false
		err := eachPosting(key, value, func(p posting) bool {
			enough = p.seq > to || p.seq >= from && !visit(p) || p.seq == to
			return !enough
		})
		if err == nil && enough {
			err = errEnough
		}
		return err
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return x.wrap(err)
}

var errEnough = errors.New("enough")

// last is the newest posting of a stream with a seq <= to, which may name no place. It is in the first block that ends at or after to, or
// else the end of the block before.
func (x *index) last(id quipu.Book, tag string, to quipu.Seq) (p posting, ok bool, err error) {
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: postingKey(nil, id, tag, 0), UpperBound: streamEnd(id, tag)})
	if err != nil {
		return posting{}, false, x.wrap(err)
	}
	defer func() {
		if e := it.Close(); e != nil {
			ok, err = false, x.wrap(e)
		}
	}()
	there := it.SeekGE(postingKey(nil, id, tag, to))
	if there {
		if p, ok, err = lastIn(it, to); ok || err != nil {
			return p, ok, x.wrap(err)
		}
		there = it.Prev()
	} else if it.Error() == nil {
		there = it.Last()
	}
	if !there {
		return posting{}, false, x.wrap(it.Error())
	}
	p, ok, err = lastIn(it, to)
	return p, ok, x.wrap(err)
}

// lastPlace is the newest posting of a stream in (floor, to] that names a place. What it passes over are records of a
// book that are trimmed in all of their tags.
func (x *index) lastPlace(id quipu.Book, tag string, floor, to quipu.Seq) (posting, bool, error) {
	p, ok, err := x.last(id, tag, to)
	for ok && err == nil && p.seq > floor && !p.isPlace() {
		p, ok, err = x.last(id, tag, p.seq-1)
	}
	return p, ok && p.isPlace(), err
}

// lastIn is the last posting with a seq <= to of the block that it stands at.
func lastIn(it *pebble.Iterator, to quipu.Seq) (last posting, ok bool, err error) {
	value, err := it.ValueAndErr()
	if err != nil {
		return posting{}, false, err
	}
	err = eachPosting(it.Key(), value, func(p posting) bool {
		if p.seq > to {
			return false
		}
		last, ok = p, true
		return true
	})
	return last, ok && err == nil, err
}

// trim is the saved trim point of a book; SeqMax if the book was deleted.
func (x *index) trim(id quipu.Book) (quipu.Seq, error) {
	for _, space := range []byte{keyBook, keyBookV1} {
		value, closer, err := x.db.Get(be.AppendUint64([]byte{space}, uint64(id)))
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if len(value) < 25 {
			return 0, errors.Join(errIndex, closer.Close())
		}
		return quipu.Seq(be.Uint64(value[16:])), closer.Close()
	}
	return quipu.SeqMax, nil
}

// producer finds a producer; nil if it is unknown.
func (x *index) producer(k producerKey) (*producer, error) {
	value, closer, err := x.db.Get(be.AppendUint64(be.AppendUint64([]byte{keyProducer}, uint64(k.book)), k.id))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, x.wrap(err)
	}
	p, err := parseProducer(value)
	return p, x.wrap(errors.Join(err, closer.Close()))
}

// each visits the entries in [lower, upper) in order until visit fails.
func (x *index) each(lower, upper []byte, visit func(key, value []byte) error) (err error) {
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if err := visit(it.Key(), value); err != nil {
			return err
		}
	}
	return it.Error()
}

func postingKey(buf []byte, id quipu.Book, tag string, seq quipu.Seq) []byte {
	buf = be.AppendUint64(append(buf, keyPosting), uint64(id))
	buf = append(be.AppendUint16(buf, uint16(len(tag))), tag...)
	return be.AppendUint64(buf, uint64(seq))
}

// streamEnd is the first key behind a stream's postings.
func streamEnd(id quipu.Book, tag string) []byte {
	return append(postingKey(nil, id, tag, quipu.SeqMax), 0)
}

func writeKey(buf []byte, gen quipu.Seq, id quipu.Book) []byte {
	return be.AppendUint64(be.AppendUint64(append(buf, keyWrite), uint64(gen)), uint64(id))
}

// bookEncoded is the size of what encode writes, without the name.
const bookEncoded = 4*8 + 4*8 + optionsBytes

func (b *book) encode(v []byte) []byte {
	v = be.AppendUint64(be.AppendUint64(be.AppendUint64(v, uint64(b.tail)), uint64(b.newest)), uint64(b.trim))
	v = be.AppendUint64(v, uint64(b.born))
	for _, n := range []int64{b.total.records, b.total.bytes, b.below.records, b.below.bytes} {
		v = be.AppendUint64(v, uint64(n))
	}
	return append(appendOptions(v, b.options), b.name...)
}

// parseBook reads what encode wrote, or the shorter entry of older versions.
func parseBook(id quipu.Book, v []byte, v1 bool) (*book, error) {
	size := bookEncoded
	if v1 {
		size = 24
	}
	if len(v) <= size {
		return nil, errIndex
	}
	b := &book{id: id, tail: quipu.Seq(be.Uint64(v)), newest: quipu.Seq(be.Uint64(v[8:])), trim: quipu.Seq(be.Uint64(v[16:])),
		name: string(v[size:]), uncounted: v1}
	if !v1 {
		b.born = quipu.Seq(be.Uint64(v[24:]))
		b.total = volume{int64(be.Uint64(v[32:])), int64(be.Uint64(v[40:]))}
		b.below = volume{int64(be.Uint64(v[48:])), int64(be.Uint64(v[56:]))}
		b.options = parseOptions(v[64:])
	}
	return b, nil
}

func encodeCheckpoint(c checkpoint) []byte {
	b := be.AppendUint64(be.AppendUint32(nil, c.end.Segment), uint64(c.end.Offset))
	b = be.AppendUint64(b, uint64(c.batch))
	b = be.AppendUint64(be.AppendUint64(b, uint64(c.seq)), uint64(c.stamp))
	return be.AppendUint32(b, c.crc)
}

func parseCheckpoint(b []byte) (checkpoint, error) {
	if len(b) != 40 {
		return checkpoint{}, errIndex
	}
	return checkpoint{
		end: place{be.Uint32(b), int64(be.Uint64(b[4:]))}, batch: int64(be.Uint64(b[12:])),
		seq: quipu.Seq(be.Uint64(b[20:])), stamp: int64(be.Uint64(b[28:])), crc: be.Uint32(b[36:]),
	}, nil
}

const outcomeEncoded = 8 + 8 + 4 + 1 + 8

func encodeProducer(p *producer) []byte {
	b := be.AppendUint32(nil, p.epoch)
	for _, o := range p.outcomes {
		b = be.AppendUint64(be.AppendUint64(b, o.n), uint64(o.first))
		b = append(be.AppendUint32(b, o.count), byte(o.Outcome))
		b = be.AppendUint64(b, uint64(o.Winner))
	}
	return b
}

func parseProducer(b []byte) (*producer, error) {
	if len(b) < 4+outcomeEncoded || (len(b)-4)%outcomeEncoded != 0 {
		return nil, errIndex
	}
	p := &producer{epoch: be.Uint32(b)}
	for b = b[4:]; len(b) > 0; b = b[outcomeEncoded:] {
		p.outcomes = append(p.outcomes, outcome{
			n: be.Uint64(b), first: quipu.Seq(be.Uint64(b[8:])), count: be.Uint32(b[16:]),
			Verdict: resolve.Verdict{Outcome: resolve.Outcome(b[20]), Winner: quipu.Seq(be.Uint64(b[21:]))},
		})
	}
	return p, nil
}
