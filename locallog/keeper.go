package locallog

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/resolve"
)

// keeper does in the background what the writer must not wait for: it fills the next segment with zeros, and saves
// checkpoints of the index. The writer asks for at most one of each at a time.
type keeper struct {
	wait     sync.WaitGroup
	want     chan int64    // size of the segment to prepare
	prepared chan prepared // answers want
	asked    bool          // the writer waits for an answer in prepared
	save     chan saving
	saved    chan error // answers save
	busy     bool       // the writer waits for an answer in saved
	alarm    chan struct{}
	alarmed  bool        // the writer waits for overdue
	overdue  atomic.Bool // a trim was trimDelay ago
}

// trimDelay is how long a trim waits for a checkpoint that is due for another reason, before it causes one: space comes back also
// when nothing is appended any more.
const trimDelay = 2 * time.Second

// prepared is a segment that is ready for use, listed in the MANIFEST.
type prepared struct {
	segment *segment
	err     error
}

// saving is a frozen part of the index.
type saving struct {
	gen    *generation
	writes *resolve.Generation
}

// start runs the two goroutines. Channels have room for one answer, so that they never wait for the writer.
func (k *keeper) start(l *Log) {
	k.want, k.save, k.alarm = make(chan int64, 1), make(chan saving, 1), make(chan struct{}, 1)
	if k.prepared == nil {
		k.prepared = make(chan prepared, 1)
	}
	k.saved = make(chan error, 1)
	k.wait.Go(func() {
		for size := range k.want {
			s, err := l.prepare(size)
			k.prepared <- prepared{s, err}
		}
	})
	broken := l.index().broken
	k.wait.Go(func() {
		select {
		case <-broken:
			l.halt(l.index().failure())
		case <-l.done:
		}
	})
	k.wait.Go(l.retainAll)
	k.wait.Go(func() {
		for s := range k.save {
			k.saved <- l.checkpoint(s)
			l.queue.nudge()
		}
	})
	k.wait.Go(func() {
		for range k.alarm {
			select {
			case <-l.opts.Clock.After(trimDelay):
				k.overdue.Store(true)
				l.queue.nudge()
			case <-l.done:
			}
		}
	})
	k.wait.Go(l.clean)
	l.cleaner.signal() // for what an earlier run left
}

// stop waits for both. The writer must have ended.
func (k *keeper) stop() {
	close(k.want)
	close(k.save)
	close(k.alarm)
	k.wait.Wait()
}

// room makes sure that the next batch of size bytes fits, in the next segment if need be. full is the answer for
// callers if there is no space on the disk; after err the log must stop.
func (l *Log) room(size int64) (full, err error) {
	w, k := &l.writer, &l.keeper
	for w.active.size-w.offset < size {
		if !k.asked {
			l.ask(size)
		}
		next := <-k.prepared
		k.asked = false
		if quipu.CodeOf(next.err) == quipu.CodeDiskFull {
			return next.err, nil
		}
		if next.err != nil {
			return nil, fmt.Errorf("prepare a segment: %w", next.err)
		}
		if err := l.syncActive(); err != nil {
			return nil, err
		}
		l.seal()
		w.active, w.offset, w.synced, w.rolled = next.segment, segmentHeaderBytes, segmentHeaderBytes, true
	}
	return nil, nil
}

// ask starts the preparation of a segment that has room for need bytes.
func (l *Log) ask(need int64) {
	size := min(l.writer.active.size*2, l.opts.SegmentBytesMax)
	l.keeper.asked = true
	l.keeper.want <- max(size, (need+2*segmentHeaderBytes-1)/segmentHeaderBytes*segmentHeaderBytes)
}

// seal notes where the active segment ends. It becomes durable with the next MANIFEST; until then recovery
// finds the end by the chain of batches.
func (l *Log) seal() {
	l.manifestMu.Lock()
	defer l.manifestMu.Unlock()
	l.manifest.find(l.writer.active.id).End = l.writer.offset
	l.counts.rolls.Add(1)
}

// prepare makes the next segment. Nothing remains of it after an error; CodeDiskFull may be tried again.
func (l *Log) prepare(size int64) (*segment, error) {
	l.manifestMu.Lock()
	id := l.manifest.Segments[len(l.manifest.Segments)-1].ID + 1
	l.manifestMu.Unlock()
	s, err := l.makeSegment(segmentHeader{id: id, epoch: newEpoch(id), size: size})
	if isNoSpace(err) {
		return nil, diskFull(err)
	}
	if err != nil {
		return nil, err
	}
	l.manifestMu.Lock()
	defer l.manifestMu.Unlock()
	l.manifest.Segments = append(l.manifest.Segments, manifestSegment{ID: s.id, Epoch: quipu.Seq(s.epoch), Size: size})
	if err := l.manifest.write(l.fs, l.dir); err != nil {
		// Whether the new MANIFEST is in place may be unknown, so the file must stay and the log must not go on.
		return nil, errors.Join(fmt.Errorf("list segment %d: %w", s.id, err), s.release())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segments[s.id] = s
	return s, nil
}

// makeSegment writes over a spare if there is one, or else fills a new file.
func (l *Log) makeSegment(h segmentHeader) (*segment, error) {
	if spare := l.spares.take(h.size); spare != nil {
		l.counts.recycled.Add(1)
		return recycleSegment(l.fs, l.dir, spare, h)
	}
	if l.freeBelow(h.size) {
		return nil, diskFull(nil)
	}
	return createSegment(l.fs, l.dir, h)
}

// maintain starts what the batch just written made necessary. A checkpoint is due when the index has grown in memory,
// when a segment was filled after a trim, so that what is deleted is written over before new files are needed, and some time after a trim.
func (l *Log) maintain() error {
	w, k := &l.writer, &l.keeper
	if !k.asked && w.offset > w.active.size/2 {
		l.ask(0)
	}
	if k.busy {
		select {
		case err := <-k.saved:
			k.busy = false
			if err != nil {
				return err
			}
		default:
		}
	}
	l.mu.RLock()
	bytes := l.state.open.bytes + l.state.window.OpenBytes()
	moved := l.state.moved
	l.mu.RUnlock()
	due := bytes >= l.opts.CheckpointBytes || moved && (w.rolled || l.isOverdue())
	if !due || k.busy && bytes < 2*l.opts.CheckpointBytes {
		return nil
	}
	w.rolled, k.alarmed = false, false
	k.overdue.Store(false)
	if k.busy {
		if err := <-k.saved; err != nil {
			return err
		}
	}
	if err := l.syncActive(); err != nil {
		return err
	}
	l.mu.Lock()
	gen, writes := l.state.freeze()
	l.mu.Unlock()
	k.busy = true
	k.save <- saving{gen, writes}
	return nil
}

// isOverdue tells whether a trim waited long enough. The first to ask sets the alarm.
func (l *Log) isOverdue() bool {
	k := &l.keeper
	if !k.alarmed {
		k.alarmed = true
		select {
		case k.alarm <- struct{}{}:
		default: // an older one is still to ring
		}
	}
	return k.overdue.Load()
}

// checkpoint saves a frozen part of the index, and tells the cleaner what it trimmed.
func (l *Log) checkpoint(s saving) error {
	if err := l.index().save(s.gen, s.writes); err != nil {
		return err
	}
	l.counts.checkpoints.Add(1)
	l.mu.Lock()
	l.state.thaw(s.gen, s.writes)
	l.mu.Unlock()
	if s.gen.moved {
		l.cleaner.note(s.gen)
	}
	return nil
}

// checkpointNow saves everything. Nothing else runs.
func (l *Log) checkpointNow() error {
	if l.keeper.busy {
		l.keeper.busy = false
		if err := <-l.keeper.saved; err != nil {
			return err
		}
	}
	if len(l.state.open.books) == 0 && l.state.window.OpenBytes() == 0 {
		return nil
	}
	l.mu.Lock()
	gen, writes := l.state.freeze()
	l.mu.Unlock()
	return l.checkpoint(saving{gen, writes})
}

// delete forgets segments in which nothing is live: first in the MANIFEST, then in the index, then as files. A crash in between
// leaves files that Open removes, or postings below a trim point, which no read looks at.
func (l *Log) delete(dead []uint32) error {
	if len(dead) == 0 {
		return nil
	}
	segments, err := l.unlist(dead)
	if err != nil {
		return err
	}
	for _, s := range segments {
		if err := l.forget(s); err != nil {
			return err
		}
		kept, err := l.spares.keep(s)
		if err == nil && !kept {
			err = l.fs.Remove(s.path)
		}
		if err := errors.Join(err, s.release()); err != nil {
			return err
		}
		l.counts.deleted.Add(1)
	}
	return nil
}

// unlist takes segments out of the MANIFEST and the table, and answers them with the table's reference.
func (l *Log) unlist(dead []uint32) ([]*segment, error) {
	l.manifestMu.Lock()
	defer l.manifestMu.Unlock()
	isDead := func(m manifestSegment) bool { return slices.Contains(dead, m.ID) }
	// In copies: whoever took the lists under the lock may still read them.
	l.manifest.Segments = slices.DeleteFunc(slices.Clone(l.manifest.Segments), isDead)
	l.manifest.Kept = slices.DeleteFunc(slices.Clone(l.manifest.Kept), isDead)
	l.manifest.Pruned = true
	if err := l.manifest.write(l.fs, l.dir); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	segments := make([]*segment, 0, len(dead))
	for _, id := range dead {
		segments = append(segments, l.segments[id])
		delete(l.segments, id)
		l.hot.forget(id)
	}
	return segments, nil
}

// eachBatch visits the batches from offset to the first that is none. Batches are valid until the next.
func (s *segment) eachBatch(offset int64, visit func(batch []byte, h *batchHeader) error) error {
	var buf []byte
	for {
		h, batch, err := s.batchAt(offset, buf)
		if errors.Is(err, errBatch) {
			return nil
		}
		if err != nil {
			return err
		}
		buf = batch
		if err := visit(batch, &h); err != nil {
			return err
		}
		offset += int64(h.size)
	}
}
