// Package lease is the view of who owns what, for a while or until it is given back.
//
// A lease has a token, the seq of the record that took it: greater than that of each earlier owner. What is done under a lease
// calls Check in its own transaction. That puts the lease among what the transaction has read, and its end among what bounds the commit: an
// owner that was replaced, or whose time has passed, changes nothing more, whatever it believes. After a crash leases stand as
// they did, and run out as time goes on.
//
// Each take is a new ownership with a new token, also one by the owner of before: a process that was restarted under its name
// fences off what is left of itself. Who has a lease and wants to keep it renews it, which keeps the token.
//
// A lease that has run out is lost, even if nobody has taken it since. Whether it has is judged at the transaction's time. The package
// elects nobody and tells nobody of a change; who waits for a lease asks again.
package lease

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// Name is the name of the view.
const Name = "lease"

// Limits.
const (
	NameBytesMax = 1 << 10 // of a name, and of an owner
	sweepMax     = 1000    // leases of one record
)

// Keys of the view.
const (
	byName  = "l" // name: a lease
	byUntil = "x" // until in 8 bytes big-endian, name: nothing
)

// View is the view of leases. Its methods work inside a transaction.
type View struct{}

// New makes the view.
func New() *View { return &View{} }

// Name is the constant Name.
func (v *View) Name() string { return Name }

// Get reads the lease of a name; ok is false if nobody has it.
func (v *View) Get(tx *view.Tx, name string) (l quipu.Lease, ok bool, err error) {
	l, ok, err = read(tx, name)
	if err != nil || !ok || over(tx, l) {
		return quipu.Lease{}, false, err
	}
	if !l.Until.IsZero() {
		tx.Expires(l.Until.UnixNano())
	}
	return l, true, nil
}

// Check refuses to go on under a lease that is lost. CodeLeaseLost. A lease that is younger than what the transaction sees is checked
// when it commits, which then loses.
func (v *View) Check(tx *view.Tx, l quipu.Lease) error {
	if at := tx.Snapshot(); at != 0 && l.Token > at {
		if !l.Until.IsZero() {
			tx.Expires(l.Until.UnixNano())
		}
		tx.ReadAt(Name, byName+l.Name, l.Token)
		return nil
	}
	now, ok, err := v.Get(tx, l.Name)
	if err == nil && (!ok || now.Token != l.Token) {
		err = lost("lease.check", l.Name, now)
	}
	return err
}

// Take makes owner the owner, from the transaction's time on. CodeLeaseLost, with the lease of another who has it. The token is known
// when the transaction has committed: it is the seq of its record.
func (v *View) Take(tx *view.Tx, name, owner string, ttl time.Duration) (quipu.Lease, error) {
	l := quipu.Lease{Name: name, Owner: owner, Since: time.Unix(0, tx.Now())}
	if err := check(l, ttl); err != nil {
		return l, err
	}
	held, ok, err := v.Get(tx, name)
	if err != nil {
		return l, err
	}
	if ok && held.Owner != owner {
		return held, lost("lease.take", name, held)
	}
	l.Until = until(tx, ttl)
	return l, v.set(tx, l)
}

// Renew prolongs a lease. CodeLeaseLost.
func (v *View) Renew(tx *view.Tx, l quipu.Lease, ttl time.Duration) (quipu.Lease, error) {
	if err := check(l, ttl); err != nil {
		return l, err
	}
	held, ok, err := v.Get(tx, l.Name)
	if err != nil {
		return l, err
	}
	if !ok || held.Token != l.Token {
		return l, lost("lease.renew", l.Name, held)
	}
	held.Until = until(tx, ttl)
	return held, v.set(tx, held)
}

// Release gives a lease back. One that is lost already stays as it is.
func (v *View) Release(tx *view.Tx, l quipu.Lease) error {
	held, ok, err := read(tx, l.Name)
	if err != nil || !ok || held.Token != l.Token {
		return err
	}
	return v.remove(tx, held)
}

// List reads leases whose names start with prefix, in the order of their names, from the one after after on. limit 0 means
// quipu.LeasesListMax, which is also the most.
func (v *View) List(tx *view.Tx, prefix, after string, limit int) (list []quipu.Lease, err error) {
	if limit <= 0 || limit > quipu.LeasesListMax {
		limit = quipu.LeasesListMax
	}
	from, now := byName+prefix, tx.Now()
	if start := byName + after + "\x00"; after != "" && start > from {
		from = start
	}
	var bad error
	err = tx.Peek(Name, from, view.After(byName+prefix), func(key string, value []byte) bool {
		var l quipu.Lease
		if l, bad = decode(key[len(byName):], bytes.Clone(value)); bad == nil && liveAt(l, now) {
			list = append(list, l)
		}
		return bad == nil && len(list) < limit
	})
	return list, errors.Join(err, bad)
}

// Sweep removes leases that have run out, as many as one record takes, and answers how many.
func (v *View) Sweep(ctx context.Context, book *view.Book) (n int, err error) {
	_, err = book.Change(ctx, func(tx *view.Tx) error {
		n = 0
		names, err := due(tx)
		for _, name := range names {
			l, ok, err := read(tx, name)
			if err != nil {
				return err
			}
			if ok && over(tx, l) {
				n++
				if err := v.remove(tx, l); err != nil {
					return err
				}
			}
		}
		return err
	})
	return n, err
}

// due lists leases whose time has passed.
func due(tx *view.Tx) (names []string, err error) {
	to := byUntil + string(binary.BigEndian.AppendUint64(nil, uint64(tx.Now()+1)))
	err = tx.Peek(Name, byUntil, to, func(key string, _ []byte) bool {
		names = append(names, key[len(byUntil)+8:])
		return len(names) < sweepMax
	})
	return names, err
}

func until(tx *view.Tx, ttl time.Duration) time.Time {
	if ttl == 0 {
		return time.Time{}
	}
	return time.Unix(0, tx.Now()).Add(ttl)
}

func over(tx *view.Tx, l quipu.Lease) bool { return !liveAt(l, tx.Now()) }

func liveAt(l quipu.Lease, now int64) bool { return l.Until.IsZero() || l.Until.UnixNano() > now }

func lost(op, name string, by quipu.Lease) error {
	text := fmt.Sprintf("nobody owns %q any more", name)
	if by.Owner != "" {
		text = fmt.Sprintf("%q is owned by %q since %s", name, by.Owner, by.Since.UTC().Format(time.RFC3339))
	}
	return &quipu.Error{Code: quipu.CodeLeaseLost, Op: op, Text: text, Hint: quipu.Codes[quipu.CodeLeaseLost].Next}
}

// ttlMax keeps times where they can be counted in nanoseconds.
const ttlMax = 100 * 365 * 24 * time.Hour

// check refuses names and times that cannot be kept.
func check(l quipu.Lease, ttl time.Duration) error {
	text := ""
	switch {
	case l.Name == "" || len(l.Name) > NameBytesMax:
		text = fmt.Sprintf("%.80q cannot be the name of a lease: 1 to %d bytes", l.Name, NameBytesMax)
	case l.Owner == "" || len(l.Owner) > NameBytesMax:
		text = fmt.Sprintf("%.80q cannot be the owner of a lease: 1 to %d bytes", l.Owner, NameBytesMax)
	case ttl < 0 || ttl > ttlMax:
		text = fmt.Sprintf("a lease cannot be held for %s", ttl)
	default:
		return nil
	}
	return &quipu.Error{Code: quipu.CodeUsage, Op: "lease", Text: text}
}

// set writes a lease; one without a token gets that of its record.
func (v *View) set(tx *view.Tx, l quipu.Lease) error {
	old, err := oldUntil(tx, l.Name)
	if err != nil {
		return err
	}
	pending := l
	if l.Token == 0 {
		_, ops := tx.Size()
		pending.Token = quipu.SeqMax - quipu.Seq(ops)
	}
	tx.Put(Name, byName+l.Name, encode(pending))
	return tx.Do(quipu.Op{View: Name, Body: encodeSet(old, l)})
}

func (v *View) remove(tx *view.Tx, l quipu.Lease) error {
	tx.Put(Name, byName+l.Name, nil)
	body := binary.BigEndian.AppendUint64([]byte{opRemove}, uint64(nanos(l.Until)))
	return tx.Do(quipu.Op{View: Name, Body: append(body, l.Name...)})
}

// oldUntil is the end of the lease that another is put in the place of, run out or not; 0 for none.
func oldUntil(tx *view.Tx, name string) (int64, error) {
	l, _, err := read(tx, name)
	return nanos(l.Until), err
}

// read reads a lease, run out or not.
func read(tx *view.Tx, name string) (l quipu.Lease, ok bool, err error) {
	value, ok, err := tx.Get(Name, byName+name)
	if err != nil || !ok {
		return l, false, err
	}
	l, err = decode(name, value)
	return l, err == nil, err
}
