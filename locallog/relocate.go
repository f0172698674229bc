package locallog

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/quipu-run/quipu"
)

const (
	// Live records leave a segment of which they are less than that. Every segment is left while all of them together
	// have less than half live, those with the least first, so that the disk never holds more than twice what is live.
	liveShareMin = 0.30
	// A move must give back at least that part of what it touches, or it could go on for ever.
	gainMin = 0.25
	// windowBytes of a segment are read at once when records are looked for.
	windowBytes = 64 << 10
)

// holding is a segment with an estimate of what is live in it.
type holding struct {
	id   uint32
	size int64 // of the file
	live int64 // bytes of records that can be read, by estimate
	dead bool  // for sure, none
	// falling says that less is live than when it was looked at before. Then it is left alone: a log that trims as it goes
	// would move the rest of every segment just before that dies too.
	falling bool
}

// share is the live part of the segment. The header page is not counted: every segment has one.
func (h holding) share() float64 {
	return float64(h.live) / float64(max(1, h.size-segmentHeaderBytes))
}

// plan says which segments to delete and out of which to move what is live, at most bytesMax of it unless one segment has
// more. Kept segments that are not larger than what is moved go along, so that their number follows the
// logarithm of what is kept.
func plan(all []holding, bytesMax int64) (dead, move []holding) {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b holding) int { return cmp.Or(cmp.Compare(a.share(), b.share()), cmp.Compare(a.id, b.id)) })
	size, live, moved := int64(0), int64(0), int64(0)
	for _, h := range all {
		if h.dead {
			dead = append(dead, h)
			continue
		}
		size, live = size+h.size, live+h.live
	}
	rest := all[:0]
	for _, h := range all {
		switch {
		case h.dead:
		case !h.falling && (h.share() < liveShareMin || size > 2*live && h.share() < 0.5) && (len(move) == 0 || moved+h.live <= bytesMax):
			move = append(move, h)
			moved, size = moved+h.live, size-h.size+h.live
		default:
			rest = append(rest, h)
		}
	}
	if !worthwhile(move) {
		return dead, nil
	}
	slices.SortFunc(rest, func(a, b holding) int { return cmp.Compare(a.size, b.size) })
	for _, h := range rest {
		more := append(move, h)
		if isKept(h.id) && h.size <= keptBytes(moved) && moved+h.live <= bytesMax && worthwhile(more) {
			move, moved = more, moved+h.live
		}
	}
	return dead, move
}

// worthwhile tells whether moving what is live out of the segments gives enough back.
func worthwhile(move []holding) bool {
	size, live := int64(0), int64(0)
	for _, h := range move {
		size, live = size+h.size, live+h.live
	}
	if live > 0 {
		live = keptBytes(live)
	}
	return size > 0 && float64(size-live) >= gainMin*float64(size)
}

// reclaim gives back the space that the index, as saved, says is free. It goes on until there is nothing left that is worth it.
// Unless it is to do all at once, it leaves what is falling to the next time, and answers whether there is such.
func (l *Log) reclaim(atOnce bool) (again bool, err error) {
	before := l.cleaner.live
	for first := true; ; first = false {
		if err := l.ending(); err != nil {
			return false, err
		}
		all, err := l.survey()
		if err != nil {
			return false, err
		}
		if first {
			l.cleaner.live = liveOf(all)
		}
		again = false
		for i := range all {
			h := &all[i]
			known, ok := before[h.id]
			h.falling = !atOnce && (!ok || known != h.live)
			again = again || h.falling && h.share() < 0.5
		}
		dead, move := plan(all, l.opts.SegmentBytesMax/2)
		if err := l.delete(ids(dead)); err != nil {
			return false, fmt.Errorf("delete segments %v: %w", ids(dead), err)
		}
		if len(move) == 0 {
			return again, nil
		}
		progress, err := l.relocate(move)
		if err != nil {
			return false, fmt.Errorf("move records out of segments %v: %w", ids(move), err)
		}
		if !progress {
			return again, nil
		}
	}
}

func liveOf(all []holding) map[uint32]int64 {
	live := make(map[uint32]int64, len(all))
	for _, h := range all {
		live[h.id] = h.live
	}
	return live
}

// deleteDead deletes the segments in which nothing is live.
func (l *Log) deleteDead() error {
	all, err := l.survey()
	if err != nil {
		return err
	}
	dead, _ := plan(all, 0)
	if err := l.delete(ids(dead)); err != nil {
		return fmt.Errorf("delete segments %v: %w", ids(dead), err)
	}
	return nil
}

func ids(all []holding) (ids []uint32) {
	for _, h := range all {
		ids = append(ids, h.id)
	}
	return ids
}

// survey estimates what is live in each segment that the index has left behind. It takes about a microsecond for each
// book in each segment.
func (l *Log) survey() (all []holding, err error) {
	l.manifestMu.Lock()
	listed := slices.Concat(l.manifest.Segments, l.manifest.Kept)
	l.manifestMu.Unlock()
	l.mu.RLock()
	sealed := l.state.sealed
	l.mu.RUnlock()
	listed = slices.DeleteFunc(listed, func(m manifestSegment) bool {
		return m.ID >= sealed && !isKept(m.ID) || l.cleaner.damaged[m.ID]
	})
	x := l.index()
	s := surveyor{x: x, trims: map[quipu.Book]quipu.Seq{}, before: map[quipu.Book]quipu.Seq{}}
	if err := s.segments(listed); err != nil {
		return nil, x.wrap(err)
	}
	return s.all, nil
}

type surveyor struct {
	x      *index
	all    []holding
	trims  map[quipu.Book]quipu.Seq
	before map[quipu.Book]quipu.Seq // the newest record of the book in the segments before
}

func (s *surveyor) segments(listed []manifestSegment) error {
	for _, m := range listed {
		h, err := s.segment(m)
		if err != nil {
			return err
		}
		s.all = append(s.all, h)
	}
	return nil
}

func (s *surveyor) segment(m manifestSegment) (holding, error) {
	h := holding{id: m.ID, size: m.Size, dead: true}
	fallen, err := s.x.trimmedByTag(m.ID)
	if err != nil {
		return h, err
	}
	err = s.x.eachShare(m.ID, func(id quipu.Book, of share) error {
		trim, err := s.trim(id)
		if err != nil {
			return err
		}
		if of.old && of.last > trim {
			if of, err = s.measure(m.ID, id, of, max(trim, s.before[id])); err != nil {
				return err
			}
		}
		s.before[id] = of.last
		h.dead = h.dead && of.last <= trim
		h.live += max(0, of.above(trim)-fallen[id])
		return nil
	})
	return h, err
}

func (s *surveyor) trim(id quipu.Book) (quipu.Seq, error) {
	if trim, ok := s.trims[id]; ok {
		return trim, nil
	}
	trim, err := s.x.trim(id)
	s.trims[id] = trim
	return trim, err
}

// measure makes a share that an older version wrote complete, from the postings.
func (s *surveyor) measure(segment uint32, id quipu.Book, of share, after quipu.Seq) (share, error) {
	of.old, of.first, of.bytes = false, of.last, 0
	err := s.x.eachIn(id, quipu.TagAll, after+1, of.last, func(p posting) bool {
		if p.segment == segment {
			of.first, of.bytes = min(of.first, p.seq), of.bytes+int64(p.size)
		}
		return true
	})
	if err != nil {
		return of, err
	}
	b := s.x.db.NewBatch()
	return of, errors.Join(b.Set(shareKey(keySegment, segment, id), of.encode(), nil), s.x.apply(b))
}

// relocate moves what is live out of segments into one kept segment, changes the index in one step, and deletes them. A crash
// before that step leaves a kept segment that the index does not know, which Open removes; after it, segments in
// which nothing is live. It answers whether anything came of it.
func (l *Log) relocate(from []holding) (bool, error) {
	c := census{log: l, x: l.index(), points: map[quipu.Book]bookPoints{}}
	for i := range from {
		if err := c.segment(&from[i]); err != nil {
			return false, err
		}
	}
	from = slices.DeleteFunc(from, func(h holding) bool { return l.cleaner.damaged[h.id] })
	if c.failed || len(from) == 0 {
		return len(from) > 0, nil // the next survey is without the damaged ones
	}
	x := c.x
	if !worthwhile(from) {
		return true, x.wrap(x.note(&c)) // so that the next survey knows better
	}
	if !l.hasRoom(from) {
		return false, nil
	}
	if len(c.live) > 0 {
		err := l.copyLive(&c)
		if isNoSpace(err) || errors.Is(err, errDamaged) {
			return !isNoSpace(err), nil // a damaged segment is left out from now on
		}
		if err == nil {
			err = l.listKept(c.kept)
		}
		if err != nil {
			return false, err
		}
	}
	if err := x.wrap(x.place(&c, from)); err != nil {
		return false, err
	}
	l.counts.moved.Add(uint64(len(c.live)))
	l.counts.relocated.Add(uint64(len(from)))
	return true, l.delete(ids(from))
}

// hasRoom tells whether there is space for the copy. Under the reserve it may be taken if there is twice as much: more comes back.
func (l *Log) hasRoom(from []holding) bool {
	need := int64(0)
	for _, h := range from {
		need += h.live
	}
	usage, err := l.fs.GetDiskUsage(l.dir)
	return err != nil || usage.AvailBytes >= 2*uint64(keptBytes(need))
}

// copyLive writes the kept segment. There is none after an error.
func (l *Log) copyLive(c *census) error {
	l.manifestMu.Lock()
	id := keptBit | (l.manifest.KeptIDs + 1)
	l.manifestMu.Unlock()
	w, err := createKept(l.fs, l.dir, id, l.pacer())
	if err != nil {
		return err
	}
	if c.kept, err = c.copyTo(w); err != nil {
		return w.abandon(err)
	}
	return nil
}

// listKept enters a kept segment in the MANIFEST and the table.
func (l *Log) listKept(s *segment) error {
	l.manifestMu.Lock()
	defer l.manifestMu.Unlock()
	m := l.manifest
	m.KeptIDs = s.id &^ keptBit
	m.Kept = append(m.Kept, manifestSegment{ID: s.id, Epoch: quipu.Seq(s.epoch), Size: s.size, End: s.size})
	if err := m.write(l.fs, l.dir); err != nil {
		// As in prepare: whether the new MANIFEST is in place may be unknown.
		return errors.Join(fmt.Errorf("list kept segment %s: %w", segmentName(s.id), err), s.release())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segments[s.id] = s
	return nil
}

// pacer answers what to do after each piece of work: rest as long as it took, so that appends have half of the disk at least.
func (l *Log) pacer() func() {
	begin := l.opts.Clock.Now()
	return func() {
		if took := l.opts.Clock.Now().Sub(begin); took > 0 {
			select {
			case <-l.opts.Clock.After(min(took, time.Second)):
			case <-l.done:
			}
		}
		begin = l.opts.Clock.Now()
	}
}
