package view

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/quipu-run/quipu"
)

// Claim is a set of conflict keys and ranges.
type Claim struct {
	keys   []string
	ranges []quipu.KeyRange
}

// Key makes a claim of one key that is no view's: a name to take turns on.
func Key(name string) Claim { return Claim{keys: []string{name}} }

// Union is both claims together.
func (c Claim) Union(d Claim) Claim {
	seen := make(map[string]bool, len(c.keys))
	all := Claim{keys: slices.Clone(c.keys), ranges: append(slices.Clone(c.ranges), d.ranges...)}
	for _, key := range c.keys {
		seen[key] = true
	}
	for _, key := range d.keys {
		if !seen[key] {
			all.keys = append(all.keys, key)
		}
	}
	return all
}

// Turn is the right to commit first on a claim. Commits of others that would write it wait until
// Done, so a transaction that touches nothing else cannot lose to them.
type Turn struct {
	turns *turns
	keys  map[string]struct{}
	claim Claim
	eager bool          // it comes as soon as those before are on their way to the log
	ready chan struct{} // closed when the turn has come
	// flight is set, under the lock of turns, when its holder's transaction is on its way to the log.
	flight *flight
}

// turns hands out claims first come, first served: a claim waits for all earlier ones that it
// overlaps, held or waiting.
type turns struct {
	n    atomic.Int32 // len(list): commits look only at this when nobody contends
	mu   sync.Mutex
	list []*Turn // oldest first
}

// Turn waits for its turn on claim.
func (b *Book) Turn(ctx context.Context, claim Claim) (*Turn, error) {
	return b.turns.enter(ctx, claim, false)
}

func (s *turns) enter(ctx context.Context, claim Claim, eager bool) (*Turn, error) {
	t := &Turn{turns: s, claim: claim, eager: eager, keys: make(map[string]struct{}, len(claim.keys)), ready: make(chan struct{})}
	for _, key := range claim.keys {
		t.keys[key] = struct{}{}
	}
	s.mu.Lock()
	s.list = append(s.list, t)
	s.n.Add(1)
	if s.isFirst(len(s.list) - 1) {
		close(t.ready)
	}
	s.mu.Unlock()
	select {
	case <-t.ready:
		return t, nil
	case <-ctx.Done():
		t.Done()
		return nil, ctx.Err()
	}
}

// Done gives the turn back, or gives up waiting for it. A nil turn is none.
func (t *Turn) Done() {
	if t == nil {
		return
	}
	s := t.turns
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.list, t)
	if i < 0 {
		return
	}
	s.list = slices.Delete(s.list, i, i+1)
	s.n.Add(-1)
	s.wake(i)
}

// wake has the turns come that can, from the one at i on. mu is held.
func (s *turns) wake(i int) {
	for ; i < len(s.list); i++ {
		if !s.list[i].isReady() && s.isFirst(i) {
			close(s.list[i].ready)
		}
	}
}

// leaves says that the holder's transaction is on its way to the log: eager ones behind it may begin.
func (t *Turn) leaves(f *flight) {
	s := t.turns
	s.mu.Lock()
	defer s.mu.Unlock()
	t.flight = f
	s.wake(0)
}

// flights are the transactions before t that are on their way to the log, or not yet applied; the newest last.
func (t *Turn) flights() (before []*flight) {
	s := t.turns
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, older := range s.list {
		if older == t {
			break
		}
		if older.flight != nil && older.overlaps(t) {
			before = append(before, older.flight)
		}
	}
	return before
}

// pass lets a commit of writes through when no earlier turn but own covers them. leave must be called
// when the commit has its place in the log.
func (s *turns) pass(ctx context.Context, own *Turn, writes []string) (leave func(), err error) {
	if s.free(own, writes) {
		return func() {}, nil
	}
	t, err := s.enter(ctx, Claim{keys: writes}, false)
	if err != nil {
		return nil, err
	}
	return t.Done, nil
}

// free tells whether nobody else claims any of writes. The holder of a turn passes in any case: it
// may write beyond its claim, and waiting while holding could never end.
func (s *turns) free(own *Turn, writes []string) bool {
	if own != nil || s.n.Load() == 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.list {
		if slices.ContainsFunc(writes, t.covers) {
			return false
		}
	}
	return true
}

// isFirst tells whether no older turn that the one at i has to wait for overlaps it.
func (s *turns) isFirst(i int) bool {
	t := s.list[i]
	for _, older := range s.list[:i] {
		if (!t.eager || older.flight == nil) && older.overlaps(t) {
			return false
		}
	}
	return true
}

func (t *Turn) overlaps(u *Turn) bool {
	return slices.ContainsFunc(u.claim.keys, t.covers) || slices.ContainsFunc(t.claim.keys, u.covers)
}

func (t *Turn) covers(key string) bool {
	if _, ok := t.keys[key]; ok {
		return true
	}
	return slices.ContainsFunc(t.claim.ranges, func(r quipu.KeyRange) bool { return r.Contains(key) })
}

func (t *Turn) isReady() bool {
	select {
	case <-t.ready:
		return true
	default:
		return false
	}
}
