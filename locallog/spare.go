package locallog

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const spareSuffix = ".spare"

// spares are the files of deleted segments, kept to be written over: filling a new file with zeros takes as much of
// the disk as the records do. Their old bytes stay. What is in them counts for nothing: a batch belongs to a
// segment only if it carries the segment's epoch, and no two segments have the same.
//
// All have the same size. Their names end in ".spare", the MANIFEST does not list them, and a crash may lose any of them.
type spares struct {
	fs       vfs.FS
	size     int64 // of each
	bytesMax int64 // of all

	mu     sync.Mutex // guards below
	bytes  int64      // of those that are ready, and of those that readers of the deleted segment still hold
	ready  []*segment
	closed bool
}

// keep makes a deleted segment a spare and answers true, unless it has another size or there are enough. The file is
// ready for use when the last reader lets go of the segment.
func (p *spares) keep(s *segment) (bool, error) {
	if isKept(s.id) || !p.reserve(s.size) {
		return false, nil
	}
	// Not synced: a name that a power cut brings back is one that the MANIFEST does not list.
	path := strings.TrimSuffix(s.path, segmentSuffix) + spareSuffix
	if err := p.fs.Rename(s.path, path); err != nil {
		return false, fmt.Errorf("keep %s: %w", s.path, err)
	}
	s.retired.Store(&retirement{p, path})
	return true, nil
}

// retirement says where a segment's file goes when nobody reads it any more.
type retirement struct {
	to   *spares
	path string
}

func (p *spares) reserve(size int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if size != p.size || p.bytes+size > p.bytesMax {
		return false
	}
	p.bytes += size
	return true
}

// put adds a file that nobody reads.
func (p *spares) put(s *segment) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return s.file.Close()
	}
	p.ready = append(p.ready, s)
	return nil
}

// take answers a spare of that size, nil if there is none. It is the caller's now.
func (p *spares) take(size int64) *segment {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.ready)
	if n == 0 || size != p.size {
		return nil
	}
	s := p.ready[n-1]
	p.ready, p.bytes = p.ready[:n-1], p.bytes-p.size
	return s
}

// adopt takes over a spare that an earlier run left, or removes it if it is none that would be kept today.
func (p *spares) adopt(path string) error {
	info, err := p.fs.Stat(path)
	if err != nil {
		return fmt.Errorf("look at a spare: %w", err)
	}
	if !p.reserve(info.Size()) {
		if err := p.fs.Remove(path); err != nil {
			return fmt.Errorf("remove a spare: %w", err)
		}
		return nil
	}
	f, err := p.fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("open a spare: %w", err)
	}
	return p.put(newSegment(path, f, segmentHeader{size: info.Size()}))
}

// total is the bytes of all spares.
func (p *spares) total() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes
}

// drop removes the files that are ready, because the disk is nearly full, and tells whether there were any.
func (p *spares) drop() (bool, error) {
	p.mu.Lock()
	ready := p.ready
	p.ready, p.bytes = nil, p.bytes-int64(len(p.ready))*p.size
	p.mu.Unlock()
	var errs []error
	for _, s := range ready {
		errs = append(errs, s.file.Close(), p.fs.Remove(s.path))
	}
	return len(ready) > 0, errors.Join(errs...)
}

// close closes the files, which stay for the next run.
func (p *spares) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var errs []error
	for _, s := range p.ready {
		errs = append(errs, s.file.Close())
	}
	p.ready = nil
	return errors.Join(errs...)
}

// recycleSegment makes a spare the segment of h: a new header, then the name, both durable. If it fails there is no file.
func recycleSegment(fs vfs.FS, dir string, spare *segment, h segmentHeader) (*segment, error) {
	path := fs.PathJoin(dir, segmentName(h.id))
	_, err := spare.file.WriteAt(h.encode(), 0)
	if err == nil {
		err = spare.file.SyncData()
	}
	left := spare.path
	if err == nil {
		if err = fs.Rename(spare.path, path); err == nil {
			left = path
			err = syncDir(fs, dir)
		}
	}
	if err == nil {
		return newSegment(path, spare.file, h), nil
	}
	return nil, abandon(fs, spare.file, left, fmt.Errorf("write over %s: %w", spare.path, err))
}

// abandon closes and removes a file after err.
func abandon(fs vfs.FS, f vfs.File, path string, err error) error {
	if e := f.Close(); e != nil {
		err = fmt.Errorf("%w; and close it: %w", err, e)
	}
	if e := fs.Remove(path); e != nil {
		err = fmt.Errorf("%w; and remove it: %w", err, e)
	}
	return err
}
