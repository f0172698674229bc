package sdk

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
)

// State is one store; As is the function whose keys are meant, required for StoreDefault.
type State struct {
	c         *Client
	Store, As string
}

// State is a store of the namespace.
func (c *Client) State(store, as string) State { return State{c, store, as} }

func (s State) request(method, key string) request {
	q := request{method: method, path: "/state/" + url.PathEscape(s.Store), query: url.Values{}, header: http.Header{}}
	if key != "" {
		q.path += "/" + url.PathEscape(key)
	}
	if s.As != "" {
		q.query.Set("as", s.As)
	}
	return q
}

// Get reads a key. CodeNotFound, CodeNoStore, CodeKey.
func (s State) Get(ctx context.Context, key string) (quipu.Item, error) {
	item := quipu.Item{Key: key}
	if err := checkKey(key); err != nil {
		return item, err
	}
	resp, err := s.c.send(ctx, s.request(http.MethodGet, key))
	if err != nil {
		return item, err
	}
	defer resp.Body.Close()
	item.ETag = strings.Trim(resp.Header.Get("ETag"), `"`)
	if at, err := time.Parse(time.RFC3339Nano, resp.Header.Get(HeaderExpires)); err == nil {
		item.Expires = at.UnixNano()
	}
	item.Value, err = io.ReadAll(io.LimitReader(resp.Body, quipu.ValueBytesMax+1))
	return item, err
}

// Apply writes or deletes one key, durable on return. CodeETag, CodeKey, CodeNoStore, CodeTTL, CodeValueSize.
func (s State) Apply(ctx context.Context, change quipu.Change) error {
	if err := checkKey(change.Key); err != nil {
		return err
	}
	q := s.request(http.MethodPut, change.Key)
	q.body = bytes.NewReader(change.Value)
	if change.Delete {
		q.method, q.body = http.MethodDelete, nil
	}
	if change.ETag != "" {
		q.header.Set("If-Match", change.ETag)
	}
	if change.FirstWrite {
		q.header.Set("If-None-Match", "*")
	}
	if change.TTL > 0 {
		q.query.Set("ttl", strconv.FormatInt(int64((change.TTL+time.Second-1)/time.Second), 10))
	}
	return s.c.done(ctx, q)
}

// List answers a page of keys.
func (s State) List(ctx context.Context, r quipu.ListRequest) (Page[Item], error) {
	q := s.request(http.MethodGet, "")
	q.query.Set("prefix", r.Prefix)
	q.query.Set("after", r.After)
	if r.Limit > 0 {
		q.query.Set("limit", strconv.Itoa(r.Limit))
	}
	return read[Page[Item]](ctx, s.c, q)
}

// checkKey is here because an empty key would be another path.
func checkKey(key string) error {
	if key == "" {
		return &quipu.Error{Code: quipu.CodeKey, Text: "the key is empty"}
	}
	return nil
}
