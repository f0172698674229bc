package sdk

import (
	"context"
	"net/http"
	"net/url"

	"github.com/quipu-run/quipu"
)

// ForkRequest asks for a namespace that begins as another one was.
type ForkRequest struct {
	Name    string    `json:"name"`
	At      quipu.Seq `json:"at,omitempty"` // the last record that it is to have; none means now
	Running bool      `json:"running,omitempty"`
}

// ReplayOptions say how a call is made again.
type ReplayOptions struct {
	Revision string `json:"revision,omitempty"` // another than the one that made it, by name, number or alias
	Outside  bool   `json:"outside,omitempty"`  // it may reach the network as its function may
}

// Namespaces lists those of the node, by name.
func (c *Client) Namespaces(ctx context.Context) ([]Namespace, error) {
	p, err := read[Page[Namespace]](ctx, c, c.get("/namespaces", nil))
	return p.Items, err
}

// Fork makes a namespace of the client's. It is durable on return.
// CodeTrimmed: what was then is not known any more. CodeTooMany, CodeUsage.
func (c *Client) Fork(ctx context.Context, f ForkRequest) (Namespace, error) {
	q, err := asJSON(http.MethodPost, "/forks", f)
	if err != nil {
		return Namespace{}, err
	}
	return read[Namespace](ctx, c, q)
}

// ResumeFork lets triggers, schedules and calls that wait run in a fork. CodeNotFound, CodeUsage.
func (c *Client) ResumeFork(ctx context.Context, name string) (Namespace, error) {
	return read[Namespace](ctx, c, request{method: http.MethodPost, path: "/namespaces/" + url.PathEscape(name) + "/resume"})
}

// RemoveNamespace removes a namespace with all that it has. CodeNotFound; CodeUsage for the default one.
func (c *Client) RemoveNamespace(ctx context.Context, name string) error {
	return c.done(ctx, request{method: http.MethodDelete, path: "/namespaces/" + url.PathEscape(name)})
}

// Replay makes a call again in a scratch namespace, on what it had read, and tells what it did not do alike.
// CodeNotFound, CodeTrimmed, CodeCallPending, CodeNoRevision, CodeSandbox, CodeUsage.
func (c *Client) Replay(ctx context.Context, call string, o ReplayOptions) (quipu.CallReplay, error) {
	q, err := asJSON(http.MethodPost, "/calls/"+url.PathEscape(call)+"/replay", o)
	if err != nil {
		return quipu.CallReplay{}, err
	}
	return read[quipu.CallReplay](ctx, c, q)
}
