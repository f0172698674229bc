package dapr

import (
	"context"
	"net/http"
	"strings"
	"testing"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/test/fake"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// oneFlow is a store that has the instance w1 of the application default, and refuses an instance taken.
type oneFlow struct {
	rest // what is not asked here
	said []string
}

type rest struct{ unasked }
type unasked interface{ quipu.Workflows }

func (f *oneFlow) StartWorkflow(_ context.Context, s quipu.WorkflowStart) (string, error) {
	if s.ID == "taken" {
		return "", &quipu.Error{Code: quipu.CodeWorkflowExists, Text: "it is there"}
	}
	f.said = append(f.said, "start "+s.App+" "+s.Name+" "+string(s.Input))
	return s.ID, nil
}

func (f *oneFlow) has(k quipu.WorkflowKey) error {
	if k != (quipu.WorkflowKey{App: "default", ID: "w1"}) {
		return &quipu.Error{Code: quipu.CodeNoWorkflow, Text: "there is none"}
	}
	return nil
}

func (f *oneFlow) RaiseWorkflow(_ context.Context, k quipu.WorkflowKey, event string, data []byte) error {
	f.said = append(f.said, "raise "+event+" "+string(data))
	return f.has(k)
}

func (f *oneFlow) Workflow(_ context.Context, k quipu.WorkflowKey) (quipu.WorkflowInfo, error) {
	return quipu.WorkflowInfo{WorkflowKey: k, Name: "order", Status: quipu.WorkflowFailed, Created: fake.Epoch, Updated: fake.Epoch, Custom: "half",
		Input: []byte(`"tea"`), Failure: &quipu.WorkflowFailure{Type: "T", Message: "no tea"}}, f.has(k)
}

func (f *oneFlow) SuspendWorkflow(_ context.Context, k quipu.WorkflowKey, _ string) error {
	f.said = append(f.said, "suspend")
	return f.has(k)
}

func (f *oneFlow) ResumeWorkflow(_ context.Context, k quipu.WorkflowKey, _ string) error {
	f.said = append(f.said, "resume")
	return f.has(k)
}

func (f *oneFlow) TerminateWorkflow(_ context.Context, k quipu.WorkflowKey, _ []byte, recursive bool) error {
	if recursive {
		f.said = append(f.said, "terminate all")
	}
	return f.has(k)
}

func (f *oneFlow) PurgeWorkflows(_ context.Context, p quipu.WorkflowPurge) (int, error) {
	if p.Recursive {
		f.said = append(f.said, "purge all")
	}
	return 1, f.has(p.WorkflowKey)
}

func flowHouse(t *testing.T) (*house, *oneFlow) {
	h, f := open(t), &oneFlow{}
	h.ns.Flows = f
	h.opt.Workflows = func(*http.Request) (quipu.Workflows, error) { return f, nil }
	return h, f
}

func TestWorkflowsOverHTTPAnswerAsDaprDoes(t *testing.T) {
	h, f := flowHouse(t)
	for _, at := range []string{"/v1.0", "/v1.0-beta1", "/v1.0-alpha1"} {
		f.said = nil
		h.want(202, `"instanceID":"w1"`, "POST "+at+"/workflows/dapr/order/start?instanceID=w1", `"tea"`)
		h.want(200, `"runtimeStatus":"FAILED"`, "GET "+at+"/workflows/dapr/w1", "")
		h.want(202, "", "POST "+at+"/workflows/anything/w1/raiseEvent/paid", "5")
		for _, verb := range []string{"pause", "resume", "terminate", "purge"} {
			h.want(202, "", "POST "+at+"/workflows/dapr/w1/"+verb, "")
		}
		if got := strings.Join(f.said, ", "); got != `start default order "tea", raise paid 5, suspend, resume, terminate all, purge all` {
			t.Error(got)
		}
	}
	h.want(200, `"dapr.workflow.failure.error_message":`, "GET /v1.0/workflows/dapr/w1", "")
	h.want(200, `"dapr.workflow.custom_status":`, "GET /v1.0/workflows/dapr/w1", "")
	for request, want := range map[string]string{
		"POST /v1.0/workflows/dapr/order/start?instanceID=a.b":                        `400 "errorCode":"ERR_INSTANCE_ID_INVALID"`,
		"POST /v1.0/workflows/dapr/order/start?instanceID=" + strings.Repeat("x", 65): `400 "errorCode":"ERR_INSTANCE_ID_TOO_LONG"`,
		"POST /v1.0/workflows/dapr/order/start?instanceID=taken":                      `409 "errorCode":"ERR_START_WORKFLOW"`,
		"GET /v1.0/workflows/dapr/w2":                                                 `404 "errorCode":"ERR_INSTANCE_ID_NOT_FOUND"`,
		"POST /v1.0/workflows/dapr/w2/terminate":                                      `404 "errorCode":"ERR_INSTANCE_ID_NOT_FOUND"`,
		"POST /v1.0/workflows/dapr/w2/purge":                                          `404 "errorCode":"ERR_INSTANCE_ID_NOT_FOUND"`,
		"POST /v1.0/workflows/dapr/w2/pause":                                          `404 "errorCode":"ERR_PAUSE_WORKFLOW"`,
		"POST /v1.0/workflows/dapr/w2/raiseEvent/e":                                   `404 "errorCode":"ERR_RAISE_EVENT_WORKFLOW"`,
		"GET /v1.0/workflows/dapr/w1/pause":                                           `405 `,
	} {
		status, says, _ := strings.Cut(want, " ")
		code := 0
		for _, c := range status {
			code = code*10 + int(c-'0')
		}
		h.want(code, says, request, "")
	}
}

func TestWorkflowsOverGRPC(t *testing.T) {
	h, f := flowHouse(t)
	c, ctx := h.grpc(), t.Context()
	out, err := c.StartWorkflowBeta1(ctx, &rtv1.StartWorkflowRequest{WorkflowName: "order", InstanceId: "w1"})
	if err != nil || out.InstanceId != "w1" {
		t.Fatalf("%v %v", out, err)
	}
	//lint:ignore SA1019 older clients call it
	if got, err := c.GetWorkflowAlpha1(ctx, &rtv1.GetWorkflowRequest{InstanceId: "w1"}); err != nil || got.RuntimeStatus != "FAILED" || got.Properties["dapr.workflow.input"] != `"tea"` {
		t.Errorf("%v %v", got, err)
	}
	if _, err := c.RaiseEventWorkflowBeta1(ctx, &rtv1.RaiseEventWorkflowRequest{InstanceId: "w1", EventName: "e", EventData: []byte("1")}); err != nil {
		t.Error(err)
	}
	for want, err := range map[codes.Code]error{
		codes.AlreadyExists:   second(c.StartWorkflowBeta1(ctx, &rtv1.StartWorkflowRequest{WorkflowName: "order", InstanceId: "taken"})),
		codes.InvalidArgument: second(c.StartWorkflowBeta1(ctx, &rtv1.StartWorkflowRequest{InstanceId: "x"})),
		codes.NotFound:        second(c.TerminateWorkflowBeta1(ctx, &rtv1.TerminateWorkflowRequest{InstanceId: "w2"})),
		codes.OK:              second(c.PurgeWorkflowBeta1(ctx, &rtv1.PurgeWorkflowRequest{InstanceId: "w1"})),
	} {
		if status.Code(err) != want {
			t.Errorf("%v, want %v", err, want)
		}
	}
	if got := strings.Join(f.said, ", "); got != "start default order , raise e 1, terminate all, purge all" {
		t.Error(got)
	}
}

func second[T any](_ T, err error) error { return err }
