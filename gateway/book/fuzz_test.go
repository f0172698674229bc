package book_test

import (
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/quipu-run/quipu"
	logv1 "github.com/quipu-run/quipu/api/log/v1"
	"github.com/quipu-run/quipu/internal/grpcwire"
)

// answersMax is how much is read of a stream that may not end.
const answersMax = 64

// Whatever bytes a client sends as a request of whatever method, it gets an answer or a code, never an internal error, and
// the node goes on.
func FuzzRequests(f *testing.F) {
	service := logv1.File_log_v1_log_proto.Services().Get(0)
	for i, m := range []proto.Message{
		&logv1.CreateBookRequest{Name: "other", Options: &logv1.BookOptions{Quota: -1}}, &logv1.SetBookRequest{Book: 1},
		&logv1.DeleteBookRequest{Book: 7}, &logv1.OpenBookRequest{Name: "mine"}, &logv1.ListBooksRequest{},
		&logv1.AppendRequest{Book: 1, Drafts: []*logv1.Draft{{Data: []byte("d")}, {Cond: &logv1.Cond{Last: 9}}}},
		&logv1.AppendStreamRequest{Appends: []*logv1.AppendRequest{{Id: 1, Book: 1, Drafts: []*logv1.Draft{{Producer: &logv1.Producer{Id: 1, N: 1}, Kind: 2}}}}},
		&logv1.LastProducerRequest{Book: 1, Id: 1}, &logv1.ReadRequest{Book: 1, To: proto.Uint64(3), Limit: 2}, &logv1.NextRequest{Book: 1},
		&logv1.PrevRequest{Book: 1, To: ^uint64(0)}, &logv1.TailRequest{Book: 1}, &logv1.TrimRequest{Book: 1, Upto: 1, Tag: []byte("t")},
		&logv1.SetAuxRequest{Book: 1, Seq: 2, Aux: []byte("hint")}, &logv1.GetAuxRequest{Book: 1, Seq: 2},
	} {
		wire, err := proto.Marshal(m)
		if err != nil || service.Methods().Get(i).Input() != m.ProtoReflect().Descriptor() {
			f.Fatalf("method %d takes no %T, %v", i, m, err)
		}
		f.Add(i, wire)
	}
	f.Fuzz(func(t *testing.T, i int, wire []byte) {
		method := service.Methods().Get(int(uint(i) % uint(service.Methods().Len())))
		l := model()
		b := create(t, l)
		if _, err := l.Append(t.Context(), b, quipu.Draft{Data: []byte("1"), Tags: []string{"t"}}); err != nil {
			t.Fatal(err)
		}
		n := serve(t, l)
		err := n.send(method, wire)
		if ours := codeOf(err); err != nil && (ours == "" || ours == quipu.CodeInternal) && !refusedByGRPC(method, wire, err) {
			t.Fatalf("%s of %x: %v", method.Name(), wire, err)
		}
		if _, err := n.client().OpenBook(t.Context(), "mine"); err != nil && method.Name() != "DeleteBook" {
			t.Fatalf("after %s of %x: %v", method.Name(), wire, err)
		}
	})
}

// refusedByGRPC tells whether the request is none, which generated code finds before us.
func refusedByGRPC(method protoreflect.MethodDescriptor, wire []byte, err error) bool {
	return status.Code(err) == codes.Internal && proto.Unmarshal(wire, dynamicpb.NewMessage(method.Input())) != nil
}

// send sends one message and answers the status.
func (n *node) send(method protoreflect.MethodDescriptor, wire []byte) error {
	conn, err := grpc.NewClient(n.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		n.t.Fatal(err)
	}
	defer conn.Close()
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	path := "/" + string(method.Parent().FullName()) + "/" + string(method.Name())
	stream, err := conn.NewStream(n.t.Context(), desc, path, grpc.ForceCodecV2(grpcwire.NewCodec()))
	if err != nil {
		return err
	}
	_ = stream.SendMsg(&grpcwire.Bytes{Out: mem.BufferSlice{mem.SliceBuffer(wire)}}) // what went wrong comes with RecvMsg
	_ = stream.CloseSend()
	if header, _ := stream.Header(); header != nil && method.Name() == "Read" && isFollow(wire) {
		return nil // it would wait for more
	}
	for range answersMax {
		var m grpcwire.Bytes
		if err := stream.RecvMsg(&m); err != nil {
			return unlessEOF(err)
		}
	}
	return nil
}

func isFollow(wire []byte) bool {
	var q logv1.ReadRequest
	return proto.Unmarshal(wire, &q) == nil && q.GetFollow()
}

func unlessEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
