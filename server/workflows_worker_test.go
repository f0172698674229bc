package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/dapr/durabletask-go/backend"
	"github.com/dapr/durabletask-go/workflow"
	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// flowWorkerEnv, if set, makes the program of the tests a worker of workflows: the Dapr gRPC port, the gateway and the world outside.
const flowWorkerEnv = "QUIPU_TEST_FLOW_WORKER"

const flowsApp = "flows"

// flowStep is one activity: number N of a workflow. After is what the run before it answered.
type flowStep struct {
	ID    string
	N     int
	After string
}

// flowStepDone is what a run of an activity answers. Run is another one each time that it runs.
type flowStepDone struct {
	Sum int // of the numbers of all steps so far, by the function that has the effect
	Run string
}

// tenActivities is a workflow of ten activities, each of which gets what the one before answered.
func tenActivities(ctx *workflow.WorkflowContext) (any, error) {
	done, after := make([]flowStepDone, 10), "start"
	for n := range done {
		step := flowStep{ID: ctx.ID(), N: n, After: after}
		if err := ctx.CallActivity("step", workflow.WithActivityInput(step)).Await(&done[n]); err != nil {
			return nil, err
		}
		after = done[n].Run
	}
	return done, nil
}

// activity has an effect outside and one in the node. It asks until it is answered, as the node may be down.
func activity(gateway, outside string) workflow.Activity {
	return func(ctx workflow.ActivityContext) (any, error) {
		var s flowStep
		if err := ctx.GetInput(&s); err != nil {
			return nil, err
		}
		done := flowStepDone{Run: uuid.NewString()}
		what := fmt.Sprintf("%s/%d", s.ID, s.N)
		var got answer
		asked := poll(func() bool {
			got = ask(http.MethodPost, outside+"/"+what, "", "Idempotency-Key", s.After)
			return got.status == http.StatusOK
		})
		added := asked && poll(func() bool {
			got = ask(http.MethodPost, gateway+"/f/"+what, "", "Idempotency-Key", what)
			return got.status == http.StatusOK
		})
		if !added {
			return nil, fmt.Errorf("%s: %d %s", what, got.status, got.body)
		}
		_, err := fmt.Sscan(got.body, &done.Sum)
		return done, err
	}
}

// flowsClient is a client of workflows at a Dapr gRPC port. It is quick to find a node again.
func flowsClient(address string) (*workflow.Client, *grpc.ClientConn, error) {
	own := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx, "dapr-caller-app-id", flowsApp)
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second,
			Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.2, MaxDelay: 100 * time.Millisecond}}),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, in, out any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
			return invoke(own(ctx), method, in, out, cc, o...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
			return stream(own(ctx), desc, cc, method, o...)
		}))
	if err != nil {
		return nil, nil, err
	}
	return workflow.NewClientWithLogger(conn, backend.DefaultLogger()), conn, nil
}

// runFlowWorker works until its standard input ends, which it does with the test.
func runFlowWorker(addresses string) error {
	at := strings.Fields(addresses)
	c, conn, err := flowsClient(at[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	r := workflow.NewRegistry()
	if err := errors.Join(r.AddWorkflowN("ten", tenActivities), r.AddWorkflowN("none", func(*workflow.WorkflowContext) (any, error) { return "done", nil }), r.AddActivityN("step", activity(at[1], at[2]))); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	if !poll(func() bool { err = c.StartWorker(ctx, r); return err == nil }) { // the node may be down
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// slowWorker is a function whose worker comes some time after it serves, later than its idle instances stay.
const slowWorker = `
import lib, os, subprocess, threading, time
def late():
    time.sleep(1)
    subprocess.Popen([os.environ["WORKER"]], stdin=subprocess.PIPE,
        env={**os.environ, "QUIPU_TEST_FLOW_WORKER": "127.0.0.1:%s - -" % os.environ["DAPR_GRPC_PORT"]})
threading.Thread(target=late, daemon=True).start()
lib.serve(lambda r: r.answer(200, ""))`

// Workflows of an application that nobody had deployed wait; the deploy brings their worker.
func TestADeployWakesTheWorkflowsThatWaitedForIt(t *testing.T) {
	n := start(t, unconfined, func(c *Config) { c.InstanceToken = false })
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	id, err := n.client.StartWorkflow(t.Context(), sdk.WorkflowStart{App: "f", Name: "none"})
	if err != nil {
		t.Fatal(err)
	}
	n.python(slowWorker, "env: {WORKER: "+program+"}", "scale: {idle: 10ms}")
	eventually(t, "the workflow is done", func() bool {
		i, err := n.client.Workflow(t.Context(), quipu.WorkflowKey{App: "f", ID: id}, false)
		return err == nil && i.Status == quipu.WorkflowCompleted && string(i.Output) == `"done"`
	})
}

// flowWorker is such a process, that can be killed and started again.
type flowWorker struct {
	t      *testing.T
	env    string
	cmd    *exec.Cmd
	output bytes.Buffer // read only when it has ended
}

func (w *flowWorker) up() {
	w.t.Helper()
	path, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	w.cmd = exec.Command(path)
	w.cmd.Env = append(os.Environ(), w.env)
	w.cmd.Stdout, w.cmd.Stderr = &w.output, &w.output
	if _, err := w.cmd.StdinPipe(); err != nil {
		w.t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
}

// kill is kill -9, and returns when the process is gone.
func (w *flowWorker) kill() {
	_ = w.cmd.Process.Kill() // it may have ended
	_ = w.cmd.Wait()         // "signal: killed"
}
