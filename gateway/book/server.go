package book

import (
	logv1 "github.com/quipu-run/quipu/api/log/v1"
	"google.golang.org/grpc"

	"github.com/quipu-run/quipu/internal/grpcwire"
)

// Windows of flow control: what a client may send before it is read. They are fixed, since finding them out takes a ping
// for each message of a client that waits for every answer.
const (
	streamWindow     = 1 << 20
	connectionWindow = 4 << 20
)

// ServerOptions are what a server with the door must have: room for the largest record, windows, and a codec that leaves
// appends to the door. A server that has another codec needs one that leaves grpcwire.Bytes as they are.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(logv1.MessageBytesMax), grpc.MaxSendMsgSize(logv1.MessageBytesMax),
		grpc.ForceServerCodecV2(grpcwire.NewCodec()),
		grpc.InitialWindowSize(streamWindow), grpc.InitialConnWindowSize(connectionWindow),
	}
}
