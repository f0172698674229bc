package workflow

import (
	"context"
	"errors"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/view"
)

// Store is the view of a book: flow.Store for runners, and quipu.Workflows for everybody else.
type Store struct {
	view *View
	book *view.Book
}

// Follow is called once, when the book was opened and before the first commit.
func (v *View) Follow(book *view.Book) *Store {
	v.watch.forget() // what was read again: runners ask what there is
	book.OnApply(Name, v.watch.applied)
	return &Store{v, book}
}

// Commit implements flow.Store.
func (s *Store) Commit(ctx context.Context, changes []flow.Change) error {
	_, err := s.book.Change(ctx, func(tx *view.Tx) error { return s.view.Change(tx, changes) })
	return err
}

// Load implements flow.Store.
func (s *Store) Load(ctx context.Context, k quipu.WorkflowKey) (flow.Snapshot, error) {
	tx := s.book.LookUntil(ctx)
	snap, err := s.view.load(tx, k)
	return snap, errors.Join(err, tx.Close())
}

// Instance implements flow.Store.
func (s *Store) Instance(ctx context.Context, k quipu.WorkflowKey) (flow.Instance, error) {
	tx := s.book.LookUntil(ctx)
	i, err := s.view.instance(tx, k)
	return i, errors.Join(err, tx.Close())
}

// Await implements flow.Store.
func (s *Store) Await(ctx context.Context, k quipu.WorkflowKey, wanted func(flow.Instance) bool) (flow.Instance, error) {
	for {
		i, done, err := s.awaitOnce(ctx, k, wanted)
		if done || err != nil {
			return i, err
		}
	}
}

// awaitOnce looks, and if the instance is not as wanted, waits for news of it.
func (s *Store) awaitOnce(ctx context.Context, k quipu.WorkflowKey, wanted func(flow.Instance) bool) (flow.Instance, bool, error) {
	news, leave := s.view.watch.wait(k)
	defer leave()
	i, err := s.Instance(ctx, k)
	if err != nil || wanted(i) {
		return i, true, err
	}
	select {
	case <-news:
		return i, false, nil
	case <-s.book.Failed():
		return i, false, s.book.Err()
	case <-ctx.Done():
		return i, false, ctx.Err()
	}
}

// Busy implements flow.Store.
func (s *Store) Busy(ctx context.Context, kind, app string, visit func(quipu.WorkflowKey) bool) error {
	tx := s.book.LookUntil(ctx)
	from := busyKey(kind, "")
	if app != "" {
		from += app + "\x00"
	}
	err := tx.Peek(Name, from, view.After(from), func(key string, _ []byte) bool {
		k, ok := parseName(key[len(byBusy)+len(kind)+1:])
		return ok && visit(k)
	})
	return errors.Join(err, tx.Close())
}
