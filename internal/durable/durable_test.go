package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestFilesAndFoldersAreSynced(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a", "b", "file")
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(Sync(file), Sync(dir), Folders(dir)); err != nil {
		t.Error(err)
	}
	missing := filepath.Join(dir, "missing")
	for _, err := range []error{Sync(missing), Folders(missing)} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("of what is not there: %v", err)
		}
	}
}
