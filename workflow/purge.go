package workflow

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/view"
)

// purgeMax is how many instances one record forgets at most.
const purgeMax = 1000

// Sweep forgets instances that ended too long ago, the oldest first, and answers how many: 1000 of them say that there may be
// more.
func (s *Store) Sweep(ctx context.Context) (int, error) {
	before := s.view.o.Clock.Now().Add(-s.view.o.Kept).UnixNano()
	n, _, err := s.purgeEnded(ctx, byEnd, before, func(quipu.WorkflowKey, string) bool { return true })
	return n, err
}

// PurgeWorkflows implements quipu.Workflows.
func (s *Store) PurgeWorkflows(ctx context.Context, p quipu.WorkflowPurge) (int, error) {
	if p.ID != "" {
		return s.purgeOne(ctx, p)
	}
	wanted := func(k quipu.WorkflowKey, name string) bool {
		return (p.App == "" || k.App == p.App) && (p.Name == "" || name == p.Name)
	}
	before := s.view.o.Clock.Now()
	if !p.Before.IsZero() {
		before = p.Before
	}
	total, from := 0, byEnd
	for from != "" {
		n, next, err := s.purgeEnded(ctx, from, before.UnixNano(), wanted)
		total += n
		if err != nil {
			return total, err
		}
		from = next
	}
	return total, nil
}

// purgeOne forgets one, and its children if it is recursive.
func (s *Store) purgeOne(ctx context.Context, p quipu.WorkflowPurge) (n int, err error) {
	keys := []quipu.WorkflowKey{p.WorkflowKey}
	seen := map[quipu.WorkflowKey]bool{p.WorkflowKey: true}
	for i := 0; p.Recursive && i < len(keys) && len(keys) < purgeMax; i++ {
		children, err := s.children(ctx, keys[i])
		if err != nil && (i == 0 || quipu.CodeOf(err) != quipu.CodeNoWorkflow) {
			return 0, err
		}
		for _, k := range children {
			if !seen[k] {
				seen[k] = true
				keys = append(keys, k)
			}
		}
	}
	_, err = s.book.Change(ctx, func(tx *view.Tx) error {
		n = 0
		for i, k := range keys {
			err := s.view.Change(tx, []flow.Change{{WorkflowKey: k, Purge: true, Force: p.Force}})
			if i > 0 && quipu.CodeOf(err) == quipu.CodeNoWorkflow {
				continue // it was purged before
			}
			if err != nil {
				return err
			}
			n++
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// children of an instance, as its history names them.
func (s *Store) children(ctx context.Context, k quipu.WorkflowKey) ([]quipu.WorkflowKey, error) {
	snap, err := s.Load(ctx, k)
	if err != nil {
		return nil, err
	}
	l, err := s.view.language(snap.Kind)
	if err != nil {
		return nil, err
	}
	return l.Children(snap)
}

// purgeEnded looks at up to purgeMax of those that ended before a time, from a key of the index on, and forgets those that are
// wanted. next is where to go on; "" nowhere.
func (s *Store) purgeEnded(ctx context.Context, from string, before int64, wanted func(quipu.WorkflowKey, string) bool) (n int, next string, err error) {
	_, err = s.book.Change(ctx, func(tx *view.Tx) error {
		var keys []quipu.WorkflowKey
		keys, next, err = s.view.ended(tx, from, before)
		n = 0
		for _, k := range keys {
			name, err := s.view.nameOf(tx, k)
			if err != nil {
				return err
			}
			if !wanted(k, name) {
				continue
			}
			if err := s.view.Change(tx, []flow.Change{{WorkflowKey: k, Purge: true}}); err != nil {
				return err
			}
			n++
		}
		return err
	})
	if err != nil {
		return 0, "", err
	}
	return n, next, nil
}

// ended lists instances that ended before a time, the oldest first.
func (v *View) ended(tx *view.Tx, from string, before int64) (keys []quipu.WorkflowKey, next string, err error) {
	var bad error
	err = tx.Peek(Name, from, endKey(before, ""), func(key string, _ []byte) bool {
		if len(keys) == purgeMax {
			next = key
			return false
		}
		if len(key) < len(byEnd)+8 {
			bad = errForm
			return false
		}
		k, ok := parseName(key[len(byEnd)+8:])
		if !ok {
			bad = errForm
		}
		keys = append(keys, k)
		return ok
	})
	return keys, next, errors.Join(err, bad)
}

func (v *View) nameOf(tx *view.Tx, k quipu.WorkflowKey) (string, error) {
	value, _, err := tx.Get(Name, byStatic+name(k))
	if err != nil {
		return "", err
	}
	var s static
	return s.Name, json.Unmarshal(value, &s)
}
