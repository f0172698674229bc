package dapr

import (
	"context"
	"fmt"
	"io"
	"net/http"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"
)

// HealthPath is asked of an application over HTTP if it names no other.
const HealthPath = "/healthz"

// Probe asks an application whether it is well: by AppCallbackHealthCheck over gRPC, by a path that answers 2xx over HTTP. nil if it is.
func Probe(ctx context.Context, app App, path string) error {
	if c, ok := app.(*Client); ok {
		return c.probe(ctx)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://app"+path, nil)
	if err != nil {
		return err
	}
	resp, err := app.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, sayBytesMax)); err != nil {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("GET %s: the application answers with status %d", path, resp.StatusCode)
	}
	return nil
}

func (c *Client) probe(ctx context.Context) error {
	_, s, err := c.call(ctx, rtv1.AppCallbackHealthCheck_HealthCheck_FullMethodName, nil, &emptypb.Empty{}, &rtv1.HealthCheckResponse{})
	if err == nil && s.Code() != codes.OK {
		err = fmt.Errorf("HealthCheck: the application answers %s: %.200s", s.Code(), s.Message())
	}
	return err
}
