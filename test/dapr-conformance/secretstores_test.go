package conformance

import (
	"context"
	"net/http"
	"net/url"

	"github.com/dapr/components-contrib/secretstores"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
)

// vault is a secret store over gRPC.
type vault struct{ component }

func (v *vault) Init(_ context.Context, m secretstores.Metadata) error {
	return v.declare(m.Properties)
}

// Features: Dapr's API tells of none.
func (v *vault) Features() []secretstores.Feature { return nil }

func (v *vault) GetSecret(ctx context.Context, r secretstores.GetSecretRequest) (out secretstores.GetSecretResponse, err error) {
	got, err := v.application.GetSecret(ctx, &rtv1.GetSecretRequest{StoreName: v.name, Key: r.Name, Metadata: r.Metadata})
	return secretstores.GetSecretResponse{Data: got.GetData()}, err
}

func (v *vault) BulkGetSecret(ctx context.Context, r secretstores.BulkGetSecretRequest) (out secretstores.BulkGetSecretResponse, err error) {
	got, err := v.GetBulkSecret(ctx, &rtv1.GetBulkSecretRequest{StoreName: v.name, Metadata: r.Metadata})
	out.Data = map[string]map[string]string{}
	for name, one := range got.GetData() {
		out.Data[name] = one.GetSecrets()
	}
	return out, err
}

// webVault is a secret store over HTTP.
type webVault struct{ component }

func (v *webVault) Init(_ context.Context, m secretstores.Metadata) error {
	return v.declare(m.Properties)
}

// Features: Dapr's API tells of none.
func (v *webVault) Features() []secretstores.Feature { return nil }

func (v *webVault) GetSecret(ctx context.Context, r secretstores.GetSecretRequest) (out secretstores.GetSecretResponse, err error) {
	return out, v.ask(ctx, http.MethodGet, "/v1.0/secrets/"+v.name+"/"+url.PathEscape(r.Name)+about(r.Metadata), nil, &out.Data)
}

func (v *webVault) BulkGetSecret(ctx context.Context, r secretstores.BulkGetSecretRequest) (out secretstores.BulkGetSecretResponse, err error) {
	return out, v.ask(ctx, http.MethodGet, "/v1.0/secrets/"+v.name+"/bulk"+about(r.Metadata), nil, &out.Data)
}
