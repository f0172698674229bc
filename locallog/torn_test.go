package locallog

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
)

// After a crash, a bad batch that is followed by a good one was durable: it is named, also across segments. Only the very last
// batch may be torn, since nothing says that it was synced; then it is gone as a whole.
func TestAfterACrashOnlyTheLastBatchMayBeTorn(t *testing.T) {
	fs := vfs.NewCrashableMem()
	o := small(fs)
	o.SegmentBytesMin, o.SegmentBytesMax, o.CheckpointBytes = 16<<10, 16<<10, 1<<20
	l := mustOpen(t, o)
	book := mustCreate(t, l)
	var places []posting
	for range 9 {
		seq, err := l.Append(t.Context(), book, quipu.Draft{Data: make([]byte, 3000)})
		if err != nil {
			t.Fatal(err)
		}
		p, ok, err := lastPosting(l, book)
		if err != nil || !ok || p.seq != seq {
			t.Fatalf("posting of %s: %+v, %v", seq, p, err)
		}
		places = append(places, p)
	}
	if places[8].segment < 3 {
		t.Fatalf("the last record is in segment %d; the test is about several", places[8].segment)
	}
	for i, p := range places {
		left := fs.CrashClone(vfs.CrashCloneCfg{})
		flip(t, left, "log/"+segmentName(p.segment), int64(p.offset+100))
		o.FS = left
		after, err := Open(o)
		if i < len(places)-1 {
			if quipu.CodeOf(err) != quipu.CodeCorrupt {
				t.Fatalf("record %d of %d, at %d of segment %d: %v", i, len(places), p.offset, p.segment, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("a torn last batch: %v", err)
		}
		if n := len(all(t, after, book)); n != len(places)-1 {
			t.Fatalf("%d records, want all but the last: %d", n, len(places)-1)
		}
		if err := after.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func flip(t *testing.T, fs vfs.FS, path string, at int64) {
	t.Helper()
	f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	if err == nil {
		b[0] ^= 1
		_, err = f.WriteAt(b[:], at)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(fmt.Errorf("flip byte %d of %s: %w", at, path, err))
	}
}
