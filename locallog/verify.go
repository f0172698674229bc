package locallog

import (
	"context"
	"errors"
	"fmt"

	"github.com/quipu-run/quipu"
)

// Progress is how far Verify has come.
type Progress struct {
	Segment uint32
	Bytes   int64 // read
	Total   int64 // to read
	Records uint64
}

// Report is what Verify found in a log that is whole.
type Report struct {
	Segments int
	Batches  uint64
	Records  uint64
	Bytes    int64
}

// Verify reads every retained batch and record, and every entry of the index, and compares the two. progress, if not nil,
// is called after each batch. It may run beside appends; what comes after its start is not looked at.
// CodeCorrupt names the file and the offset of the first damage.
func (l *Log) Verify(ctx context.Context, progress func(Progress)) (Report, error) {
	if err := l.enterRead(); err != nil {
		return Report{}, err
	}
	defer l.life.RUnlock()
	v := verifier{log: l, ctx: ctx, progress: progress}
	release := v.begin()
	err := v.run()
	return v.report, errors.Join(err, release())
}

type verifier struct {
	log      *Log
	ctx      context.Context
	progress func(Progress)
	segments []*segment
	ends     map[uint32]int64 // that the MANIFEST knows
	end      checkpoint
	total    int64
	crc      uint32
	last     quipu.Seq
	before   uint32 // the segment that was read before this one
	report   Report
}

// begin takes a reference to every segment and notes the end of the log.
func (v *verifier) begin() func() error {
	l := v.log
	l.manifestMu.Lock()
	defer l.manifestMu.Unlock()
	l.mu.RLock()
	defer l.mu.RUnlock()
	v.end, v.ends = l.state.end, map[uint32]int64{}
	for _, m := range l.manifest.Segments {
		if m.ID > v.end.end.Segment {
			break
		}
		s := l.segments[m.ID]
		s.refs.Add(1)
		v.segments = append(v.segments, s)
		v.ends[m.ID] = m.End
		if m.ID == v.end.end.Segment {
			v.ends[m.ID] = v.end.end.Offset
		}
		v.total += max(v.ends[m.ID], segmentHeaderBytes)
	}
	for _, m := range l.manifest.Kept {
		s := l.segments[m.ID]
		s.refs.Add(1)
		v.segments, v.total, v.ends[m.ID] = append(v.segments, s), v.total+m.Size, m.Size
	}
	return func() error {
		var errs []error
		for _, s := range v.segments {
			errs = append(errs, s.release())
		}
		return errors.Join(errs...)
	}
}

func (v *verifier) run() error {
	for _, s := range v.segments {
		if isKept(s.id) {
			v.crc = 0 // of the batch before the first
		}
		if err := v.segment(s); err != nil {
			return err
		}
	}
	if v.last != v.end.seq && v.end.seq != 0 {
		return corrupt(v.log.segmentPath(v.end.end.Segment), v.end.end.Offset, fmt.Sprintf("the log ends at %s, but its last good record is %s", v.end.seq, v.last))
	}
	return v.index()
}

// segment reads one segment up to its end.
func (v *verifier) segment(s *segment) error {
	if err := s.checkHeader(); err != nil {
		return err
	}
	at, limit := int64(segmentHeaderBytes), v.ends[s.id]
	err := s.eachBatch(at, func(batch []byte, h *batchHeader) error {
		if limit != 0 && at >= limit {
			return errEnough
		}
		if err := v.batch(s, batch, h); err != nil {
			return err
		}
		at += int64(h.size)
		v.tell(s, at)
		return v.goOn()
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if limit > segmentHeaderBytes && at != limit {
		return corrupt(s.path, at, fmt.Sprintf("the batch here is not good, and the segment was written up to %d", limit))
	}
	if !isKept(s.id) {
		v.before = s.id
	}
	v.report.Segments++
	v.report.Bytes += at
	return nil
}

// goOn answers why to end early: the caller gave up, or the log is being closed.
func (v *verifier) goOn() error {
	select {
	case <-v.log.done:
		return stopped(nil)
	default:
		return v.ctx.Err()
	}
}

func (v *verifier) tell(s *segment, at int64) {
	if v.progress != nil {
		v.progress(Progress{Segment: s.id, Bytes: v.report.Bytes + at, Total: v.total, Records: v.report.Records})
	}
}

// batch checks that a batch continues the one before, and each of its records. The chain cannot be checked across a deleted segment.
func (v *verifier) batch(s *segment, batch []byte, h *batchHeader) error {
	if !v.continues(s, h) {
		return corrupt(s.path, h.offset, "the batch here does not continue the one before it")
	}
	v.crc = h.crc
	if !h.gaps {
		v.before, v.last = s.id, h.first+quipu.Seq(h.count-1)
	}
	v.report.Batches++
	return eachRecord(batch, h, func(r *record, at int) error {
		v.report.Records++
		if _, err := parseRecord(batch[at:at+r.size], true); err != nil {
			return corrupt(s.path, h.offset+int64(at), fmt.Sprintf("record %s: %v", r.seq, err))
		}
		return v.posting(s, r, h.offset+int64(at))
	})
}

// continues tells whether a batch may follow the one before. A kept segment has a chain of its own.
func (v *verifier) continues(s *segment, h *batchHeader) bool {
	if isKept(s.id) {
		return h.gaps && h.prev == v.crc
	}
	chained := v.before == s.id || v.before+1 == s.id || s.id == 1
	return !h.gaps && h.first >= v.last && (!chained || h.prev == v.crc && h.first.Pos() == v.last.Pos()+1)
}

// posting checks that the book's stream, if it has the record, has it at the right place.
func (v *verifier) posting(s *segment, r *record, offset int64) error {
	l := v.log
	if r.kind == quipu.KindSystem {
		return nil
	}
	p, err := l.index().posting(r.book, r.seq)
	if err != nil || p.seq != r.seq || !p.isPlace() {
		return err // void, trimmed, or still in memory
	}
	if p.segment != s.id && (isKept(p.segment) || isKept(s.id)) {
		return v.moved(r, p)
	}
	if p.segment != s.id || int64(p.offset) != offset || int(p.size) != r.size {
		return corrupt(l.fs.PathJoin(l.dir, indexName), -1, fmt.Sprintf("it places record %s at %d of segment %d instead of %d of %d", r.seq, p.offset, p.segment, offset, s.id))
	}
	return nil
}

// moved checks that a record that was moved meanwhile, or is being moved, is where the index has it.
func (v *verifier) moved(r *record, p posting) error {
	found, ok, err := v.log.load(p, r.book)
	if err == nil && ok && found.Seq != r.seq {
		err = corrupt(v.log.segmentPath(p.segment), int64(p.offset), fmt.Sprintf("record %s is not there", r.seq))
	}
	return err // if not ok, it was moved again, or trimmed
}

// index reads all of it, so that every block's checksum is checked.
func (v *verifier) index() error {
	return v.log.index().wrap(v.log.index().each(nil, nil, func(_, _ []byte) error { return v.goOn() }))
}
