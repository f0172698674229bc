package dapr

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu/internal/grpcwire"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Takes tells whether an application takes the events of an input binding, whose path is for one that speaks HTTP.
// CodeAppCallback, and what Do answers.
func Takes(ctx context.Context, app App, binding, path string) (bool, error) {
	if c, ok := app.(*Client); ok {
		names, err := c.bindings(ctx)
		return slices.Contains(names, binding), err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodOptions, "http://app"+path, http.NoBody)
	if err != nil {
		return false, callback("the path %.80q of binding %s is none", path, binding)
	}
	resp, err := app.Do(r)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, sayBytesMax))
	return resp.StatusCode/100 == 2 || resp.StatusCode == http.StatusMethodNotAllowed, err
}

// bindings asks over gRPC which input bindings the application takes.
func (c *Client) bindings(ctx context.Context) ([]string, error) {
	var reply rtv1.ListInputBindingsResponse
	_, s, err := c.call(ctx, rtv1.AppCallback_ListInputBindings_FullMethodName, nil, &emptypb.Empty{}, &reply)
	switch {
	case err != nil:
		return nil, err
	case s.Code() == codes.Unimplemented:
		return nil, nil
	case s.Code() != codes.OK:
		return nil, callback("ListInputBindings: the application answers %s: %.200s", s.Code(), s.Message())
	}
	return reply.GetBindings(), nil
}

// binding is OnBindingEvent; its answer's data is the reply's body.
func (c *Client) binding(r *http.Request, name string) (*http.Response, error) {
	body, err := c.read(r)
	if err != nil {
		return nil, err
	}
	metadata := map[string]string{}
	for key, values := range r.Header {
		if !strings.HasPrefix(key, "Quipu-") && len(values) > 0 {
			metadata[key] = values[0]
		}
	}
	var reply rtv1.BindingEventResponse
	in := &rtv1.BindingEventRequest{Name: name, Data: body, Metadata: metadata}
	header, s, err := c.call(r.Context(), rtv1.AppCallback_OnBindingEvent_FullMethodName, grpcwire.HTTPMetadata(r.Header), in, &reply)
	if err != nil {
		return nil, err
	}
	h := grpcwire.Headers(grpcwire.Metadata(header))
	if s.Code() != codes.OK {
		return failed(r, h, s), nil
	}
	return response(r, http.StatusOK, h, reply.GetData()), nil
}
