package dapr

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu/internal/grpcwire"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Limits of a connection of gRPC. A client may ask every ten seconds whether we are there: SDKs do by default, or less
// often.
const (
	grpcStreamsMax   = 1000
	grpcHeaderMax    = 64 << 10
	grpcWorkers      = 16 // goroutines whose stacks have grown; when all are taken a call has its own
	grpcConnectMax   = 5 * time.Second
	grpcPingsApart   = 10 * time.Second
	grpcPingIdle     = 2 * time.Minute
	grpcPingAnswered = 20 * time.Second
)

// Beside is another door's service on the same server. It guards itself.
type Beside struct {
	Register func(grpc.ServiceRegistrar)
	Options  []grpc.ServerOption // of the server, all but its codec, which leaves grpcwire.Bytes as they are
}

// GRPC makes a server of dapr.proto.runtime.v1.Dapr, of services beside it, and of every other method for who names a
// target in dapr-app-id. Its caller serves and stops it; call Close before, or streams of events keep a graceful stop
// waiting.
func (d *Door) GRPC(beside ...Beside) *grpc.Server {
	g := guard{Door: d, others: map[string]bool{}}
	opts := []grpc.ServerOption{
		grpc.UnknownServiceHandler(d.proxy),
		grpc.ChainUnaryInterceptor(g.unary),
		grpc.ChainStreamInterceptor(g.stream),
		grpc.MaxRecvMsgSize(int(d.opt.BodyBytesMax)),
		grpc.MaxSendMsgSize(int(d.opt.BodyBytesMax)),
		grpc.MaxHeaderListSize(grpcHeaderMax),
		grpc.MaxConcurrentStreams(grpcStreamsMax),
		grpc.ConnectionTimeout(grpcConnectMax),
		grpc.NumStreamWorkers(grpcWorkers),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: grpcPingsApart, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: grpcPingIdle, Timeout: grpcPingAnswered}),
	}
	for _, b := range beside {
		opts = append(opts, b.Options...)
	}
	s := grpc.NewServer(append(opts, grpc.ForceServerCodecV2(rawCodec{grpcwire.NewCodec()}))...)
	for _, b := range beside {
		b.Register(s)
	}
	for service, info := range s.GetServiceInfo() {
		for _, m := range info.Methods {
			g.others["/"+service+"/"+m.Name] = true
		}
	}
	rtv1.RegisterDaprServer(s, &runtime{d: d})
	if d.opt.Services != nil {
		d.opt.Services(s)
	}
	return s
}

// guard admits calls of all methods but those of the services beside Dapr's. A method that such a service does not have is
// an invocation like any other.
type guard struct {
	*Door
	others map[string]bool // by the full names of methods
}

// runtime is Dapr's service. What is not a method of it here is answered as unimplemented.
type runtime struct {
	rtv1.UnimplementedDaprServer
	d *Door
}

// requestKey is where the context of a method has its request.
type requestKey struct{}

// RequestOf is the request that a call of a service of Options.Services is, with its metadata as headers.
func RequestOf(ctx context.Context) *http.Request { return requestOf(ctx) }

// requestOf is a call of gRPC as the request of HTTP/2 that it is.
func requestOf(ctx context.Context) *http.Request {
	return ctx.Value(requestKey{}).(*http.Request).WithContext(ctx) // both interceptors put it there
}

// admit finds out whether a call may be made, and puts its request, without the token, into its context.
func (d *Door) admit(ctx context.Context, method string) (context.Context, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	r := &http.Request{Method: http.MethodPost, URL: &url.URL{Path: method}, Proto: "HTTP/2.0", ProtoMajor: 2, Header: grpcwire.Headers(md)}
	if hosts := md.Get(":authority"); len(hosts) > 0 {
		r.Host = hosts[0]
	}
	if p, ok := peer.FromContext(ctx); ok {
		r.RemoteAddr = p.Addr.String()
	}
	given := r.Header.Get(tokenHeader)
	if !d.admits(given) {
		detail := "authentication error: api token mismatch"
		if given == "" {
			detail = "missing api token in request metadata"
		}
		return nil, invokedStatus(http.StatusUnauthorized, detail).Err()
	}
	if given == "" || !d.opt.RequireToken {
		if err := d.checkLocal(r); err != nil {
			return nil, d.problem(r, permissionDenied, "", err).GRPCStatus().Err()
		}
	}
	r.Header.Del(tokenHeader)
	if d.opt.Admit != nil && !d.opt.Admit(r, "", method) {
		return nil, invokedStatus(http.StatusNotImplemented, "requested endpoint is not available").Err()
	}
	return context.WithValue(ctx, requestKey{}, r), nil
}

func (g guard) unary(ctx context.Context, in any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if g.others[info.FullMethod] {
		return handle(ctx, in)
	}
	ctx, err := g.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return handle(ctx, in)
}

func (g guard) stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if g.others[info.FullMethod] {
		return handle(srv, s)
	}
	ctx, err := g.admit(s.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	return handle(srv, admitted{s, ctx})
}

// admitted is a stream with its request in the context.
type admitted struct {
	grpc.ServerStream
	ctx context.Context
}

func (a admitted) Context() context.Context { return a.ctx }

// invokedStatus is what Dapr makes of a status of HTTP; nil for one that is no error.
func invokedStatus(code int, detail string) *status.Status {
	if code >= 200 && code < 300 {
		return nil
	}
	const detailBytesMax = 63
	if len(detail) > detailBytesMax {
		detail = detail[:detailBytesMax]
	}
	plain := status.New(invokedCode(code), http.StatusText(code))
	if s, err := plain.WithDetails(&errdetails.ErrorInfo{Reason: http.StatusText(code), Domain: domain,
		Metadata: map[string]string{"http.code": strconv.Itoa(code), "http.error_message": strings.ToValidUTF8(detail, "")}}); err == nil {
		return s
	}
	return plain
}

// invokedCode is not codeOf: these are an application's statuses, and Dapr reads them in its own way.
func invokedCode(code int) codes.Code {
	switch code {
	case http.StatusRequestTimeout:
		return codes.Canceled
	case http.StatusBadRequest:
		return codes.Internal
	case http.StatusGatewayTimeout:
		return codes.DeadlineExceeded
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusConflict:
		return codes.AlreadyExists
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case http.StatusNotImplemented:
		return codes.Unimplemented
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	}
	return codes.Unknown
}

// frame is a message that is carried without being read.
type frame struct{ data []byte }

// rawCodec leaves frames as they are, and everything else to what services beside Dapr's need too.
type rawCodec struct{ encoding.CodecV2 }

func (c rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*frame); ok {
		return mem.BufferSlice{mem.SliceBuffer(f.data)}, nil
	}
	return c.CodecV2.Marshal(v)
}

func (c rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if f, ok := v.(*frame); ok {
		f.data = data.Materialize()
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}
