package view

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// tables are the files of the live store that hold its content.
func tables(t *testing.T, fs vfs.FS) (names []string) {
	t.Helper()
	all, err := fs.List("/views/db")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if strings.HasSuffix(name, tableSuffix) {
			names = append(names, name)
		}
	}
	return names
}

// damage changes a byte in the middle of a table, under the store's feet.
func damage(t *testing.T, fs vfs.FS, name string) {
	t.Helper()
	path := "/views/db/" + name
	file, err := fs.OpenReadWrite(path, "test")
	if err != nil {
		t.Fatal(err)
	}
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	var one [1]byte
	at := info.Size() / 3
	if _, err := file.ReadAt(one[:], at); err != nil {
		t.Fatal(err)
	}
	one[0] ^= 0xff
	if _, err := file.WriteAt(one[:], at); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
}

func (s *Store) fill(t *testing.T, prefix string) {
	t.Helper()
	for i := range 1000 {
		if err := s.db.Set(fmt.Appendf(nil, "%s%06d", prefix, i), []byte(strings.Repeat(prefix, 40)), pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
}

// A snapshot whose new tables are not what was written does not count, and the log is not trimmed for it. Tables
// that an earlier snapshot has read are not read again.
func TestASnapshotReadsWhatIsNew(t *testing.T) {
	fs := vfs.NewMem()
	s, err := OpenStore(Options{Dir: "/views", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // its tables are damaged
	s.fill(t, "a")
	if err := s.Snapshot(context.Background()); err != nil {
		t.Fatal(err)
	}
	old := tables(t, fs)
	s.fill(t, "b")
	fresh := slices.DeleteFunc(tables(t, fs), func(name string) bool { return slices.Contains(old, name) })
	if len(fresh) == 0 {
		t.Fatal("nothing new was written")
	}
	damage(t, fs, fresh[0])
	if err := s.Snapshot(context.Background()); err == nil {
		t.Error("a snapshot with a damaged table was taken for good")
	}
	if len(s.snaps) != 1 {
		t.Errorf("%d snapshots are kept", len(s.snaps))
	}
	damage(t, fs, fresh[0]) // as it was
	damage(t, fs, old[0])
	if err := s.Snapshot(context.Background()); err != nil {
		t.Errorf("a table that was read before was read again: %v", err)
	}
}
