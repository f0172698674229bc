package call

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

const (
	recentMax = 1000 // calls without a record that a node remembers
	listMax   = 1000
)

// ring holds the newest calls that have no record.
type ring struct {
	mu   sync.Mutex
	list [recentMax]quipu.CallInfo
	n    int // ever added
}

func (r *ring) add(info quipu.CallInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list[r.n%recentMax] = info
	r.n++
}

// all answers the calls that keep wants, newest first.
func (r *ring) all(keep func(quipu.CallInfo) bool) (found []quipu.CallInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := r.n - 1; i >= max(0, r.n-recentMax); i-- {
		if info := r.list[i%recentMax]; keep(info) {
			found = append(found, info)
		}
	}
	return found
}

// Call finds a call by its id.
func (c *Caller) Call(_ context.Context, id string) (info quipu.CallInfo, err error) {
	if found, ok := c.remembered(id); ok {
		return found, nil
	}
	tx := c.o.Book.Look()
	defer func() { err = errors.Join(err, tx.Close()) }()
	p, err := c.o.Results.waiting(tx, id)
	if err != nil {
		return info, err
	}
	if p != nil {
		return c.waits.standing(p), nil
	}
	r, _, err := c.o.Results.load(tx, id)
	if err != nil {
		return info, err
	}
	return r.Info, nil
}

// remembered finds a call that has no record.
func (c *Caller) remembered(id string) (info quipu.CallInfo, ok bool) {
	found := c.recent.all(func(i quipu.CallInfo) bool { return i.ID == id })
	if len(found) == 0 {
		return info, false
	}
	return found[0], true
}

// Calls lists calls, the newest first: those that wait, those with a record, and those that this node remembers.
func (c *Caller) Calls(_ context.Context, name string, limit int) ([]quipu.CallInfo, error) {
	if limit <= 0 || limit > listMax {
		limit = listMax
	}
	calls := c.recent.all(func(i quipu.CallInfo) bool { return name == "" || i.Function == name })
	tx := c.o.Book.Look()
	waiting, err := c.waiting(tx, name, limit)
	if err != nil {
		return nil, errors.Join(err, tx.Close())
	}
	kept, err := c.o.Results.newest(tx, name, limit)
	if err = errors.Join(err, tx.Close()); err != nil {
		return nil, err
	}
	calls = append(append(calls, waiting...), kept...)
	slices.SortStableFunc(calls, func(a, b quipu.CallInfo) int {
		return cmp.Or(b.Start.Compare(a.Start), cmp.Compare(b.ID, a.ID))
	})
	return calls[:min(limit, len(calls))], nil
}

// waiting lists calls that have not ended, of one function unless name is "".
func (c *Caller) waiting(tx *view.Tx, name string, limit int) (found []quipu.CallInfo, err error) {
	ids, err := c.o.Results.inExecution(tx, name, limit)
	if err != nil {
		return nil, err
	}
	for _, id := range append(c.waits.newest(name, limit), ids...) {
		p, err := c.o.Results.waiting(tx, id)
		if err != nil {
			return nil, err
		}
		if p != nil { // else it has ended meanwhile
			found = append(found, c.waits.standing(p))
		}
	}
	return found, nil
}

// newest lists kept results, of one function unless name is "".
func (s *Results) newest(tx *view.Tx, name string, limit int) (found []quipu.CallInfo, err error) {
	from := byTime
	if name != "" {
		from = byFunction + name + "\x00"
	}
	var ids []string
	err = tx.Scan(Name, from, from+"\xff", func(_ string, id []byte) bool {
		ids = append(ids, string(id))
		return len(ids) < limit
	})
	for _, id := range ids {
		r, _, loadErr := s.load(tx, id)
		if loadErr != nil {
			return nil, errors.Join(err, loadErr)
		}
		found = append(found, r.Info)
	}
	return found, err
}
