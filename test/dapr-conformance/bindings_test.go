package conformance

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/dapr/components-contrib/bindings"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// binding is an output binding over gRPC.
type binding struct{ component }

func (b *binding) Init(_ context.Context, m bindings.Metadata) error { return b.declare(m.Properties) }

// Operations are those that the node names when it is asked for another: Dapr's API has no better way.
func (b *binding) Operations() (all []bindings.OperationKind) {
	_, err := b.InvokeBinding(b.t.Context(), &rtv1.InvokeBindingRequest{Name: b.name, Operation: "none"})
	_, list, ok := strings.Cut(status.Convert(err).Message(), "supported operations:")
	if !ok {
		b.t.Errorf("an operation that is none: %v", err)
	}
	for _, one := range strings.Fields(list) {
		all = append(all, bindings.OperationKind(one))
	}
	return all
}

func (b *binding) Invoke(ctx context.Context, r *bindings.InvokeRequest) (*bindings.InvokeResponse, error) {
	got, err := b.InvokeBinding(ctx, &rtv1.InvokeBindingRequest{Name: b.name, Operation: string(r.Operation), Data: r.Data, Metadata: r.Metadata})
	return &bindings.InvokeResponse{Data: something(got.GetData()), Metadata: got.GetMetadata()}, err
}

// webBinding is an output binding over HTTP.
type webBinding struct{ binding }

func (b *webBinding) Invoke(ctx context.Context, r *bindings.InvokeRequest) (*bindings.InvokeResponse, error) {
	_, got, err := b.do(ctx, http.MethodPost, "/v1.0/bindings/"+b.name, nil,
		map[string]any{"operation": r.Operation, "metadata": r.Metadata, "data": string(r.Data)})
	return &bindings.InvokeResponse{Data: something(got)}, err
}

// input is an input binding: an application of its own that takes its events.
type input struct {
	component
	properties map[string]string
	grpc       bool // it speaks gRPC
}

func (i *input) Init(_ context.Context, m bindings.Metadata) error {
	i.properties = m.Properties
	return nil
}

// Read returns when the node brings events, until ctx ends or the binding is closed.
func (i *input) Read(ctx context.Context, handle bindings.Handler) (err error) {
	is := program{}
	if i.grpc {
		is = rpc(i.t, func(s *grpc.Server) { rtv1.RegisterAppCallbackServer(s, &bindingTaker{name: i.name, handle: handle}) })
	} else {
		is = web(i.t, i.posted(handle))
	}
	i.application, err = attach(i.t, i.node, i.name+"-reader", is, i.resources(i.properties), i.dir)
	if err == nil {
		context.AfterFunc(ctx, i.gone)
	}
	return err
}

func (i *input) posted(handle bindings.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("OPTIONS /"+i.name, func(w http.ResponseWriter, _ *http.Request) {})
	mux.HandleFunc("POST /"+i.name, func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(io.LimitReader(r.Body, replyBytesMax))
		if err == nil {
			data, err = handle(r.Context(), &bindings.ReadResponse{Data: data})
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(data) // the node asks again if it does not hear
	})
	return mux
}

type bindingTaker struct {
	rtv1.UnimplementedAppCallbackServer
	name   string
	handle bindings.Handler
}

func (b *bindingTaker) ListInputBindings(context.Context, *emptypb.Empty) (*rtv1.ListInputBindingsResponse, error) {
	return &rtv1.ListInputBindingsResponse{Bindings: []string{b.name}}, nil
}

func (b *bindingTaker) OnBindingEvent(ctx context.Context, in *rtv1.BindingEventRequest) (*rtv1.BindingEventResponse, error) {
	if in.GetName() != b.name {
		return nil, fmt.Errorf("an event of %s came to %s", in.GetName(), b.name)
	}
	data, err := b.handle(ctx, &bindings.ReadResponse{Data: in.GetData(), Metadata: in.GetMetadata()})
	return &rtv1.BindingEventResponse{Data: data}, err
}
