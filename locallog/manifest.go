package locallog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"errors"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
)

const (
	manifestName = "MANIFEST"
	// manifestFormat grows with anything that an older program would misread. 1: an index entry for each posting;
	// 2: blocks of postings, and segments that are written over; 3: kept segments, options of books, their volume, deletion. All are
	// read, the newest is written.
	manifestFormat = 3
)

// manifest is the root of the directory. It is replaced as a whole: written beside, synced, renamed,
// directory synced. The file is one line with the crc32c of the JSON that follows.
type manifest struct {
	Format   int               `json:"format"`
	Log      string            `json:"log"` // random id of this log
	Term     uint32            `json:"term"`
	Clean    *place            `json:"clean,omitempty"` // the end, if the log was closed
	Pruned   bool              `json:"pruned"`          // a segment was deleted: the index cannot be rebuilt
	Segments []manifestSegment `json:"segments"`        // by id; the last may be waiting for use
	Kept     []manifestSegment `json:"kept,omitempty"`  // by id
	KeptIDs  uint32            `json:"keptIDs"`         // how many were given to kept segments; none is used twice
}

// place is an offset in a segment.
type place struct {
	Segment uint32 `json:"segment"`
	Offset  int64  `json:"offset"`
}

// manifestSegment describes one segment. End is 0 while it is written to, or was not yet noted.
type manifestSegment struct {
	ID    uint32    `json:"id"`
	Epoch quipu.Seq `json:"epoch"` // not a seq, but the same sixteen digits
	Size  int64     `json:"size"`
	End   int64     `json:"end,omitempty"`
}

func (m *manifest) find(id uint32) *manifestSegment {
	list := m.Segments
	if isKept(id) {
		list = m.Kept
	}
	for i := range list {
		if list[i].ID == id {
			return &list[i]
		}
	}
	return nil
}

// readManifest answers nil if there is none.
func readManifest(fs vfs.FS, dir string) (*manifest, error) {
	path := fs.PathJoin(dir, manifestName)
	f, err := fs.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return parseManifest(path, data)
}

func parseManifest(path string, data []byte) (*manifest, error) {
	head, body, ok := bytes.Cut(data, []byte("\n"))
	if !ok || string(head) != manifestHead(body) {
		return nil, corrupt(path, 0, "its checksum does not match")
	}
	m := new(manifest)
	if err := json.Unmarshal(body, m); err != nil {
		return nil, corrupt(path, 0, err.Error())
	}
	if m.Format < 1 || m.Format > manifestFormat {
		return nil, &quipu.Error{Code: quipu.CodeDataFormat, Op: "log.open",
			Text: fmt.Sprintf("the log has format %d and this program knows 1 to %d", m.Format, manifestFormat)}
	}
	return m, nil
}

func manifestHead(body []byte) string { return fmt.Sprintf("quipu-log crc32c=%08x", checksum(body)) }

// encode is the content of the file.
func (m *manifest) encode() ([]byte, error) {
	m.Format = manifestFormat
	body, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return nil, err
	}
	return append([]byte(manifestHead(body)+"\n"), body...), nil
}

// write replaces the file, durably.
func (m *manifest) write(fs vfs.FS, dir string) error {
	text, err := m.encode()
	if err != nil {
		return err
	}
	path := fs.PathJoin(dir, manifestName)
	temp := path + ".tmp"
	if err := writeFile(fs, temp, text); err != nil {
		return err
	}
	if err := fs.Rename(temp, path); err != nil {
		return fmt.Errorf("rename %s: %w", temp, err)
	}
	return syncDir(fs, dir)
}

// writeFile makes a new file with data, and syncs it.
func writeFile(fs vfs.FS, path string, data []byte) (err error) {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	defer closing(f, &err)
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

func syncDir(fs vfs.FS, dir string) (err error) {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer closing(d, &err)
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// closing closes c at the end of a function, whose error it sets unless there is one.
func closing(c io.Closer, err *error) {
	if e := c.Close(); e != nil && *err == nil {
		*err = e
	}
}
