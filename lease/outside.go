package lease

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// Outside is the view for those who are in no transaction; it is quipu.Leases and quipu.Owners.
type Outside struct {
	View *View
	Book *view.Book
}

var (
	_ quipu.Leases = Outside{}
	_ quipu.Owners = Outside{}
)

// TakeLease is a record of its own.
func (o Outside) TakeLease(ctx context.Context, name, owner string, ttl time.Duration) (l quipu.Lease, err error) {
	seq, err := o.Book.Change(ctx, func(tx *view.Tx) error {
		l, err = o.View.Take(tx, name, owner, ttl)
		return err
	})
	if err == nil {
		l.Token = seq
	}
	return l, err
}

// RenewLease is a record of its own.
func (o Outside) RenewLease(ctx context.Context, l quipu.Lease, ttl time.Duration) (renewed quipu.Lease, err error) {
	_, err = o.Book.Change(ctx, func(tx *view.Tx) error {
		renewed, err = o.View.Renew(tx, l, ttl)
		return err
	})
	return renewed, err
}

// ReleaseLease is a record of its own.
func (o Outside) ReleaseLease(ctx context.Context, l quipu.Lease) error {
	_, err := o.Book.Change(ctx, func(tx *view.Tx) error { return o.View.Release(tx, l) })
	return err
}

// Leases reads a page of what is held.
func (o Outside) Leases(ctx context.Context, l quipu.LeaseList) (page quipu.LeasePage, err error) {
	tx := o.Book.LookUntil(ctx)
	page.Leases, err = o.View.List(tx, l.Prefix, l.After, l.Limit)
	if n := len(page.Leases); n > 0 && n == cmp.Or(l.Limit, quipu.LeasesListMax) {
		page.Next = page.Leases[n-1].Name
	}
	return page, errors.Join(err, tx.Close())
}
