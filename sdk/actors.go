package sdk

import (
	"context"
	"net/url"
	"strconv"

	"github.com/quipu-run/quipu"
)

// Actors lists the actors that are active, by type and id; a page at a time.
func (c *Client) Actors(ctx context.Context, l quipu.ActorList) (quipu.ActorPage, error) {
	q := url.Values{}
	for name, value := range map[string]string{"type": l.Type, "afterType": l.After.Type, "afterId": l.After.ID} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if l.Limit != 0 {
		q.Set("limit", strconv.Itoa(l.Limit))
	}
	return read[quipu.ActorPage](ctx, c, c.get("/actors", q))
}
