package sdk

import (
	"context"
	"net/url"
	"strconv"

	"github.com/quipu-run/quipu"
)

// Leases lists who owns what, by name; a page at a time.
func (c *Client) Leases(ctx context.Context, l quipu.LeaseList) (quipu.LeasePage, error) {
	q := url.Values{}
	for name, value := range map[string]string{"prefix": l.Prefix, "after": l.After} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if l.Limit != 0 {
		q.Set("limit", strconv.Itoa(l.Limit))
	}
	return read[quipu.LeasePage](ctx, c, c.get("/leases", q))
}
