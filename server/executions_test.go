package server

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
	stepsv1 "github.com/quipu-run/quipu/api/steps/v1"
	steplib "github.com/quipu-run/quipu/sdk/step/lib"
	"github.com/quipu-run/quipu/workflow"
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

// told is that a destination got exactly one event about the end of each call, and of no other.
func (n *stepNode) told(topic string, calls ...string) {
	n.t.Helper()
	want := map[string]int{}
	for _, id := range calls {
		want[id] = 1
	}
	if got := n.ends(topic); !maps.Equal(got, want) {
		n.t.Errorf("topic %s tells of %v, want %v", topic, got, want)
	}
}

const outcomes = `
how = call.wait_event('how')
if how == "refuse":
    raise step.Refusal(422, "no")
return how`

// An asynchronous call of a durable function is over when its execution is: with its answer, and with one event for its destination, over
// restarts in between. Meanwhile it runs, whatever async.maxAge says, and is in no queue.
func TestAnAsyncCallEndsWithItsExecution(t *testing.T) {
	n := startSteps(t)
	n.durable(outcomes, "async: {maxAge: 1s, onSuccess: {topic: good}, onFailure: {topic: bad}}")
	good, bad := n.async("{}"), n.async("{}", "Idempotency-Key", "a-key")
	executions := map[string]string{good: good, bad: "a-key"}
	for id, execution := range executions {
		n.waitsFor(execution, "how")
		eventually(t, "the call goes on with it", func() bool {
			i, err := n.client.Call(t.Context(), id)
			return err == nil && i.State == quipu.CallRunning && i.Execution == execution && i.Attempts == 1
		})
	}
	if waiting := n.parts.main(t).Waiting(); len(waiting) != 0 {
		t.Errorf("%v are in the queue", waiting)
	}
	n.restart()
	list, err := n.client.Calls(t.Context(), "f", 10)
	if err != nil || len(list) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	n.get("/-/v1/calls/"+good+"/result").want(t, http.StatusAccepted, `{"id":"`+good+`","status":"running"}`+"\n")
	n.told("good")
	n.raise(good, "how", `"well"`)
	n.raise("a-key", "how", `"refuse"`)
	if i := n.ended(good); i.State != quipu.CallSucceeded || i.Status != 200 || i.Execution != good {
		t.Errorf("%+v", i)
	}
	n.get("/-/v1/calls/"+good+"/result").want(t, 200, `"well"`)
	if i := n.ended(bad); i.State != quipu.CallFailed || i.Status != 422 || !strings.Contains(i.Cause, "no") || i.Attempts != 1 {
		t.Errorf("%+v", i)
	}
	n.told("good", good)
	n.told("bad", bad)
	if again := n.async("{}", "Idempotency-Key", "a-key"); again != bad {
		t.Errorf("the same key is call %s, and was %s", again, bad)
	}
	if list, err := n.client.Calls(t.Context(), "f", 10); err != nil || len(list) < 2 || list[0].State.Pending() {
		t.Errorf("%+v, %v", list, err)
	}
}

// However an execution ends that is not by its function, the call ends with it; and the execution with a call that is cancelled.
func TestWhatEndsAnExecutionEndsItsCall(t *testing.T) {
	n := startSteps(t)
	n.durable(outcomes, "async: {onFailure: {topic: bad}}")
	flows := func() *workflow.Store { return n.parts.main(t).flows.store }
	begun := func() string {
		id := n.async("{}")
		eventually(t, "it has begun", func() bool { i, err := n.client.Call(t.Context(), id); return err == nil && i.Execution == id })
		return id
	}
	terminated, purged, cancelled := begun(), begun(), begun()
	if err := flows().TerminateWorkflow(t.Context(), quipu.WorkflowKey{App: "f", ID: terminated}, nil, false); err != nil {
		t.Fatal(err)
	}
	if i := n.ended(terminated); i.State != quipu.CallFailed || i.Error != quipu.CodeWorkflowEnded {
		t.Errorf("%+v", i)
	}
	if _, err := flows().PurgeWorkflows(t.Context(), quipu.WorkflowPurge{WorkflowKey: quipu.WorkflowKey{App: "f", ID: purged}, Force: true}); err != nil {
		t.Fatal(err)
	}
	if i := n.ended(purged); i.State != quipu.CallFailed || i.Error != quipu.CodeNoWorkflow {
		t.Errorf("%+v", i)
	}
	if _, err := n.client.CancelCall(t.Context(), cancelled); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the execution has ended", func() bool { return n.execution(cancelled).Status == quipu.WorkflowTerminated })
	if i := n.ended(cancelled); i.State != quipu.CallCancelled {
		t.Errorf("%+v", i)
	}
	n.told("bad", terminated, purged)
}

// A call whose execution was there before it, begun by another request with its key, gets its answer, be it late or there already.
func TestAnAsyncCallJoinsTheExecutionOfItsKey(t *testing.T) {
	n := startSteps(t)
	n.durable(outcomes)
	for _, early := range []bool{true, false} {
		key := fmt.Sprint("early-", early)
		first := make(chan answer, 1)
		go func() { first <- n.post("/f/", "{}", "Idempotency-Key", key) }()
		n.waitsFor(key, "how")
		raise := func() {
			n.raise(key, "how", `"so"`)
			a := <-first
			a.want(t, 200, `"so"`)
		}
		if early {
			raise()
		}
		id := n.async("{}", "Idempotency-Key", key)
		if !early {
			eventually(t, "the call goes on with it", func() bool { i, err := n.client.Call(t.Context(), id); return err == nil && i.Execution == key })
			raise()
		}
		if i := n.ended(id); i.State != quipu.CallSucceeded || i.Execution != key {
			t.Errorf("%+v", i)
		}
		n.get("/-/v1/calls/"+id+"/result").want(t, 200, `"so"`)
	}
}

// Executions are counted by what becomes of them, by how they stand, over a restart too, and their records are on the bill.
func TestExecutionsAreCounted(t *testing.T) {
	n := startSteps(t)
	n.durable(`
how = call.json()
if how == "refuse":
    raise step.Refusal(422, "no")
for name in ("a", "b", "c"):
    call.step(name, lambda: name)
if how == "wait":
    call.wait_event("go")
return "done"`, "async: {retry: {max: 0}}")
	shows := func(lines ...string) {
		t.Helper()
		eventually(t, fmt.Sprint("the metrics show ", lines), func() bool {
			text := n.get("/-/metrics").body
			return !slices.ContainsFunc(lines, func(line string) bool { return !strings.Contains(text, line+"\n") })
		})
	}
	n.post("/f/", `"do"`).want(t, 200, `"done"`)
	eventually(t, "its start, steps and end are on the bill", func() bool { return n.usageOf("f").LogAppends == 1+3+1 })
	if a := n.post("/f/", `"refuse"`); a.status != 422 {
		t.Error(a)
	}
	n.async(`"do"`)
	a := n.post("/f/", `"wait"`, "Idempotency-Key", "w", "Prefer", "respond-async")
	if a.status != http.StatusAccepted {
		t.Fatal(a)
	}
	n.waitsFor("w", "go")
	shows(`quipu_executions_started_total{function="f",namespace="default"} 4`,
		`quipu_executions_ended_total{function="f",namespace="default",status="completed"} 2`,
		`quipu_executions_ended_total{function="f",namespace="default",status="failed"} 1`,
		`quipu_execution_steps_total{function="f",namespace="default"} 9`,
		`quipu_executions{function="f",namespace="default",state="waiting"} 1`,
		`quipu_executions{function="f",namespace="default",state="active"} 0`)
	n.restart()
	shows(`quipu_executions{function="f",namespace="default",state="waiting"} 1`, `quipu_executions{function="f",namespace="default",state="active"} 0`)
}

// What was started for a function that nobody had deployed, and what came for it, is there when it is deployed: the deploy wakes it.
func TestADeployWakesTheExecutionsThatWaitedForIt(t *testing.T) {
	n := startSteps(t)
	flows := func() *workflow.Store { return n.parts.main(t).flows.store }
	for _, id := range []string{"early", "asleep"} {
		if _, err := flows().StartWorkflow(t.Context(), quipu.WorkflowStart{WorkflowKey: quipu.WorkflowKey{App: "f", ID: id}, Input: []byte(`"` + id + `"`)}); err != nil {
			t.Fatal(err)
		}
	}
	n.raise("early", "go", `"on"`)
	n.restart()
	n.durable(`return [call.json(), call.wait_event("go")]`)
	n.waitsFor("asleep", "go")
	n.raise("asleep", "go", `"now"`)
	for id, want := range map[string]string{"early": `["early", "on"]`, "asleep": `["asleep", "now"]`} {
		i, err := flows().AwaitWorkflow(t.Context(), quipu.WorkflowKey{App: "f", ID: id})
		if err != nil || string(i.Output) != want || i.Kind != "step" {
			t.Errorf("%s: %s %s, %v", id, i.Status, i.Output, err)
		}
	}
}

// So it is for one that was stalled since its function had been removed, when the same is deployed again.
func TestADeployWakesAnExecutionThatWasStalled(t *testing.T) {
	n := startSteps(t)
	code := `return call.wait_event("go")`
	n.durable(code)
	n.async("{}", "Idempotency-Key", "x")
	n.waitsFor("x", "go")
	if err := n.client.Remove(t.Context(), "f"); err != nil {
		t.Fatal(err)
	}
	n.raise("x", "go", `"on"`)
	eventually(t, "it is stalled", func() bool { return n.execution("x").Status == quipu.WorkflowStalled })
	n.durable(code)
	eventually(t, "it is done", func() bool { return n.execution("x").Status == quipu.WorkflowCompleted })
}
