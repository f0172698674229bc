package server

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dapr/durabletask-go/api"
	"github.com/dapr/durabletask-go/workflow"
	"github.com/quipu-run/quipu"
)

var soakWorkflows = flag.Int("soak-workflows", 30, "how many workflows of ten activities: go test ./server -run WorkflowsSoak -soak-workflows 1000 -soak-kills 20 -timeout 0 -v")

const soakWorkflowsAtOnce = 16

// soakEffects has one key for each workflow: the steps that took effect, in their order.
const soakEffects = `
import json, lib

def handle(r):
    name, step = r.path.rsplit("/", 2)[-2:]
    status, old = lib.state("GET", "shared/" + name)
    steps = json.loads(old or "[]") + [int(step)]
    lib.state("POST", "shared", json.dumps([{"key": name, "value": steps}]))
    r.answer(200, sum(steps))
lib.serve(handle)`

// Node and worker are killed while workflows of ten activities run. All end; each effect is there once and in order; what an
// activity was once said to have answered stays so, though it may have run again.
func TestWorkflowsSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts the program some times")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := newFlowsSoak(t, rand.New(rand.NewPCG(seed, 0)))
	var load sync.WaitGroup
	var next atomic.Int64
	began := time.Now()
	for range soakWorkflowsAtOnce {
		load.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(s.results)); i = next.Add(1) - 1 {
				s.results[i] = s.run(fmt.Sprint("w", i))
			}
		})
	}
	over := make(chan struct{})
	go func() {
		load.Wait()
		close(over)
	}()
	s.happen(over)
	t.Logf("%d workflows in %s; node killed %d times, worker %d times; %d runs of %d activities", len(s.results), time.Since(began).Round(time.Millisecond),
		s.nodeKills, s.workerKills, s.outside.asked.Load(), 10*len(s.results))
	if want := min(1, *soakKills); s.nodeKills < want {
		t.Errorf("the node was killed %d times: the test has not tested much", s.nodeKills)
	}
	s.node.kill()
	s.node.up() // the answer is on disk
	for i, result := range s.results {
		s.check(fmt.Sprint("w", i), result)
	}
	if t.Failed() {
		s.worker.kill()
		t.Logf("the worker said: %.10000s", s.worker.output.String())
	}
}

// flowsSoak is a node, a worker, the world outside, and what clients were told.
type flowsSoak struct {
	t       *testing.T
	rng     *rand.Rand
	node    *killable
	worker  *flowWorker
	client  *workflow.Client
	outside *outsideLedger
	results []string // output of each workflow

	nodeKills, workerKills int
}

func newFlowsSoak(t *testing.T, rng *rand.Rand) *flowsSoak {
	t.Helper()
	s := &flowsSoak{t: t, rng: rng, outside: newOutsideLedger(), results: make([]string, *soakWorkflows)}
	outside := httptest.NewServer(s.outside)
	t.Cleanup(outside.Close)
	s.node = spawn(t, filepath.Join(t.TempDir(), "data"), "serve")
	s.node.python(soakEffects, "atomic: true")
	s.worker = &flowWorker{t: t, env: fmt.Sprintf("%s=%s http://%s %s", flowWorkerEnv, s.node.info.DaprGRPC, s.node.info.HTTP, outside.URL)}
	s.worker.up()
	t.Cleanup(s.worker.kill)
	client, conn, err := flowsClient(s.node.info.DaprGRPC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	s.client = client
	return s
}

// run starts a workflow and waits for its output, whatever is killed meanwhile.
func (s *flowsSoak) run(id string) string {
	ctx, cancel := context.WithTimeout(s.t.Context(), 4*patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		// The request before may have been the start of it, and another one after its end would start it again.
		meta, err := s.client.FetchWorkflowMetadata(ctx, id)
		if errors.Is(err, api.ErrInstanceNotFound) {
			_, err = s.client.ScheduleWorkflow(ctx, "ten", workflow.WithInstanceID(id))
		}
		if err == nil {
			meta, err = s.client.WaitForWorkflowCompletion(ctx, id, workflow.WithFetchPayloads(true))
		}
		if err == nil && workflow.WorkflowMetadataIsComplete(meta) {
			return meta.Output.GetValue()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.t.Errorf("%s has not ended: %v", id, err)
			return ""
		}
	}
}

// happen kills the node, the worker or both, spread at random over the activities that there are.
func (s *flowsSoak) happen(over <-chan struct{}) {
	at := make([]int64, *soakKills)
	for i := range at {
		at[i] = s.rng.Int64N(int64(9*len(s.results))) + 1
	}
	slices.Sort(at)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n := 0; n < len(at); {
		select {
		case <-over:
			return
		case <-tick.C:
		}
		if s.outside.asked.Load() < at[n] {
			continue
		}
		node, worker := n%3 != 1, n%3 != 0
		s.kill(node, worker)
		n++
	}
	<-over
}

func (s *flowsSoak) kill(node, worker bool) {
	if node {
		s.node.kill()
		s.nodeKills++
	}
	if worker {
		s.worker.kill()
		s.worker.up()
		s.workerKills++
	}
	if node {
		s.node.up()
	}
}

// check compares what a workflow answered with its effects, its history, and what the world outside was asked.
func (s *flowsSoak) check(id, result string) {
	s.t.Helper()
	var done []flowStepDone
	if err := json.Unmarshal([]byte(result), &done); err != nil || len(done) != 10 {
		s.t.Errorf("%s answered %.300q: %v", id, result, err)
		return
	}
	if effects := s.node.state(id); effects != "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]" && effects != "[0,1,2,3,4,5,6,7,8,9]" {
		s.t.Errorf("%s: steps took effect %s", id, effects)
	}
	after := "start"
	for n, d := range done {
		if d.Sum != n*(n+1)/2 {
			s.t.Errorf("%s: the sum after step %d is %d", id, n, d.Sum)
		}
		if given := s.outside.keysOf(fmt.Sprintf("/%s/%d", id, n)); len(given) != 1 || given[0] != after {
			s.t.Errorf("%s: step %d followed %v, and the one before answered %s", id, n, given, after)
		}
		after = d.Run
	}
	s.checkHistory(quipu.WorkflowKey{App: flowsApp, ID: id}, result, done)
}

func (s *flowsSoak) checkHistory(k quipu.WorkflowKey, result string, done []flowStepDone) {
	s.t.Helper()
	info, err := s.node.client.Workflow(s.t.Context(), k, false)
	if err != nil || info.Status != quipu.WorkflowCompleted || string(info.Output) != result {
		s.t.Errorf("%s: %+v, %v; it answered %s", k.ID, info, err, result)
	}
	events, err := s.node.client.WorkflowHistory(s.t.Context(), k)
	if err != nil {
		s.t.Fatal(err)
	}
	of := map[string][]quipu.WorkflowEvent{}
	for _, e := range events {
		of[e.Type] = append(of[e.Type], e)
	}
	if len(of["started"]) != 1 || len(of["activity"]) != 10 || len(of["activity completed"]) != 10 || len(of["completed"]) != 1 {
		s.t.Errorf("%s: the history is %.3000s", k.ID, fmt.Sprint(events))
		return
	}
	for n, e := range of["activity completed"] {
		var d flowStepDone
		if err := json.Unmarshal([]byte(e.Data), &d); err != nil || e.ID != n || d != done[n] {
			s.t.Errorf("%s: the history has %s as result %d, and it was %+v: %v", k.ID, e.Data, n, done[n], err)
		}
	}
}
