package sdk

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
)

// Reload gives an attached application other resources; id is what Attached told. If they cannot be used, those before stay.
// CodeNoFunction, CodeManifest, CodeComponent, CodeDenied.
func (c *Client) Reload(ctx context.Context, appID, id string, r AttachedResources) error {
	q, err := asJSON(http.MethodPut, "/apps/"+url.PathEscape(appID)+"/attached/"+url.PathEscape(id)+"/resources", r)
	if err != nil {
		return err
	}
	return c.done(ctx, q)
}

// Attach makes an application that runs by itself part of the namespace, and yields how it stands each time that
// changes. It stays attached until ctx ends or the loop does. An error, if any, comes last.
func (c *Client) Attach(ctx context.Context, appID string, a Attachment) iter.Seq2[Attached, error] {
	return func(yield func(Attached, error) bool) {
		body, err := json.Marshal(a)
		if err != nil {
			yield(Attached{}, fmt.Errorf("attach: %w", err))
			return
		}
		resp, err := c.send(ctx, request{method: http.MethodPost, path: "/apps/" + url.PathEscape(appID) + "/attach", body: bytes.NewReader(body),
			header: http.Header{"Content-Type": {"application/json"}}})
		if err != nil {
			yield(Attached{}, err)
			return
		}
		defer resp.Body.Close()
		for now, err := range func(yield func(Attached, error) bool) { decodeLines(resp.Body, yield) } {
			if err == nil && now.Problem != nil {
				err = now.Problem.AsError()
			}
			if err != nil {
				err = c.brokeOff(ctx, "what it tells of the application", "", err)
			}
			if !yield(now, err) || err != nil {
				return
			}
		}
		yield(Attached{}, c.brokeOff(ctx, "what it tells of the application", "", nil))
	}
}
