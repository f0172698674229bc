package dapr

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// headerFencing tells the fencing token of a lock over gRPC, whose reply has no place for it. It is a decimal number.
const headerFencing = "quipu-fencing-token"

// lockAsk is what all requests about a lock say. It is in the order in which Dapr checks.
type lockAsk interface {
	GetStoreName() string
	GetResourceId() string
	GetLockOwner() string
}

// lockOf finds the lock store that a request is about, and checks what it says.
func (d *Door) lockOf(r *http.Request, tag, verb string, in lockAsk) (component.Lock, error) {
	name, resource := in.GetStoreName(), in.GetResourceId()
	set, err := d.set(r)
	if err != nil {
		return nil, d.problem(r, tag, "", err)
	}
	store, ok := component.Of[component.Lock](set, name)
	switch {
	case !ok && !component.Any[component.Lock](set):
		return nil, &problem{status: http.StatusInternalServerError, code: codes.FailedPrecondition, tag: "ERR_LOCK_STORE_NOT_CONFIGURED", message: "lock store is not configured"}
	case resource == "":
		return nil, malformedLock("ResourceId is empty in lock store " + name)
	case in.GetLockOwner() == "":
		return nil, malformedLock("LockOwner is empty in lock store " + name)
	case !ok:
		return nil, &problem{status: http.StatusBadRequest, tag: "ERR_LOCK_STORE_NOT_FOUND", message: fmt.Sprintf("lock store %s not found", name)}
	case strings.Contains(resource, "||"):
		return nil, &problem{status: http.StatusInternalServerError, tag: tag, message: fmt.Sprintf("failed to %s: input key/keyPrefix '%s' can't contain '||'", verb, resource)}
	case len(resource) > quipu.KeyBytesMax:
		return nil, malformedLock(fmt.Sprintf("ResourceId has more than %d bytes in lock store %s", quipu.KeyBytesMax, name))
	}
	return store, nil
}

func malformedLock(text string) error {
	return &problem{status: http.StatusBadRequest, tag: "ERR_MALFORMED_REQUEST", message: text}
}

const (
	tagLock, verbLock     = "ERR_TRY_LOCK", "try acquiring lock"
	tagUnlock, verbUnlock = "ERR_UNLOCK", "release lock"
)

// tryLock answers the fencing token of a lock that was taken.
func (d *Door) tryLock(r *http.Request, in *rtv1.TryLockRequest) (token uint64, locked bool, err error) {
	expiry, err := expiryOf(in)
	if err != nil {
		return 0, false, err
	}
	store, err := d.lockOf(r, tagLock, verbLock, in)
	if err != nil {
		return 0, false, err
	}
	token, locked, err = store.TryLock(r.Context(), in.GetResourceId(), in.GetLockOwner(), expiry)
	if err != nil {
		return 0, false, d.lockProblem(r, tagLock, verbLock, err)
	}
	return token, locked, nil
}

func expiryOf(in *rtv1.TryLockRequest) (time.Duration, error) {
	if in.GetExpiryInSeconds() <= 0 {
		return 0, malformedLock("ExpiryInSeconds is not positive in lock store " + in.GetStoreName())
	}
	return time.Duration(in.GetExpiryInSeconds()) * time.Second, nil
}

func (d *Door) lockProblem(r *http.Request, tag, verb string, err error) error {
	p := d.problem(r, tag, "failed to "+verb+": ", err)
	p.reason = "" // Dapr gives none
	return p
}

// TryLockAlpha1 takes a lock that nobody has.
func (s *runtime) TryLockAlpha1(ctx context.Context, in *rtv1.TryLockRequest) (*rtv1.TryLockResponse, error) {
	token, locked, err := s.d.tryLock(requestOf(ctx), in)
	if err != nil || !locked {
		return &rtv1.TryLockResponse{}, err
	}
	return &rtv1.TryLockResponse{Success: true}, grpc.SetHeader(ctx, metadata.Pairs(headerFencing, strconv.FormatUint(token, 10)))
}

// UnlockAlpha1 gives a lock back, and says so if it is not the owner's.
func (s *runtime) UnlockAlpha1(ctx context.Context, in *rtv1.UnlockRequest) (*rtv1.UnlockResponse, error) {
	r := requestOf(ctx)
	store, err := s.d.lockOf(r, tagUnlock, verbUnlock, in)
	if err != nil {
		return nil, err
	}
	became, err := store.Unlock(r.Context(), in.GetResourceId(), in.GetLockOwner())
	if err != nil {
		return nil, s.d.lockProblem(r, tagUnlock, verbUnlock, err)
	}
	return &rtv1.UnlockResponse{Status: rtv1.UnlockResponse_Status(became)}, nil
}

// lock is POST lock/{store}. fencingToken is ours: a text, since it is larger than the numbers of JavaScript.
func (d *Door) lock(w http.ResponseWriter, r *http.Request, store string) {
	in := &rtv1.TryLockRequest{}
	err := d.readMessage(w, r, in)
	in.StoreName = store
	var token uint64
	var locked bool
	if err == nil {
		token, locked, err = d.tryLock(r, in)
	}
	if err != nil {
		d.fail(w, r, tagLock, err)
		return
	}
	out := struct {
		Success bool   `json:"success"`
		Token   string `json:"fencingToken,omitempty"`
	}{Success: locked}
	if locked {
		out.Token = strconv.FormatUint(token, 10)
	}
	answerWith(w, http.StatusOK, out)
}

// unlock is POST unlock/{store}.
func (d *Door) unlock(w http.ResponseWriter, r *http.Request, store string) {
	s := &runtime{d: d}
	overHTTP(d, w, r, tagUnlock, &rtv1.UnlockRequest{}, true, func(ctx context.Context, in *rtv1.UnlockRequest) (*rtv1.UnlockResponse, error) {
		in.StoreName = store
		return s.UnlockAlpha1(ctx, in)
	})
}

// renew is POST lock/{store}/renew, which is ours: the request is that of a lock, the answer that of an unlock.
func (d *Door) renew(w http.ResponseWriter, r *http.Request, store string) {
	overHTTP(d, w, r, tagLock, &rtv1.TryLockRequest{}, true, func(_ context.Context, in *rtv1.TryLockRequest) (*rtv1.UnlockResponse, error) {
		const verb = "renew lock"
		in.StoreName = store
		expiry, err := expiryOf(in)
		if err != nil {
			return nil, err
		}
		l, err := d.lockOf(r, tagLock, verb, in)
		if err != nil {
			return nil, err
		}
		became, err := l.Renew(r.Context(), in.GetResourceId(), in.GetLockOwner(), expiry)
		if err != nil {
			return nil, d.lockProblem(r, tagLock, verb, err)
		}
		return &rtv1.UnlockResponse{Status: rtv1.UnlockResponse_Status(became)}, nil
	})
}

// locks serves v1.0-alpha1/lock/{store}[/renew] and unlock/{store}.
func (d *Door) locks(w http.ResponseWriter, r *http.Request, parts []string) {
	if !allow(w, r, http.MethodPost) {
		return
	}
	store := unescape(parts[1])
	switch {
	case parts[0] == "unlock":
		d.unlock(w, r, store)
	case len(parts) == 3:
		d.renew(w, r, store)
	default:
		d.lock(w, r, store)
	}
}

// isLock tells whether a path is one of a lock.
func isLock(parts []string) bool {
	return len(parts) == 3 || len(parts) == 4 && parts[1] == "lock" && parts[3] == "renew"
}
