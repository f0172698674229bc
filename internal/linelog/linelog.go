// Package linelog keeps what instances print: one folder per namespace, in it a few files per function.
//
//	hello.000001.log  hello.000002.log  …     JSON, one Line per line, in the order of Write
//
// Files are numbered and never renamed, so that a reader knows its place by number and offset and
// follows across files without asking the file system who is who. A file ends before it would exceed
// 8 MiB, and the newest four of a function are kept: older output is gone, also for a reader that was slower
// than the function printed.
//
// Nothing is fsynced. Output is a diary, not a record: what was written survives a crash of the node
// (the kernel has it), but not necessarily a loss of power, and a line that was cut by either is skipped by readers.
// Bytes that are not UTF-8 become U+FFFD. Files of functions that were removed stay; nothing here knows
// what is deployed. A folder has one Writer at a time.
package linelog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
)

// Limits of a folder.
const (
	fileBytesMax = 8 << 20
	filesKept    = 4       // of one function
	lineBytesMax = 1 << 20 // encoded; what process delivers fits even if every byte is escaped
	filesOpenMax = 64      // for writing; the one that was opened first is closed for the next
)

// Line is one line that an instance printed.
type Line struct {
	Time     time.Time `json:"time"`
	Function string    `json:"function"`
	Instance string    `json:"instance"`
	Call     string    `json:"call,omitempty"` // that the instance was handling
	Stream   string    `json:"stream"`         // stdout, stderr, or platform for what the node says of the instance
	Text     string    `json:"line"`           // without its end
}

// Writer is the folder of one namespace. Its methods may be called concurrently.
type Writer struct {
	dir          string
	fileBytesMax int64

	mu      sync.Mutex // guards the fields below and those of rolls
	rolls   map[string]*roll
	open    []*roll // those with a file open for writing, in order of opening
	closed  bool
	changed chan struct{} // closed and forgotten by the next write of any; nil if nobody waits
}

// roll is the output of one function.
type roll struct {
	function string
	stem     string        // of its files' names
	numbers  []int         // of its files, ascending
	size     int64         // of the newest file, once it was open; -1 before
	torn     bool          // the newest file ends in the middle of a line
	file     *os.File      // the newest, if open for writing
	changed  chan struct{} // closed and forgotten by the next write; nil if nobody waits
}

// New opens the folder, which is made if missing, and finds the files in it.
func New(dir string) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("folder of output: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("folder of output: %w", err)
	}
	w := &Writer{dir: dir, fileBytesMax: fileBytesMax, rolls: map[string]*roll{}}
	for _, e := range entries {
		if function, number, ok := parseName(e.Name()); ok && e.Type().IsRegular() {
			r := w.roll(function)
			r.numbers = append(r.numbers, number)
		}
	}
	for _, r := range w.rolls {
		slices.Sort(r.numbers)
	}
	return w, nil
}

// roll finds or makes the roll of a function. The caller holds mu.
func (w *Writer) roll(function string) *roll {
	r := w.rolls[function]
	if r == nil {
		r = &roll{function: function, stem: escape(function), size: -1}
		w.rolls[function] = r
	}
	return r
}

// Write adds a line and wakes those who follow. The kernel has it on return; it is not on disk.
// CodeUsage: the function's name cannot name a file, or the line is over 1 MiB. CodeStopping after
// Close. After any other error, a full disk say, the line is lost and later ones may work.
func (w *Writer) Write(line Line) error {
	if err := checkName(line.Function); err != nil {
		return err
	}
	line.Time = line.Time.UTC()
	entry, err := encode(line)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return &quipu.Error{Code: quipu.CodeStopping, Op: "logs.write"}
	}
	r := w.roll(line.Function)
	if err := w.append(r, entry); err != nil {
		return fmt.Errorf("write output of function %s: %w", line.Function, err)
	}
	return nil
}

// encode is the line's JSON and its end.
func encode(line Line) ([]byte, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(line); err != nil {
		return nil, fmt.Errorf("encode a line of function %s: %w", line.Function, err)
	}
	if buf.Len() > lineBytesMax {
		return nil, &quipu.Error{
			Code: quipu.CodeUsage, Op: "logs.write",
			Text: fmt.Sprintf("a line of function %s has %d bytes, more than %d", line.Function, buf.Len(), lineBytesMax),
		}
	}
	return buf.Bytes(), nil
}

// append adds an entry to the newest file, or begins a file with it.
func (w *Writer) append(r *roll, entry []byte) error {
	if err := w.ensureOpen(r); err != nil {
		return err
	}
	if r.size > 0 && r.size+int64(len(entry)) > w.fileBytesMax {
		if err := w.rotate(r); err != nil {
			return err
		}
	}
	if r.torn { // the cut line gets an end, so that this one begins after it
		entry = append([]byte{'\n'}, entry...)
	}
	n, err := r.file.Write(entry)
	r.size += int64(n)
	if n > 0 {
		r.torn = n < len(entry)
	}
	r.wake()
	w.wake()
	return err
}

// wake wakes those who follow several functions. The caller holds mu.
func (w *Writer) wake() {
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}

func (r *roll) wake() {
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// ensureOpen opens the newest file for writing, the first if there is none.
func (w *Writer) ensureOpen(r *roll) error {
	if r.file != nil {
		return nil
	}
	if len(r.numbers) == 0 {
		return w.create(r, 1)
	}
	f, err := os.OpenFile(w.path(r, r.numbers[len(r.numbers)-1]), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	size, torn, err := tear(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r.size, r.torn = size, torn
	return w.opened(r, f)
}

// tear is the size of a file and whether its last line lacks an end.
func tear(f *os.File) (size int64, torn bool, err error) {
	size, err = f.Seek(0, io.SeekEnd)
	if err != nil || size == 0 {
		return size, false, err
	}
	var last [1]byte
	_, err = f.ReadAt(last[:], size-1)
	return size, last[0] != '\n', err
}

// create begins a file.
func (w *Writer) create(r *roll, number int) error {
	f, err := os.OpenFile(w.path(r, number), os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	r.numbers = append(r.numbers, number)
	r.size, r.torn = 0, false
	return w.opened(r, f)
}

// opened notes an open file, and closes another if there are too many.
func (w *Writer) opened(r *roll, f *os.File) error {
	r.file = f
	w.open = append(w.open, r)
	if len(w.open) <= filesOpenMax {
		return nil
	}
	return w.shut(w.open[0])
}

func (w *Writer) shut(r *roll) error {
	w.open = slices.DeleteFunc(w.open, func(o *roll) bool { return o == r })
	f := r.file
	r.file = nil
	return f.Close()
}

// rotate begins the next file and deletes the oldest. If deleting fails, so does the write: a disk must not
// fill up silently.
func (w *Writer) rotate(r *roll) error {
	newest := r.numbers[len(r.numbers)-1]
	if err := w.shut(r); err != nil {
		return err
	}
	if err := w.create(r, newest+1); err != nil {
		return err
	}
	for len(r.numbers) > filesKept {
		if err := os.Remove(w.path(r, r.numbers[0])); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		r.numbers = r.numbers[1:]
	}
	return nil
}

func (w *Writer) path(r *roll, number int) string {
	return filepath.Join(w.dir, fmt.Sprintf("%s.%06d%s", r.stem, number, suffix))
}

// Close ends writing, and those who follow after what was written.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	var errs []error
	for len(w.open) > 0 {
		errs = append(errs, w.shut(w.open[0]))
	}
	for _, r := range w.rolls {
		r.wake()
	}
	w.wake()
	return errors.Join(errs...)
}
