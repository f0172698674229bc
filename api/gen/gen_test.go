package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWhatIsGeneratedIsWhatIsThere(t *testing.T) {
	for _, proto := range []string{"log/v1/log.proto", "steps/v1/steps.proto"} {
		files, err := generate([]string{proto})
		if err != nil {
			t.Fatal(err)
		}
		if len(files) != 2 {
			t.Errorf("%d files", len(files))
		}
		for name, want := range files {
			if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != want {
				t.Errorf("%s is not what its proto makes, %v: go generate ./api/%s", name, err, filepath.Dir(proto))
			}
		}
	}
}
