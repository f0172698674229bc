package dapr

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
	"go.opentelemetry.io/otel/baggage"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

const tagBinding = "ERR_INVOKE_OUTPUT_BINDING"

// invokeBinding asks an output binding for an operation. What it answers counts also with an error: some bindings have metadata then.
func (d *Door) invokeBinding(r *http.Request, name string, ask component.BindingRequest) (component.BindingReply, error) {
	set, err := d.set(r)
	if err != nil {
		return component.BindingReply{}, d.problem(r, tagBinding, "", err)
	}
	binding, ok := component.Of[component.OutputBinding](set, name)
	switch {
	case ask.Operation == "":
		return component.BindingReply{}, bindingProblem(name, "operation field is missing from request")
	case !ok:
		return component.BindingReply{}, bindingProblem(name, "couldn't find output binding "+name)
	}
	if all := binding.Operations(); !slices.Contains(all, ask.Operation) {
		return component.BindingReply{}, bindingProblem(name, fmt.Sprintf("binding %s does not support operation %.100s. supported operations:%s", name, ask.Operation, strings.Join(all, " ")))
	}
	if ask.Metadata, err = traced(r, ask.Metadata); err != nil {
		return component.BindingReply{}, err
	}
	if id := d.effectID(r); id != "" && get(ask.Metadata, quipu.HeaderIdempotency) == "" {
		ask.Metadata[quipu.HeaderIdempotency] = id
	}
	reply, err := binding.Invoke(r.Context(), ask)
	if err != nil {
		p := d.problem(r, tagBinding, fmt.Sprintf("error invoking output binding %s: ", name), err)
		p.status, p.code = http.StatusInternalServerError, codes.Internal
		return reply, p
	}
	return reply, nil
}

// effectID names an effect outside of the platform, if it is one of a call. An operation of no open call has none.
func (d *Door) effectID(r *http.Request) string {
	session, err := d.opt.Session(r)
	if err != nil {
		return ""
	}
	return session.EffectID()
}

func bindingProblem(name, text string) error {
	return &problem{status: http.StatusInternalServerError, tag: tagBinding, message: fmt.Sprintf("error invoking output binding %s: %s", name, text),
		reason: tagBinding, terse: true}
}

// traced adds the trace of a request to metadata, for bindings that carry it on.
func traced(r *http.Request, given map[string]string) (map[string]string, error) {
	own := map[string]string{}
	for _, name := range []string{"traceparent", "tracestate"} {
		if value := r.Header.Get(name); value != "" {
			own[name] = value
		}
	}
	if items := strings.Join(r.Header.Values("baggage"), ","); items != "" {
		if _, err := baggage.Parse(items); err != nil {
			return nil, &problem{status: http.StatusBadRequest, tag: "ERR_MALFORMED_REQUEST", message: fmt.Sprintf("invalid baggage header: %v", err)}
		}
		own["baggage"] = items
	}
	return merged(given, own), nil
}

// binding is POST bindings/{name}. Data stays JSON, byte for byte.
func (d *Door) binding(w http.ResponseWriter, r *http.Request, name string) {
	if !allow(w, r, http.MethodPost, http.MethodPut) {
		return
	}
	var ask struct {
		Operation string            `json:"operation"`
		Data      json.RawMessage   `json:"data"`
		Metadata  map[string]string `json:"metadata"`
	}
	done := d.bound(w, r)
	err := json.NewDecoder(r.Body).Decode(&ask)
	done()
	if err != nil {
		d.fail(w, r, tagBinding, malformed(err))
		return
	}
	if ask.Data == nil {
		ask.Data = []byte("null")
	}
	reply, err := d.invokeBinding(r, name, component.BindingRequest{Operation: ask.Operation, Data: ask.Data, Metadata: ask.Metadata})
	for key, value := range reply.Metadata {
		w.Header().Add("metadata."+key, value)
	}
	if err != nil {
		d.fail(w, r, tagBinding, err)
		return
	}
	if reply.Data == nil && reply.Metadata == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(reply.Data) // a client that left has nobody to tell
}

// InvokeBinding asks an output binding for an operation.
func (s *runtime) InvokeBinding(ctx context.Context, in *rtv1.InvokeBindingRequest) (*rtv1.InvokeBindingResponse, error) {
	reply, err := s.d.invokeBinding(requestOf(ctx), in.GetName(), component.BindingRequest{Operation: in.GetOperation(), Data: in.GetData(), Metadata: in.GetMetadata()})
	headerErr := grpc.SetHeader(ctx, headersOf(reply.Metadata))
	if err == nil {
		err = headerErr
	}
	if err != nil {
		return nil, err
	}
	return &rtv1.InvokeBindingResponse{Data: reply.Data, Metadata: reply.Metadata}, nil
}

// headersOf are the metadata that headers of gRPC can carry. All of them are in a reply that is no error.
func headersOf(all map[string]string) metadata.MD {
	md := metadata.MD{}
	for key, value := range all {
		if httpguts.ValidHeaderFieldName(key) && isPrintable(value) {
			md.Append("metadata."+key, value)
		}
	}
	return md
}

func isPrintable(value string) bool {
	return strings.IndexFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}
