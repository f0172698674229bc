package locallog

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/quipu-run/quipu"
)

// diskCheckBytes is how much is written between two looks at the free space.
const diskCheckBytes = 1 << 20

// writer is what only the writer's goroutine touches, and Open before it starts.
type writer struct {
	term      uint32
	active    *segment
	offset    int64 // where the next batch goes
	synced    int64 // all before it in the active segment is synced; with SyncAlways that is offset
	pos       uint64
	crc       uint32
	stamp     int64
	unchecked int64                          // bytes written since the free space was looked at
	rolled    bool                           // a segment was filled since the last checkpoint
	producers map[producerKey]quipu.Producer // of the group that is chosen
	bytes     map[quipu.Book]int64           // of the group that is chosen, in books with a quota
	queued    map[quipu.Book]int             // bytes that wait, by book
	results   []result
	done      chan struct{}
}

// write is the writer: it takes all that waits, writes and syncs it as one batch, judges it, and answers.
func (l *Log) write() {
	defer close(l.writer.done)
	l.writer.producers, l.writer.bytes = map[producerKey]quipu.Producer{}, map[quipu.Book]int64{}
	l.writer.queued = map[quipu.Book]int{}
	var pending []*request
	for {
		var ok bool
		pending, ok = l.queue.take(pending)
		if !ok {
			l.refuse(pending)
			return
		}
		var err error
		pending, err = l.commit(pending)
		if err != nil {
			l.opts.Logger.Error("log stopped", "err", err)
			l.halt(err)
		}
		// Callers that were just answered often append again: let them, so that they share the next sync.
		runtime.Gosched()
	}
}

// refuse answers requests that were never taken.
func (l *Log) refuse(pending []*request) {
	l.mu.RLock()
	cause := l.cause
	l.mu.RUnlock()
	for _, r := range pending {
		if r.state.CompareAndSwap(requestQueued, requestTaken) {
			r.answer(result{}, stopped(cause))
		}
	}
}

// commit writes one batch and answers what is left over. After an error the log must stop.
func (l *Log) commit(pending []*request) ([]*request, error) {
	if len(pending) == 0 {
		return pending, l.maintain() // the keeper wants to be heard
	}
	taken := time.Now()
	group, rest, size, err := l.choose(pending)
	if err != nil || len(group) == 0 {
		answerAll(group, unknown(err))
		return rest, err
	}
	if full, err := l.room(int64(size)); full != nil || err != nil {
		if err != nil {
			full = stopped(err)
		}
		answerAll(group, full)
		return rest, err
	}
	batch, h := l.build(group, size)
	storing := time.Now()
	if err := l.store(batch); err != nil {
		answerAll(group, unknown(err))
		return rest, err
	}
	stored := time.Since(storing)
	traceAll(group, len(batch), storing, stored)
	if err := l.enter(batch, h); err != nil {
		answerAll(group, unknown(err))
		return rest, err
	}
	for i, r := range group {
		r.answer(l.writer.results[i], nil)
	}
	l.counts.group(len(group), h.count, len(batch))
	l.opts.Observe(Commit{Appends: len(group), Records: h.count, Bytes: len(batch), Stored: stored, Took: time.Since(taken)})
	return rest, l.maintain()
}

func answerAll(group []*request, err error) {
	for _, r := range group {
		r.answer(result{}, err)
	}
}

// choose takes requests for one batch, in order. It answers those that need no write: repeated or
// fenced producer numbers, and all but the log's own while the disk is low.
func (l *Log) choose(pending []*request) (group, rest []*request, size int, err error) {
	low, err := l.diskLow()
	if err != nil {
		return nil, pending, 0, err
	}
	size = batchHeaderBytes
	most := l.writer.share(pending, l.opts.CommitBytesMax)
	group = make([]*request, 0, len(pending))
	left := 0
	defer func() { l.queue.left(left) }()
	clear(l.writer.producers)
	clear(l.writer.bytes)
	for i, r := range pending {
		if len(group) > 0 && size+len(r.buf) > most {
			return group, append(pending[:0], pending[i:]...), size, nil
		}
		answer, later, err := l.precheck(r, low)
		if err != nil {
			return group, append(pending[:0], pending[i:]...), size, err
		}
		if later {
			return group, append(pending[:0], pending[i:]...), size, nil
		}
		left += len(r.buf)
		if !r.state.CompareAndSwap(requestQueued, requestTaken) {
			continue // withdrawn
		}
		if answer != nil {
			r.answer(answer.res, answer.err)
			continue
		}
		if r.producer != (quipu.Producer{}) {
			l.writer.producers[producerKey{r.book, r.producer.ID}] = r.producer
		}
		group, size = append(group, r), size+len(r.buf)
	}
	return group, pending[:0], size, nil
}

// sharedBytesMax is the most of a group commit while several books wait for it: whoever comes next waits for all of it.
const sharedBytesMax = 512 << 10

// share lets books take turns, by bytes, if more waits than one group takes: so a book with little to write is in the
// next group, however much another has queued. Appends of one book stay in their order. It answers the most bytes of the group.
func (w *writer) share(pending []*request, most int) int {
	other := func(r *request) bool { return r.book != pending[0].book }
	if !slices.ContainsFunc(pending, other) {
		return most
	}
	clear(w.queued)
	total := 0
	for _, r := range pending {
		r.before = w.queued[r.book]
		w.queued[r.book] += len(r.buf)
		total += len(r.buf)
	}
	most = min(most, sharedBytesMax)
	if total > most {
		slices.SortStableFunc(pending, func(a, b *request) int { return cmp.Compare(a.before, b.before) })
	}
	return most
}

// answer is what a request gets without a write.
type answer struct {
	res result
	err error
}

// precheck answers a request that must not be written; later says that the batch before it must be judged first.
func (l *Log) precheck(r *request, low bool) (a *answer, later bool, err error) {
	if low && !r.system {
		return &answer{err: diskFull(nil)}, false, nil
	}
	if r.producer == (quipu.Producer{}) {
		return l.checkQuota(r), false, nil
	}
	key := producerKey{r.book, r.producer.ID}
	if _, same := l.writer.producers[key]; same {
		return nil, true, nil
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	p, err := l.state.producer(key)
	if err != nil {
		return nil, false, err
	}
	if o := p.find(r.producer); o != nil {
		return &answer{res: result{first: o.first, count: int(o.count), code: codeOf(o.Verdict), seq: o.Winner}}, false, nil
	}
	if !p.follows(r.producer) {
		return &answer{err: &quipu.Error{Code: quipu.CodeFenced, Op: "log.append",
			Text: fmt.Sprintf("number %d of epoch %d does not follow what producer %x appended", r.producer.N, r.producer.Epoch, r.producer.ID)}}, false, nil
	}
	return l.checkQuota(r), false, nil
}

// checkQuota refuses what would take its book beyond its quota, those before it in the group counted as won. It needs no
// lock: only the writer changes books.
func (l *Log) checkQuota(r *request) *answer {
	b := l.state.books[r.book]
	if b == nil || b.options.Quota == 0 {
		return nil
	}
	with := l.writer.bytes[r.book] + int64(len(r.buf))
	if b.held().bytes+with > b.options.Quota {
		return &answer{err: &quipu.Error{Code: quipu.CodeQuota, Op: "log.append",
			Text: fmt.Sprintf("%d bytes more would take the book %q beyond its quota of %d", len(r.buf), b.name, b.options.Quota)}}
	}
	l.writer.bytes[r.book] = with
	return nil
}

// diskLow tells whether the free space is under the reserve, without the spares, which go first. It looks again
// when enough was written, and at every batch while it is low.
func (l *Log) diskLow() (bool, error) {
	w := &l.writer
	if w.unchecked < diskCheckBytes && !l.low.Load() {
		return false, nil
	}
	w.unchecked = 0
	if !l.freeBelow(0) {
		l.low.Store(false)
		return false, nil
	}
	dropped, err := l.spares.drop()
	if err != nil {
		return true, fmt.Errorf("make room on the disk: %w", err)
	}
	l.low.Store(!dropped || l.freeBelow(0))
	return l.low.Load(), nil
}

// freeBelow tells whether the disk has less free than need and the reserve. A file system that cannot tell has enough.
func (l *Log) freeBelow(need int64) bool {
	usage, err := l.fs.GetDiskUsage(l.dir)
	return err == nil && usage.AvailBytes < uint64(need)+l.opts.DiskReserve
}

// build makes the bytes of a batch: a header, and the requests' records with seq, stamp and crc.
func (l *Log) build(group []*request, size int) ([]byte, *batchHeader) {
	w := &l.writer
	w.stamp = max(w.stamp, l.opts.Clock.Now().UnixNano())
	h := &batchHeader{epoch: w.active.epoch, first: quipu.MakeSeq(w.term, w.pos+1), offset: w.offset, synced: w.synced, prev: w.crc}
	batch := l.hot.buffer(size)[:batchHeaderBytes]
	for _, r := range group {
		batch = append(batch, r.buf...)
		h.count += r.count
	}
	at := batchHeaderBytes
	for i := range h.count {
		at += finishRecord(batch[at:], h.first+quipu.Seq(i), w.stamp)
	}
	h.put(batch)
	return batch, h
}

// store makes the batch durable. A failure is never retried: what the kernel kept of it is not known.
func (l *Log) store(batch []byte) error {
	w := &l.writer
	if _, err := w.active.file.WriteAt(batch, w.offset); err != nil {
		return fmt.Errorf("write %s at %d: %w", w.active.path, w.offset, err)
	}
	if l.opts.Sync == SyncAlways {
		if err := w.active.file.SyncData(); err != nil {
			return fmt.Errorf("sync %s: %w", w.active.path, err)
		}
		l.counts.syncs.Add(1)
		w.synced = w.offset + int64(len(batch))
	}
	return nil
}

// syncActive makes the active segment durable. With SyncOS that is due before anything durable relies on it: a
// checkpoint of the index, the next segment, a clean end.
func (l *Log) syncActive() error {
	w := &l.writer
	if w.synced == w.offset {
		return nil
	}
	if err := w.active.file.SyncData(); err != nil {
		return fmt.Errorf("sync %s: %w", w.active.path, err)
	}
	l.counts.syncs.Add(1)
	w.synced = w.offset
	return nil
}

// enter judges a durable batch and makes it readable.
func (l *Log) enter(batch []byte, h *batchHeader) error {
	w := &l.writer
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	w.results, err = l.state.apply(batch, h, w.active.id, w.results[:0])
	if err != nil {
		return err
	}
	l.hot.add(w.active.id, w.offset, batch)
	w.offset += int64(len(batch))
	w.pos += uint64(h.count)
	w.crc = h.crc
	w.unchecked += int64(len(batch))
	for i, c := range l.state.wake {
		close(c)
		l.state.wake[i] = nil
	}
	l.state.wake = l.state.wake[:0]
	return nil
}
