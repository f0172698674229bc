package blob

import (
	"bytes"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
)

func open(t *testing.T, fs vfs.FS) *Store {
	t.Helper()
	s, err := Open(fs, "/blobs")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPutSurvivesPowerLoss(t *testing.T) {
	fs := vfs.NewCrashableMem()
	data := bytes.Repeat([]byte("knot"), 50_000)
	ref, err := open(t, fs).Put(data)
	if err != nil {
		t.Fatal(err)
	}
	got, err := open(t, fs.CrashClone(vfs.CrashCloneCfg{})).Get(ref)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

func TestEqualBytesAreKeptOnce(t *testing.T) {
	s := open(t, vfs.NewMem())
	a, _ := s.Put([]byte("same"))
	b, err := s.Put([]byte("same"))
	if err != nil || a != b {
		t.Fatalf("%v, %v, %v", a, b, err)
	}
}

func TestDamagedBlobIsNamed(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, fs)
	ref, _ := s.Put([]byte("whole"))
	f, err := fs.OpenReadWrite(s.path(ref), category)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte("X"), 2)
	if _, err := s.Get(ref); quipu.CodeOf(err) != quipu.CodeCorrupt {
		t.Fatalf("damage answered %v", err)
	}
	if _, err := s.Get(Ref([]byte("absent"))); quipu.CodeOf(err) != quipu.CodeCorrupt {
		t.Fatalf("absence answered %v", err)
	}
}
