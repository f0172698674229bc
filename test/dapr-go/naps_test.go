package daprgo

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quipu-run/quipu/test/daprnode"
)

// endMax is how long a workflow of a few seconds may take on a busy machine.
const endMax = time.Minute

// A deployed function that has workflows and no callers: it is started for a workflow, ends while that sleeps, is started again by its
// timer, and stays for as long as it works.
func TestAFunctionIsThereForItsWorkflowsAndNoLonger(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds and runs the program")
	}
	build(t) // or skips
	n := daprnode.Serve(t, filepath.Join("..", ".."))
	n.Deploy("shop-go")

	nap := outcome(t, n, "Nap", 4*time.Second)
	if nap[0] == "" || nap[1] == "" || nap[0] == nap[1] {
		t.Errorf("the function did not end while its workflow slept: %q", nap)
	}
	work := outcome(t, n, "Drudge", 4*time.Second)
	if work[1] != work[0]+" began 1" {
		t.Errorf("the function did not stay while it worked: %q", work)
	}
	none(t, n)

	id := run(t, n.Command("workflow", "start", "Nap", "--app", "naps", "-d", "3000000000"))
	n.Crash()
	nap = ended(t, n, string(id))
	if nap[0] == nap[1] {
		t.Errorf("both halves of it ran in the same instance: %q", nap)
	}
}

// outcome is what a workflow of naps comes to, started when the function has no instance.
func outcome(t *testing.T, n *daprnode.Program, name string, d time.Duration) []string {
	t.Helper()
	none(t, n)
	input, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return ended(t, n, string(run(t, n.Command("workflow", "start", name, "--app", "naps", "-d", string(input)))))
}

// ended waits for a workflow, and answers its output.
func ended(t *testing.T, n *daprnode.Program, id string) (output []string) {
	t.Helper()
	var is struct {
		Status string
		Output string // JSON, as text
	}
	text := run(t, n.Command("workflow", "get", strings.TrimSpace(id), "--app", "naps", "--wait", "-o", "json"))
	if err := json.Unmarshal(text, &is); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if err := json.Unmarshal([]byte(is.Output), &output); err != nil || is.Status != "COMPLETED" || len(output) != 2 {
		t.Fatalf("%v: %s", err, text)
	}
	return output
}

// none waits until naps has no instance.
func none(t *testing.T, n *daprnode.Program) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(endMax); ; <-tick.C {
		text := run(t, n.Command("ls", "instances", "-o", "json"))
		if !strings.Contains(string(text), `"naps"`) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the function is idle, and has instances: %s", text)
		}
	}
}

// run is the output of a command, which must end well and soon.
func run(t *testing.T, cmd *exec.Cmd) []byte {
	t.Helper()
	var out, notes bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &notes
	late := time.AfterFunc(endMax, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args[1:], " "), err, out.String(), notes.String())
	}
	return out.Bytes()
}
