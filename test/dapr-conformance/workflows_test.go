package conformance

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	suite_workflows "github.com/dapr/components-contrib/tests/conformance/workflows"
	"github.com/dapr/components-contrib/workflows"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/dapr/durabletask-go/workflow"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// engine is the name of Dapr's own workflow component, which needs no resource file.
const engine = "dapr"

// runs is the workflow component over gRPC, of an application that is a worker, too.
type runs struct {
	component
	worker *workflow.Client
}

// Init starts the worker. Its workflow sleeps for as many seconds as its input says, then waits for an approval.
func (w *runs) Init(workflows.Metadata) (err error) {
	if w.application, err = attach(w.t, w.node, w.name, program{}, nil, w.dir); err != nil {
		return err
	}
	r := workflow.NewRegistry()
	if err := r.AddWorkflowN("TestWorkflow", sleepThenAsk); err != nil {
		return err
	}
	w.worker = workflow.NewClient(w.conn)
	ctx, stop := context.WithCancel(context.Background())
	w.t.Cleanup(stop)
	return w.worker.StartWorker(ctx, r)
}

func sleepThenAsk(ctx *workflow.WorkflowContext) (any, error) {
	var seconds int
	if err := ctx.GetInput(&seconds); err != nil {
		return nil, err
	}
	if err := ctx.CreateTimer(time.Duration(seconds) * time.Second).Await(nil); err != nil {
		return nil, err
	}
	var approved string
	err := ctx.WaitForExternalEvent("Approved", -1).Await(&approved)
	return approved, err
}

// Start returns when a worker has begun: the suite looks at once.
func (w *runs) Start(ctx context.Context, r *workflows.StartRequest) (*workflows.StartResponse, error) {
	got, err := w.StartWorkflowBeta1(ctx, &rtv1.StartWorkflowRequest{WorkflowComponent: engine, WorkflowName: r.WorkflowName, InstanceId: value(r.InstanceID),
		Options: r.Options, Input: []byte(r.WorkflowInput.GetValue())})
	if err != nil {
		return nil, err
	}
	return w.begun(ctx, got.GetInstanceId())
}

func (w *runs) begun(ctx context.Context, id string) (*workflows.StartResponse, error) {
	_, err := w.worker.WaitForWorkflowStart(ctx, id)
	return &workflows.StartResponse{InstanceID: id}, err
}

func (w *runs) Get(ctx context.Context, r *workflows.GetRequest) (*workflows.StateResponse, error) {
	got, err := w.GetWorkflowBeta1(ctx, &rtv1.GetWorkflowRequest{WorkflowComponent: engine, InstanceId: r.InstanceID})
	if err != nil {
		return nil, err
	}
	return stateOf(workflows.WorkflowState{InstanceID: got.GetInstanceId(), WorkflowName: got.GetWorkflowName(), RuntimeStatus: got.GetRuntimeStatus(),
		CreatedAt: got.GetCreatedAt().AsTime(), LastUpdatedAt: got.GetLastUpdatedAt().AsTime(), Properties: got.GetProperties()}), nil
}

// stateOf has the status as the suite writes it, which Dapr's API has in capitals.
func stateOf(s workflows.WorkflowState) *workflows.StateResponse {
	if s.RuntimeStatus != "" {
		s.RuntimeStatus = s.RuntimeStatus[:1] + strings.ToLower(s.RuntimeStatus[1:])
	}
	return &workflows.StateResponse{Workflow: &s}
}

func (w *runs) Terminate(ctx context.Context, r *workflows.TerminateRequest) error {
	_, err := w.TerminateWorkflowBeta1(ctx, &rtv1.TerminateWorkflowRequest{WorkflowComponent: engine, InstanceId: r.InstanceID})
	return err
}

func (w *runs) RaiseEvent(ctx context.Context, r *workflows.RaiseEventRequest) error {
	_, err := w.RaiseEventWorkflowBeta1(ctx, &rtv1.RaiseEventWorkflowRequest{WorkflowComponent: engine, InstanceId: r.InstanceID, EventName: r.EventName,
		EventData: []byte(r.EventData.GetValue())})
	return err
}

func (w *runs) Pause(ctx context.Context, r *workflows.PauseRequest) error {
	_, err := w.PauseWorkflowBeta1(ctx, &rtv1.PauseWorkflowRequest{WorkflowComponent: engine, InstanceId: r.InstanceID})
	return err
}

func (w *runs) Resume(ctx context.Context, r *workflows.ResumeRequest) error {
	_, err := w.ResumeWorkflowBeta1(ctx, &rtv1.ResumeWorkflowRequest{WorkflowComponent: engine, InstanceId: r.InstanceID})
	return err
}

func (w *runs) Purge(ctx context.Context, r *workflows.PurgeRequest) error {
	_, err := w.PurgeWorkflowBeta1(ctx, &rtv1.PurgeWorkflowRequest{WorkflowComponent: engine, InstanceId: r.InstanceID})
	return err
}

// webRuns is the workflow component over HTTP. Its worker has gRPC, as with Dapr.
type webRuns struct{ runs }

// of is the path of an instance, or of a workflow, and what is to be done.
func (*webRuns) of(id, do string) string {
	return "/v1.0/workflows/" + engine + "/" + url.PathEscape(id) + do
}

func (w *webRuns) Start(ctx context.Context, r *workflows.StartRequest) (*workflows.StartResponse, error) {
	var got struct{ InstanceID string }
	err := w.ask(ctx, http.MethodPost, w.of(r.WorkflowName, "/start")+"?instanceID="+url.QueryEscape(value(r.InstanceID)), []byte(r.WorkflowInput.GetValue()), &got)
	if err != nil {
		return nil, err
	}
	return w.begun(ctx, got.InstanceID)
}

func (w *webRuns) Get(ctx context.Context, r *workflows.GetRequest) (*workflows.StateResponse, error) {
	var got struct {
		InstanceID, WorkflowName, RuntimeStatus string
		CreatedAt, LastUpdatedAt                time.Time
		Properties                              map[string]string
	}
	if err := w.ask(ctx, http.MethodGet, w.of(r.InstanceID, ""), nil, &got); err != nil {
		return nil, err
	}
	return stateOf(workflows.WorkflowState{InstanceID: got.InstanceID, WorkflowName: got.WorkflowName, RuntimeStatus: got.RuntimeStatus,
		CreatedAt: got.CreatedAt, LastUpdatedAt: got.LastUpdatedAt, Properties: got.Properties}), nil
}

func (w *webRuns) Terminate(ctx context.Context, r *workflows.TerminateRequest) error {
	return w.ask(ctx, http.MethodPost, w.of(r.InstanceID, "/terminate"), nil, nil)
}

func (w *webRuns) RaiseEvent(ctx context.Context, r *workflows.RaiseEventRequest) error {
	return w.ask(ctx, http.MethodPost, w.of(r.InstanceID, "/raiseEvent/"+url.PathEscape(r.EventName)), []byte(r.EventData.GetValue()), nil)
}

func (w *webRuns) Pause(ctx context.Context, r *workflows.PauseRequest) error {
	return w.ask(ctx, http.MethodPost, w.of(r.InstanceID, "/pause"), nil, nil)
}

func (w *webRuns) Resume(ctx context.Context, r *workflows.ResumeRequest) error {
	return w.ask(ctx, http.MethodPost, w.of(r.InstanceID, "/resume"), nil, nil)
}

func (w *webRuns) Purge(ctx context.Context, r *workflows.PurgeRequest) error {
	return w.ask(ctx, http.MethodPost, w.of(r.InstanceID, "/purge"), nil, nil)
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func (b bench) workflowsOverGRPC(t *testing.T) {
	w := &runs{component: b.component(t, "conformance-workflows", "workflow.dapr")}
	suite_workflows.ConformanceTests(t, nil, w, suite_workflows.NewTestConfig("quipu", nil, nil))
	t.Run("operations that the suite does not call", func(t *testing.T) { otherOperations(t, w, w.worker) })
}

func (b bench) workflowsOverHTTP(t *testing.T) {
	w := &webRuns{runs{component: b.component(t, "conformance-web-workflows", "workflow.dapr")}}
	suite_workflows.ConformanceTests(t, nil, w, suite_workflows.NewTestConfig("quipu", nil, nil))
	t.Run("operations that the suite does not call", func(t *testing.T) { otherOperations(t, w, w.worker) })
}

// otherOperations pauses, resumes, raises an event and purges: upstream's interface has them, and its suite does not.
func otherOperations(t *testing.T, w workflows.Workflow, worker *workflow.Client) {
	ctx, stop := context.WithTimeout(t.Context(), startMax)
	defer stop()
	id := "others"
	started, err := w.Start(ctx, &workflows.StartRequest{InstanceID: &id, WorkflowName: "TestWorkflow", WorkflowInput: wrapperspb.String("0")})
	if err == nil {
		err = w.Pause(ctx, &workflows.PauseRequest{InstanceID: started.InstanceID})
	}
	if err == nil {
		err = w.RaiseEvent(ctx, &workflows.RaiseEventRequest{InstanceID: id, EventName: "Approved", EventData: wrapperspb.String(`"by Ada"`)})
	}
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(ctx, t, w, id, "Suspended")
	if err := w.Purge(ctx, &workflows.PurgeRequest{InstanceID: id}); err == nil {
		t.Error("one that has not ended was purged")
	}
	if err := w.Resume(ctx, &workflows.ResumeRequest{InstanceID: id}); err != nil {
		t.Fatal(err)
	}
	if _, err := worker.WaitForWorkflowCompletion(ctx, id); err != nil {
		t.Fatal(err)
	}
	got := wantStatus(ctx, t, w, id, "Completed")
	if out := got.Properties["dapr.workflow.output"]; out != `"by Ada"` || got.WorkflowName != "TestWorkflow" || got.CreatedAt.IsZero() {
		t.Errorf("%+v", got)
	}
	if err := w.Purge(ctx, &workflows.PurgeRequest{InstanceID: id}); err != nil {
		t.Fatal(err)
	}
	if got, err := w.Get(ctx, &workflows.GetRequest{InstanceID: id}); err == nil && got.Workflow.WorkflowName != "" {
		t.Errorf("after it was purged: %+v", got.Workflow)
	}
	for _, err := range []error{w.Pause(ctx, &workflows.PauseRequest{InstanceID: id}), w.Terminate(ctx, &workflows.TerminateRequest{InstanceID: id})} {
		if err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one that is not there: %v", err)
		}
	}
}

// wantStatus waits for a status: what is asked of an instance is done by its next turn.
func wantStatus(ctx context.Context, t *testing.T, w workflows.Workflow, id, status string) *workflows.WorkflowState {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := w.Get(ctx, &workflows.GetRequest{InstanceID: id})
		if err != nil {
			t.Fatal(err)
		}
		if got.Workflow.RuntimeStatus == status {
			return got.Workflow
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s is %s, not %s", id, got.Workflow.RuntimeStatus, status)
		}
	}
}
