package pluggable

//lint:file-ignore SA1019 programs are tried that speak the older version of reflection only

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	proto "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	reflectv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
)

// program is one of somebody else: it has all components of the protocol, in memory. Its state outlives a restart,
// what it was initialized with does not.
type program struct {
	socket string
	server *grpc.Server

	mu     sync.Mutex
	inited map[string]map[string]string // by kind
	inits  int
	ids    map[string]bool // instances that have asked
	values map[string]stored
	sets   int
	acks   map[string]string // by message: its error
	queue  chan *proto.PullMessagesResponse
	events chan *proto.ReadResponse
	etags  bool
	old    bool // reflection, and nothing newer
}

type stored struct {
	value []byte
	etag  string
	meta  map[string]string
}

// start serves a program at NAME.sock, with parts of it if register says so.
func start(t *testing.T, dir, name string, register ...func(*grpc.Server, *program)) *program {
	t.Helper()
	p := &program{socket: filepath.Join(dir, name+".sock"), ids: map[string]bool{}, values: map[string]stored{}, acks: map[string]string{},
		queue: make(chan *proto.PullMessagesResponse, 10), events: make(chan *proto.ReadResponse, 10), etags: true}
	if len(register) == 0 {
		register = append(register, everything)
	}
	p.serve(t, register...)
	return p
}

// everything is all kinds of components.
func everything(s *grpc.Server, p *program) {
	proto.RegisterStateStoreServer(s, stateServer{p: p})
	proto.RegisterTransactionalStateStoreServer(s, stateServer{p: p})
	proto.RegisterTransactionalStoreMultiMaxSizeServer(s, stateServer{p: p})
	proto.RegisterPubSubServer(s, pubSubServer{p: p})
	proto.RegisterInputBindingServer(s, inputServer{p: p})
	proto.RegisterOutputBindingServer(s, outputServer{p: p})
	proto.RegisterSecretStoreServer(s, secretServer{p: p})
}

func plainState(s *grpc.Server, p *program) {
	p.etags = false
	proto.RegisterStateStoreServer(s, stateServer{p: p})
}

func onlyOutput(s *grpc.Server, p *program) { proto.RegisterOutputBindingServer(s, outputServer{p: p}) }

func (p *program) serve(t *testing.T, register ...func(*grpc.Server, *program)) {
	t.Helper()
	if err := os.RemoveAll(p.socket); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", p.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.WaitForHandlers(true), grpc.UnaryInterceptor(func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		p.see(ctx)
		return h(ctx, r)
	}))
	p.mu.Lock()
	p.server, p.inited = server, map[string]map[string]string{}
	p.mu.Unlock()
	for _, r := range register {
		r(server, p)
	}
	if p.old {
		reflectv1alpha.RegisterServerReflectionServer(server, reflection.NewServer(reflection.ServerOptions{Services: server}))
	} else {
		reflection.RegisterV1(server)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// restart forgets what the program was initialized with.
func (p *program) restart(t *testing.T) {
	t.Helper()
	p.server.Stop()
	p.serve(t, everything)
}

func (p *program) see(ctx context.Context) {
	md, _ := metadata.FromIncomingContext(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range md.Get("x-component-instance") {
		p.ids[id] = true
	}
}

func (p *program) init(kind string, r *proto.MetadataRequest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inited[kind] = r.GetProperties()
	p.inits++
}

// must refuses what comes before the metadata.
func (p *program) must(kind string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inited[kind]["secret"] == "" {
		return status.Error(codes.Internal, kind+" was not initialized")
	}
	return nil
}

type stateServer struct {
	proto.UnimplementedStateStoreServer
	proto.UnimplementedTransactionalStateStoreServer
	proto.UnimplementedTransactionalStoreMultiMaxSizeServer
	p *program
}

func (s stateServer) Init(_ context.Context, r *proto.InitRequest) (*proto.InitResponse, error) {
	if r.GetMetadata().GetProperties()["fail"] != "" {
		return nil, status.Error(codes.InvalidArgument, "it must not fail")
	}
	s.p.init("state", r.GetMetadata())
	return &proto.InitResponse{}, nil
}

func (s stateServer) Features(context.Context, *proto.FeaturesRequest) (*proto.FeaturesResponse, error) {
	if !s.p.etags {
		return &proto.FeaturesResponse{}, nil
	}
	return &proto.FeaturesResponse{Features: []string{"ETAG", "TRANSACTIONAL", "QUERY_API"}}, nil
}

func (s stateServer) MultiMaxSize(context.Context, *proto.MultiMaxSizeRequest) (*proto.MultiMaxSizeResponse, error) {
	return &proto.MultiMaxSizeResponse{MaxSize: 3}, nil
}

func (s stateServer) Get(_ context.Context, r *proto.GetRequest) (*proto.GetResponse, error) {
	if err := s.p.must("state"); err != nil {
		return nil, err
	}
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	v, ok := s.p.values[r.GetKey()]
	if !ok {
		return &proto.GetResponse{}, nil
	}
	reply := &proto.GetResponse{Data: v.value, Metadata: v.meta}
	if s.p.etags {
		reply.Etag = &proto.Etag{Value: v.etag}
	}
	return reply, nil
}

func (s stateServer) BulkGet(ctx context.Context, r *proto.BulkGetRequest) (*proto.BulkGetResponse, error) {
	reply := &proto.BulkGetResponse{}
	for _, one := range r.GetItems() {
		got, err := s.Get(ctx, one)
		if err != nil {
			return nil, err
		}
		if got.GetEtag() != nil { // and nothing of those that there are not
			reply.Items = append(reply.Items, &proto.BulkStateItem{Key: one.GetKey(), Data: got.GetData(), Etag: got.GetEtag()})
		}
	}
	return reply, nil
}

func (s stateServer) check(key string, etag *proto.Etag, o *proto.StateOptions) error {
	v, ok := s.p.values[key]
	code, why := codes.OK, ""
	switch first := o.GetConcurrency() == proto.StateOptions_CONCURRENCY_FIRST_WRITE; {
	case etag.GetValue() != "" && !s.p.etags:
		return status.Error(codes.Internal, "there are no etags here")
	case etag != nil && !isNumber(etag.GetValue()):
		code, why = codes.InvalidArgument, "no number"
	case etag != nil && etag.GetValue() != v.etag, first && etag == nil && ok:
		code, why = codes.FailedPrecondition, "another etag"
	default:
		return nil
	}
	with, err := status.New(code, why).WithDetails(&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "etag", Description: why}}})
	if err != nil {
		return err
	}
	return with.Err()
}

func isNumber(text string) bool {
	_, err := strconv.Atoi(text)
	return err == nil
}

func (s stateServer) Set(_ context.Context, r *proto.SetRequest) (*proto.SetResponse, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if err := s.check(r.GetKey(), r.GetEtag(), r.GetOptions()); err != nil {
		return nil, err
	}
	s.put(r)
	return &proto.SetResponse{}, nil
}

func (s stateServer) put(r *proto.SetRequest) {
	s.p.sets++
	v := stored{value: r.GetValue(), etag: strconv.Itoa(s.p.sets)}
	if seconds := r.GetMetadata()["ttlInSeconds"]; seconds != "" {
		n, _ := strconv.Atoi(seconds)
		v.meta = map[string]string{"ttlExpireTime": epoch.Add(time.Duration(n) * time.Second).Format(time.RFC3339)}
	}
	s.p.values[r.GetKey()] = v
}

func (s stateServer) BulkSet(ctx context.Context, r *proto.BulkSetRequest) (*proto.BulkSetResponse, error) {
	for _, one := range r.GetItems() {
		if _, err := s.Set(ctx, one); err != nil {
			return nil, err
		}
	}
	return &proto.BulkSetResponse{}, nil
}

func (s stateServer) Delete(_ context.Context, r *proto.DeleteRequest) (*proto.DeleteResponse, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if err := s.check(r.GetKey(), r.GetEtag(), r.GetOptions()); err != nil {
		return nil, err
	}
	delete(s.p.values, r.GetKey())
	return &proto.DeleteResponse{}, nil
}

func (s stateServer) Transact(_ context.Context, r *proto.TransactionalStateRequest) (*proto.TransactionalStateResponse, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	for _, op := range r.GetOperations() {
		key, etag, o := op.GetSet().GetKey(), op.GetSet().GetEtag(), op.GetSet().GetOptions()
		if d := op.GetDelete(); d != nil {
			key, etag, o = d.GetKey(), d.GetEtag(), d.GetOptions()
		}
		if err := s.check(key, etag, o); err != nil {
			return nil, err
		}
	}
	for _, op := range r.GetOperations() {
		if d := op.GetDelete(); d != nil {
			delete(s.p.values, d.GetKey())
		} else {
			s.put(op.GetSet())
		}
	}
	return &proto.TransactionalStateResponse{}, nil
}

type pubSubServer struct {
	proto.UnimplementedPubSubServer
	p *program
}

func (s pubSubServer) Init(_ context.Context, r *proto.PubSubInitRequest) (*proto.PubSubInitResponse, error) {
	s.p.init("pubsub", r.GetMetadata())
	return &proto.PubSubInitResponse{}, nil
}

func (s pubSubServer) Features(context.Context, *proto.FeaturesRequest) (*proto.FeaturesResponse, error) {
	return &proto.FeaturesResponse{Features: []string{"MESSAGE_TTL"}}, s.p.must("pubsub")
}

func (s pubSubServer) Publish(_ context.Context, r *proto.PublishRequest) (*proto.PublishResponse, error) {
	s.p.queue <- &proto.PullMessagesResponse{Id: "m-" + string(r.GetData()), TopicName: r.GetTopic(), Data: r.GetData(), ContentType: r.GetContentType(), Metadata: r.GetMetadata()}
	return &proto.PublishResponse{}, nil
}

func (s pubSubServer) PullMessages(stream proto.PubSub_PullMessagesServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if err := s.p.must("pubsub"); err != nil {
		return err
	}
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case m := <-s.p.queue:
			if m.GetTopicName() != first.GetTopic().GetName() {
				continue
			}
			if err := stream.Send(m); err != nil {
				return err
			}
			ack, err := stream.Recv()
			if err != nil {
				return err
			}
			s.p.acked(ack.GetAckMessageId(), ack.GetAckError().GetMessage())
			if ack.GetAckError() != nil {
				s.p.queue <- m
			}
		}
	}
}

func (p *program) acked(id, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acks[id] += "[" + why + "]"
}

type inputServer struct {
	proto.UnimplementedInputBindingServer
	p *program
}

func (s inputServer) Init(_ context.Context, r *proto.InputBindingInitRequest) (*proto.InputBindingInitResponse, error) {
	s.p.init("input", r.GetMetadata())
	return &proto.InputBindingInitResponse{}, nil
}

func (s inputServer) Read(stream proto.InputBinding_ReadServer) error {
	go func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			s.p.acked(r.GetMessageId(), string(r.GetResponseData())+r.GetResponseError().GetMessage())
		}
	}()
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case e := <-s.p.events:
			if err := stream.Send(e); err != nil {
				return err
			}
		}
	}
}

type outputServer struct {
	proto.UnimplementedOutputBindingServer
	p *program
}

func (s outputServer) Init(_ context.Context, r *proto.OutputBindingInitRequest) (*proto.OutputBindingInitResponse, error) {
	s.p.init("output", r.GetMetadata())
	return &proto.OutputBindingInitResponse{}, nil
}

func (s outputServer) ListOperations(context.Context, *proto.ListOperationsRequest) (*proto.ListOperationsResponse, error) {
	return &proto.ListOperationsResponse{Operations: []string{"create", "shout"}}, nil
}

func (s outputServer) Invoke(_ context.Context, r *proto.InvokeRequest) (*proto.InvokeResponse, error) {
	if r.GetOperation() != "shout" {
		return nil, status.Error(codes.InvalidArgument, "it only shouts")
	}
	return &proto.InvokeResponse{Data: append(r.GetData(), '!'), Metadata: r.GetMetadata()}, s.p.must("output")
}

type secretServer struct {
	proto.UnimplementedSecretStoreServer
	p *program
}

func (s secretServer) Init(_ context.Context, r *proto.SecretStoreInitRequest) (*proto.SecretStoreInitResponse, error) {
	s.p.init("secrets", r.GetMetadata())
	return &proto.SecretStoreInitResponse{}, nil
}

func (s secretServer) Get(_ context.Context, r *proto.GetSecretRequest) (*proto.GetSecretResponse, error) {
	switch r.GetKey() {
	case "db":
		return &proto.GetSecretResponse{Data: map[string]string{"user": "u"}}, s.p.must("secrets")
	case "none":
		return nil, status.Error(codes.NotFound, "none")
	case "broken":
		return nil, status.Error(codes.Internal, "broken")
	}
	return &proto.GetSecretResponse{}, nil
}

func (s secretServer) BulkGet(context.Context, *proto.BulkGetSecretRequest) (*proto.BulkGetSecretResponse, error) {
	return &proto.BulkGetSecretResponse{Data: map[string]*proto.SecretResponse{"db": {Secrets: map[string]string{"user": "u"}}}}, nil
}
