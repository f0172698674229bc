package kv

import (
	"context"
	"errors"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// State is quipu.State outside of calls: each method is a transaction of its own.
type State struct {
	book     *view.Book
	store    *Store
	function string
}

// State makes the state of a function in a book, "" for nobody's.
func (s *Store) State(book *view.Book, function string) *State {
	return &State{book: book, store: s, function: function}
}

// Get reads keys at one snapshot.
func (s *State) Get(_ context.Context, store string, keys ...string) (items []quipu.Item, err error) {
	err = s.look(func(tx *view.Tx) error {
		items, err = s.store.Get(tx, s.function, store, keys)
		return err
	})
	return items, err
}

// List reads a page at one snapshot.
func (s *State) List(_ context.Context, store string, r quipu.ListRequest) (page quipu.Page, err error) {
	err = s.look(func(tx *view.Tx) error {
		page, err = s.store.List(tx, s.function, store, r)
		return err
	})
	return page, err
}

func (s *State) look(read func(*view.Tx) error) error {
	tx := s.book.Look()
	return errors.Join(read(tx), tx.Close())
}

// Apply commits changes as one record. A change that depends on an etag never fails because others
// write at the same time, only because the etag is not the key's any more.
func (s *State) Apply(ctx context.Context, store string, changes []quipu.Change) error {
	_, err := s.book.Change(ctx, func(tx *view.Tx) error {
		return s.store.Change(tx, s.function, store, changes)
	})
	return err
}

// sweepMax bounds the keys of one record of Sweep.
const sweepMax = 1000

// Sweep deletes keys of a book whose time to live has passed, up to sweepMax in one record, and answers
// how many entries it looked at; fewer than sweepMax means that nothing is left for now.
func (s *Store) Sweep(ctx context.Context, book *view.Book) (int, error) {
	seen := 0
	_, err := book.Change(ctx, func(tx *view.Tx) error {
		due, err := dueIndex(tx)
		seen = len(due)
		if err != nil {
			return err
		}
		for _, index := range due {
			if err := s.sweepOne(tx, index); err != nil {
				return err
			}
		}
		return nil
	})
	return seen, err
}

// dueIndex lists entries of the expiry index whose time has passed.
func dueIndex(tx *view.Tx) (due []string, err error) {
	to := indexKey(tx.Now()+1, "")
	err = tx.Scan(Name, expiryPrefix, to, func(key string, _ []byte) bool {
		due = append(due, key)
		return len(due) < sweepMax
	})
	return due, err
}

// sweepOne deletes the key of an index entry, unless it was written again, and the entry.
func (s *Store) sweepOne(tx *view.Tx, index string) error {
	expires, name, err := parseIndex(index)
	if err != nil {
		return err
	}
	value, ok, err := tx.Get(Name, name)
	if err != nil {
		return err
	}
	if ok {
		e, err := decodeEntry(value)
		if err != nil {
			return err
		}
		if e.expires == expires {
			tx.Put(Name, name, nil)
			if err := tx.Do(quipu.Op{View: Name, Body: encodeDelete(name)}); err != nil {
				return err
			}
		}
	}
	return tx.Do(quipu.Op{View: Name, Body: encodeForget(index)})
}
