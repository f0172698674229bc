package locallog

import "sync/atomic"

// counters count since Open.
type counters struct {
	appends, records, bytes, batches, syncs, rolls, checkpoints, deleted, recycled, retentionFailures, hot, cold, relocated, moved atomic.Uint64
}

// group counts one batch.
func (c *counters) group(appends, records, bytes int) {
	c.batches.Add(1)
	c.appends.Add(uint64(appends))
	c.records.Add(uint64(records))
	c.bytes.Add(uint64(bytes))
}

// Stats describes a log for metrics. Counts are since Open.
type Stats struct {
	Segments          int
	SegmentBytes      int64 // on disk, what waits for use included
	SpareBytes        int64 // on disk, of deleted segments that are kept to be written over
	Books             int
	IndexBytes        int    // in memory, not yet saved
	Appends           uint64 // written, won or lost
	Records           uint64
	Bytes             uint64 // of batches
	Batches           uint64 // Appends/Batches is the mean size of a group
	Syncs             uint64
	Rolls             uint64 // segments that were filled
	Checkpoints       uint64
	Deleted           uint64 // segments
	Recycled          uint64 // segments that were made from deleted ones
	QueueBytes        int64  // of appends that wait for the writer, or are being written
	HotReads          uint64 // records that were read from memory
	ColdReads         uint64 // records that were read from their segment
	DiskFree          uint64 // of the file system; 0 if it cannot tell
	ReadOnly          bool   // the free space is under the reserve: appends are refused
	RetentionFailures uint64 // looks at a book's retention that failed, and are tried again
	Relocated         uint64 // segments that were deleted after what was live in them was moved
	Moved             uint64 // records
	Kept              int    // segments that moved records are in
}

// Stats answers a snapshot of the counters.
func (l *Log) Stats() Stats {
	l.mu.RLock()
	defer l.mu.RUnlock()
	c := &l.counts
	s := Stats{
		Segments: len(l.segments), Books: len(l.state.books),
		Appends: c.appends.Load(), Records: c.records.Load(), Bytes: c.bytes.Load(), Batches: c.batches.Load(),
		Syncs: c.syncs.Load(), Rolls: c.rolls.Load(), Checkpoints: c.checkpoints.Load(), Deleted: c.deleted.Load(), Recycled: c.recycled.Load(),
		SpareBytes: l.spares.total(), RetentionFailures: c.retentionFailures.Load(),
		QueueBytes: l.queue.size(), HotReads: c.hot.Load(), ColdReads: c.cold.Load(), ReadOnly: l.low.Load(),
		Relocated: c.relocated.Load(), Moved: c.moved.Load(),
	}
	if l.state.open != nil {
		s.IndexBytes = l.state.open.bytes + l.state.window.OpenBytes()
	}
	if usage, err := l.fs.GetDiskUsage(l.dir); err == nil {
		s.DiskFree = usage.AvailBytes
	}
	for _, seg := range l.segments {
		s.SegmentBytes += seg.size
		if isKept(seg.id) {
			s.Kept++
		}
	}
	return s
}
