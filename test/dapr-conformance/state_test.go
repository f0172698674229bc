package conformance

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/dapr/components-contrib/state"
	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// stateStore is a state store behind the door, over gRPC.
//
// Two things of upstream's interface are below Dapr's API, not in it. Keys with || in them, which daprd makes and refuses
// to applications: they are written with another separator. And lists of keys, for which our own keys path is used.
type stateStore struct {
	component
	one state.BulkStore          // one request for each key
	tx  state.TransactionalStore // itself
}

func newState(c component) *stateStore {
	s := &stateStore{component: c}
	s.one, s.tx = state.NewDefaultBulkStore(s), s
	return s
}

var (
	toDoor   = strings.NewReplacer("||", "::")
	fromDoor = strings.NewReplacer("::", "||")
)

func (s *stateStore) Init(_ context.Context, m state.Metadata) error { return s.declare(m.Properties) }

func (s *stateStore) Ping(ctx context.Context) error {
	_, _, err := s.do(ctx, http.MethodGet, "/v1.0/healthz", nil, nil)
	return err
}

// Features are the capabilities that the node tells of.
func (s *stateStore) Features() (all []state.Feature) {
	told, err := s.capabilities(s.t.Context())
	if err != nil {
		s.t.Error(err)
	}
	for _, one := range told {
		all = append(all, state.Feature(one))
	}
	return all
}

func (s *stateStore) Get(ctx context.Context, r *state.GetRequest) (*state.GetResponse, error) {
	got, err := s.GetState(ctx, &rtv1.GetStateRequest{StoreName: s.name, Key: toDoor.Replace(r.Key), Metadata: r.Metadata})
	if err != nil {
		return nil, stateError(err)
	}
	return &state.GetResponse{Data: something(got.GetData()), ETag: etagOf(got.GetEtag()), Metadata: got.GetMetadata()}, nil
}

// something tells no value, which a message of gRPC has as no bytes, from one.
func something(data []byte) []byte {
	if len(data) == 0 {
		return nil
	}
	return data
}

func etagOf(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

func (s *stateStore) Set(ctx context.Context, r *state.SetRequest) error {
	item, err := itemOf(r)
	if err != nil {
		return err
	}
	_, err = s.SaveState(ctx, &rtv1.SaveStateRequest{StoreName: s.name, States: []*commonv1.StateItem{item}})
	return stateError(err)
}

func (s *stateStore) Delete(ctx context.Context, r *state.DeleteRequest) error {
	item := deletionOf(r)
	_, err := s.DeleteState(ctx, &rtv1.DeleteStateRequest{StoreName: s.name, Key: item.Key, Etag: item.Etag, Options: item.Options, Metadata: item.Metadata})
	return stateError(err)
}

// itemOf has bytes as they are, and all else as JSON, as upstream's components do.
func itemOf(r *state.SetRequest) (*commonv1.StateItem, error) {
	value, ok := r.Value.([]byte)
	if !ok {
		var err error
		if value, err = json.Marshal(r.Value); err != nil {
			return nil, err
		}
	}
	return &commonv1.StateItem{Key: toDoor.Replace(r.Key), Value: value, Etag: tagOf(r.ETag), Metadata: r.Metadata,
		Options: optionsOf(r.Options.Concurrency, r.Options.Consistency)}, nil
}

func deletionOf(r *state.DeleteRequest) *commonv1.StateItem {
	return &commonv1.StateItem{Key: toDoor.Replace(r.Key), Etag: tagOf(r.ETag), Metadata: r.Metadata,
		Options: optionsOf(r.Options.Concurrency, r.Options.Consistency)}
}

func tagOf(etag *string) *commonv1.Etag {
	if etag == nil {
		return nil
	}
	return &commonv1.Etag{Value: *etag}
}

func optionsOf(concurrency, consistency string) *commonv1.StateOptions {
	return &commonv1.StateOptions{
		Concurrency: map[string]commonv1.StateOptions_StateConcurrency{
			state.FirstWrite: commonv1.StateOptions_CONCURRENCY_FIRST_WRITE, state.LastWrite: commonv1.StateOptions_CONCURRENCY_LAST_WRITE}[concurrency],
		Consistency: map[string]commonv1.StateOptions_StateConsistency{
			state.Eventual: commonv1.StateOptions_CONSISTENCY_EVENTUAL, state.Strong: commonv1.StateOptions_CONSISTENCY_STRONG}[consistency],
	}
}

// stateError makes upstream's errors of the statuses that daprd makes of them.
func stateError(err error) error {
	switch code := status.Code(err); {
	case code == codes.Aborted:
		return state.NewETagError(state.ETagMismatch, err)
	case code == codes.InvalidArgument && strings.Contains(err.Error(), "invalid etag"):
		return state.NewETagError(state.ETagInvalid, err)
	}
	return err
}

func (s *stateStore) BulkGet(ctx context.Context, list []state.GetRequest, o state.BulkGetOpts) (all []state.BulkGetResponse, err error) {
	in := &rtv1.GetBulkStateRequest{StoreName: s.name, Parallelism: int32(o.Parallelism)}
	for _, r := range list {
		in.Keys = append(in.Keys, toDoor.Replace(r.Key))
	}
	got, err := s.GetBulkState(ctx, in)
	if err != nil {
		return nil, err
	}
	for _, one := range got.GetItems() {
		all = append(all, state.BulkGetResponse{Key: fromDoor.Replace(one.GetKey()), Data: something(one.GetData()), ETag: etagOf(one.GetEtag()),
			Metadata: one.GetMetadata(), Error: one.GetError()})
	}
	return all, nil
}

// BulkSet saves all in one request, which the platform does as a whole or not at all. The suite wants those items saved whose
// etags are right, beside others whose are not: with etags it is one request for each, as upstream's components do.
func (s *stateStore) BulkSet(ctx context.Context, list []state.SetRequest, o state.BulkStoreOpts) error {
	in := &rtv1.SaveStateRequest{StoreName: s.name}
	for _, r := range list {
		if r.HasETag() {
			return s.one.BulkSet(ctx, list, o)
		}
		item, err := itemOf(&r)
		if err != nil {
			return err
		}
		in.States = append(in.States, item)
	}
	_, err := s.SaveState(ctx, in)
	return stateError(err)
}

// BulkDelete is to deletes what BulkSet is to saves.
func (s *stateStore) BulkDelete(ctx context.Context, list []state.DeleteRequest, o state.BulkStoreOpts) error {
	in := &rtv1.DeleteBulkStateRequest{StoreName: s.name}
	for _, r := range list {
		if r.HasETag() {
			return s.one.BulkDelete(ctx, list, o)
		}
		in.States = append(in.States, deletionOf(&r))
	}
	_, err := s.DeleteBulkState(ctx, in)
	return stateError(err)
}

func (s *stateStore) Multi(ctx context.Context, r *state.TransactionalStateRequest) error {
	in := &rtv1.ExecuteStateTransactionRequest{StoreName: s.name, Metadata: r.Metadata}
	for _, one := range r.Operations {
		var item *commonv1.StateItem
		var err error
		switch o := one.(type) {
		case state.SetRequest:
			item, err = itemOf(&o)
		case state.DeleteRequest:
			item = deletionOf(&o)
		}
		if err != nil {
			return err
		}
		in.Operations = append(in.Operations, &rtv1.TransactionalStateOperation{OperationType: string(one.Operation()), Request: item})
	}
	_, err := s.ExecuteStateTransaction(ctx, in)
	return stateError(err)
}

func (s *stateStore) Query(ctx context.Context, r *state.QueryRequest) (*state.QueryResponse, error) {
	text, err := queryOf(r)
	if err != nil {
		return nil, err
	}
	found, err := s.QueryStateAlpha1(ctx, &rtv1.QueryStateRequest{StoreName: s.name, Query: string(text), Metadata: r.Metadata})
	if err != nil {
		return nil, err
	}
	out := &state.QueryResponse{Token: found.GetToken(), Metadata: found.GetMetadata()}
	for _, one := range found.GetResults() {
		out.Results = append(out.Results, state.QueryItem{Key: fromDoor.Replace(one.GetKey()), Data: one.GetData(), ETag: etagOf(one.GetEtag()), Error: one.GetError()})
	}
	return out, nil
}

// queryOf is a query as applications write it. A page without a limit is none.
func queryOf(r *state.QueryRequest) ([]byte, error) {
	q := map[string]any{"filter": r.Query.Filters, "sort": r.Query.Sort}
	if r.Query.Page.Limit > 0 || r.Query.Page.Token != "" {
		q["page"] = r.Query.Page
	}
	return json.Marshal(q)
}

// keys asks our own path for a page of keys; next is "" on the last.
func (s *stateStore) keys(ctx context.Context, by, text, after string) (keys []string, next string, err error) {
	var page struct {
		Keys []string `json:"keys"`
		Next string   `json:"next"`
	}
	err = s.ask(ctx, http.MethodGet, "/v1.0-alpha1/state/"+s.name+"/keys?"+url.Values{by: {toDoor.Replace(text)}, "after": {after}}.Encode(), nil, &page)
	return page.Keys, page.Next, err
}

// DeleteWithPrefix deletes the keys one level below a prefix: ours lists, a transaction deletes.
func (s *stateStore) DeleteWithPrefix(ctx context.Context, r state.DeleteWithPrefixRequest) (state.DeleteWithPrefixResponse, error) {
	var out state.DeleteWithPrefixResponse
	if err := r.Validate(); err != nil {
		return out, err
	}
	for after, more := "", true; more; {
		keys, next, err := s.keys(ctx, "prefix", r.Prefix, after)
		if err != nil {
			return out, err
		}
		var deletes state.TransactionalStateRequest
		for _, key := range keys {
			if key = fromDoor.Replace(key); !strings.Contains(strings.TrimPrefix(key, r.Prefix), "||") {
				deletes.Operations = append(deletes.Operations, state.DeleteRequest{Key: key})
			}
		}
		if err := s.tx.Multi(ctx, &deletes); err != nil {
			return out, err
		}
		out.Count += int64(len(deletes.Operations))
		after, more = next, next != ""
	}
	return out, nil
}

// KeysLike lists the keys that match a pattern, in pages of its own size.
func (s *stateStore) KeysLike(ctx context.Context, r *state.KeysLikeRequest) (*state.KeysLikeResponse, error) {
	if r.Pattern == "" {
		return nil, state.ErrKeysLikeEmptyPattern
	}
	out, after := &state.KeysLikeResponse{}, ""
	if r.ContinuationToken != nil {
		after = *r.ContinuationToken
	}
	for {
		keys, next, err := s.keys(ctx, "like", r.Pattern, after)
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			real := fromDoor.Replace(key)
			if r.PageSize != nil && len(out.Keys) == int(*r.PageSize) {
				last := toDoor.Replace(out.Keys[len(out.Keys)-1])
				out.ContinuationToken = &last
				return out, nil
			}
			out.Keys = append(out.Keys, real)
		}
		if after = next; next == "" {
			return out, nil
		}
	}
}
