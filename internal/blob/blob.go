// Package blob keeps bytes by their SHA-256 in a folder: large values and sources of applications.
//
// Put returns when the bytes are durable, so that a record may refer to them. Equal bytes are kept
// once. A crash can leave a blob that no record refers to, never a reference without its blob.
//
// Collect deletes what nothing refers to, as its caller has found out.
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

	mu   sync.Mutex // guards all below, naming together with its sync, and deleting together with the question whether to
	next int
	put  map[string]struct{}  // hashes of this run's Puts; nil after the first Collect
	idle map[string]time.Time // by hash: since when Collect knows that nothing refers to it
}

// Open makes dir if needed and removes what unfinished Puts left.
func Open(fs vfs.FS, dir string) (*Store, error) {
	s := &Store{fs: fs, dir: dir, now: time.Now, put: map[string]struct{}{}, idle: map[string]time.Time{}}
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

// Put keeps data; on return it is durable.
func (s *Store) Put(data []byte) (quipu.BlobRef, error) {
	ref := Ref(data)
	s.want(ref) // first, so that what is found next stays
	if s.has(ref) {
		return ref, s.settle(ref, "")
	}
	temp, err := s.write(data)
	if err != nil {
		return ref, fmt.Errorf("write blob: %w", err)
	}
	return ref, s.settle(ref, temp)
}

func (s *Store) has(ref quipu.BlobRef) bool {
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
		if err := s.fs.Rename(temp, s.path(ref)); err != nil {
			return fmt.Errorf("name blob: %w", err)
		}
	}
	return errors.Join(syncDir(s.fs, parent), syncDir(s.fs, s.dir))
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
