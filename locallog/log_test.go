package locallog

import (
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/xtest"
)

// mustOpen opens a log that is closed when the test ends.
func mustOpen(t testing.TB, o Options) *Log {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return l
}

// small makes everything that rolls and saves happen often.
func small(fs vfs.FS) Options {
	return Options{Dir: "log", FS: fs, Logger: slog.New(slog.DiscardHandler), Clock: xtest.NewClock(time.Unix(1e9, 0)),
		SegmentBytesMin: 32 << 10, SegmentBytesMax: 32 << 10, CheckpointBytes: 4 << 10, HotBytesMax: 8 << 10}
}

func TestLocalLogKeepsThePromises(t *testing.T) {
	reopen := xtest.Restart{Name: "close and open", Do: func(t *testing.T, l quipu.Log) quipu.Log {
		o := l.(*Log).opts
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return mustOpen(t, o)
	}}
	crash := xtest.Restart{Name: "a power cut", Do: func(t *testing.T, l quipu.Log) quipu.Log {
		o := l.(*Log).opts
		o.FS = o.FS.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(1, 2))})
		return mustOpen(t, o)
	}}
	xtest.Log(t, func(t *testing.T) quipu.Log { return mustOpen(t, small(vfs.NewCrashableMem())) }, reopen, crash)
}

func TestLocalLogKeepsThePromisesOnDisk(t *testing.T) {
	xtest.Log(t, func(t *testing.T) quipu.Log { return mustOpen(t, Options{Dir: t.TempDir()}) })
}
