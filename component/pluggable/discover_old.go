package pluggable

//lint:file-ignore SA1019 components that were built before version 1 of the protocol speak the older one only

import (
	"context"

	"google.golang.org/grpc"
	reflectv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
)

// listV1Alpha is listV1 in the older version of the protocol.
func listV1Alpha(ctx context.Context, conn grpc.ClientConnInterface) (names []string, err error) {
	stream, err := reflectv1alpha.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		return nil, err
	}
	r, err := exchange(stream, &reflectv1alpha.ServerReflectionRequest{MessageRequest: &reflectv1alpha.ServerReflectionRequest_ListServices{ListServices: "*"}})
	for _, s := range r.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	return names, err
}
