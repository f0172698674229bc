// Package kv is the view of keyed values: named stores with etags, times to live and ordered listing.
//
// A value of up to 64 KiB lies in the view, a larger one in a blob that is durable before the record that
// names it. An etag is the seq of the record that wrote the key, so it changes with every write. A key whose
// time to live has passed is gone for all readers at once; Sweep deletes it for good by a record, so
// that every copy of the view agrees.
//
// The conditions of a change (etag, first write) are checked at the transaction's snapshot and guarded by
// its read set. Nothing is decided when a record is applied.
package kv

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// Name is the name of the view.
const Name = "kv"

const (
	listMax      = 1000
	listBytesMax = 16 << 20 // a page ends early rather than hold more
)

// Blobs keeps large values. What was Put is held until Release, by when a record refers to it, or none ever will.
type Blobs interface {
	Put(data []byte) (quipu.BlobRef, error)
	Release(ref quipu.BlobRef)
	Get(ref quipu.BlobRef) ([]byte, error)
}

// Store is the view. Its methods work inside a transaction on behalf of a function, which prefixes the
// keys of quipu.StoreDefault; other stores have key spaces of their own.
type Store struct {
	blobs Blobs
	watch watchers
	made  atomic.Uint64 // provisional seqs
}

// New makes a view whose large values go to blobs.
func New(blobs Blobs) *Store { return &Store{blobs: blobs} }

// Name is the constant Name.
func (s *Store) Name() string { return Name }

// Get reads keys at the transaction's snapshot.
func (s *Store) Get(tx *view.Tx, function, store string, keys []string) ([]quipu.Item, error) {
	items := make([]quipu.Item, len(keys))
	for i, key := range keys {
		name, err := keyName(function, store, key)
		if err != nil {
			return nil, err
		}
		items[i].Key = key
		e, ok, err := s.read(tx, name)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if items[i], err = s.item(key, e); err != nil {
			return nil, err
		}
	}
	return items, nil
}

// List reads a page of keys in order of their bytes.
func (s *Store) List(tx *view.Tx, function, store string, r quipu.ListRequest) (quipu.Page, error) {
	space, err := keySpace(function, store)
	if err != nil {
		return quipu.Page{}, err
	}
	limit := r.Limit
	if limit <= 0 || limit > listMax {
		limit = listMax
	}
	from, to := space+r.Prefix, view.After(space+r.Prefix)
	if start := space + r.After + "\x00"; r.After != "" && start > from {
		from = start
	}
	entries, err := scan(tx, from, to, limit+1)
	if err != nil {
		return quipu.Page{}, err
	}
	return s.page(entries, len(space), limit)
}

// named is an entry with its name.
type named struct {
	name string
	entry
}

// scan finds up to limit live entries.
func scan(tx *view.Tx, from, to string, limit int) (found []named, err error) {
	now := tx.Now()
	var bad error
	err = tx.Scan(Name, from, to, func(name string, value []byte) bool {
		e, err := decodeEntry(append([]byte(nil), value...))
		if err != nil {
			bad = err
			return false
		}
		if e.liveAt(now) {
			found = append(found, named{name, e})
		}
		return len(found) < limit
	})
	if err == nil {
		err = bad
	}
	for _, e := range found {
		if e.expires != 0 {
			tx.Expires(e.expires)
		}
	}
	return found, err
}

// page loads values until limit or listBytesMax is reached; what is left over becomes Next.
func (s *Store) page(entries []named, skip, limit int) (quipu.Page, error) {
	var p quipu.Page
	size := int64(0)
	for i, e := range entries {
		size += e.size()
		if i == limit || i > 0 && size > listBytesMax {
			p.Next = p.Items[i-1].Key
			break
		}
		item, err := s.item(e.name[skip:], e.entry)
		if err != nil {
			return quipu.Page{}, err
		}
		p.Items = append(p.Items, item)
	}
	return p, nil
}

// Change buffers changes in the transaction: all, or none and an error.
func (s *Store) Change(tx *view.Tx, function, store string, changes []quipu.Change) error {
	mark := tx.Mark()
	for _, c := range changes {
		if err := s.changeOne(tx, function, store, c); err != nil {
			tx.Rollback(mark)
			return err
		}
	}
	return nil
}

func (s *Store) changeOne(tx *view.Tx, function, store string, c quipu.Change) error {
	name, err := keyName(function, store, c.Key)
	if err != nil {
		return err
	}
	if err := s.check(tx, name, c); err != nil {
		return err
	}
	if c.Delete {
		tx.Put(Name, name, nil)
		return tx.Do(quipu.Op{View: Name, Body: encodeDelete(name)})
	}
	e := entry{seq: s.provisional()}
	if c.TTL != 0 {
		e.expires = tx.Now() + int64(c.TTL)
	}
	if err := s.store(tx, &e, c); err != nil {
		return err
	}
	tx.Put(Name, name, e.encode())
	return tx.Do(quipu.Op{View: Name, Body: encodeSet(name, e)})
}

// provisional is a seq for a value that has no record yet: different for each, and unlike that of any record.
func (s *Store) provisional() quipu.Seq { return quipu.SeqMax - quipu.Seq(s.made.Add(1)) }

// check compares the condition of c with the key.
func (s *Store) check(tx *view.Tx, name string, c quipu.Change) error {
	if c.ETag == "" && !c.FirstWrite {
		return nil
	}
	if c.ETag != "" {
		if seq, err := quipu.ParseSeq(c.ETag); err != nil || seq.String() != c.ETag {
			return &quipu.Error{Code: quipu.CodeETagForm, Op: "state.apply",
				Text: fmt.Sprintf("etag %q of key %q is not one of ours", c.ETag, c.Key),
				Hint: quipu.Codes[quipu.CodeETagForm].Next}
		}
	}
	e, ok, err := s.read(tx, name)
	if err != nil {
		return err
	}
	switch {
	case c.ETag == "" && ok:
		return etagError("key %q exists already", c.Key)
	case c.ETag != "" && !ok:
		return etagError("key %q does not exist", c.Key)
	case c.ETag != "" && e.seq.String() != c.ETag:
		return etagError("key %q changed since you read it", c.Key)
	}
	return nil
}

func etagError(format, key string) error {
	return &quipu.Error{Code: quipu.CodeETag, Op: "state.apply", Text: fmt.Sprintf(format, key),
		Hint: quipu.Codes[quipu.CodeETag].Next}
}

// store puts the value of c into e, or into a blob that e names.
func (s *Store) store(tx *view.Tx, e *entry, c quipu.Change) error {
	switch {
	case len(c.Value) > quipu.ValueBytesMax:
		return &quipu.Error{Code: quipu.CodeValueSize, Op: "state.apply",
			Text: fmt.Sprintf("the value of key %q has %d bytes, the most is %d", c.Key, len(c.Value), quipu.ValueBytesMax),
			Hint: quipu.Codes[quipu.CodeValueSize].Next}
	case len(c.Value) <= quipu.InlineBytesMax:
		e.form, e.value = inline, c.Value
		return nil
	}
	ref, err := s.blobs.Put(c.Value)
	if err != nil {
		return fmt.Errorf("value of key %q: %w", c.Key, err)
	}
	tx.OnClose(func() { s.blobs.Release(ref) })
	e.form, e.value = inBlob, encodeRef(ref)
	return nil
}

// read finds a live entry. Reading one that will expire bounds the commit.
func (s *Store) read(tx *view.Tx, name string) (entry, bool, error) {
	value, ok, err := tx.Get(Name, name)
	if err != nil || !ok {
		return entry{}, false, err
	}
	e, err := decodeEntry(value)
	if err != nil || !e.liveAt(tx.Now()) {
		return entry{}, false, err
	}
	if e.expires != 0 {
		tx.Expires(e.expires)
	}
	return e, true, nil
}

// item loads what e names.
func (s *Store) item(key string, e entry) (quipu.Item, error) {
	item := quipu.Item{Key: key, Value: e.value, ETag: e.seq.String(), Expires: e.expires}
	if e.form == inline {
		return item, nil
	}
	ref, err := decodeRef(e.value)
	if err == nil {
		item.Value, err = s.blobs.Get(ref)
	}
	if err != nil {
		return item, fmt.Errorf("value of key %q: %w", key, err)
	}
	return item, nil
}

// Blobs visits the blobs that entries refer to, expired ones too.
func (s *Store) Blobs(tx *view.Tx, visit func(quipu.BlobRef)) error {
	var bad error
	err := tx.Peek(Name, dataPrefix, view.After(dataPrefix), func(name string, value []byte) bool {
		e, err := decodeEntry(value)
		var ref quipu.BlobRef
		if err == nil && e.form == inBlob {
			ref, err = decodeRef(e.value)
		}
		if err != nil {
			bad = fmt.Errorf("blobs of key %q: %w", name, err)
			return false
		}
		if e.form == inBlob {
			visit(ref)
		}
		return true
	})
	return errors.Join(err, bad)
}

// keyName is where the view keeps a key: data, store, then the key with its prefix.
func keyName(function, store, key string) (string, error) {
	space, err := keySpace(function, store)
	if err != nil {
		return "", err
	}
	if key == "" || len(key) > quipu.KeyBytesMax || strings.Contains(key, "||") {
		return "", &quipu.Error{Code: quipu.CodeKey, Op: "state.key",
			Text: fmt.Sprintf("%.80q cannot be a key", key), Hint: quipu.Codes[quipu.CodeKey].Why}
	}
	return space + key, nil
}

// keySpace starts all names of keys that a function sees in a store.
func keySpace(function, store string) (string, error) {
	switch store {
	case quipu.StoreShared:
		return dataPrefix + store + "\x00", nil
	case quipu.StoreDefault:
		if function == "" {
			return "", &quipu.Error{Code: quipu.CodeUsage, Op: "state.key",
				Text: "keys of " + store + " belong to a function, and none was named",
				Hint: "name it with --as FUNCTION, or use --store " + quipu.StoreShared}
		}
		return dataPrefix + store + "\x00" + function + "||", nil
	}
	return componentSpace(store)
}

// componentSpace is of a store KIND:NAME, or KIND:NAME:PREFIX. That of an actor is actor:NAME:APP||TYPE||ID, so that its keys are Dapr's.
func componentSpace(store string) (string, error) {
	kind, rest, ok := strings.Cut(store, ":")
	name, prefix, prefixed := strings.Cut(rest, ":")
	if !ok || kind == "" || name == "" || len(store) > quipu.KeyBytesMax || strings.Contains(store, "\x00") || strings.Contains(store, "||") && kind != quipu.StoreActors {
		return "", &quipu.Error{Code: quipu.CodeNoStore, Op: "state.key",
			Text: fmt.Sprintf("there is no state store %.80q", store), Hint: quipu.Codes[quipu.CodeNoStore].Next}
	}
	space := dataPrefix + kind + ":" + name + "\x00"
	if prefixed {
		space += prefix + "||"
	}
	return space, nil
}
