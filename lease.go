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

// LeasesListMax is how many leases a page has at most.
const LeasesListMax = 1000

// LeaseList asks for leases by name.
type LeaseList struct {
	Prefix string // of their names; "" all
	After  string // a name, which the page begins behind
	Limit  int    // 0 means LeasesListMax, which is also the most
}

// LeasePage is a part of a listing. Next, if set, is the After of the following page.
type LeasePage struct {
	Leases []Lease `json:"leases"`
	Next   string  `json:"next,omitempty"`
}

// Owners tells who owns what in a namespace, as the log has it.
type Owners interface {
	Leases(ctx context.Context, l LeaseList) (LeasePage, error)
}
