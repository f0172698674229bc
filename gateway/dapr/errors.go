package dapr

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/gateway"
	"github.com/quipu-run/quipu/internal/grpcwire"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
)

// problem is an error as Dapr words it, for HTTP and gRPC alike.
type problem struct {
	status  int        // HTTP's
	code    codes.Code // gRPC's; OK means what follows from status
	tag     string     // errorCode in the body
	message string
	// reason and metadata are its ErrorInfo. Where Dapr tells it over gRPC alone, terse is set.
	reason   string
	metadata map[string]string
	terse    bool
	resource *errdetails.ResourceInfo
}

// domain is whose reasons they are.
const domain = "dapr.io"

// Error is the message.
func (p *problem) Error() string { return p.message }

// GRPCStatus makes it an error that a gRPC method may return.
func (p *problem) GRPCStatus() *status.Status {
	code := p.code
	if code == codes.OK {
		code = grpcwire.CodeOf(p.status)
	}
	plain := status.New(code, p.message)
	var details []protoadapt.MessageV1
	if p.resource != nil {
		details = append(details, p.resource)
	}
	if p.reason != "" {
		details = append(details, &errdetails.ErrorInfo{Reason: p.reason, Domain: domain, Metadata: p.metadata})
	}
	if s, err := plain.WithDetails(details...); err == nil && len(details) > 0 {
		return s
	}
	return plain
}

// MarshalJSON is Dapr's error body.
func (p *problem) MarshalJSON() ([]byte, error) {
	body := struct {
		ErrorCode string `json:"errorCode"`
		Message   string `json:"message"`
		Details   []any  `json:"details,omitempty"`
	}{ErrorCode: p.tag, Message: p.message}
	const types = "type.googleapis.com/google.rpc."
	if i := p.resource; i != nil && !p.terse {
		body.Details = append(body.Details, map[string]any{"@type": types + "ResourceInfo", "resource_type": i.ResourceType,
			"resource_name": i.ResourceName, "owner": i.Owner, "description": i.Description})
	}
	if p.reason != "" && !p.terse {
		body.Details = append(body.Details, map[string]any{"@type": types + "ErrorInfo", "reason": p.reason, "domain": domain,
			"metadata": p.metadata})
	}
	return json.Marshal(body)
}

// problem words an error of ours where Dapr has no word of its own: Dapr's tag and prefix, our text with our code,
// so that quipu explain helps here too, and our status. What is internal stays in the log.
func (d *Door) problem(r *http.Request, tag, prefix string, err error) *problem {
	if p := (*problem)(nil); errors.As(err, &p) {
		return p
	}
	var over *http.MaxBytesError
	if errors.As(err, &over) {
		return &problem{status: http.StatusRequestEntityTooLarge, tag: "ERR_BODY_READ",
			message: fmt.Sprintf("failed to read request body: it has more than %d bytes", over.Limit)}
	}
	status, p := gateway.Problem(d.opt.Logger, r, err)
	out := &problem{status: status, tag: tag, message: prefix + text(p.Error, p.Code), reason: tag, terse: true}
	switch p.Code {
	case quipu.CodeNoCall:
		out.code = codes.FailedPrecondition
	case quipu.CodeSubscribed:
		out.code = codes.AlreadyExists
	}
	return out
}

// text ends with our code.
func text(message string, code quipu.Code) string { return fmt.Sprintf("%s [%s]", message, code) }

// malformed is a body that is not what it should be. A body that is too large is told apart.
func malformed(err error) error {
	var over *http.MaxBytesError
	if errors.As(err, &over) {
		return err
	}
	return &problem{status: http.StatusBadRequest, tag: "ERR_MALFORMED_REQUEST", message: fmt.Sprintf("failed deserializing HTTP body: %v", err)}
}

// fail answers with err.
func (d *Door) fail(w http.ResponseWriter, r *http.Request, tag string, err error) {
	p := d.problem(r, tag, "", err)
	gateway.WaitFor(w.Header(), err)
	answerWith(w, p.status, p)
}

func answer(w http.ResponseWriter, status int, tag, format string, args ...any) {
	answerWith(w, status, &problem{tag: tag, message: fmt.Sprintf(format, args...)})
}

func answerWith(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("dapr: marshal %T: %v", v, err)) // maps and strings
	}
	w.Header().Set("Content-Type", "application/json")
	gateway.RetryAfter(w.Header(), status)
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that left has nobody to tell
}
