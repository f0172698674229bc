package sdk

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/quipu-run/quipu"
)

// Revisions lists what is remembered of a function, the newest first; of all functions if name is "". CodeNoFunction.
func (c *Client) Revisions(ctx context.Context, name string) ([]quipu.Revision, error) {
	path := "/revisions"
	if name != "" {
		path = "/functions/" + url.PathEscape(name) + path
	}
	p, err := read[Page[quipu.Revision]](ctx, c, c.get(path, nil))
	return p.Items, err
}

// Split is Functions.Split of the contract, with its errors.
func (c *Client) Split(ctx context.Context, name string, parts []quipu.Part) ([]quipu.Revision, error) {
	return c.changeTraffic(ctx, http.MethodPut, name, "/traffic", Split{Parts: parts})
}

// Rollback is Functions.Rollback of the contract, with its errors.
func (c *Client) Rollback(ctx context.Context, name, revision string) ([]quipu.Revision, error) {
	return c.changeTraffic(ctx, http.MethodPost, name, "/rollback", Rollback{Revision: revision})
}

func (c *Client) changeTraffic(ctx context.Context, method, name, path string, body any) ([]quipu.Revision, error) {
	q, err := asJSON(method, "/functions/"+url.PathEscape(name)+path, body)
	if err != nil {
		return nil, err
	}
	p, err := read[Page[quipu.Revision]](ctx, c, q)
	return p.Items, err
}

// SetAlias is Functions.SetAlias of the contract, with its errors.
func (c *Client) SetAlias(ctx context.Context, name, alias, revision string) error {
	path := "/functions/" + url.PathEscape(name) + "/aliases/" + url.PathEscape(alias)
	if revision == "" {
		return c.done(ctx, request{method: http.MethodDelete, path: path})
	}
	q, err := asJSON(http.MethodPut, path, Alias{Revision: revision})
	if err != nil {
		return err
	}
	return c.done(ctx, q)
}

func asJSON(method, path string, body any) (request, error) {
	text, err := json.Marshal(body)
	return request{method: method, path: path, body: bytes.NewReader(text), header: http.Header{"Content-Type": {"application/json"}}}, err
}
