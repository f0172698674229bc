// Package view is the loop that every view runs in, and the commit of a transaction.
//
// A view (kv, deploy, call, …) is a deterministic state machine over a book. A Book feeds each visible
// record to its machines in order; what they write becomes one Pebble batch together with the seq of
// the record. Pebble's own write-ahead log is off: the book is the log. After a crash the store is as
// it was at some earlier record and the book re-plays what follows, so nothing is applied twice and
// nothing acknowledged is missing.
//
// A Tx reads at one snapshot, sees its own writes, and collects operations; Commit appends all of it as
// one record, which the log judges. This package decides nothing: a record that lost is not visible,
// so it never gets here.
//
// A Store takes snapshots of itself and trims the books behind the older of the last two, so that
// start-up time and log space follow the snapshot interval and not the history.
package view

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/quipu-run/quipu"
)

// Machine is one view.
type Machine interface {
	// Name prefixes its keys and marks its operations. It has no NUL byte.
	Name() string
	// Apply writes what op does to b. It depends on nothing but its arguments and what the view
	// wrote before. An error stops the book: the record cannot be skipped.
	Apply(b *Batch, op []byte, at At) error
}

// Loader is a Machine that keeps something of what it wrote in memory.
type Loader interface {
	Machine
	// Load takes it from the store when a book is opened, before any Apply.
	Load(r Reader) error
}

// Forgetter is a Machine that does not want all that it wrote in a fork of its book.
type Forgetter interface {
	Machine
	// Forget writes what the fork begins with instead.
	Forget(b *Batch) error
}

// Reader reads what a view has written.
type Reader struct {
	book *Book
	from pebble.Reader
}

// Scan visits the keys of view that start with prefix, in order. value is valid during visit only.
func (r Reader) Scan(view, prefix string, visit func(key string, value []byte) error) error {
	lower := r.book.storeKey(nil, view, prefix)
	it, err := r.from.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: after(lower)})
	if err != nil {
		return err
	}
	skip := len(lower) - len(prefix)
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		err = visit(string(it.Key()[skip:]), it.Value())
	}
	return errors.Join(err, it.Close())
}

// after is the first key that does not start with prefix, which has a NUL in it and so is not all 0xff.
func after(prefix []byte) []byte {
	end := slices.Clone(prefix)
	for end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	end[len(end)-1]++
	return end
}

// After is the first key that does not start with prefix, which is not all 0xff: the end of a Scan or Peek of those that do.
func After(prefix string) string { return string(after([]byte(prefix))) }

// At is where an operation stands in the log.
type At struct {
	Seq   quipu.Seq
	N     int // place of the operation within its record
	Stamp int64
}

// Batch collects what the operations of one record write.
type Batch struct {
	book *Book
	b    *pebble.Batch
	key  []byte
}

// Set gives key of view a value.
func (b *Batch) Set(view, key string, value []byte) error {
	b.key = b.book.storeKey(b.key[:0], view, key)
	return b.b.Set(b.key, value, nil)
}

// Delete removes key of view.
func (b *Batch) Delete(view, key string) error {
	b.key = b.book.storeKey(b.key[:0], view, key)
	return b.b.Delete(b.key, nil)
}

// DeleteRange removes the keys of view in [from, to). It costs later readers of the neighbourhood more than a few
// deletions do, so it is for what happens rarely.
func (b *Batch) DeleteRange(view, from, to string) error {
	return b.b.DeleteRange(b.book.storeKey(nil, view, from), b.book.storeKey(nil, view, to), nil)
}

// conflictKey is how a key of a view is called in a Tx.
func conflictKey(view, key string) string { return view + "\x00" + key }

// storeKey is where a book keeps a key of a view: the book's id, then the conflict key.
func (b *Book) storeKey(buf []byte, view, key string) []byte {
	buf = append(buf, b.prefix...)
	buf = append(buf, view...)
	buf = append(buf, 0)
	return append(buf, key...)
}

// bookPrefix starts all keys of a book. No view has an empty name, so that the prefix followed by NUL
// is free for the book's own appliedKey.
func bookPrefix(id quipu.Book) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(id))
}
