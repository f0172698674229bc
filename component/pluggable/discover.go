// Package pluggable has the components of others: programs that serve Dapr's component protocol over gRPC on Unix sockets.
//
// The sockets of a folder are asked what they serve; NAME.sock with a state store makes the type state.NAME. A program that
// was restarted is connected to again and initialized again before it is asked for anything, and streams that broke are
// opened again. What a call that was under way did meanwhile is not known: it fails.
//
// Components act at once: nothing here is part of an atomic call. Queries, and bulk publishing in one request, are not there.
package pluggable

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	proto "github.com/dapr/dapr/pkg/proto/components/v1"
	"github.com/quipu-run/quipu/internal/component"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	reflectv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
)

// Where sockets are, if nothing else is said, and limits of looking for them.
const (
	FolderVariable = "DAPR_COMPONENTS_SOCKETS_FOLDER"
	FolderDefault  = "/tmp/dapr-components-sockets"

	socketsMax  = 100
	answerWait  = 5 * time.Second // for one socket
	servicesMax = 1000
)

// services are what a socket serves, by the protocol's names.
type services map[string]bool

// Discover asks the sockets of a folder, "" for the one that the environment names, and answers the types they make. A socket that
// does not answer is told in the error, and the types of the others are there all the same. No folder is no sockets.
func Discover(ctx context.Context, folder string) (map[string]component.Factory, error) {
	folder = cmp.Or(folder, os.Getenv(FolderVariable), FolderDefault)
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return e.Type() != fs.ModeSocket })
	if len(entries) > socketsMax {
		return nil, fmt.Errorf("there are %d sockets in %s; the most is %d", len(entries), folder, socketsMax)
	}
	all := map[string]component.Factory{}
	var failed []error
	for _, entry := range entries {
		socket := filepath.Join(folder, entry.Name())
		served, err := ask(ctx, socket)
		if err != nil {
			failed = append(failed, fmt.Errorf("the component at %s does not say what it serves: %w", socket, err))
			continue
		}
		name := strings.TrimSuffix(entry.Name(), filepath.Ext(entry.Name()))
		addFactories(all, name, socket, served)
	}
	return all, errors.Join(failed...)
}

func addFactories(all map[string]component.Factory, name, socket string, served services) {
	if served[proto.StateStore_ServiceDesc.ServiceName] {
		all["state."+name] = stateFactory(socket, served)
	}
	if served[proto.PubSub_ServiceDesc.ServiceName] {
		all["pubsub."+name] = pubSubFactory(socket)
	}
	if served[proto.SecretStore_ServiceDesc.ServiceName] {
		all["secretstores."+name] = secretFactory(socket)
	}
	if served[proto.InputBinding_ServiceDesc.ServiceName] || served[proto.OutputBinding_ServiceDesc.ServiceName] {
		all["bindings."+name] = bindingFactory(socket, served)
	}
}

// ask lists services by reflection, of the newer version first.
func ask(ctx context.Context, socket string) (services, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	conn, err := dial(toSocket(socket))
	if err != nil {
		return nil, err
	}
	names, err := listV1(ctx, conn)
	if status.Code(err) == codes.Unimplemented {
		names, err = listV1Alpha(ctx, conn)
	}
	if err := errors.Join(err, conn.Close()); err != nil {
		return nil, err
	}
	if len(names) > servicesMax {
		return nil, fmt.Errorf("there are %d services; the most is %d", len(names), servicesMax)
	}
	served := services{}
	for _, name := range names {
		served[name] = true
	}
	return served, nil
}

func listV1(ctx context.Context, conn grpc.ClientConnInterface) (names []string, err error) {
	stream, err := reflectv1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		return nil, err
	}
	r, err := exchange(stream, &reflectv1.ServerReflectionRequest{MessageRequest: &reflectv1.ServerReflectionRequest_ListServices{ListServices: "*"}})
	for _, s := range r.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	return names, err
}

// exchange sends one request and takes its answer.
func exchange[Q, A any](stream grpc.BidiStreamingClient[Q, A], request *Q) (*A, error) {
	if err := stream.Send(request); err != nil {
		_, err = stream.Recv() // which has the reason
		return nil, err
	}
	answer, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	return answer, stream.CloseSend()
}
