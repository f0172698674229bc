package book

import (
	logv1 "github.com/quipu-run/quipu/api/log/v1"
	"google.golang.org/grpc"
)

// ServerOptions are what a server with the door should have: room for the largest record.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.MaxRecvMsgSize(logv1.MessageBytesMax), grpc.MaxSendMsgSize(logv1.MessageBytesMax)}
}
