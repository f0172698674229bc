package locallog

import (
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// Pebble wants the process to end when its MANIFEST cannot be written, and holds locks at that moment. Readers must not wait for those, and
// nothing more may be written of what Pebble has in mind then.
func TestAnIndexThatFailsIsReadButNotWritten(t *testing.T) {
	var failing atomic.Bool
	var failed, later atomic.Int64
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !failing.Load() || op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
			return nil
		}
		if failed.Load() > 0 {
			later.Add(1)
		}
		if strings.Contains(op.Path, "MANIFEST") {
			failed.Add(1)
			return errors.New("the disk is gone")
		}
		return nil
	}))
	x, err := openIndex(fs, "index", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	put := func(key string) error {
		b := x.db.NewBatch()
		return errors.Join(b.Set([]byte(key), []byte("v"), nil), x.apply(b), x.flush())
	}
	if err := put("a"); err != nil {
		t.Fatal(err)
	}
	reader, err := x.db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := put("b"); err != nil { // so that the reader alone has its version: closing it needs Pebble's lock
		t.Fatal(err)
	}
	failing.Store(true)
	if err := put("c"); err == nil || !strings.Contains(err.Error(), "the disk is gone") {
		t.Fatalf("a MANIFEST that cannot be written: %v", err)
	}
	if !reader.First() || string(reader.Key()) != "a" {
		t.Errorf("the reader has %q", reader.Key())
	}
	if err := reader.Close(); err != nil {
		t.Error(err)
	}
	for key, want := range map[string]error{"a": nil, "b": nil, "z": pebble.ErrNotFound} {
		_, closer, err := x.db.Get([]byte(key))
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", key, err)
		}
		if err == nil {
			err = closer.Close()
		}
		if err != nil && want == nil {
			t.Error(err)
		}
	}
	if err := put("d"); err == nil {
		t.Error("it was written after that")
	}
	if err := x.close(); err == nil {
		t.Error("closing it does not say that it failed")
	}
	if n := later.Load(); n > 0 {
		t.Errorf("%d writes came to the disk after the one that failed", n)
	}
}

// A compaction that writes while Pebble ends stays where it is: it has blocks of its tables in use, and panics when it is ended with them.
func TestACompactionStopsWithAnIndexThatFails(t *testing.T) {
	var tables atomic.Int64
	arrived, release := make(chan struct{}), make(chan struct{})
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".sst") && tables.Add(1) == 3 {
			close(arrived)
			<-release
		}
		return nil
	}))
	x, err := openIndex(fs, "index", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // two tables of the same keys, so that they are merged and not only moved
		b := x.db.NewBatch()
		if err := errors.Join(b.Set([]byte("a"), []byte("v"), nil), b.Set([]byte("z"), []byte("v"), nil), x.apply(b), x.flush()); err != nil {
			t.Fatal(err)
		}
	}
	go func() { _ = x.db.Compact(t.Context(), []byte("a"), []byte("zz"), false) }() // if Pebble does not by itself
	<-arrived
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		indexLogger{x, slog.New(slog.DiscardHandler)}.Fatalf("the disk is gone")
	}()
	<-ended
	close(release)
	stacks := make([]byte, 1<<20)
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "(*index).mayStill"); {
		if time.Now().After(deadline) {
			t.Fatal("the compaction does not stop at what it writes next")
		}
		time.Sleep(time.Millisecond)
	}
	if _, closer, err := x.db.Get([]byte("a")); err != nil {
		t.Error(err)
	} else if err := closer.Close(); err != nil {
		t.Error(err)
	}
}
