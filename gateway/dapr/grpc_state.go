package dapr

import (
	"context"
	"fmt"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/protobuf/types/known/emptypb"
)

// GetState answers nothing for a key that is not there.
func (s *runtime) GetState(ctx context.Context, in *rtv1.GetStateRequest) (*rtv1.GetStateResponse, error) {
	store, err := s.d.open(requestOf(ctx), in.GetStoreName(), "ERR_STATE_GET")
	if err != nil {
		return nil, err
	}
	item, err := store.getOne(in.GetKey())
	if err != nil {
		return nil, err
	}
	return &rtv1.GetStateResponse{Data: item.Value, Etag: item.ETag, Metadata: metadataOf(item)}, nil
}

// GetBulkState reads all keys from one snapshot.
func (s *runtime) GetBulkState(ctx context.Context, in *rtv1.GetBulkStateRequest) (*rtv1.GetBulkStateResponse, error) {
	const tag = "ERR_STATE_BULK_GET"
	store, err := s.d.open(requestOf(ctx), in.GetStoreName(), tag)
	if err != nil {
		return nil, err
	}
	items, err := store.get(tag, "", in.GetKeys()...)
	if err != nil {
		return nil, err
	}
	out := &rtv1.GetBulkStateResponse{}
	for _, item := range items {
		out.Items = append(out.Items, &rtv1.BulkStateItem{Key: item.Key, Data: item.Value, Etag: item.ETag, Metadata: metadataOf(item)})
	}
	return out, nil
}

// changeOf is an item as HTTP has it. Its value is bytes, and stays what it is.
func changeOf(in *commonv1.StateItem) change {
	c := change{Key: in.GetKey(), Value: in.GetValue(), Metadata: in.GetMetadata()}
	if c.Value == nil {
		c.Value = []byte{}
	}
	if in.GetEtag() != nil {
		c.ETag = &in.Etag.Value
	}
	switch in.GetOptions().GetConcurrency() {
	case commonv1.StateOptions_CONCURRENCY_FIRST_WRITE:
		c.Options.Concurrency = "first-write"
	case commonv1.StateOptions_CONCURRENCY_LAST_WRITE:
		c.Options.Concurrency = "last-write"
	}
	return c
}

// SaveState writes all items or none.
func (s *runtime) SaveState(ctx context.Context, in *rtv1.SaveStateRequest) (*emptypb.Empty, error) {
	store, err := s.d.open(requestOf(ctx), in.GetStoreName(), "ERR_STATE_SAVE")
	if err != nil {
		return nil, err
	}
	changes := make([]change, 0, len(in.GetStates()))
	for _, item := range in.GetStates() {
		changes = append(changes, changeOf(item))
	}
	return &emptypb.Empty{}, store.save(changes, nil)
}

// DeleteState is no error for a key that is not there.
func (s *runtime) DeleteState(ctx context.Context, in *rtv1.DeleteStateRequest) (*emptypb.Empty, error) {
	store, err := s.d.open(requestOf(ctx), in.GetStoreName(), "ERR_STATE_DELETE")
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, store.removeOne(changeOf(&commonv1.StateItem{Key: in.GetKey(), Etag: in.GetEtag(), Options: in.GetOptions()}))
}

// DeleteBulkState deletes all keys or none.
func (s *runtime) DeleteBulkState(ctx context.Context, in *rtv1.DeleteBulkStateRequest) (*emptypb.Empty, error) {
	const tag = "ERR_STATE_BULK_DELETE"
	store, err := s.d.open(requestOf(ctx), in.GetStoreName(), tag)
	if err != nil {
		return nil, err
	}
	changes := make([]change, 0, len(in.GetStates()))
	for _, item := range in.GetStates() {
		changes = append(changes, changeOf(item))
	}
	return &emptypb.Empty{}, store.removeAll(tag, fmt.Sprintf("failed deleting state in state store %s: ", in.GetStoreName()), changes...)
}

// ExecuteStateTransaction does all operations or none.
func (s *runtime) ExecuteStateTransaction(ctx context.Context, in *rtv1.ExecuteStateTransactionRequest) (*emptypb.Empty, error) {
	store, err := s.d.open(requestOf(ctx), in.GetStoreName(), "ERR_STATE_TRANSACTION")
	if err != nil {
		return nil, err
	}
	operations := make([]operation, 0, len(in.GetOperations()))
	for _, o := range in.GetOperations() {
		operations = append(operations, operation{Operation: o.GetOperationType(), Request: changeOf(o.GetRequest())})
	}
	return &emptypb.Empty{}, store.transact(operations, nil)
}

// QueryStateAlpha1 finds items by what their values have.
func (s *runtime) QueryStateAlpha1(ctx context.Context, in *rtv1.QueryStateRequest) (*rtv1.QueryStateResponse, error) {
	store, err := s.d.open(requestOf(ctx), in.GetStoreName(), "ERR_STATE_QUERY")
	if err != nil {
		return nil, err
	}
	found, err := store.query([]byte(in.GetQuery()))
	if err != nil {
		return nil, err
	}
	out := &rtv1.QueryStateResponse{Token: found.token}
	for _, item := range found.items {
		out.Results = append(out.Results, &rtv1.QueryStateItem{Key: item.Key, Data: item.Value, Etag: item.ETag})
	}
	return out, nil
}
