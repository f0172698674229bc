package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
	stepsv1 "github.com/quipu-run/quipu/api/steps/v1"
	steplib "github.com/quipu-run/quipu/sdk/step/lib"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
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

// A run has its journal at the gRPC door of its instance, too, behind the instance's token. A run that is over has none.
func TestARunHasItsJournalOverGRPC(t *testing.T) {
	n, marks := startSteps(t), t.TempDir()
	n.durable(`
import json, time
if call.headers["Quipu-Journal"] == "0":
    with open("` + marks + `/run.tmp", "w") as f:
        json.dump([os.environ["DAPR_GRPC_PORT"], os.environ["DAPR_API_TOKEN"], call.headers["Quipu-Run"]], f)
    os.rename("` + marks + `/run.tmp", "` + marks + `/run")
    while not os.path.exists("` + marks + `/go"):
        time.sleep(0.01)
    call._read()
return call.step("outside", lambda: "not done")`)
	answered := make(chan answer, 1)
	go func() { answered <- n.post("/f/", "{}") }()
	var run []string
	eventually(t, "it runs", func() bool {
		text, err := os.ReadFile(filepath.Join(marks, "run"))
		return err == nil && json.Unmarshal(text, &run) == nil
	})
	conn, err := grpc.NewClient("127.0.0.1:"+run[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	journal := stepsv1.NewJournalServiceClient(conn)
	entry := &stepsv1.AppendRequest{Id: "0", Name: "outside", Kind: &stepsv1.AppendRequest_Step{Step: &stepsv1.Step{Outcome: &stepsv1.Step_Result{Result: []byte(`"over gRPC"`)}}}}
	nobody := metadata.AppendToOutgoingContext(t.Context(), "quipu-run", run[2])
	if _, err := journal.Append(nobody, entry); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without the token: %v", err)
	}
	ctx := metadata.AppendToOutgoingContext(nobody, "dapr-api-token", run[1])
	if out, err := journal.Append(ctx, entry); err != nil || out.Known {
		t.Fatal(out, err)
	}
	if err := os.WriteFile(filepath.Join(marks, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a := <-answered
	a.want(t, 200, `"over gRPC"`)
	if _, err := journal.Append(ctx, entry); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("after the run: %v", err)
	}
}
