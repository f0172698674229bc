package pluggable

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	proto "github.com/dapr/dapr/pkg/proto/components/v1"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// etagUnknown is the etag of a key in a store that has none: it says that the key is there, and asks for nothing when it
// comes back.
const etagUnknown = "-"

// foreignState is a state store of a program.
type foreignState struct {
	*link
	store    proto.StateStoreClient
	transact proto.TransactionalStateStoreClient        // nil if there are no transactions
	most     proto.TransactionalStoreMultiMaxSizeClient // nil if they have no limit of their own
	features []string
	opsMax   int // of a transaction
}

func stateFactory(socket string, served services) component.Factory {
	return func(ctx context.Context, h component.Host, s component.Spec) (any, error) {
		l, err := open(ctx, socket, h, s, func(ctx context.Context, conn grpc.ClientConnInterface) error {
			_, err := proto.NewStateStoreClient(conn).Init(ctx, &proto.InitRequest{Metadata: &proto.MetadataRequest{Properties: s.Metadata}})
			return err
		})
		if err != nil {
			return nil, err
		}
		f := &foreignState{link: l, store: proto.NewStateStoreClient(l.conn), opsMax: quipu.TxOpsMax}
		if served[proto.TransactionalStateStore_ServiceDesc.ServiceName] {
			f.transact = proto.NewTransactionalStateStoreClient(l.conn)
		}
		if served[proto.TransactionalStoreMultiMaxSize_ServiceDesc.ServiceName] {
			f.most = proto.NewTransactionalStoreMultiMaxSizeClient(l.conn)
		}
		if err := f.learn(ctx); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return component.State{Store: s.Name, Foreign: f}, nil
	}
}

// learn asks what the store can do.
func (f *foreignState) learn(ctx context.Context) error {
	reply, err := f.store.Features(ctx, &proto.FeaturesRequest{})
	if err != nil {
		return err
	}
	for _, feature := range reply.GetFeatures() {
		if feature != "QUERY_API" { // which is not carried
			f.features = append(f.features, feature)
		}
	}
	if f.most == nil {
		return nil
	}
	most, err := f.most.MultiMaxSize(ctx, &proto.MultiMaxSizeRequest{})
	if status.Code(err) == codes.Unimplemented {
		return nil
	}
	if n := most.GetMaxSize(); n > 0 && n < quipu.TxOpsMax {
		f.opsMax = int(n)
	}
	return err
}

// Features are the store's, like ETAG and TRANSACTIONAL.
func (f *foreignState) Features() []string { return f.features }

// Get is quipu.State. Several keys are not from one snapshot.
func (f *foreignState) Get(ctx context.Context, _ string, keys ...string) ([]quipu.Item, error) {
	if len(keys) == 1 {
		r, err := f.store.Get(ctx, &proto.GetRequest{Key: keys[0]})
		if err != nil {
			return nil, f.failed("state.get", err)
		}
		return []quipu.Item{item(keys[0], r.GetData(), r.GetEtag(), r.GetMetadata())}, nil
	}
	requests := make([]*proto.GetRequest, len(keys))
	for i, key := range keys {
		requests[i] = &proto.GetRequest{Key: key}
	}
	r, err := f.store.BulkGet(ctx, &proto.BulkGetRequest{Items: requests})
	if err != nil {
		return nil, f.failed("state.get", err)
	}
	found := make(map[string]quipu.Item, len(keys))
	for _, i := range r.GetItems() {
		if i.GetError() != "" {
			return nil, fmt.Errorf("state.get: %s: key %.80q: %s", f.spec.Name, i.GetKey(), i.GetError())
		}
		found[i.GetKey()] = item(i.GetKey(), i.GetData(), i.GetEtag(), i.GetMetadata())
	}
	items := make([]quipu.Item, len(keys))
	for i, key := range keys {
		items[i] = found[key]
		items[i].Key = key
	}
	return items, nil
}

func item(key string, data []byte, etag *proto.Etag, metadata map[string]string) quipu.Item {
	i := quipu.Item{Key: key, Value: data, ETag: etag.GetValue()}
	if i.ETag == "" && len(data) > 0 {
		i.ETag = etagUnknown
	}
	if at, err := time.Parse(time.RFC3339, component.Metadata(metadata).Get("ttlExpireTime")); err == nil {
		i.Expires = at.UnixNano()
	}
	return i
}

// List is quipu.State. The protocol has no listing.
func (f *foreignState) List(context.Context, string, quipu.ListRequest) (quipu.Page, error) {
	return quipu.Page{}, &quipu.Error{Code: quipu.CodeUsage, Op: "state.list", Text: fmt.Sprintf("the component %s (%s) cannot list its keys", f.spec.Name, f.spec.Type),
		Hint: "stores on the log can; or keep a list of the keys under a key of its own"}
}

// Apply is quipu.State. A store without transactions does several changes one after the other; what was done stays if one fails.
func (f *foreignState) Apply(ctx context.Context, _ string, changes []quipu.Change) error {
	if len(changes) > 1 && f.transact != nil {
		return f.transaction(ctx, changes)
	}
	if len(changes) > 1 && allSet(changes) {
		r := &proto.BulkSetRequest{Items: make([]*proto.SetRequest, len(changes))}
		for i, c := range changes {
			r.Items[i] = setRequest(c)
		}
		_, err := f.store.BulkSet(ctx, r)
		return f.failed("state.set", err)
	}
	for _, c := range changes {
		var err error
		if c.Delete {
			_, err = f.store.Delete(ctx, deleteRequest(c))
		} else {
			_, err = f.store.Set(ctx, setRequest(c))
		}
		if err != nil {
			return f.failed("state.set", err)
		}
	}
	return nil
}

func allSet(changes []quipu.Change) bool {
	for _, c := range changes {
		if c.Delete {
			return false
		}
	}
	return true
}

func (f *foreignState) transaction(ctx context.Context, changes []quipu.Change) error {
	if len(changes) > f.opsMax {
		return &quipu.Error{Code: quipu.CodeTxSize, Op: "state.transaction", Text: fmt.Sprintf("there are %d changes; the component %s takes %d", len(changes), f.spec.Name, f.opsMax)}
	}
	r := &proto.TransactionalStateRequest{Operations: make([]*proto.TransactionalStateOperation, len(changes))}
	for i, c := range changes {
		r.Operations[i] = &proto.TransactionalStateOperation{Request: &proto.TransactionalStateOperation_Set{Set: setRequest(c)}}
		if c.Delete {
			r.Operations[i].Request = &proto.TransactionalStateOperation_Delete{Delete: deleteRequest(c)}
		}
	}
	_, err := f.transact.Transact(ctx, r)
	return f.failed("state.transaction", err)
}

func setRequest(c quipu.Change) *proto.SetRequest {
	r := &proto.SetRequest{Key: c.Key, Value: c.Value, Etag: etagOf(c), Options: optionsOf(c)}
	if c.TTL > 0 {
		seconds := (c.TTL + time.Second - 1) / time.Second
		r.Metadata = map[string]string{"ttlInSeconds": strconv.FormatInt(int64(seconds), 10)}
	}
	return r
}

func deleteRequest(c quipu.Change) *proto.DeleteRequest {
	return &proto.DeleteRequest{Key: c.Key, Etag: etagOf(c), Options: optionsOf(c)}
}

func etagOf(c quipu.Change) *proto.Etag {
	if c.ETag == "" || c.ETag == etagUnknown {
		return nil
	}
	return &proto.Etag{Value: c.ETag}
}

func optionsOf(c quipu.Change) *proto.StateOptions {
	if !c.FirstWrite {
		return &proto.StateOptions{}
	}
	return &proto.StateOptions{Concurrency: proto.StateOptions_CONCURRENCY_FIRST_WRITE}
}

// failed turns what the protocol says of etags into codes. CodeETag, CodeETagForm.
func (f *foreignState) failed(op string, err error) error {
	if err == nil {
		return nil
	}
	s, _ := status.FromError(err)
	why, isETag := etagViolation(s)
	switch {
	case isETag && s.Code() == codes.FailedPrecondition:
		return &quipu.Error{Code: quipu.CodeETag, Op: op, Text: why, Err: err}
	case isETag && s.Code() == codes.InvalidArgument:
		return &quipu.Error{Code: quipu.CodeETagForm, Op: op, Text: why, Err: err}
	}
	return fmt.Errorf("%s: component %s: %w", op, f.spec.Name, err)
}

// etagViolation is what a status says of an etag, in a detail of its own.
func etagViolation(s *status.Status) (string, bool) {
	for _, detail := range s.Details() {
		bad, ok := detail.(*errdetails.BadRequest)
		if !ok {
			continue
		}
		for _, v := range bad.GetFieldViolations() {
			if v.GetField() == "etag" {
				return v.GetDescription(), true
			}
		}
	}
	return "", false
}
