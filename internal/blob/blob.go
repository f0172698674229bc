// Package blob keeps bytes by their SHA-256 in a folder: large values and sources of applications.
//
// Put returns when the bytes are durable, so that a record may refer to them. Equal bytes are kept
// once. A crash can leave a blob that no record refers to, never a reference without its blob.
//
// Collect deletes what nothing refers to, as its caller has found out, and nobody can need: neither who has
// Put it and not Released it, nor who reads at a snapshot that refers to it.
package blob

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
)

const category = vfs.DiskWriteCategory("blob")

// Store is a folder of blobs. Its methods may be called concurrently.
type Store struct {
	fs  vfs.FS
	dir string

	now func() time.Time // monotonic: a suspended machine must not look like a long wait

	due        chan struct{} // has a token when enough was written for a Collect
	readers    readers
	collecting sync.Mutex // held by Collect

	mu      sync.Mutex // guards all below, naming together with its sync, and deleting together with the question whether to
	next    int
	held    map[id]int      // Puts that were not Released
	fresh   map[id]struct{} // Released since the Collect under way began; nil if there is none
	born    map[id]uint64   // tick of the first Put, if a reader is older; 0 is long ago
	dead    map[id]death    // what Collect has found without a reference
	written int64           // bytes that came since the last Collect began
	room    int64           // how much may come until the next one, and how much of the dead may stay
}

// Open makes dir if needed and removes what unfinished Puts left.
func Open(fs vfs.FS, dir string) (*Store, error) {
	s := &Store{fs: fs, dir: dir, now: time.Now, due: make(chan struct{}, 1), readers: readers{of: map[*reader]struct{}{}},
		held: map[id]int{}, born: map[id]uint64{}, dead: map[id]death{}, room: roomMin}
	if err := fs.MkdirAll(s.temp(), 0o700); err != nil {
		return nil, fmt.Errorf("make blob folder: %w", err)
	}
	if err := syncDir(fs, fs.PathDir(dir)); err != nil {
		return nil, err
	}
	names, err := fs.List(s.temp())
	if err != nil {
		return nil, fmt.Errorf("list unfinished blobs: %w", err)
	}
	for _, name := range names {
		if err := fs.Remove(fs.PathJoin(s.temp(), name)); err != nil {
			return nil, fmt.Errorf("remove unfinished blob: %w", err)
		}
	}
	return s, nil
}

// Ref is the name that data would have.
func Ref(data []byte) quipu.BlobRef {
	sum := sha256.Sum256(data)
	return quipu.BlobRef{Hash: hex.EncodeToString(sum[:]), Size: int64(len(data))}
}

// Put keeps data; on return it is durable. It is held until Release, once for each Put that had no error.
func (s *Store) Put(data []byte) (quipu.BlobRef, error) {
	ref := Ref(data)
	s.hold(ref) // first, so that what is found next stays
	err := s.keep(ref, data)
	if err != nil {
		s.Release(ref)
	}
	return ref, err
}

func (s *Store) hold(ref quipu.BlobRef) {
	s.mu.Lock()
	defer s.mu.Unlock()
	blob := idOf(ref)
	s.held[blob]++
	delete(s.dead, blob)
}

// Release lets go of what was Put: from now on it stays only while something refers to it.
func (s *Store) Release(ref quipu.BlobRef) {
	s.mu.Lock()
	defer s.mu.Unlock()
	blob := idOf(ref)
	if s.held[blob] == 0 {
		panic("blob: more Releases than Puts of " + ref.Hash)
	}
	if s.held[blob]--; s.held[blob] == 0 {
		delete(s.held, blob)
	}
	if s.fresh != nil {
		s.fresh[blob] = struct{}{}
	}
}

func (s *Store) keep(ref quipu.BlobRef, data []byte) error {
	if s.Has(ref) {
		return s.settle(ref, "")
	}
	temp, err := s.write(data)
	if err != nil {
		err = fmt.Errorf("write blob: %w", err)
	} else {
		err = s.settle(ref, temp)
	}
	if err != nil && temp != "" { // a full disk must not stay full of what was not finished
		if gone := s.fs.Remove(temp); !errors.Is(gone, os.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return err
}

// Has tells whether the bytes of ref are there. It does not read them.
func (s *Store) Has(ref quipu.BlobRef) bool {
	info, err := s.fs.Stat(s.path(ref))
	return err == nil && info.Size() == ref.Size
}

// settle gives temp its name and makes the name durable. A blob that was there before needs the
// second half too: whoever named it may have been killed, or may not have come so far yet.
func (s *Store) settle(ref quipu.BlobRef, temp string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	parent := s.fs.PathDir(s.path(ref))
	if temp != "" {
		if err := s.fs.MkdirAll(parent, 0o700); err != nil {
			return fmt.Errorf("make blob folder: %w", err)
		}
		first := !s.Has(ref) // another Put of the same bytes may have been faster
		if err := s.fs.Rename(temp, s.path(ref)); err != nil {
			return fmt.Errorf("name blob: %w", err)
		}
		if first {
			s.noteNew(ref)
		}
	}
	return errors.Join(syncDir(s.fs, parent), syncDir(s.fs, s.dir))
}

// noteNew counts a blob that was not there before. s.mu is held.
func (s *Store) noteNew(ref quipu.BlobRef) {
	s.born[idOf(ref)] = s.readers.advance()
	s.written += ref.Size
	if s.written < s.room {
		return
	}
	select {
	case s.due <- struct{}{}:
	default:
	}
}

// write puts data into a file of its own under temp and syncs it.
func (s *Store) write(data []byte) (name string, err error) {
	s.mu.Lock()
	s.next++
	name = s.fs.PathJoin(s.temp(), fmt.Sprintf("%d-%d", os.Getpid(), s.next))
	s.mu.Unlock()
	f, err := s.fs.Create(name, category)
	if err != nil {
		return "", err
	}
	// The file system may change the slice while it writes, and ours belongs to the caller.
	_, err = io.Copy(f, bytes.NewReader(bytes.Clone(data)))
	if err == nil {
		err = f.Sync()
	}
	return name, errors.Join(err, f.Close())
}

// Get answers the bytes of ref, checked. CodeCorrupt if they are missing or changed.
func (s *Store) Get(ref quipu.BlobRef) ([]byte, error) {
	f, err := s.fs.Open(s.path(ref))
	if err != nil {
		return nil, s.corrupt(ref, err)
	}
	data, err := io.ReadAll(io.LimitReader(f, ref.Size+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, s.corrupt(ref, err)
	}
	if got := Ref(data); got != ref {
		return nil, s.corrupt(ref, fmt.Errorf("content has hash %s and %d bytes", got.Hash, got.Size))
	}
	return data, nil
}

func (s *Store) corrupt(ref quipu.BlobRef, err error) error {
	return &quipu.Error{Code: quipu.CodeCorrupt, Op: "blob.get",
		Text: fmt.Sprintf("blob %s is missing or damaged", s.path(ref)),
		Hint: "restore it from a backup of the data directory", Err: err}
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("open blob folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync blob folder: %w", err)
	}
	return nil
}

func (s *Store) temp() string { return s.fs.PathJoin(s.dir, "temp") }

func (s *Store) path(ref quipu.BlobRef) string {
	return s.fs.PathJoin(s.dir, ref.Hash[:2], ref.Hash[2:])
}
