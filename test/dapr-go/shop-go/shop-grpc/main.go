// Program shop-grpc is the shop over gRPC, with a service of its own beside Dapr's.
package main

import (
	"log"
	"net"
	"os"

	"dapr-go/shop"

	daprd "github.com/dapr/go-sdk/service/grpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	if err := shop.Serve("shop-grpc", daprd.NewServiceWithGrpcServer(l, server)); err != nil {
		log.Fatal(err)
	}
}
