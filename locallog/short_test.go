package locallog

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// A write that the disk took only a part of, at any write of the log's own files: nothing acknowledged is
// lost, now or after a power cut, and what was not acknowledged is whole or gone.
func TestAShortWriteLosesNothingAcknowledged(t *testing.T) {
	for n := 0; ; n++ {
		if n > 2000 {
			t.Fatal("the script never ends without a short write")
		}
		if !shortAt(t, n) {
			t.Logf("%d writes cut short", n)
			return
		}
	}
}

// shortAt cuts write n short and checks what is left; false if there was no such write.
func shortAt(t *testing.T, n int) bool {
	t.Helper()
	mem := vfs.NewCrashableMem()
	fs := &shortFS{FS: mem, at: n, rng: rand.New(rand.NewPCG(uint64(n), 1))}
	w := newWitness()
	err := w.script(small(fs), 7)
	if !fs.happened() {
		if err != nil {
			t.Fatalf("without a short write: %v", err)
		}
		return false
	}
	for percent := range 3 {
		crashed := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50 * percent, RNG: rand.New(rand.NewPCG(uint64(n), 2))})
		if err := w.check(crashed, w); err != nil {
			t.Fatalf("write %d cut short, then a power cut with %d%% of what was not synced: %v", n, 50*percent, err)
		}
	}
	return true
}

// shortFS cuts one write of a segment or MANIFEST short and fails it.
type shortFS struct {
	vfs.FS
	mu   sync.Mutex // guards the fields below
	at   int        // writes left until then
	done bool
	rng  *rand.Rand
}

func (s *shortFS) happened() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done
}

// cut says how much of a write happens, and whether it fails.
func (s *shortFS) cut(p []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at--
	if s.at != -1 || len(p) == 0 {
		return p, nil
	}
	s.done = true
	p = p[:s.rng.IntN(len(p))]
	return p, fmt.Errorf("%d bytes written: %w", len(p), errorfs.ErrInjected)
}

func (s *shortFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.Create(name, c)
	return s.wrap(name, f, err)
}

func (s *shortFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := s.FS.OpenReadWrite(name, c, o...)
	return s.wrap(name, f, err)
}

// wrap leaves the index to Pebble, which has tests of its own.
func (s *shortFS) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil || s.FS.PathBase(s.FS.PathDir(name)) == indexName {
		return f, err
	}
	return &shortFile{f, s}, nil
}

type shortFile struct {
	vfs.File
	fs *shortFS
}

func (f *shortFile) Write(p []byte) (int, error) {
	part, cut := f.fs.cut(p)
	n, err := f.File.Write(part)
	if err == nil {
		err = cut
	}
	return n, err
}

func (f *shortFile) WriteAt(p []byte, at int64) (int, error) {
	part, cut := f.fs.cut(p)
	n, err := f.File.WriteAt(part, at)
	if err == nil {
		err = cut
	}
	return n, err
}
