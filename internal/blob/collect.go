package blob

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/quipu-run/quipu"
)

// Grace is how long a blob stays after nothing refers to it, and after each Put: a call may read at a snapshot, and hold
// back a record that will refer to the blob, for the 24 hours that its timeout may be.
const Grace = 25 * time.Hour

// Live tells which blobs are referred to.
type Live struct {
	Refs map[string]struct{} // hashes
	// AtStart says that Refs is as of the start of this run, before anything could read or Put. Then whatever is not in it,
	// and was not Put since, is of no use to anybody, and goes at once. Only the first Collect can be told so.
	AtStart bool
}

// Collected counts what Collect met.
type Collected struct {
	Kept, Deleted           int
	KeptBytes, DeletedBytes int64
}

// want keeps a blob from being deleted for Grace.
func (s *Store) want(ref quipu.BlobRef) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.put != nil {
		s.put[ref.Hash] = struct{}{}
	}
	delete(s.idle, ref.Hash)
}

// Collect deletes blobs that nothing has referred to for Grace. live.Refs must have every reference that was durable when
// Collect was called, or whose Put was longer ago than Grace. It may run beside everything else, but not beside itself.
func (s *Store) Collect(ctx context.Context, live Live) (c Collected, err error) {
	if live.AtStart && !s.isFirst() {
		panic("blob: references as of the start are for the first Collect")
	}
	folders, err := s.fs.List(s.dir)
	if err != nil {
		return c, fmt.Errorf("list blobs: %w", err)
	}
	seen := map[string]struct{}{} // of the idle ones
	for _, folder := range folders {
		if len(folder) != 2 {
			continue // temp
		}
		names, err := s.fs.List(s.fs.PathJoin(s.dir, folder))
		if err != nil {
			return c, fmt.Errorf("list blobs: %w", err)
		}
		for _, name := range names {
			if ctx.Err() != nil {
				return c, ctx.Err()
			}
			hash := folder + name
			if err := s.judge(hash, live, &c); err != nil {
				return c, err
			}
			seen[hash] = struct{}{}
		}
	}
	s.forget(seen)
	return c, nil
}

// judge deletes one blob, or not.
func (s *Store) judge(hash string, live Live, c *Collected) error {
	path := s.path(quipu.BlobRef{Hash: hash})
	info, err := s.fs.Stat(path)
	if err != nil {
		return fmt.Errorf("look at blob: %w", err)
	}
	_, referred := live.Refs[hash]
	s.mu.Lock()
	defer s.mu.Unlock()
	if referred || !s.over(hash, live.AtStart) {
		if referred {
			delete(s.idle, hash)
		}
		c.Kept++
		c.KeptBytes += info.Size()
		return nil
	}
	if err := s.fs.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete blob: %w", err)
	}
	c.Deleted++
	c.DeletedBytes += info.Size()
	delete(s.idle, hash)
	return nil
}

// over tells whether a blob without references has waited long enough. s.mu is held.
func (s *Store) over(hash string, atStart bool) bool {
	if _, again := s.put[hash]; atStart && !again {
		return true
	}
	since, known := s.idle[hash]
	if !known {
		s.idle[hash] = s.now()
	}
	return known && s.now().Sub(since) >= Grace
}

func (s *Store) isFirst() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.put != nil
}

// forget drops what is known of blobs that are gone.
func (s *Store) forget(seen map[string]struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for hash := range s.idle {
		if _, there := seen[hash]; !there {
			delete(s.idle, hash)
		}
	}
	s.put = nil
}
