package server

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
	steplib "github.com/quipu-run/quipu/sdk/step/lib"
)

// durable deploys one durable function in Python called f; code is the body of run(call).
func (n *stepNode) durable(code string, more ...string) {
	n.t.Helper()
	text := "import os, step\n\ndef run(call):\n    " + strings.ReplaceAll(code, "\n", "\n    ") + "\n\nstep.serve(run)\n"
	n.deploy(files{"quipu.yaml": function("f", "f.py", "python", append(more, "durable: true")...), "f.py": text, "step.py": string(steplib.Python)})
}

// execution is how one of f stands.
func (n *stepNode) execution(id string) quipu.WorkflowInfo {
	i, err := n.parts.main(n.t).flows.store.Workflow(n.t.Context(), quipu.WorkflowKey{App: "f", ID: id})
	if err != nil && quipu.CodeOf(err) != quipu.CodeNoWorkflow {
		n.t.Error(err)
	}
	return i
}

// waitsFor waits until an execution of f waits for an event and nothing of it runs.
func (n *stepNode) waitsFor(id, event string) {
	n.t.Helper()
	eventually(n.t, id+" waits for "+event, func() bool {
		i := n.execution(id)
		return len(i.Waits) == 1 && i.Waits[0].Name == event
	})
}

func (n *stepNode) raise(id, event, data string) {
	n.t.Helper()
	if err := n.parts.main(n.t).flows.store.RaiseWorkflow(n.t.Context(), quipu.WorkflowKey{App: "f", ID: id}, event, []byte(data)); err != nil {
		n.t.Fatal(err)
	}
}

// However often is deployed while an execution sleeps, and over a restart: it wakes on the code that it began with. When it has ended,
// that code goes.
func TestAnExecutionThatSleepsKeepsItsCode(t *testing.T) {
	n := startSteps(t)
	code := func(version int) string {
		return fmt.Sprintf("return [%d, call.wait_event('go')]", version)
	}
	n.durable(code(0))
	if a := n.post("/f/", "{}", "Idempotency-Key", "sleeper", "Prefer", "respond-async"); a.status != http.StatusAccepted {
		t.Fatal(a.status, a.body)
	}
	n.waitsFor("sleeper", "go")
	began := n.execution("sleeper").Version
	for version := 1; version <= quipu.RevisionsKept+2; version++ {
		n.durable(code(version))
		if version == quipu.RevisionsKept {
			n.restart()
		}
	}
	if _, err := n.parts.main(t).Choose("f", began, "", false); err != nil {
		t.Fatal(err)
	}
	n.raise("sleeper", "go", `"on"`)
	n.post("/f/", "{}", "Idempotency-Key", "sleeper").want(t, 200, `[0, "on"]`)
	eventually(t, "no instance of it is left", func() bool { return !slices.Contains(n.parts.main(t).busy("f"), began) })
	n.durable(code(99))
	if _, err := n.parts.main(t).Choose("f", began, "", false); quipu.CodeOf(err) != quipu.CodeNoRevision {
		t.Error("what nothing needs any more is kept", err)
	}
}
