package sdk

import (
	"context"
	"io"
	"net/http"
)

// Backup asks the node for an archive of all that it has. The archive is whole only if it is read to its end without an error.
func (c *Client) Backup(ctx context.Context) (io.ReadCloser, error) {
	resp, err := c.send(ctx, request{method: http.MethodPost, path: "/backup"})
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}
