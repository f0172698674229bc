package quipu

import (
	"context"
	"time"
)

// Lease is the ownership of something for a while, as the log has it.
type Lease struct {
	Name  string    `json:"name"`
	Owner string    `json:"owner"`
	Token Seq       `json:"token"` // fencing token: greater than that of each earlier owner
	Since time.Time `json:"since"`
	Until time.Time `json:"until,omitzero"` // zero until it is given back, or its owner is known to be gone
}

// Leases says who owns what. What is done under a lease checks it in its own transaction, so that an owner that was
// replaced can change nothing more, whatever it believes.
type Leases interface {
	// TakeLease makes owner the owner, unless another holds it: then it answers that one's lease with CodeLeaseLost. ttl 0 holds it
	// until it is released. Durable on return.
	TakeLease(ctx context.Context, name, owner string, ttl time.Duration) (Lease, error)
	// RenewLease prolongs it. CodeLeaseLost.
	RenewLease(ctx context.Context, l Lease, ttl time.Duration) (Lease, error)
	// ReleaseLease gives it back. One that is lost already is no error.
	ReleaseLease(ctx context.Context, l Lease) error
}
