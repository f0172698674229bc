package locallog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
)

// A Backup holds a log as it was at one moment, while the log goes on: what a power cut at that moment would have left. It costs
// no copy: segments are kept from being written over, and the index's tables are linked. Close lets go of both.
type Backup struct {
	Tail     quipu.Seq // of the newest record in it, of any book
	fs       vfs.FS
	index    string // folder with links to the index's files
	manifest manifest
	segments []*segment
	ends     []int64
}

// Backup takes hold of the log. staging is a folder on the same file system that is not there yet; it is gone after Close.
func (l *Log) Backup(staging string) (*Backup, error) {
	if err := l.enterRead(); err != nil {
		return nil, err
	}
	defer l.life.RUnlock()
	if err := makeDir(l.fs, staging); err != nil {
		return nil, err
	}
	b := &Backup{fs: l.fs, index: staging}
	// No segment leaves the MANIFEST meanwhile, so all that the copy of the index refers to are held.
	l.manifestMu.Lock()
	defer l.manifestMu.Unlock()
	links := l.fs.PathJoin(staging, indexName)
	if err := l.index().guard(func() error { return l.index().db.Checkpoint(links) }); err != nil {
		return nil, errors.Join(fmt.Errorf("link the index: %w", err), b.Close())
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	b.Tail, b.manifest = l.state.end.seq, *l.manifest
	b.manifest.Segments, b.manifest.Clean = nil, nil
	for _, m := range l.manifest.Kept {
		b.hold(l.segments[m.ID], m.Size)
	}
	end := l.state.end.end
	for _, m := range l.manifest.Segments {
		if m.ID > end.Segment {
			break // nothing is in it yet
		}
		upto := m.End
		if m.ID == end.Segment {
			m.End, upto = 0, end.Offset
		} else if upto == 0 {
			upto = m.Size
		}
		b.hold(l.segments[m.ID], upto)
		b.manifest.Segments = append(b.manifest.Segments, m)
	}
	return b, nil
}

func (b *Backup) hold(s *segment, end int64) {
	s.refs.Add(1)
	b.segments, b.ends = append(b.segments, s), append(b.ends, end)
}

// Each visits the files of the backup in order, by their paths in a log's directory, with their sizes. The file of a segment ends
// with its last batch; RestoreFiles gives it its size back.
func (b *Backup) Each(visit func(path string, size int64, r io.Reader) error) error {
	text, err := b.manifest.encode()
	if err != nil {
		return err
	}
	if err := visit(manifestName, int64(len(text)), bytes.NewReader(text)); err != nil {
		return err
	}
	for i, s := range b.segments {
		if err := visit(segmentName(s.id), b.ends[i], io.NewSectionReader(s.file, 0, b.ends[i])); err != nil {
			return fmt.Errorf("%s: %w", s.path, err)
		}
	}
	return eachFile(b.fs, b.fs.PathJoin(b.index, indexName), indexName, visit)
}

// eachFile visits the files of a folder that has no folders in it, under other names.
func eachFile(fs vfs.FS, dir, as string, visit func(path string, size int64, r io.Reader) error) error {
	names, err := fs.List(dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	for _, name := range names {
		f, err := fs.Open(fs.PathJoin(dir, name))
		if err != nil {
			return fmt.Errorf("open a file of the index: %w", err)
		}
		info, err := f.Stat()
		if err == nil {
			err = visit(as+"/"+name, info.Size(), f)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// Close lets the log write over the segments again, and removes the links.
func (b *Backup) Close() error {
	var errs []error
	for _, s := range b.segments {
		errs = append(errs, s.release())
	}
	b.segments = nil
	return errors.Join(append(errs, b.fs.RemoveAll(b.index))...)
}

// Restore makes a log of the files of a backup that were put into opts.Dir, and opens and closes it once, so that all of it is
// checked as after a power cut. If upto is not 0, records after it are taken away for good, as if nothing had been appended after upto: what was trimmed
// or deleted by then or later stays so. CodeUsage if the backup does not reach upto.
func Restore(opts Options, upto quipu.Seq) (quipu.Seq, error) {
	if err := opts.fill(); err != nil {
		return 0, err
	}
	if err := fillUp(opts.FS, opts.Dir); err != nil {
		return 0, err
	}
	l, err := Open(opts)
	if err != nil {
		return 0, err
	}
	tail := l.state.end.seq
	if upto != 0 {
		if upto > tail {
			err = usage("log.restore", fmt.Sprintf("%s is after the end of the backup, %s", upto, tail))
		}
		tail = upto
	}
	err = errors.Join(err, l.Close())
	if err == nil && upto != 0 {
		err = rewind(opts, upto)
	}
	return tail, err
}

// fillUp gives segments the sizes that the MANIFEST tells. The one that is appended to is filled with zeros, as a new one would be.
func fillUp(fs vfs.FS, dir string) error {
	m, err := readManifest(fs, dir)
	if err != nil {
		return err
	}
	if m == nil {
		return corrupt(fs.PathJoin(dir, manifestName), -1, "it is missing from the backup")
	}
	for _, s := range slices.Concat(m.Segments, m.Kept) {
		if err := fillFile(fs, fs.PathJoin(dir, segmentName(s.ID)), s.Size); err != nil {
			return err
		}
	}
	return nil
}

func fillFile(fs vfs.FS, path string, size int64) (err error) {
	f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer closing(f, &err)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	for at := info.Size(); at < size; {
		zeros := make([]byte, min(size-at, zeroSyncBytes))
		if _, err := f.WriteAt(zeros, at); err != nil {
			return fmt.Errorf("fill %s: %w", path, err)
		}
		at += int64(len(zeros))
	}
	return f.Sync()
}
