// Package daprpython uses Dapr's API as an application in Python does without any SDK: over plain HTTP.
package daprpython

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/quipu-run/quipu/test/daprnode"
)

func TestEveryBlockWorksOverPlainHTTP(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds and runs the program")
	}
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 is not installed")
	}
	n := daprnode.Serve(t, filepath.Join("..", ".."))
	for range 2 { // it may run again against the same node
		n.Blocks("blocks-python", "http", ".", "python3", "blocks.py")
	}
}
