package ledger_test

import (
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/quipu-run/quipu/ledger"
	"github.com/quipu-run/quipu/locallog"
	"github.com/quipu-run/quipu/xtest"
)

var seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of what a crash keeps")

// told is what callers know at some moment.
type told struct {
	mu     sync.Mutex // guards below
	acked  map[int64]string
	closed bool
	last   int64
	after  int           // acknowledged entries
	some   chan struct{} // is closed
}

func (k *told) copy() *told {
	k.mu.Lock()
	defer k.mu.Unlock()
	return &told{acked: maps.Clone(k.acked), closed: k.closed, last: k.last}
}

// check compares a ledger with what was told before the crash, and answers its last entry.
func (k *told) check(t *testing.T, l *ledger.Ledgers) int64 {
	t.Helper()
	r := must(l.Open(t.Context(), "x"))(t)
	info := must(r.Info(t.Context()))(t)
	if !info.Closed || k.closed && info.Last != k.last {
		t.Fatalf("opened after the crash it is %+v; before, its end was %d (closed %v)", info, k.last, k.closed)
	}
	var acked sync.Map
	for id, data := range k.acked {
		acked.Store(id, data)
	}
	wantAcked(t, r, info.Last, &acked)
	return info.Last
}

func openLog(t *testing.T, fs vfs.FS) *locallog.Log {
	t.Helper()
	return must(locallog.Open(locallog.Options{Dir: "log", FS: fs, Logger: slog.New(slog.DiscardHandler), Clock: xtest.NewClock(time.Unix(1e9, 0)),
		SegmentBytesMin: 32 << 10, SegmentBytesMax: 32 << 10, CheckpointBytes: 4 << 10}))(t)
}

// The machine loses power again and again while entries are appended and, at the end, while the ledger is opened; of what was
// not synced it keeps random blocks.
func TestAfterAPowerCutTheLedgerHasWhatWasAcknowledged(t *testing.T) {
	t.Logf("repeat with: go test ./ledger -run PowerCut -seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 1))
	for round := range 6 {
		fs := vfs.NewCrashableMem()
		log := openLog(t, fs)
		l := on(log)
		w := must(l.Create(t.Context(), "x"))(t)
		know := &told{acked: map[int64]string{}, some: make(chan struct{}), after: 30 + 60*round} // some rounds open early, some late
		var wait sync.WaitGroup
		for c := range 4 {
			wait.Go(func() { appendAll(t, w, know, c) })
		}
		wait.Go(func() {
			<-know.some
			openAndTell(t, l, know)
		})
		for range 12 {
			before := know.copy() // what is told before the power goes
			left := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100}[rng.IntN(3)], RNG: rng})
			afterCut(t, left, before)
		}
		wait.Wait()
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// afterCut opens what a crash left, twice: the end is found once, and outlives another crash.
func afterCut(t *testing.T, fs *vfs.MemFS, before *told) {
	t.Helper()
	log := openLog(t, fs)
	before.last, before.closed = before.check(t, on(log)), true
	if again := before.check(t, on(log)); again != before.last {
		t.Fatalf("opened again it ends at %d, not %d", again, before.last)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	log = openLog(t, fs)
	before.check(t, on(log))
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}

func appendAll(t *testing.T, w *ledger.Writer, know *told, c int) {
	for i := range 200 {
		data := fmt.Sprint(c, ".", i)
		id, err := w.Append(t.Context(), []byte(data))
		if err != nil {
			wantFenced(t, err)
			return
		}
		know.mu.Lock()
		if know.acked[id] = data; len(know.acked) == know.after {
			close(know.some)
		}
		know.mu.Unlock()
	}
}

func openAndTell(t *testing.T, l *ledger.Ledgers, know *told) {
	r, err := l.Open(t.Context(), "x")
	if err != nil {
		t.Error(err)
		return
	}
	last, err := r.LastConfirmed(t.Context())
	if err != nil {
		t.Error(err)
	}
	know.mu.Lock()
	know.closed, know.last = true, last
	know.mu.Unlock()
}
