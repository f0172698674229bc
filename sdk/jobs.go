package sdk

import (
	"context"
	"net/http"
	"net/url"

	"github.com/quipu-run/quipu"
)

// Jobs lists a page of jobs whose names start with prefix; of all applications if app is "". next, if not "", is the after of the
// following page.
func (c *Client) Jobs(ctx context.Context, app, prefix, after string) (list []quipu.Alarm, next string, err error) {
	q := url.Values{}
	for name, value := range map[string]string{"app": app, "prefix": prefix, "after": after} {
		if value != "" {
			q.Set(name, value)
		}
	}
	p, err := read[Page[quipu.Alarm]](ctx, c, c.get("/jobs", q))
	return p.Items, p.Next, err
}

func jobPath(app, name string) string {
	return "/apps/" + url.PathEscape(app) + "/jobs/" + url.PathEscape(name)
}

// Job finds one. CodeNoAlarm.
func (c *Client) Job(ctx context.Context, app, name string) (quipu.Alarm, error) {
	return read[quipu.Alarm](ctx, c, c.get(jobPath(app, name), nil))
}

// RemoveJob removes one. CodeNoAlarm.
func (c *Client) RemoveJob(ctx context.Context, app, name string) error {
	return c.done(ctx, request{method: http.MethodDelete, path: jobPath(app, name)})
}
