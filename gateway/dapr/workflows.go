package dapr

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/google/uuid"
	"github.com/quipu-run/quipu"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// workflowIDMax is the longest id that this API takes for a new instance.
const workflowIDMax = 64

// Tags of errors about workflows.
const (
	tagWorkflowGet       = "ERR_GET_WORKFLOW"
	tagWorkflowStart     = "ERR_START_WORKFLOW"
	tagWorkflowPause     = "ERR_PAUSE_WORKFLOW"
	tagWorkflowResume    = "ERR_RESUME_WORKFLOW"
	tagWorkflowTerminate = "ERR_TERMINATE_WORKFLOW"
	tagWorkflowPurge     = "ERR_PURGE_WORKFLOW"
	tagWorkflowRaise     = "ERR_RAISE_EVENT_WORKFLOW"
)

// flows answers what keeps the workflows of a request, and the application whose they are. The component that a request names
// is not looked at, as in Dapr: there is one engine.
func (d *Door) flows(r *http.Request) (quipu.Workflows, string, error) {
	if d.opt.Workflows == nil {
		return nil, "", &problem{status: http.StatusNotImplemented, tag: "ERR_WORKFLOW_COMPONENT_NOT_FOUND", message: "there are no workflows here"}
	}
	app, err := d.appID(r)
	if err != nil {
		return nil, "", err
	}
	flows, err := d.opt.Workflows(r)
	return flows, app, err
}

// workflowKey is the instance that a request names.
func workflowKey(app, id string) (quipu.WorkflowKey, error) {
	if id == "" {
		return quipu.WorkflowKey{}, &problem{status: http.StatusBadRequest, tag: "ERR_INSTANCE_ID_PROVIDED_MISSING", message: "no instance ID was provided"}
	}
	return quipu.WorkflowKey{App: app, ID: id}, nil
}

// workflowProblem is an error as Dapr words those about workflows.
func (d *Door) workflowProblem(r *http.Request, tag, text, id string, err error) error {
	if err == nil {
		return nil
	}
	if p := (*problem)(nil); errors.As(err, &p) {
		return p
	}
	if quipu.CodeOf(err) == quipu.CodeNoWorkflow && (tag == tagWorkflowTerminate || tag == tagWorkflowPurge || tag == tagWorkflowGet) {
		return &problem{status: http.StatusNotFound, tag: "ERR_INSTANCE_ID_NOT_FOUND", message: "unable to find workflow with the provided instance ID: " + id}
	}
	p := d.problem(r, tag, fmt.Sprintf(text, id), err)
	if quipu.CodeOf(err) == quipu.CodeWorkflowExists {
		p.code = codes.AlreadyExists
	}
	p.reason = "" // Dapr gives none
	return p
}

func (d *Door) startWorkflow(ctx context.Context, in *rtv1.StartWorkflowRequest) (*rtv1.StartWorkflowResponse, error) {
	r := requestOf(ctx)
	start, err := workflowStart(in)
	if err != nil {
		return nil, err
	}
	if start.App, err = d.appID(r); err != nil {
		return nil, d.workflowProblem(r, tagWorkflowStart, "error starting workflow '%s': ", in.GetWorkflowName(), err)
	}
	session, err := d.opt.Session(r)
	if err == nil {
		start.ID, err = session.StartWorkflow(ctx, start)
	}
	if err != nil {
		return nil, d.workflowProblem(r, tagWorkflowStart, "error starting workflow '%s': ", in.GetWorkflowName(), err)
	}
	return &rtv1.StartWorkflowResponse{InstanceId: start.ID}, nil
}

// workflowStart checks in the order in which Dapr does.
func workflowStart(in *rtv1.StartWorkflowRequest) (s quipu.WorkflowStart, err error) {
	s.Name, s.Input = in.GetWorkflowName(), in.GetInput()
	s.ID = cmp.Or(in.GetInstanceId(), uuid.NewString())
	bad := func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' && r != '-' }
	switch {
	case len(s.ID) > workflowIDMax:
		return s, &problem{status: http.StatusBadRequest, tag: "ERR_INSTANCE_ID_TOO_LONG", message: fmt.Sprintf("workflow instance ID exceeds the max length of %d characters", workflowIDMax)}
	case strings.ContainsFunc(s.ID, bad):
		return s, &problem{status: http.StatusBadRequest, tag: "ERR_INSTANCE_ID_INVALID",
			message: fmt.Sprintf("workflow instance ID '%s' is invalid: only alphanumeric and underscore characters are allowed", s.ID)}
	case s.Name == "":
		return s, &problem{status: http.StatusBadRequest, tag: "ERR_WORKFLOW_NAME_MISSING", message: "workflow name is not configured"}
	}
	if s.Input == nil {
		s.Input = []byte{}
	}
	if at := in.GetOptions()["dapr.workflow.start_time"]; at != "" {
		if s.At, err = time.Parse(time.RFC3339, at); err != nil {
			return s, &problem{status: http.StatusBadRequest, tag: tagWorkflowStart,
				message: fmt.Sprintf("error starting workflow '%s': start times must be in RFC3339 format (e.g. \"2009-11-10T23:00:00Z\")", s.Name)}
		}
	}
	return s, nil
}

func (d *Door) getWorkflow(ctx context.Context, in *rtv1.GetWorkflowRequest) (*rtv1.GetWorkflowResponse, error) {
	r := requestOf(ctx)
	info, err := d.workflowInfo(ctx, r, in.GetInstanceId())
	if err != nil {
		return nil, d.workflowProblem(r, tagWorkflowGet, "error while getting workflow info on instance '%s': ", in.GetInstanceId(), err)
	}
	out := &rtv1.GetWorkflowResponse{InstanceId: info.ID, WorkflowName: info.Name, CreatedAt: timestamppb.New(info.Created),
		LastUpdatedAt: timestamppb.New(info.Updated), RuntimeStatus: string(info.Status), Properties: map[string]string{}}
	for name, value := range map[string][]byte{"custom_status": []byte(info.Custom), "input": info.Input, "output": info.Output} {
		if len(value) > 0 {
			out.Properties["dapr.workflow."+name] = string(value)
		}
	}
	if f := info.Failure; f != nil {
		out.Properties["dapr.workflow.failure.error_type"] = f.Type
		out.Properties["dapr.workflow.failure.error_message"] = f.Message
		if f.Stack != "" {
			out.Properties["dapr.workflow.failure.stack_trace"] = f.Stack
		}
	}
	return out, nil
}

func (d *Door) workflowInfo(ctx context.Context, r *http.Request, id string) (quipu.WorkflowInfo, error) {
	flows, app, err := d.flows(r)
	if err != nil {
		return quipu.WorkflowInfo{}, err
	}
	k, err := workflowKey(app, id)
	if err != nil {
		return quipu.WorkflowInfo{}, err
	}
	return flows.Workflow(ctx, k)
}

func (d *Door) raiseWorkflow(ctx context.Context, in *rtv1.RaiseEventWorkflowRequest) (*emptypb.Empty, error) {
	r := requestOf(ctx)
	app, err := d.appID(r)
	if err != nil {
		return nil, d.workflowProblem(r, tagWorkflowRaise, "error raising event on workflow '%s': ", in.GetInstanceId(), err)
	}
	k, err := workflowKey(app, in.GetInstanceId())
	if err != nil {
		return nil, err
	}
	if in.GetEventName() == "" {
		return nil, &problem{status: http.StatusBadRequest, tag: "ERR_WORKFLOW_EVENT_NAME_MISSING", message: "missing workflow event name"}
	}
	session, err := d.opt.Session(r)
	if err == nil {
		err = session.RaiseWorkflow(ctx, k, in.GetEventName(), in.GetEventData())
	}
	return &emptypb.Empty{}, d.workflowProblem(r, tagWorkflowRaise, "error raising event on workflow '%s': ", k.ID, err)
}

// instanceAsk is a request about an instance that says nothing else.
type instanceAsk interface{ GetInstanceId() string }

// workflowVerb is something that is done to an instance.
type workflowVerb struct {
	tag, text string
	do        func(ctx context.Context, flows quipu.Workflows, k quipu.WorkflowKey) error
}

var workflowVerbs = map[string]workflowVerb{
	"pause": {tagWorkflowPause, "error pausing workflow %s: ", func(ctx context.Context, flows quipu.Workflows, k quipu.WorkflowKey) error {
		return flows.SuspendWorkflow(ctx, k, "")
	}},
	"resume": {tagWorkflowResume, "error resuming workflow %s: ", func(ctx context.Context, flows quipu.Workflows, k quipu.WorkflowKey) error {
		return flows.ResumeWorkflow(ctx, k, "")
	}},
	"terminate": {tagWorkflowTerminate, "error terminating workflow '%s': ", func(ctx context.Context, flows quipu.Workflows, k quipu.WorkflowKey) error {
		return flows.TerminateWorkflow(ctx, k, nil, true)
	}},
	"purge": {tagWorkflowPurge, "error purging workflow %s: ", func(ctx context.Context, flows quipu.Workflows, k quipu.WorkflowKey) error {
		_, err := flows.PurgeWorkflows(ctx, quipu.WorkflowPurge{WorkflowKey: k, Recursive: true})
		return err
	}},
}

func (d *Door) toWorkflow(ctx context.Context, verb string, in instanceAsk) (*emptypb.Empty, error) {
	r, v := requestOf(ctx), workflowVerbs[verb]
	flows, app, err := d.flows(r)
	if err == nil {
		var k quipu.WorkflowKey
		if k, err = workflowKey(app, in.GetInstanceId()); err == nil {
			err = v.do(ctx, flows, k)
		}
	}
	return &emptypb.Empty{}, d.workflowProblem(r, v.tag, v.text, in.GetInstanceId(), err)
}

// isWorkflows tells whether a path is one of the API: workflows/component/…
func isWorkflows(version string, parts []string) bool {
	if !slices.Contains([]string{"v1.0", "v1.0-beta1", "v1.0-alpha1"}, version) {
		return false
	}
	switch len(parts) {
	case 3:
		return true
	case 4:
		return parts[3] == "start" || workflowVerbs[parts[3]].do != nil
	}
	return len(parts) == 5 && parts[3] == "raiseEvent"
}

// workflows serves what isWorkflows lets pass.
func (d *Door) workflows(w http.ResponseWriter, r *http.Request, parts []string) {
	if len(parts) == 3 {
		if allow(w, r, http.MethodGet) {
			d.sayWorkflow(w, r, http.StatusOK, func(ctx context.Context) (proto.Message, error) {
				return d.getWorkflow(ctx, &rtv1.GetWorkflowRequest{InstanceId: unescape(parts[2])})
			})
		}
		return
	}
	if !allow(w, r, http.MethodPost) {
		return
	}
	defer d.bound(w, r)()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		d.fail(w, r, "ERR_BODY_READ", malformed(err))
		return
	}
	d.sayWorkflow(w, r, http.StatusAccepted, func(ctx context.Context) (proto.Message, error) {
		switch id := unescape(parts[2]); parts[3] {
		case "start":
			return d.startWorkflow(ctx, &rtv1.StartWorkflowRequest{WorkflowName: id, InstanceId: r.URL.Query().Get("instanceID"), Input: body})
		case "raiseEvent":
			return d.raiseWorkflow(ctx, &rtv1.RaiseEventWorkflowRequest{InstanceId: id, EventName: unescape(parts[4]), EventData: body})
		default:
			return d.toWorkflow(ctx, parts[3], &rtv1.PurgeWorkflowRequest{InstanceId: id})
		}
	})
}

// sayWorkflow answers with a message, or with nothing if that is empty.
func (d *Door) sayWorkflow(w http.ResponseWriter, r *http.Request, status int, do func(context.Context) (proto.Message, error)) {
	out, err := do(context.WithValue(r.Context(), requestKey{}, r))
	if err != nil {
		d.fail(w, r, tagWorkflowGet, err)
		return
	}
	if _, empty := out.(*emptypb.Empty); empty {
		w.WriteHeader(status)
		return
	}
	body, err := protojson.Marshal(out)
	if err != nil {
		d.fail(w, r, tagWorkflowGet, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that left has nobody to tell
}
