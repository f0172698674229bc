package locallog

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
)

// SyncMode says when an append is acknowledged.
type SyncMode string

const (
	// SyncAlways acknowledges after fdatasync: safe against power loss. The default.
	SyncAlways SyncMode = "always"
	// SyncOS acknowledges when the kernel has the bytes: safe against kill -9, not against power loss.
	SyncOS SyncMode = "os"
)

// Options are checked by Open; a zero field gets the default it names.
type Options struct {
	Dir             string        // required
	FS              vfs.FS        // nil means vfs.Default
	Clock           quipu.Clock   // nil means the system's
	Logger          *slog.Logger  // nil means slog.Default
	Sync            SyncMode      // "" means SyncAlways
	Observe         func(Commit)  // told of each group commit by the writer, which waits for it; nil means nobody
	SegmentBytesMin int64         // of the first segment; 0 means 1 MiB. Each further one doubles
	SegmentBytesMax int64         // 0 means 64 MiB. A larger append gets a segment of its own
	SpareBytesMax   int64         // of deleted segments, kept to be written over; 0 means 4 of SegmentBytesMax, -1 none
	CommitBytesMax  int           // most bytes of one group commit; 0 means 2 MiB. A larger append goes alone
	QueueBytesMax   int64         // bytes of appends that may wait; 0 means 64 MiB
	CheckpointBytes int           // of index kept in memory before it is saved; 0 means 8 MiB
	HotBytesMax     int           // newest batches kept in memory for readers; 0 means 4 MiB
	AuxBytesMax     int           // hints kept in memory; 0 means 4 MiB
	RetainEvery     time.Duration // between two looks at what retention lets go; 0 means 10 s
	DiskReserve     uint64        // free bytes under which appends are refused; 0 means 64 MiB
}

// Commit is one group commit.
type Commit struct {
	Appends int // that share it
	Records int
	Bytes   int           // written
	Stored  time.Duration // from the beginning of its write until it was durable; with SyncOS, until the kernel had it
	Took    time.Duration // from taking its appends off the queue until all were answered
}

func (o *Options) fill() error {
	if o.Dir == "" {
		return usage("log.open", "the log needs a directory")
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Clock == nil {
		o.Clock = systemClock{}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Observe == nil {
		o.Observe = func(Commit) {}
	}
	if o.Sync == "" {
		o.Sync = SyncAlways
	}
	if o.Sync != SyncAlways && o.Sync != SyncOS {
		return usage("log.open", fmt.Sprintf("sync mode %q is not one of always, os", o.Sync))
	}
	setDefault(&o.SegmentBytesMin, 1<<20)
	setDefault(&o.SegmentBytesMax, 64<<20)
	if o.SpareBytesMax == 0 {
		o.SpareBytesMax = 4 * o.SegmentBytesMax
	}
	setDefault(&o.CommitBytesMax, 2<<20)
	setDefault(&o.QueueBytesMax, 64<<20)
	setDefault(&o.CheckpointBytes, 8<<20)
	setDefault(&o.HotBytesMax, 4<<20)
	setDefault(&o.AuxBytesMax, 4<<20)
	setDefault(&o.DiskReserve, 64<<20)
	setDefault(&o.RetainEvery, 10*time.Second)
	if o.SegmentBytesMin < 2*segmentHeaderBytes || o.SegmentBytesMax < o.SegmentBytesMin || o.SegmentBytesMax > 1<<30 {
		return usage("log.open", "segments must have 8 KiB to 1 GiB, and the first must not be the largest")
	}
	return nil
}

func setDefault[T int | int64 | uint64 | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

type systemClock struct{}

func (systemClock) Now() time.Time                         { return time.Now() }
func (systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }
