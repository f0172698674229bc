package conformance

import (
	"context"
	"net/http"

	"github.com/dapr/components-contrib/lock"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
)

// locks is a lock store over gRPC.
type locks struct{ component }

func (l *locks) InitLockStore(_ context.Context, m lock.Metadata) error {
	return l.declare(m.Properties)
}

func (l *locks) TryLock(ctx context.Context, r *lock.TryLockRequest) (*lock.TryLockResponse, error) {
	got, err := l.TryLockAlpha1(ctx, &rtv1.TryLockRequest{StoreName: l.name, ResourceId: r.ResourceID, LockOwner: r.LockOwner, ExpiryInSeconds: r.ExpiryInSeconds})
	return &lock.TryLockResponse{Success: got.GetSuccess()}, err
}

func (l *locks) Unlock(ctx context.Context, r *lock.UnlockRequest) (*lock.UnlockResponse, error) {
	got, err := l.UnlockAlpha1(ctx, &rtv1.UnlockRequest{StoreName: l.name, ResourceId: r.ResourceID, LockOwner: r.LockOwner})
	return &lock.UnlockResponse{Status: lock.Status(got.GetStatus())}, err
}

// webLocks is a lock store over HTTP.
type webLocks struct{ component }

func (l *webLocks) InitLockStore(_ context.Context, m lock.Metadata) error {
	return l.declare(m.Properties)
}

func (l *webLocks) TryLock(ctx context.Context, r *lock.TryLockRequest) (*lock.TryLockResponse, error) {
	out := &lock.TryLockResponse{}
	return out, l.ask(ctx, http.MethodPost, "/v1.0-alpha1/lock/"+l.name, r, out)
}

func (l *webLocks) Unlock(ctx context.Context, r *lock.UnlockRequest) (*lock.UnlockResponse, error) {
	out := &lock.UnlockResponse{Status: lock.InternalError}
	return out, l.ask(ctx, http.MethodPost, "/v1.0-alpha1/unlock/"+l.name, r, out)
}
