package pluggable

import (
	"context"

	proto "github.com/dapr/dapr/pkg/proto/components/v1"
	"github.com/quipu-run/quipu/internal/component"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// foreignSecrets is a secret store of a program.
type foreignSecrets struct {
	*link
	client proto.SecretStoreClient
}

func secretFactory(socket string) component.Factory {
	return func(ctx context.Context, h component.Host, s component.Spec) (any, error) {
		l, err := open(ctx, socket, h, s, func(ctx context.Context, conn grpc.ClientConnInterface) error {
			_, err := proto.NewSecretStoreClient(conn).Init(ctx, &proto.SecretStoreInitRequest{Metadata: &proto.MetadataRequest{Properties: s.Metadata}})
			return err
		})
		if err != nil {
			return nil, err
		}
		return &foreignSecrets{l, proto.NewSecretStoreClient(l.conn)}, nil
	}
}

// Secret is component.SecretStore.
func (f *foreignSecrets) Secret(ctx context.Context, name string, metadata map[string]string) (map[string]string, error) {
	r, err := f.client.Get(ctx, &proto.GetSecretRequest{Key: name, Metadata: metadata})
	if status.Code(err) == codes.NotFound {
		return nil, nil
	}
	if err != nil || len(r.GetData()) == 0 {
		return nil, err
	}
	return r.GetData(), nil
}

// Secrets is component.SecretStore.
func (f *foreignSecrets) Secrets(ctx context.Context, metadata map[string]string) (map[string]map[string]string, error) {
	r, err := f.client.BulkGet(ctx, &proto.BulkGetSecretRequest{Metadata: metadata})
	if err != nil {
		return nil, err
	}
	all := make(map[string]map[string]string, len(r.GetData()))
	for name, secret := range r.GetData() {
		all[name] = secret.GetSecrets()
	}
	return all, nil
}
