package deploy

import (
	"slices"
	"testing"
)

// What one function is called says nothing about the next one: the defaults of a runtime stay what they are.
func TestASourceFileDoesNotBecomeTheDefaultOfItsRuntime(t *testing.T) {
	python := runtimes["python"].command
	if got := python("./src/stats.py", false); !slices.Equal(got, []string{"python3", "stats.py"}) {
		t.Errorf("a file is started with %q", got)
	}
	if got := python("./hello", true); !slices.Equal(got, []string{"python3", "main.py"}) {
		t.Errorf("a folder, after a file, is started with %q", got)
	}
}
