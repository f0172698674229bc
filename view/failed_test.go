package view

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// A store that cannot be written any more tells so once, and closing it does not wait for what will never be.
func TestAStoreThatCannotBeWrittenTellsAndCloses(t *testing.T) {
	var failing atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if failing.Load() && op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".sst") {
			return errors.New("the disk is gone")
		}
		return nil
	}))
	told := make(chan error, 2)
	s, err := OpenStore(Options{Dir: "/views", FS: fs, Failed: func(err error) { told <- err }})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.db.Set([]byte("k"), []byte("v"), pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	failing.Store(true)
	if _, err := s.db.AsyncFlush(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-told:
		if !strings.Contains(err.Error(), "the disk is gone") {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nobody was told")
	}
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "the disk is gone") {
		t.Errorf("closed: %v", err)
	}
	failing.Store(false) // so that its goroutine finds an end
	if len(told) > 0 {
		t.Error("told twice")
	}
}
