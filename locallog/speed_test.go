package locallog

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/quipu-run/quipu"
)

// A record that is in no cache costs one read of its segment, wherever it is; one of the newest costs none.
func TestAColdReadIsOnePread(t *testing.T) {
	var reads atomic.Int64
	o := small(errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileReadAt && strings.HasSuffix(op.Path, segmentSuffix) {
			reads.Add(1)
		}
		return nil
	})))
	l := mustOpen(t, o)
	book := mustCreate(t, l)
	for i := range 300 {
		if _, err := l.Append(t.Context(), book, quipu.Draft{Tags: []string{fmt.Sprint("t", i)}, Data: make([]byte, 500)}); err != nil {
			t.Fatal(err)
		}
	}
	l = reopened(t, l)
	for i := range 300 {
		reads.Store(0)
		if _, err := l.Next(t.Context(), book, fmt.Sprint("t", i), 0); err != nil {
			t.Fatal(err)
		}
		if n := reads.Load(); n != 1 {
			t.Fatalf("record %d cost %d reads", i, n)
		}
	}
	if _, err := l.Append(t.Context(), book, quipu.Draft{Tags: []string{"new"}}); err != nil {
		t.Fatal(err)
	}
	reads.Store(0)
	if _, err := l.Next(t.Context(), book, "new", 0); err != nil || reads.Load() != 0 {
		t.Fatalf("the newest record cost %d reads, %v", reads.Load(), err)
	}
}

// In steady state the way of a record to the disk and into the index allocates nothing for it: what is left is per batch.
func TestAnAppendAllocatesNothingPerRecord(t *testing.T) {
	l := mustOpen(t, Options{Dir: t.TempDir(), SegmentBytesMin: 64 << 20, CheckpointBytes: 64 << 20})
	book := mustCreate(t, l)
	ds := make([]quipu.Draft, 1000)
	for i := range ds {
		ds[i] = quipu.Draft{Tags: []string{"t"}, Data: make([]byte, 100)}
	}
	perBatch := testing.AllocsPerRun(60, func() {
		if _, err := l.AppendBatch(t.Context(), book, ds); err != nil {
			t.Fatal(err)
		}
	})
	if perBatch > 100 {
		t.Errorf("%.0f allocations for %d records", perBatch, len(ds))
	}
	t.Logf("%.1f allocations for a batch of %d records", perBatch, len(ds))
}

// A reader may keep what it got from the cache for ever: the buffer of such a batch is never used again.
func TestWhatAReaderHoldsNeverChanges(t *testing.T) {
	l := mustOpen(t, small(vfs.NewMem()))
	book := mustCreate(t, l)
	var held []quipu.Record
	for i := range 400 {
		seq := appendKB(t, l, book, byte('a'+i%20))
		if i%3 == 0 {
			r, err := l.Next(t.Context(), book, quipu.TagAll, seq)
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, r)
		}
	}
	for n, r := range held {
		want := byte('a' + n*3%20)
		if strings.Trim(string(r.Data), string(want)) != "" {
			t.Fatalf("record %s was %q and is %q", r.Seq, want, r.Data[:10])
		}
	}
	if cap(l.hot.free) == 0 {
		t.Error("no buffer was kept for the next batch")
	}
}
