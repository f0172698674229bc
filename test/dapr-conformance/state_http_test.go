package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/dapr/components-contrib/state"
)

// webState is a state store over HTTP. Its values are JSON; bytes, which the suite stores too, are put into an object, as an
// application must.
type webState struct{ *stateStore }

func newWebState(c component) *webState {
	s := &webState{&stateStore{component: c}}
	s.one, s.tx = state.NewDefaultBulkStore(s), s
	return s
}

type wrapped struct {
	Bytes []byte `json:"bytes"`
}

// unwrapped is a value as it was given.
func unwrapped(value []byte) []byte {
	var w wrapped
	in := json.NewDecoder(bytes.NewReader(value))
	in.DisallowUnknownFields()
	if in.Decode(&w) == nil && w.Bytes != nil {
		return w.Bytes
	}
	return something(value)
}

// webItem is a key as HTTP has it.
type webItem struct {
	Key      string            `json:"key"`
	Value    any               `json:"value,omitempty"`
	ETag     *string           `json:"etag,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Options  map[string]string `json:"options,omitempty"`
}

func webItemOf(r state.SetRequest) webItem {
	out := webItem{Key: toDoor.Replace(r.Key), Value: r.Value, ETag: r.ETag, Metadata: r.Metadata,
		Options: map[string]string{"concurrency": r.Options.Concurrency, "consistency": r.Options.Consistency}}
	if raw, ok := r.Value.([]byte); ok {
		out.Value = wrapped{raw}
	}
	return out
}

func (s *webState) path(rest string) string { return "/v1.0/state/" + s.name + rest }

// webError makes upstream's errors of the statuses that daprd makes of them.
func webError(err error) error {
	var no *refusal
	switch {
	case errors.As(err, &no) && no.status == http.StatusConflict:
		return state.NewETagError(state.ETagMismatch, err)
	case errors.As(err, &no) && no.status == http.StatusBadRequest && strings.Contains(no.Text, "invalid etag"):
		return state.NewETagError(state.ETagInvalid, err)
	}
	return err
}

func (s *webState) Get(ctx context.Context, r *state.GetRequest) (*state.GetResponse, error) {
	resp, value, err := s.do(ctx, http.MethodGet, s.path("/"+url.PathEscape(toDoor.Replace(r.Key))+about(r.Metadata)), nil, nil)
	if err != nil {
		return nil, webError(err)
	}
	out := &state.GetResponse{Data: unwrapped(value), ETag: etagOf(resp.Header.Get("ETag")), Metadata: map[string]string{}}
	if at := resp.Header.Get("metadata." + state.GetRespMetaKeyTTLExpireTime); at != "" {
		out.Metadata[state.GetRespMetaKeyTTLExpireTime] = at
	}
	return out, nil
}

func (s *webState) Set(ctx context.Context, r *state.SetRequest) error {
	return webError(s.ask(ctx, http.MethodPost, s.path(""), []webItem{webItemOf(*r)}, nil))
}

func (s *webState) Delete(ctx context.Context, r *state.DeleteRequest) error {
	header := http.Header{}
	if r.ETag != nil {
		header.Set("If-Match", *r.ETag)
	}
	query := about(r.Metadata) + "&" + url.Values{"concurrency": {r.Options.Concurrency}, "consistency": {r.Options.Consistency}}.Encode()
	_, _, err := s.do(ctx, http.MethodDelete, s.path("/"+url.PathEscape(toDoor.Replace(r.Key))+query), header, nil)
	return webError(err)
}

func (s *webState) BulkGet(ctx context.Context, list []state.GetRequest, o state.BulkGetOpts) (all []state.BulkGetResponse, err error) {
	in := map[string]any{"parallelism": o.Parallelism}
	keys := []string{}
	for _, r := range list {
		keys = append(keys, toDoor.Replace(r.Key))
	}
	in["keys"] = keys
	var got []struct {
		webItem
		Data  json.RawMessage `json:"data"`
		Error string          `json:"error"`
	}
	if err := s.ask(ctx, http.MethodPost, s.path("/bulk"), in, &got); err != nil {
		return nil, err
	}
	for _, one := range got {
		all = append(all, state.BulkGetResponse{Key: fromDoor.Replace(one.Key), Data: unwrapped(one.Data), ETag: one.ETag, Metadata: one.Metadata, Error: one.Error})
	}
	return all, nil
}

// BulkSet is one request if it has no etags, as over gRPC.
func (s *webState) BulkSet(ctx context.Context, list []state.SetRequest, o state.BulkStoreOpts) error {
	var in []webItem
	for _, r := range list {
		if r.HasETag() {
			return s.one.BulkSet(ctx, list, o)
		}
		in = append(in, webItemOf(r))
	}
	return webError(s.ask(ctx, http.MethodPost, s.path(""), in, nil))
}

// BulkDelete is one request for each key: Dapr's API has no other over HTTP.
func (s *webState) BulkDelete(ctx context.Context, list []state.DeleteRequest, o state.BulkStoreOpts) error {
	return s.one.BulkDelete(ctx, list, o)
}

func (s *webState) Multi(ctx context.Context, r *state.TransactionalStateRequest) error {
	type operation struct {
		Operation state.OperationType `json:"operation"`
		Request   webItem             `json:"request"`
	}
	in := []operation{}
	for _, one := range r.Operations {
		item := webItem{Key: toDoor.Replace(one.GetKey()), Metadata: one.GetMetadata()}
		switch o := one.(type) {
		case state.SetRequest:
			item = webItemOf(o)
		case state.DeleteRequest:
			item.ETag = o.ETag
		}
		in = append(in, operation{one.Operation(), item})
	}
	return webError(s.ask(ctx, http.MethodPost, s.path("/transaction"), map[string]any{"operations": in, "metadata": r.Metadata}, nil))
}

func (s *webState) Query(ctx context.Context, r *state.QueryRequest) (*state.QueryResponse, error) {
	text, err := queryOf(r)
	if err != nil {
		return nil, err
	}
	var found struct {
		Results []struct {
			Key  string          `json:"key"`
			Data json.RawMessage `json:"data"`
			ETag *string         `json:"etag"`
		} `json:"results"`
		Token string `json:"token"`
	}
	if err := s.ask(ctx, http.MethodPost, "/v1.0-alpha1/state/"+s.name+"/query"+about(r.Metadata), text, &found); err != nil {
		return nil, err
	}
	out := &state.QueryResponse{Token: found.Token}
	for _, one := range found.Results {
		out.Results = append(out.Results, state.QueryItem{Key: fromDoor.Replace(one.Key), Data: one.Data, ETag: one.ETag})
	}
	return out, nil
}
