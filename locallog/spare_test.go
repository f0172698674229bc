package locallog

import (
	"bytes"
	"context"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
)

// recycling is a log with segments of one size in which segments were deleted, so that spares are ready.
func recycling(t *testing.T, fs vfs.FS, sync SyncMode) (*Log, Options, quipu.Book) {
	t.Helper()
	o := small(fs)
	o.SegmentBytesMin, o.SegmentBytesMax, o.Sync = 16<<10, 16<<10, sync
	l := mustOpen(t, o)
	book := mustCreate(t, l)
	tail := quipu.Seq(0)
	for range 60 {
		tail = appendKB(t, l, book, 'o')
	}
	if err := l.Trim(t.Context(), book, quipu.TagAll, tail); err != nil {
		t.Fatal(err)
	}
	l = reopened(t, l) // closing saves a checkpoint, and that deletes
	if l.Stats().SpareBytes != 4*o.SegmentBytesMax || readySpares(l) != 4 {
		t.Fatalf("%d spares, %d bytes", readySpares(l), l.Stats().SpareBytes)
	}
	return l, o, book
}

// appendKB appends a record that takes 1 KiB with all its headers, so that batches of all segments are at the same offsets.
func appendKB(t *testing.T, l *Log, book quipu.Book, fill byte) quipu.Seq {
	t.Helper()
	data := bytes.Repeat([]byte{fill}, 1024-batchHeaderBytes-recordHeaderBytes)
	seq, err := l.Append(t.Context(), book, quipu.Draft{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

// A segment that is written over is full of whole old batches, at the very offsets where new ones end. Wherever the power
// goes, recovery ends after the last new one, and what was deleted stays deleted.
func TestAnOldBatchIsNeverTakenForANewOne(t *testing.T) {
	fs := vfs.NewCrashableMem()
	l, o, book := recycling(t, fs, SyncAlways)
	recycled := 0
	for n := 1; n <= 60; n++ {
		appendKB(t, l, book, 'n')
		if oldBatchBehind(t, l) {
			recycled++
		}
		o.FS = fs.CrashClone(vfs.CrashCloneCfg{})
		after := mustOpen(t, o)
		records, err := readAll(after, book)
		if err != nil || len(records) != n || strings.ContainsRune(string(records[n-1].Data), 'o') {
			t.Fatalf("%d records after %d appends and a power cut: %v", len(records), n, err)
		}
		if _, err := after.Verify(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	if recycled < 30 {
		t.Fatalf("an old batch was behind the end only %d times", recycled)
	}
}

// oldBatchBehind tells whether a whole batch of another segment is right behind the end of the log.
func oldBatchBehind(t *testing.T, l *Log) bool {
	t.Helper()
	l.mu.RLock()
	end := l.state.end.end
	s := l.segments[end.Segment]
	l.mu.RUnlock()
	buf := make([]byte, 1024)
	if end.Offset+int64(len(buf)) > s.size {
		return false
	}
	if err := s.readAt(buf, end.Offset); err != nil {
		t.Fatal(err)
	}
	h, err := parseBatchHeader(buf, le.Uint64(buf[16:]), end.Offset)
	return err == nil && h.epoch != s.epoch && h.size == len(buf) && h.crc == checksum(buf[4:])
}

// killed is a crash of the process: what was written is in the page cache.
var killed = vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))}

func endOf(l *Log) place {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.state.end.end
}

func readAll(l *Log, book quipu.Book) (records []quipu.Record, err error) {
	infos, err := l.Books(context.Background())
	if err != nil {
		return nil, err
	}
	for r, err := range l.Range(context.Background(), book, quipu.TagAll, infos[0].Trim+1, quipu.SeqMax) {
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, nil
}

// A batch that a power cut left behind a torn one is whole and has the right epoch. It must be voided: later the log may
// end right in front of it, with the torn batch's place taken by a new one of the same size.
func TestABatchBehindATornOneIsNeverSeenAgain(t *testing.T) {
	fs := vfs.NewCrashableMem()
	l, o, book := recycling(t, fs, SyncOS)
	for !oldBatchBehind(t, l) {
		appendKB(t, l, book, 'n')
	}
	end := endOf(l)
	appendKB(t, l, book, 't')
	appendKB(t, l, book, 'g')
	left := fs.CrashClone(killed)
	flip(t, left, "log/"+segmentName(end.Segment), end.Offset+200) // the page with it was lost

	o.FS = left
	l = mustOpen(t, o)
	if got := endOf(l); got != end {
		t.Fatalf("the log ends at %+v, want %+v", got, end)
	}
	appendKB(t, l, book, 'N')
	o.FS = left.CrashClone(killed)
	l = mustOpen(t, o)
	records, err := readAll(l, book)
	if err != nil || records[len(records)-1].Data[0] != 'N' {
		t.Fatalf("the last of %d records is %q, %v", len(records), records[len(records)-1].Data[:1], err)
	}
	if seq := appendKB(t, l, book, 'e'); seq <= records[len(records)-1].Seq {
		t.Fatalf("%s after %s", seq, records[len(records)-1].Seq)
	}
}

// A reader that is in the middle of a deleted segment reads it to its end: the file is written over only when it lets go.
func TestASegmentIsNotWrittenOverWhileSomebodyReadsIt(t *testing.T) {
	o := small(vfs.NewMem())
	o.SegmentBytesMin, o.SegmentBytesMax, o.CheckpointBytes = 16<<10, 16<<10, 1<<10
	l := mustOpen(t, o)
	book := mustCreate(t, l)
	appendKB(t, l, book, 'o')
	p, ok, err := lastPosting(l, book)
	if err != nil || !ok {
		t.Fatal(err)
	}
	l.mu.Lock()
	s := l.segments[p.segment]
	s.refs.Add(1)
	l.mu.Unlock()
	for l.Stats().Recycled < 3 {
		seq := appendKB(t, l, book, 'n')
		if err := l.Trim(t.Context(), book, quipu.TagAll, seq-1); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := s.record(p, book); err != nil || r.Data[0] != 'o' {
		t.Fatalf("the reader sees something else: %v", err)
	}
	before := readySpares(l)
	if err := s.release(); err != nil {
		t.Fatal(err)
	}
	if s.retired.Load() == nil || readySpares(l) == before {
		t.Fatal("the segment was deleted, but its file is no spare")
	}
}

func readySpares(l *Log) int {
	l.spares.mu.Lock()
	defer l.spares.mu.Unlock()
	return len(l.spares.ready)
}

func lastPosting(l *Log, book quipu.Book) (posting, bool, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if p, ok := l.state.memoryLast(book, quipu.TagAll, quipu.SeqMax); ok {
		return p, true, nil
	}
	return l.index().last(book, quipu.TagAll, quipu.SeqMax)
}

// Spares are bounded, and a disk that runs full gets them back before an append is refused.
func TestSparesGoBeforeAppendsAreRefused(t *testing.T) {
	fs := vfs.NewMem()
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 30})
	o := small(fs)
	o.DiskReserve, o.SpareBytesMax = 1000, 2*o.SegmentBytesMax
	l := mustOpen(t, o)
	book := mustCreate(t, l)
	for range 5 {
		tail := quipu.Seq(0)
		for range 150 {
			tail = appendKB(t, l, book, 'o')
		}
		if err := l.Trim(t.Context(), book, quipu.TagAll, tail); err != nil {
			t.Fatal(err)
		}
		l = reopened(t, l)
		if got := countSpares(t, fs); got < 1 || got > 2 || l.Stats().SpareBytes != int64(got)*o.SegmentBytesMax {
			t.Fatalf("%d spares of %d bytes, want 1 or 2: five times as many were deleted", got, l.Stats().SpareBytes)
		}
	}
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 999})
	l = reopened(t, l)
	if _, err := l.Append(t.Context(), book, quipu.Draft{Data: []byte("full")}); quipu.CodeOf(err) != quipu.CodeDiskFull {
		t.Fatalf("append on a disk that is full even without spares: %v", err)
	}
	if got := countSpares(t, fs); got != 0 {
		t.Fatalf("%d spares are kept on a full disk", got)
	}
}

func countSpares(t *testing.T, fs vfs.FS) int {
	t.Helper()
	names, err := fs.List("log")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range names {
		if strings.HasSuffix(name, spareSuffix) {
			n++
		}
	}
	return n
}

// Another size of segments, or none to be kept: what an earlier run left is removed.
func TestSparesOfAnotherSizeAreRemoved(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"larger segments": func(o *Options) { o.SegmentBytesMax *= 2 },
		"none kept":       func(o *Options) { o.SpareBytesMax = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			l, o, book := recycling(t, fs, SyncAlways)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			change(&o)
			l = mustOpen(t, o)
			if n := countSpares(t, fs); n != 0 {
				t.Fatalf("%d spares", n)
			}
			appendKB(t, l, book, 'x')
		})
	}
}

// A segment goes by the trim points that the index has saved. A newer one, which a power cut may still take back with sync
// os, counts at the checkpoint after it, also if it came while another was being saved.
func TestATrimCountsOnceTheIndexHasIt(t *testing.T) {
	o := small(vfs.NewMem())
	o.SegmentBytesMin, o.SegmentBytesMax, o.CheckpointBytes, o.Sync = 16<<10, 16<<10, 1<<20, SyncOS
	l := mustOpen(t, o)
	book := mustCreate(t, l)
	tail := quipu.Seq(0)
	for range 40 {
		tail = appendKB(t, l, book, 'o')
	}
	l = reopened(t, l) // no segment is filled from here on, so the writer starts no checkpoint of its own
	appendKB(t, l, book, 'o')
	l.mu.Lock()
	gen, writes := l.state.freeze()
	l.mu.Unlock()
	if err := l.Trim(t.Context(), book, quipu.TagAll, tail); err != nil {
		t.Fatal(err)
	}
	if err := l.checkpoint(saving{gen, writes}); err != nil {
		t.Fatal(err)
	}
	mustClean(t, l)
	if l.Stats().Deleted > 0 {
		t.Fatalf("%d segments were deleted", l.Stats().Deleted)
	}
	l.mu.Lock()
	gen, writes = l.state.freeze()
	l.mu.Unlock()
	if err := l.checkpoint(saving{gen, writes}); err != nil {
		t.Fatal(err)
	}
	mustClean(t, l)
	if l.Stats().Deleted < 2 {
		t.Fatalf("%d segments were deleted", l.Stats().Deleted)
	}
}
