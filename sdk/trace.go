package sdk

import (
	"context"
	"net/url"

	"github.com/quipu-run/quipu"
)

// Trace is what the node remembers of a trace, by its id or that of a call in it. CodeNoTrace.
func (c *Client) Trace(ctx context.Context, id string) (quipu.Trace, error) {
	return read[quipu.Trace](ctx, c, c.get("/traces/"+url.PathEscape(id), nil))
}
