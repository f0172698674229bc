package locallog

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	zeroBytes     = 256 << 10 // written at once when a segment is filled ahead
	zeroSyncBytes = 4 << 20   // synced at once, so that appends do not wait for 64 MiB
	segmentSuffix = ".seg"
)

// segment is an open segment file. The log's table holds one reference and each reader another;
// the last to go closes the file, so that deletion pulls nothing from under a reader.
type segment struct {
	segmentHeader
	path string
	file vfs.File
	refs atomic.Int32
	// retired, if set, is where the file goes instead of being closed.
	retired atomic.Pointer[retirement]
}

func segmentName(id uint32) string {
	if isKept(id) {
		return fmt.Sprintf("%06d"+keptSuffix, id&^keptBit)
	}
	return fmt.Sprintf("%06d"+segmentSuffix, id)
}

// segmentID reads a name that segmentName made.
func segmentID(name string) (uint32, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	bit := uint32(0)
	if !ok {
		digits, ok = strings.CutSuffix(name, keptSuffix)
		bit = keptBit
	}
	n, err := strconv.ParseUint(digits, 10, 31)
	id := uint32(n) | bit
	return id, ok && err == nil && segmentName(id) == name
}

// createSegment makes a segment file full of zeros and syncs it and its name. If it fails there is no file.
func createSegment(fs vfs.FS, dir string, h segmentHeader) (*segment, error) {
	path := fs.PathJoin(dir, segmentName(h.id))
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	err = fillSegment(f, h)
	if err == nil {
		err = syncDir(fs, dir)
	}
	if err == nil {
		return newSegment(path, f, h), nil
	}
	return nil, abandon(fs, f, path, fmt.Errorf("fill %s: %w", path, err))
}

// newEpoch is an epoch that no other segment of the log has: ids are not used twice, and what an attempt to make
// the same one left was never written to.
func newEpoch(id uint32) uint64 { return uint64(rand.Uint32())<<32 | uint64(id) }

func fillSegment(f vfs.File, h segmentHeader) error {
	if _, err := f.Write(h.encode()); err != nil {
		return err
	}
	zeros, unsynced := make([]byte, min(int64(zeroBytes), h.size)), int64(0)
	for at := int64(segmentHeaderBytes); at < h.size; {
		clear(zeros) // Write may change what it is given
		n, err := f.Write(zeros[:min(int64(len(zeros)), h.size-at)])
		if err != nil {
			return err
		}
		at, unsynced = at+int64(n), unsynced+int64(n)
		if unsynced >= zeroSyncBytes && at < h.size {
			if err := f.SyncData(); err != nil {
				return err
			}
			unsynced = 0
		}
	}
	return f.Sync()
}

// openSegment opens a segment that the manifest lists. Its size must be right; its header page is
// checked only where batches are read without the index.
func openSegment(fs vfs.FS, dir string, m manifestSegment) (*segment, error) {
	path := fs.PathJoin(dir, segmentName(m.ID))
	info, err := fs.Stat(path)
	if err != nil {
		return nil, corrupt(path, -1, "the MANIFEST lists it, but "+err.Error())
	}
	if info.Size() != m.Size {
		return nil, corrupt(path, min(info.Size(), m.Size), fmt.Sprintf("it has %d bytes instead of %d", info.Size(), m.Size))
	}
	f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return newSegment(path, f, segmentHeader{id: m.ID, epoch: uint64(m.Epoch), size: m.Size}), nil
}

func newSegment(path string, f vfs.File, h segmentHeader) *segment {
	s := &segment{segmentHeader: h, path: path, file: f}
	s.refs.Store(1)
	return s
}

// release gives a reference back. Nobody may read a file that is written over, so only the last makes it a spare.
func (s *segment) release() error {
	if s.refs.Add(-1) > 0 {
		return nil
	}
	if r := s.retired.Load(); r != nil {
		return r.to.put(newSegment(r.path, s.file, segmentHeader{size: s.size}))
	}
	return s.file.Close()
}

// checkHeader reads the header page and compares it with what the manifest says.
func (s *segment) checkHeader() error {
	page := make([]byte, segmentHeaderBytes)
	if _, err := s.file.ReadAt(page, 0); err != nil && err != io.EOF {
		return fmt.Errorf("read %s: %w", s.path, err)
	}
	h, err := parseSegmentHeader(page)
	if err != nil {
		return corrupt(s.path, 0, err.Error())
	}
	if h != s.segmentHeader {
		return corrupt(s.path, 0, fmt.Sprintf("its header says %+v instead of %+v", h, s.segmentHeader))
	}
	return nil
}

// batchAt reads the batch at offset into buf if it fits, else into a new slice. errBatch says that there is
// none; other errors are the disk's.
func (s *segment) batchAt(offset int64, buf []byte) (batchHeader, []byte, error) {
	if offset+batchHeaderBytes > s.size {
		return batchHeader{}, nil, errBatch
	}
	var head [batchHeaderBytes]byte
	if err := s.readAt(head[:], offset); err != nil {
		return batchHeader{}, nil, err
	}
	h, err := parseBatchHeader(head[:], s.epoch, offset)
	if err != nil || offset+int64(h.size) > s.size {
		return batchHeader{}, nil, errBatch
	}
	if cap(buf) < h.size {
		buf = make([]byte, h.size)
	}
	buf = buf[:h.size]
	if err := s.readAt(buf, offset); err != nil {
		return batchHeader{}, nil, err
	}
	if h.crc != checksum(buf[4:]) {
		return batchHeader{}, nil, errBatch
	}
	return h, buf, nil
}

func (s *segment) readAt(b []byte, offset int64) error {
	n, err := s.file.ReadAt(b, offset)
	if n == len(b) {
		return nil
	}
	if err == io.EOF || err == nil {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %s at %d: %w", s.path, offset, err)
}
