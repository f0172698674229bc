package dapr

import (
	"net/http"
	"strings"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu/internal/daprjob"
	"github.com/quipu-run/quipu/internal/grpcwire"
	"google.golang.org/grpc/codes"
)

// TriggerJob is the trigger of a call that delivers a job; JobPath and the job's name are its path.
const (
	TriggerJob = "job"
	JobPath    = "/job/"
)

// job is OnJobEvent, or what it was called before if the application does not know it.
func (c *Client) job(r *http.Request) (*http.Response, error) {
	body, err := c.read(r)
	if err != nil {
		return nil, err
	}
	data, err := daprjob.ToAny(r.Header.Get(daprjob.HeaderDataType), body)
	if err != nil {
		return nil, err
	}
	name := strings.TrimPrefix(r.URL.Path, JobPath)
	in := &rtv1.JobEventRequest{Name: name, Data: data, Method: strings.TrimPrefix(JobPath, "/") + name, ContentType: data.GetTypeUrl(),
		HttpExtension: &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_POST}}
	var reply rtv1.JobEventResponse
	header, s, err := c.call(r.Context(), rtv1.AppCallback_OnJobEvent_FullMethodName, grpcwire.HTTPMetadata(r.Header), in, &reply)
	if err == nil && s.Code() == codes.Unimplemented {
		header, s, err = c.call(r.Context(), rtv1.AppCallbackAlpha_OnJobEventAlpha1_FullMethodName, grpcwire.HTTPMetadata(r.Header), in, &reply)
	}
	if err != nil {
		return nil, err
	}
	h := grpcwire.Headers(grpcwire.Metadata(header))
	if s.Code() != codes.OK {
		return failed(r, h, s), nil
	}
	return response(r, http.StatusOK, h, nil), nil
}
