package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/blob"
	"github.com/quipu-run/quipu/internal/bundle"
)

// readyFile in the folder of a revision says that it was unpacked and built to the end.
const readyFile = ".quipu-ready"

// builds is the cache of built revisions.
type builds struct {
	dir   string
	blobs Blobs
	time  time.Duration // that one command may take
	busy  sync.Map      // revision folder -> *sync.Mutex: who builds it
}

// path is the folder of a function's revision.
func (b *builds) path(f quipu.Function) string {
	return filepath.Join(b.dir, f.Name+"-"+f.Revision)
}

// inspect reads the manifest of a bundle.
func (b *builds) inspect(packed []byte, o Options) (m *manifest, ref quipu.BlobRef, err error) {
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return nil, ref, fmt.Errorf("make folder of builds: %w", err)
	}
	dir, err := os.MkdirTemp(b.dir, ".inspect-")
	if err != nil {
		return nil, ref, fmt.Errorf("make folder for a bundle: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := bundle.Unpack(bytes.NewReader(packed), dir); err != nil {
		return nil, ref, err
	}
	m, err = parseManifest(dir, o)
	return m, blob.Ref(packed), err
}

// make unpacks and builds a function unless that was done before. packed may be nil: then the bundle comes
// from the blobs.
func (b *builds) make(ctx context.Context, f quipu.Function, packed []byte) error {
	dir := b.path(f)
	lock, _ := b.busy.LoadOrStore(dir, &sync.Mutex{})
	lock.(*sync.Mutex).Lock()
	defer lock.(*sync.Mutex).Unlock()
	if _, err := os.Stat(filepath.Join(dir, readyFile)); err == nil {
		return readable(dir)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clear folder of %s: %w", f.Name, err)
	}
	if packed == nil {
		var err error
		if packed, err = b.blobs.Get(f.Bundle); err != nil {
			return fmt.Errorf("sources of %s: %w", f.Name, err)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make folder of %s: %w", f.Name, err)
	}
	if err := bundle.Unpack(bytes.NewReader(packed), dir); err != nil {
		return err
	}
	if err := b.build(ctx, f, dir); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	if err := readable(dir); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, readyFile), nil, 0o600)
}

// readable lets the function read its folder when it runs as another user than the node. The folder above, which is the node's alone,
// keeps others out.
func readable(dir string) error {
	const all = 0o055
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm()&all == all {
		return err
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		more := fs.FileMode(0o044)
		if info.Mode()&0o100 != 0 {
			more = all
		}
		if info.Mode().Perm()&more == more {
			return nil
		}
		return os.Chmod(path, info.Mode().Perm()|more)
	})
	if err != nil {
		return fmt.Errorf("open folder to its function: %w", err)
	}
	return os.Chmod(dir, 0o755) // last: it says that the rest is done
}

// prune removes all folders but those to keep.
func (b *builds) prune(keep func(folder string) bool) error {
	entries, err := os.ReadDir(b.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list builds: %w", err)
	}
	for _, e := range entries {
		if keep(e.Name()) {
			continue
		}
		if err := b.remove(filepath.Join(b.dir, e.Name())); err != nil {
			return fmt.Errorf("remove old build: %w", err)
		}
	}
	return nil
}

// remove takes a folder away, unless somebody is building in it.
func (b *builds) remove(dir string) error {
	lock, _ := b.busy.LoadOrStore(dir, &sync.Mutex{})
	if !lock.(*sync.Mutex).TryLock() {
		return nil
	}
	defer lock.(*sync.Mutex).Unlock()
	return os.RemoveAll(dir)
}
