package locallog

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
)

const (
	keptSuffix     = ".kept"
	keptBit        = 1 << 31 // of the ids of kept segments, which count for themselves
	keptBatchBytes = 256 << 10
)

// A kept segment has records that were moved out of segments in which almost everything was trimmed, byte for byte and with
// their seqs. It is written once, as a whole, before the MANIFEST lists it, so it has no tail that could be torn, it is not part of the
// chain of the log, and recovery does not read it. Its batches are those of a log segment, but the seqs in them have gaps.
func isKept(id uint32) bool { return id&keptBit != 0 }

// keptWriter makes a kept segment. Its file is as large as what is in it.
type keptWriter struct {
	fs     vfs.FS
	dir    string
	path   string
	file   vfs.File
	header segmentHeader
	batch  batchHeader
	buf    []byte // of the batch, header included
	pause  func() // after each batch
}

func createKept(fs vfs.FS, dir string, id uint32, pause func()) (*keptWriter, error) {
	w := &keptWriter{fs: fs, dir: dir, path: fs.PathJoin(dir, segmentName(id)), pause: pause,
		header: segmentHeader{id: id, epoch: newEpoch(id), size: segmentHeaderBytes}}
	var err error
	if w.file, err = fs.Create(w.path, vfs.WriteCategoryUnspecified); err != nil {
		return nil, fmt.Errorf("create %s: %w", w.path, err)
	}
	if _, err := w.file.Write(make([]byte, segmentHeaderBytes)); err != nil {
		return nil, w.abandon(err)
	}
	w.reset()
	return w, nil
}

func (w *keptWriter) reset() {
	w.buf = append(w.buf[:0], make([]byte, batchHeaderBytes)...)
	w.batch = batchHeader{epoch: w.header.epoch, offset: w.header.size, synced: w.header.size, prev: w.batch.crc, gaps: true}
}

// add copies a record and answers its offset.
func (w *keptWriter) add(seq quipu.Seq, record []byte) (uint32, error) {
	if w.batch.count > 0 && len(w.buf)+len(record) > keptBatchBytes {
		if err := w.flush(); err != nil {
			return 0, err
		}
	}
	if w.batch.count == 0 {
		w.batch.first = seq
	}
	w.batch.count++
	at := uint32(w.header.size) + uint32(len(w.buf))
	w.buf = append(w.buf, record...)
	return at, nil
}

// flush writes a batch and syncs it, so that the sync of an append never waits for more than one.
func (w *keptWriter) flush() error {
	w.batch.put(w.buf)
	size := int64(len(w.buf))
	if _, err := w.file.Write(w.buf); err != nil { // which may change what it is given
		return fmt.Errorf("write %s: %w", w.path, err)
	}
	if err := w.file.SyncData(); err != nil {
		return fmt.Errorf("sync %s: %w", w.path, err)
	}
	w.header.size += size
	w.reset()
	w.pause()
	return nil
}

// finish makes the segment durable, its name too.
func (w *keptWriter) finish() (*segment, error) {
	if w.batch.count > 0 {
		if err := w.flush(); err != nil {
			return nil, err
		}
	}
	if _, err := w.file.WriteAt(w.header.encode(), 0); err != nil {
		return nil, fmt.Errorf("write %s: %w", w.path, err)
	}
	if err := w.file.Sync(); err != nil {
		return nil, fmt.Errorf("sync %s: %w", w.path, err)
	}
	if err := syncDir(w.fs, w.dir); err != nil {
		return nil, err
	}
	return newSegment(w.path, w.file, w.header), nil
}

// abandon leaves no file, and answers err.
func (w *keptWriter) abandon(err error) error { return abandon(w.fs, w.file, w.path, err) }

// keptBytes is the size of a kept segment with so many bytes of records, at most.
func keptBytes(records int64) int64 {
	return segmentHeaderBytes + records + (records/(keptBatchBytes/2)+1)*batchHeaderBytes
}
