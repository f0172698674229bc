package dapr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/gateway"
	"github.com/quipu-run/quipu/internal/grpcwire"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// InvokeService calls a function in the way of HTTP; Dapr calls it legacy, and its SDKs still use it.
func (s *runtime) InvokeService(ctx context.Context, in *rtv1.InvokeServiceRequest) (*commonv1.InvokeResponse, error) {
	r, app := requestOf(ctx), in.GetId()
	if app == "" {
		return nil, status.Error(codes.InvalidArgument, "the request names no app id")
	}
	reply, err := s.invoke(r, app, in.GetMessage())
	if err != nil {
		return nil, s.d.invokeProblem(r, app, err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(io.LimitReader(reply.Body, s.d.opt.BodyBytesMax+1))
	if err != nil {
		return nil, s.d.invokeProblem(r, app, err)
	}
	if int64(len(body)) > s.d.opt.BodyBytesMax {
		return nil, s.d.invokeProblem(r, app, &quipu.Error{Code: quipu.CodeReplySize, Text: fmt.Sprintf("the reply has more than %d bytes", s.d.opt.BodyBytesMax)})
	}
	md := grpcwire.HTTPMetadata(reply.Header)
	about(md, reply)
	md.Set("dapr-http-status", strconv.Itoa(reply.Status))
	if err := grpc.SetHeader(ctx, md); err != nil {
		return nil, err
	}
	if reply.Header.Get(grpcwire.HeaderStatus) != "" { // it is an application of gRPC, and this is what it said
		return nil, grpcwire.Status(reply.Header).Err()
	}
	if failed := invokedStatus(reply.Status, string(body)); failed != nil {
		return nil, failed.Err()
	}
	return &commonv1.InvokeResponse{Data: &anypb.Any{Value: body}, ContentType: reply.Header.Get("Content-Type")}, nil
}

func (s *runtime) invoke(r *http.Request, app string, m *commonv1.InvokeRequest) (*quipu.CallReply, error) {
	session, err := s.d.opt.Session(r)
	if err != nil {
		return nil, err
	}
	invoke := session.Invoke
	if to, ok := s.d.endpoint(r, app); ok {
		invoke = to.Invoke
	} else {
		app = withoutNamespace(app)
	}
	c := s.d.callOf(r, session, app)
	c.Method = http.MethodPost
	if verb := m.GetHttpExtension().GetVerb(); verb != commonv1.HTTPExtension_NONE {
		c.Method = verb.String()
	}
	method, query, _ := strings.Cut(m.GetMethod(), "?")
	c.Path = (&url.URL{Path: "/" + strings.TrimPrefix(method, "/")}).EscapedPath()
	if c.RawQuery = m.GetHttpExtension().GetQuerystring(); c.RawQuery == "" {
		c.RawQuery = query
	}
	if m.GetContentType() != "" {
		c.Header.Set("Content-Type", m.GetContentType())
	}
	if body := m.GetData().GetValue(); len(body) > 0 {
		c.Body, c.ContentLength = bytes.NewReader(body), int64(len(body))
	}
	return invoke(r.Context(), c)
}

// callOf is a call without what belongs to this connection.
func (d *Door) callOf(r *http.Request, session quipu.Session, app string) quipu.CallRequest {
	c := gateway.CallOf(r, app, r.URL.Path, "dapr")
	for name := range c.Header {
		if strings.HasPrefix(name, "Grpc-") || strings.HasPrefix(name, ":") {
			delete(c.Header, name)
		}
	}
	c.Header.Del("Content-Type")
	c.Header.Del(targetHeader)
	c.Header.Set(callerHeader, session.Function())
	c.Header.Set(calleeHeader, app)
	return c
}

// about adds what our doors tell of every call.
func about(md metadata.MD, reply *quipu.CallReply) {
	if reply.Call != "" { // else it was no call of a function
		md.Set(quipu.HeaderCallID, reply.Call)
		md.Set(quipu.HeaderRevision, reply.Revision)
	}
	if reply.Session != 0 {
		md.Set(quipu.HeaderSession, reply.Session.String())
	}
}

// proxy carries a call of any method to the application in dapr-app-id, messages both ways as they come, unread.
func (d *Door) proxy(_ any, stream grpc.ServerStream) error {
	r := requestOf(stream.Context())
	app := r.Header.Get(calleeHeader)
	if app == "" {
		app = r.Header.Get(targetHeader)
	}
	if app = withoutNamespace(app); app == "" {
		return status.Errorf(codes.Unimplemented, "failed to proxy request: required metadata dapr-callee-app-id or dapr-app-id not found, and Dapr itself has no method %.200s here", r.URL.Path)
	}
	session, err := d.opt.Session(r)
	if err != nil {
		return d.invokeProblem(r, app, err)
	}
	c := d.callOf(r, session, app)
	c.Body, c.ContentLength = &frames{stream: stream}, -1
	c.Header.Set("Content-Type", grpcwire.ContentType)
	c.Header.Set("Te", "trailers")
	reply, err := session.Invoke(r.Context(), c)
	if err != nil {
		return d.invokeProblem(r, app, err)
	}
	defer reply.Body.Close()
	return d.relay(stream, reply)
}

// relay carries a reply back.
func (d *Door) relay(stream grpc.ServerStream, reply *quipu.CallReply) error {
	if reply.Status != http.StatusOK || !grpcwire.Is(reply.Header.Get("Content-Type")) {
		if failed := invokedStatus(reply.Status, "the function does not speak gRPC"); failed != nil {
			return failed.Err()
		}
		return status.Error(codes.Internal, "the function answered with something that is not gRPC")
	}
	md := grpcwire.Metadata(reply.Header)
	about(md, reply)
	if err := stream.SendHeader(md); err != nil {
		return err
	}
	for {
		message, err := grpcwire.Read(reply.Body, int(d.opt.BodyBytesMax))
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return status.Errorf(codes.Unavailable, "the function broke off its reply: %v", quipu.CodeOf(err))
		}
		if err := stream.SendMsg(&frame{message}); err != nil {
			return err
		}
	}
	stream.SetTrailer(grpcwire.Metadata(reply.Trailer))
	return grpcwire.Status(reply.Trailer).Err()
}

// frames is the body of a proxied call: the messages of its stream, as they are on the wire.
type frames struct {
	stream grpc.ServerStream
	left   []byte
}

// Read waits for the next message if it must. It ends with the stream, if not before.
func (f *frames) Read(p []byte) (int, error) {
	for len(f.left) == 0 {
		var next frame
		if err := f.stream.RecvMsg(&next); err != nil {
			return 0, err
		}
		f.left = grpcwire.Append(f.left, next.data)
	}
	n := copy(p, f.left)
	f.left = f.left[n:]
	return n, nil
}
