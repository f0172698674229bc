package component

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFilesOfMetadataAreBelowTheFolderOfTheResourcesAndOfBoundedSize(t *testing.T) {
	h := Host{Dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(h.Dir, "a.json"), []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := h.ReadFile("a.json", 5); err != nil || string(got) != "12345" {
		t.Errorf("a file of the size that is allowed: %q, %v", got, err)
	}
	if _, err := h.ReadFile("a.json", 4); err == nil {
		t.Error("a file over its limit was read")
	}
	absolute := filepath.Join(t.TempDir(), "b")
	if got := h.Path(absolute); got != absolute {
		t.Errorf("an absolute path became %s", got)
	}
	if got := (Host{}).Path("b"); got != "b" {
		t.Errorf("without a folder b became %s", got)
	}
}
