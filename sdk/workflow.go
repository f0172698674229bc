package sdk

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/quipu-run/quipu"
)

// WorkflowStart asks for an instance of a workflow.
type WorkflowStart struct {
	App     string    `json:"app"`
	ID      string    `json:"id,omitempty"`
	Name    string    `json:"name,omitempty"` // of the workflow; none for a function
	Version string    `json:"version,omitempty"`
	Input   string    `json:"input,omitempty"` // JSON, as a text
	At      time.Time `json:"at,omitzero"`     // of its first turn
}

// WorkflowID names an instance.
type WorkflowID struct {
	App string `json:"app"`
	ID  string `json:"id"`
}

// WorkflowRaise is an event for an instance.
type WorkflowRaise struct {
	Event string `json:"event"`
	Data  string `json:"data,omitempty"` // JSON, as a text
}

// WorkflowReason is why an instance is suspended or resumed.
type WorkflowReason struct {
	Reason string `json:"reason,omitempty"`
}

// WorkflowEnd terminates an instance.
type WorkflowEnd struct {
	Output string `json:"output,omitempty"`
	Alone  bool   `json:"alone,omitempty"` // without its children
}

// WorkflowRerun does again what an instance did.
type WorkflowRerun struct {
	Event int     `json:"event"` // number of the activity, timer or child to begin with
	To    string  `json:"to,omitempty"`
	Input *string `json:"input,omitempty"` // of that, instead of its own
}

// WorkflowPurge says which instances to forget.
type WorkflowPurge struct {
	App       string `json:"app,omitempty"`
	Name      string `json:"name,omitempty"`
	Before    string `json:"before,omitempty"` // RFC 3339: those that ended before
	Recursive bool   `json:"recursive,omitempty"`
	Force     bool   `json:"force,omitempty"`
}

// WorkflowsPurged is how many instances were forgotten.
type WorkflowsPurged struct {
	Purged int `json:"purged"`
}

func workflowPath(k quipu.WorkflowKey) string {
	return "/workflows/" + url.PathEscape(k.App) + "/" + url.PathEscape(k.ID)
}

// Workflows is Workflows of the contract.
func (c *Client) Workflows(ctx context.Context, l quipu.WorkflowList) (quipu.WorkflowPage, error) {
	query := url.Values{}
	for name, value := range map[string]string{"app": l.App, "status": string(l.Status), "name": l.Name, "afterApp": l.After.App, "after": l.After.ID} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if l.Limit > 0 {
		query.Set("limit", strconv.Itoa(l.Limit))
	}
	return read[quipu.WorkflowPage](ctx, c, c.get("/workflows", query))
}

// StartWorkflow is StartWorkflow of the contract, with its errors.
func (c *Client) StartWorkflow(ctx context.Context, s WorkflowStart) (string, error) {
	id, err := askWorkflow[WorkflowID](ctx, c, "/workflows", s)
	return id.ID, err
}

// Workflow is Workflow of the contract, or AwaitWorkflow if wait is set.
func (c *Client) Workflow(ctx context.Context, k quipu.WorkflowKey, wait bool) (quipu.WorkflowInfo, error) {
	return read[quipu.WorkflowInfo](ctx, c, c.get(workflowPath(k), url.Values{"wait": {strconv.FormatBool(wait)}}))
}

// WorkflowHistory is WorkflowHistory of the contract.
func (c *Client) WorkflowHistory(ctx context.Context, k quipu.WorkflowKey) ([]quipu.WorkflowEvent, error) {
	p, err := read[Page[quipu.WorkflowEvent]](ctx, c, c.get(workflowPath(k)+"/history", nil))
	return p.Items, err
}

// ToWorkflow does something to an instance that answers nothing: raise (WorkflowRaise), suspend, resume (WorkflowReason), terminate
// (WorkflowEnd).
func (c *Client) ToWorkflow(ctx context.Context, k quipu.WorkflowKey, verb string, what any) error {
	q, err := asJSON(http.MethodPost, workflowPath(k)+"/"+verb, what)
	if err != nil {
		return err
	}
	return c.done(ctx, q)
}

// RerunWorkflow is RerunWorkflow of the contract.
func (c *Client) RerunWorkflow(ctx context.Context, k quipu.WorkflowKey, r WorkflowRerun) (string, error) {
	id, err := askWorkflow[WorkflowID](ctx, c, workflowPath(k)+"/rerun", r)
	return id.ID, err
}

// PurgeWorkflows forgets one instance, or, if k has no id, those that p says.
func (c *Client) PurgeWorkflows(ctx context.Context, k quipu.WorkflowKey, p WorkflowPurge) (int, error) {
	path := "/workflows/purge"
	if k.ID != "" {
		path = workflowPath(k) + "/purge"
	}
	n, err := askWorkflow[WorkflowsPurged](ctx, c, path, p)
	return n.Purged, err
}

func askWorkflow[T any](ctx context.Context, c *Client, path string, body any) (v T, err error) {
	q, err := asJSON(http.MethodPost, path, body)
	if err != nil {
		return v, err
	}
	return read[T](ctx, c, q)
}
