package locallog

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/resolve"
)

// searchBytes is read at once when recovery looks for what lies behind a bad batch.
const searchBytes = 1 << 20

// recover brings memory to the state of the directory, and the directory to a state that can be appended to.
func (l *Log) recover() error {
	m, err := readManifest(l.fs, l.dir)
	if err != nil {
		return err
	}
	fresh := m == nil
	if fresh {
		if m, err = l.create(); err != nil {
			return err
		}
	} else if err := l.openSegments(m); err != nil {
		return err
	}
	l.manifest = m
	if err := l.openState(); err != nil {
		return err
	}
	if !fresh {
		if err := errors.Join(l.dropUnplaced(), l.recoverTail()); err != nil {
			return err
		}
	}
	if err := l.countAnew(); err != nil {
		return err
	}
	return l.begin(fresh)
}

// create makes the first segment of an empty directory. A crash before the MANIFEST is written leaves a
// segment without a record, which the next attempt replaces.
func (l *Log) create() (*manifest, error) {
	names, err := l.fs.List(l.dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", l.dir, err)
	}
	for _, name := range names {
		if id, ok := segmentID(name); ok && id > 1 {
			return nil, corrupt(l.fs.PathJoin(l.dir, manifestName), -1, "it is missing, but there are segments")
		}
	}
	if err := l.checkFirstUnused(names); err != nil {
		return nil, err
	}
	s, err := createSegment(l.fs, l.dir, segmentHeader{id: 1, epoch: newEpoch(1), size: l.opts.SegmentBytesMin})
	if err != nil {
		if isNoSpace(err) {
			return nil, diskFull(err)
		}
		return nil, err
	}
	l.segments[s.id] = s
	id := make([]byte, 16)
	if _, err := crand.Read(id); err != nil {
		return nil, err
	}
	return &manifest{Log: hex.EncodeToString(id),
		Segments: []manifestSegment{{ID: s.id, Epoch: quipu.Seq(s.epoch), Size: s.size}}}, nil
}

// checkFirstUnused refuses to replace a first segment that has records: then a MANIFEST was there once.
func (l *Log) checkFirstUnused(names []string) error {
	for _, name := range names {
		if id, ok := segmentID(name); !ok || id != 1 {
			continue
		}
		path := l.fs.PathJoin(l.dir, name)
		f, err := l.fs.Open(path)
		if err != nil {
			return fmt.Errorf("open %s: %w", path, err)
		}
		var magic [4]byte
		n, err := f.ReadAt(magic[:], segmentHeaderBytes+4)
		if e := f.Close(); err == nil || err == io.EOF {
			err = e
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if n == len(magic) && le.Uint32(magic[:]) == batchMagic {
			return corrupt(l.fs.PathJoin(l.dir, manifestName), -1, "it is missing, but "+name+" has records")
		}
	}
	return nil
}

// openSegments opens what the MANIFEST lists and removes what a crash left beside it.
func (l *Log) openSegments(m *manifest) error {
	if len(m.Segments) == 0 {
		return corrupt(l.fs.PathJoin(l.dir, manifestName), -1, "it lists no segment")
	}
	names, err := l.fs.List(l.dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", l.dir, err)
	}
	for _, name := range names {
		id, isSegment := segmentID(name)
		if isSegment && m.find(id) == nil || name == manifestName+".tmp" {
			if err := l.fs.Remove(l.fs.PathJoin(l.dir, name)); err != nil {
				return fmt.Errorf("remove a left-over: %w", err)
			}
		}
		if strings.HasSuffix(name, spareSuffix) {
			if err := l.spares.adopt(l.fs.PathJoin(l.dir, name)); err != nil {
				return err
			}
		}
	}
	for _, ms := range slices.Concat(m.Segments, m.Kept) {
		s, err := openSegment(l.fs, l.dir, ms)
		if err != nil {
			return err
		}
		l.segments[ms.ID] = s
	}
	return nil
}

// dropUnplaced forgets kept segments that the index does not know: a crash came between the two, and the records are still
// where they were.
func (l *Log) dropUnplaced() error {
	var errs []error
	l.manifest.Kept = slices.DeleteFunc(l.manifest.Kept, func(m manifestSegment) bool {
		known := false
		err := l.index().eachShare(m.ID, func(quipu.Book, share) error {
			known = true
			return nil
		})
		if err != nil || known {
			errs = append(errs, err)
			return false
		}
		errs = append(errs, l.segments[m.ID].release())
		delete(l.segments, m.ID)
		l.unplaced = append(l.unplaced, m.ID)
		return true
	})
	return errors.Join(errs...)
}

// openState loads the index. A damaged one is made anew from the segments, if they are all there.
func (l *Log) openState() error {
	dir := l.fs.PathJoin(l.dir, indexName)
	err := l.loadState(dir)
	if err == nil || !isDamage(err) {
		return err
	}
	if l.index() != nil {
		err = errors.Join(err, l.index().close())
		l.state.index = nil
	}
	if l.manifest.Pruned {
		return &quipu.Error{Code: quipu.CodeCorrupt, Op: "log.open", Err: err,
			Text: "the log's index is damaged, and segments it was made from were deleted", Hint: "restore " + l.dir + " from a backup"}
	}
	l.opts.Logger.Warn("log index is damaged and is rebuilt", "err", err)
	if err := l.fs.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the damaged index: %w", err)
	}
	return l.loadState(dir)
}

// loadState opens the index in dir and reads all of it that is kept in memory.
func (l *Log) loadState(dir string) error {
	x, err := openIndex(l.fs, dir, l.opts.Logger)
	if err != nil {
		return err
	}
	s := state{books: map[quipu.Book]*book{}, names: map[string]*book{}, open: newGeneration(), index: x,
		moved: len(l.manifest.Segments) > 1} // an earlier run may have left segments to delete
	l.state = s
	if err := l.loadCheckpoint(); err != nil {
		return err
	}
	if err := errors.Join(l.loadBooks(), l.loadTrims(), l.loadGone(), x.loadGenerations()); err != nil {
		return fmt.Errorf("load index: %w", err)
	}
	l.state.window = resolve.NewWindow(l.state.saved, x, l.opts.CheckpointBytes)
	return nil
}

// loadCheckpoint finds where the index ends. Without a checkpoint that is before the first segment.
func (l *Log) loadCheckpoint() error {
	first := l.manifest.Segments[0].ID
	l.state.end = checkpoint{end: place{first, segmentHeaderBytes}}
	found := false
	err := l.index().each([]byte{keyCheckpoint}, []byte{keyCheckpoint + 1}, func(_, value []byte) error {
		c, err := parseCheckpoint(value)
		l.state.end, l.state.saved, l.state.sealed, found = c, c.seq, c.end.Segment, err == nil
		return err
	})
	if err == nil && !found && l.manifest.Pruned {
		return fmt.Errorf("the index has no checkpoint: %w", errIndex)
	}
	return err
}

func (l *Log) loadBooks() error {
	for _, space := range []byte{keyBookV1, keyBook} {
		err := l.index().each([]byte{space}, []byte{space + 1}, func(key, value []byte) error {
			if len(key) != 9 {
				return errIndex
			}
			b, err := parseBook(quipu.Book(be.Uint64(key[1:])), value, space == keyBookV1)
			if err == nil {
				l.state.addBook(b)
				l.state.created = max(l.state.created, b.id)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return l.index().each([]byte{keyCreated}, []byte{keyCreated + 1}, func(_, value []byte) error {
		if len(value) != 8 {
			return errIndex
		}
		l.state.created = max(l.state.created, quipu.Book(be.Uint64(value)))
		return nil
	})
}

// countAnew counts what books hold of which an older version kept no account.
func (l *Log) countAnew() error {
	for _, b := range l.state.books {
		if !b.uncounted {
			continue
		}
		v, err := l.volumeOf(context.Background(), b.id, b.trim+1, quipu.SeqMax)
		if err != nil {
			return err
		}
		gone, err := l.goneIn(context.Background(), b.id, b.trim+1, b.goneUpto())
		if err != nil {
			return err
		}
		b.total, b.below, b.gone, b.uncounted = v, volume{}, gone, false
		l.state.open.part(b.id) // to be saved
	}
	return nil
}

func (l *Log) loadTrims() error {
	return l.index().each([]byte{keyTagTrim}, []byte{keyTagTrim + 1}, func(key, value []byte) error {
		if len(key) < 10 || len(value) != 8 || l.state.books[quipu.Book(be.Uint64(key[1:]))] == nil {
			return errIndex
		}
		b := l.state.books[quipu.Book(be.Uint64(key[1:]))]
		if b.tagTrims == nil {
			b.tagTrims = map[string]quipu.Seq{}
		}
		b.tagTrims[string(key[9:])] = quipu.Seq(be.Uint64(value))
		return nil
	})
}

func (x *index) loadGenerations() error {
	return x.each([]byte{keyGeneration}, []byte{keyGeneration + 1}, func(key, _ []byte) error {
		if len(key) != 9 {
			return errIndex
		}
		x.gens = append(x.gens, quipu.Seq(be.Uint64(key[1:])))
		return nil
	})
}

// recoverTail finds the end of the log, makes sure of every byte up to it, and enters what the index lacks.
func (l *Log) recoverTail() error {
	if err := l.checkCheckpoint(); err != nil {
		return err
	}
	clean := l.manifest.Clean
	if clean != nil && *clean == l.state.end.end {
		return nil
	}
	w := walk{log: l, at: l.state.end.end, crc: l.state.end.crc, seq: l.state.end.seq, synced: l.state.end.end}
	if err := w.run(); err != nil {
		return err
	}
	if clean != nil && *clean != w.at {
		return corrupt(l.segmentPath(clean.Segment), min(clean.Offset, w.at.Offset),
			fmt.Sprintf("the log was closed at %d of segment %d, but good batches end at %d of segment %d",
				clean.Offset, clean.Segment, w.at.Offset, w.at.Segment))
	}
	if clean == nil {
		if err := w.makeDurable(); err != nil {
			return err
		}
	}
	return l.replay()
}

// checkCheckpoint makes sure that the index is not ahead of the log: the last batch it knows must be there.
func (l *Log) checkCheckpoint() error {
	c := l.state.end
	s := l.segments[c.end.Segment]
	if s == nil || c.end.Offset > s.size {
		return corrupt(l.segmentPath(c.end.Segment), c.end.Offset, "the index has records up to there, but the segment is not listed or too short")
	}
	if c.seq == 0 {
		return nil
	}
	h, _, err := s.batchAt(c.batch, nil)
	if err != nil && !errors.Is(err, errBatch) {
		return err
	}
	if err != nil || h.crc != c.crc || h.offset+int64(h.size) != c.end.Offset {
		return corrupt(s.path, c.batch, "the index was made from a batch that is not there any more")
	}
	return nil
}

func (l *Log) segmentPath(id uint32) string { return l.fs.PathJoin(l.dir, segmentName(id)) }

// walk goes through the batches after the index's checkpoint.
type walk struct {
	log    *Log
	at     place // the end of the good batches
	crc    uint32
	seq    quipu.Seq
	synced place // all before it is known to have been synced
	buf    []byte
}

// run finds the end of the log, or damage below something that is known to be synced.
func (w *walk) run() error {
	for _, m := range w.log.manifest.Segments {
		if m.ID < w.at.Segment {
			continue
		}
		s := w.log.segments[m.ID]
		if err := s.checkHeader(); err != nil {
			return err
		}
		stop := w.at
		if m.ID != w.at.Segment {
			stop = place{m.ID, segmentHeaderBytes}
		}
		good, err := w.chain(s, &stop)
		if err != nil {
			return err
		}
		if good {
			w.at = stop
		}
		if m.End != 0 && w.at != (place{m.ID, m.End}) && (good || m.End != segmentHeaderBytes) {
			return corrupt(s.path, stop.Offset, fmt.Sprintf("it was filled up to %d, but the batch here is not good", m.End))
		}
		if err := w.searchBehind(s, stop); err != nil {
			return err
		}
	}
	return nil
}

// chain follows batches from stop on and moves stop behind them. It answers whether the log reaches stop,
// which it does not if the first batch of a further segment is none.
func (w *walk) chain(s *segment, stop *place) (bool, error) {
	good := *stop == w.at
	for {
		h, buf, err := s.batchAt(stop.Offset, w.buf)
		if err != nil && !errors.Is(err, errBatch) {
			return false, err
		}
		if err != nil || h.prev != w.crc || h.first.Pos() != w.seq.Pos()+1 || h.first < w.seq || h.first.Term() > w.log.manifest.Term {
			return good, nil
		}
		w.buf, good = buf, true
		w.synced = place{s.id, h.synced}
		w.crc, w.seq = h.crc, h.first+quipu.Seq(h.count-1)
		stop.Offset += int64(h.size)
	}
}

// searchBehind looks for a good batch behind the last one that is chained. If it says that what lies between was
// synced, then that is damage and not a torn write. A batch right here that is good and does not continue the log is damage
// too: the segment before was synced up to its end before this one was written to.
func (w *walk) searchBehind(s *segment, stop place) error {
	return s.search(stop.Offset, func(h batchHeader) error {
		if h.synced <= stop.Offset && h.offset != stop.Offset {
			return nil
		}
		return corrupt(w.log.segmentPath(w.at.Segment), w.at.Offset,
			fmt.Sprintf("the batch here is not good, but one at %d of %s was written after it was synced", h.offset, segmentName(s.id)))
	})
}

// search visits the headers of good batches anywhere from offset on.
func (s *segment) search(offset int64, visit func(h batchHeader) error) error {
	return s.eachHeader(offset, func(at int64) error {
		h, _, err := s.batchAt(at, nil)
		if errors.Is(err, errBatch) {
			return nil
		}
		if err != nil {
			return err
		}
		return visit(h)
	})
}

// eachHeader visits the places from offset on where a header of this segment's own stands, of a whole batch or not. Bytes
// of the segment that the file was before have another epoch.
func (s *segment) eachHeader(offset int64, visit func(at int64) error) error {
	magic := le.AppendUint32(nil, batchMagic)
	buf := make([]byte, min(searchBytes, s.size-offset))
	for ; s.size-offset >= batchHeaderBytes; offset += searchBytes - batchHeaderBytes {
		chunk := buf[:min(int64(len(buf)), s.size-offset)]
		if err := s.readAt(chunk, offset); err != nil {
			return err
		}
		for at := 0; ; {
			i := bytes.Index(chunk[at:], magic)
			if at += i - 4; i < 0 || at+batchHeaderBytes > len(chunk) || at >= searchBytes-batchHeaderBytes {
				break // none, or the next chunk has it as a whole
			}
			if at >= 0 && at%8 == 0 && le.Uint64(chunk[at+16:]) == s.epoch {
				if err := visit(offset + int64(at)); err != nil {
					return err
				}
			}
			at += 5
		}
	}
	return nil
}

// makeDurable rewrites in place what was good but perhaps only in the page cache, and voids the headers of all batches
// behind it, so that none is ever mistaken for one that was written later.
func (w *walk) makeDurable() error {
	for _, m := range w.log.manifest.Segments {
		if m.ID < w.at.Segment {
			continue
		}
		s := w.log.segments[m.ID]
		from, end := int64(segmentHeaderBytes), int64(segmentHeaderBytes)
		if m.ID == w.at.Segment {
			from, end = w.at.Offset, w.at.Offset
			if w.synced.Segment == m.ID {
				from = min(from, w.synced.Offset)
			}
		}
		if err := s.settle(from, end); err != nil {
			return err
		}
	}
	return nil
}

// settle writes [from, end) again and voids headers behind it, then syncs, if there is anything to write.
func (s *segment) settle(from, end int64) error {
	wrote := from < end
	if err := s.rewrite(from, end); err != nil {
		return err
	}
	err := s.eachHeader(end, func(at int64) error {
		wrote = true
		if _, err := s.file.WriteAt(make([]byte, batchHeaderBytes), at); err != nil {
			return fmt.Errorf("void the batch at %d of %s: %w", at, s.path, err)
		}
		return nil
	})
	if err != nil || !wrote {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", s.path, err)
	}
	return nil
}

// rewrite writes [from, end) again.
func (s *segment) rewrite(from, end int64) error {
	buf := make([]byte, min(searchBytes, end-from))
	for at := from; at < end; at += searchBytes {
		chunk := buf[:min(int64(len(buf)), end-at)]
		if err := s.readAt(chunk, at); err != nil {
			return err
		}
		if _, err := s.file.WriteAt(chunk, at); err != nil {
			return fmt.Errorf("rewrite %s at %d: %w", s.path, at, err)
		}
	}
	return nil
}

// replay enters the batches after the checkpoint, and saves checkpoints on the way so that memory stays bounded.
func (l *Log) replay() error {
	from := l.state.end.end
	for _, m := range l.manifest.Segments {
		if m.ID < from.Segment {
			continue
		}
		start := int64(segmentHeaderBytes)
		if m.ID == from.Segment {
			start = from.Offset
		}
		s := l.segments[m.ID]
		err := s.eachBatch(start, func(batch []byte, h *batchHeader) error {
			if _, err := l.state.apply(batch, h, s.id, nil); err != nil {
				return err
			}
			if l.state.open.bytes+l.state.window.OpenBytes() < l.opts.CheckpointBytes {
				return nil
			}
			gen, writes := l.state.freeze()
			if err := l.index().save(gen, writes); err != nil {
				return err
			}
			l.state.thaw(gen, writes)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// begin sets the writer to the end of the log and notes in the MANIFEST that the log is open.
func (l *Log) begin(fresh bool) error {
	m, end := l.manifest, l.state.end
	if m.Clean == nil && !fresh {
		if m.Term == quipu.TermMax {
			return &quipu.Error{Code: quipu.CodeDataFormat, Op: "log.open", Text: "the log was not closed properly a million times; its terms are used up"}
		}
		m.Term++
	}
	m.Clean = nil
	w := &l.writer
	w.term, w.pos, w.crc, w.stamp = m.Term, end.seq.Pos(), end.crc, end.stamp
	w.active, w.offset = l.segments[end.end.Segment], end.end.Offset
	w.unchecked = diskCheckBytes
	l.beginSegments()
	w.synced = w.offset
	if err := m.write(l.fs, l.dir); err != nil {
		return fmt.Errorf("note that the log is open: %w", err)
	}
	for _, id := range l.unplaced {
		if err := l.fs.Remove(l.segmentPath(id)); err != nil {
			return fmt.Errorf("remove a left-over: %w", err)
		}
	}
	return nil
}

// beginSegments hands the segment after the active one to the writer as the next. If several wait, which happens
// when a large append skipped one, all but the last are left behind.
func (l *Log) beginSegments() {
	w, segments := &l.writer, l.manifest.Segments
	l.keeper.prepared = make(chan prepared, 1)
	n := len(segments)
	if n == 1 || segments[n-1].ID == w.active.id {
		segments[n-1].End = 0
		return
	}
	if segments[n-2].ID != w.active.id {
		l.manifest.find(w.active.id).End = w.offset
		w.active, w.offset = l.segments[segments[n-2].ID], segmentHeaderBytes
	}
	l.manifest.find(w.active.id).End = 0
	l.keeper.prepared <- prepared{segment: l.segments[segments[n-1].ID]}
	l.keeper.asked = true
}
