package linelog

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
)

// tailBytesFirst is how much of a file's end is looked at first for the last lines of it.
const tailBytesFirst = 64 << 10

// place is a position in the output of a function.
type place struct {
	number int
	offset int64
}

// Read yields the last tail lines of a function, all of them if tail is negative, and with follow then
// every new one until ctx ends or the Writer is closed. An error, ctx's included, is the last thing it yields.
// A function that never printed has no lines. A reader which is overtaken by the deletion of files goes on with the oldest
// that is left. CodeUsage as in Write.
func (w *Writer) Read(ctx context.Context, function string, tail int, follow bool) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		if err := checkName(function); err != nil {
			yield(Line{}, err)
			return
		}
		if err := w.read(ctx, function, tail, follow, func(l Line) bool { return yield(l, nil) }); err != nil {
			yield(Line{}, err)
		}
	}
}

// read is Read with the error as its result, nil also when yield wants no more.
func (w *Writer) read(ctx context.Context, function string, tail int, follow bool, yield func(Line) bool) error {
	numbers, end, changed, err := w.state(function, follow)
	if err != nil {
		return err
	}
	c := &cursor{w: w, function: function}
	defer c.close()
	if c.at, err = w.start(function, numbers, end, tail); err != nil {
		return err
	}
	for {
		if more, err := c.advance(ctx, end, yield); err != nil || !more {
			return err
		}
		if changed == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		if _, end, changed, err = w.state(function, follow); err != nil {
			return err
		}
	}
}

// state is where the output ends now, and what is closed when that changes: nil if nobody will wait
// or nothing will come.
func (w *Writer) state(function string, follow bool) (numbers []int, end place, changed chan struct{}, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.rolls[function]
	if r == nil {
		if !follow || w.closed {
			return nil, place{}, nil, nil
		}
		r = w.roll(function)
	}
	if follow && !w.closed {
		if r.changed == nil {
			r.changed = make(chan struct{})
		}
		changed = r.changed
	}
	if len(r.numbers) == 0 {
		return nil, place{}, changed, nil
	}
	end.number = r.numbers[len(r.numbers)-1]
	end.offset, err = w.newestSize(r, end.number)
	return slices.Clone(r.numbers), end, changed, err
}

// newestSize asks the file system only before the first write. The caller holds mu.
func (w *Writer) newestSize(r *roll, number int) (int64, error) {
	if r.size >= 0 {
		return r.size, nil
	}
	info, err := os.Stat(w.path(r, number))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("output of function %s: %w", r.function, err)
	}
	return info.Size(), nil
}

// start is the place of the last tail lines before end. It reads files backwards, and only as far as needed.
func (w *Writer) start(function string, numbers []int, end place, tail int) (place, error) {
	if tail == 0 || len(numbers) == 0 {
		return end, nil
	}
	oldest := place{number: numbers[0]}
	if tail < 0 {
		return oldest, nil
	}
	for _, number := range slices.Backward(numbers) {
		offset, found, err := w.startIn(function, number, end, tail)
		if err != nil {
			return place{}, err
		}
		if found == tail {
			return place{number, offset}, nil
		}
		tail -= found
	}
	return oldest, nil
}

// startIn is the offset of the last want lines in a file, and how many there are up to want.
func (w *Writer) startIn(function string, number int, end place, want int) (offset int64, found int, err error) {
	f, err := os.Open(w.path(&roll{stem: escape(function)}, number))
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("output of function %s: %w", function, err)
	}
	defer f.Close() //nolint:errcheck // only read
	size := end.offset
	if number != end.number {
		info, err := f.Stat()
		if err != nil {
			return 0, 0, fmt.Errorf("output of function %s: %w", function, err)
		}
		size = info.Size()
	}
	for look := int64(tailBytesFirst); ; look *= 4 {
		look = min(look, size)
		part := make([]byte, look)
		if _, err := f.ReadAt(part, size-look); err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, fmt.Errorf("output of function %s: %w", function, err)
		}
		at, found := lastLines(function, part, want, look == size)
		if found == want || look == size {
			return size - look + int64(at), found, nil
		}
	}
}

// lastLines is the index in part of its last want good lines, and how many there are up to want. The
// first line of part counts only if whole says that it begins there.
func lastLines(function string, part []byte, want int, whole bool) (at, found int) {
	at = len(part)
	for at > 0 && found < want {
		begin := bytes.LastIndexByte(part[:at-1], '\n') + 1
		if begin == 0 && !whole {
			break
		}
		if _, ok := decode(function, part[begin:at]); ok {
			found++
		}
		at = begin
	}
	return at, found
}

// decode reads a line; false if a crash or somebody else left it.
func decode(function string, entry []byte) (Line, bool) {
	var line Line
	if len(entry) > lineBytesMax || json.Unmarshal(entry, &line) != nil {
		return Line{}, false
	}
	return line, line.Function == function
}

// cursor reads forward through files.
type cursor struct {
	w        *Writer
	function string
	at       place
	file     *os.File // of at.number, if open
}

func (c *cursor) close() {
	if c.file != nil {
		c.file.Close() //nolint:errcheck // only read
		c.file = nil
	}
}

// advance yields the lines from the cursor's place to end and moves there; false if yield wants no more.
func (c *cursor) advance(ctx context.Context, end place, yield func(Line) bool) (bool, error) {
	for {
		if oldest := c.w.oldest(c.function); c.file == nil && c.at.number < oldest {
			c.at = place{number: oldest} // a deleted file that is still open is read to its end
		}
		if c.at.number > end.number {
			return true, nil
		}
		limit := int64(1<<63 - 1) // older files are complete
		if c.at.number == end.number {
			limit = end.offset
		}
		if more, err := c.lines(ctx, limit, yield); err != nil || !more {
			return false, err
		}
		if c.at.number == end.number {
			return true, nil
		}
		c.close()
		c.at = place{number: c.at.number + 1}
	}
}

// oldest is the number of the first file that is kept, 1 if there is none.
func (w *Writer) oldest(function string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.rolls[function]; r != nil && len(r.numbers) > 0 {
		return r.numbers[0]
	}
	return 1
}

// lines yields those of one file between the cursor's offset and limit, which is the end of a line or of a cut one.
func (c *cursor) lines(ctx context.Context, limit int64, yield func(Line) bool) (bool, error) {
	if err := c.open(); err != nil || c.file == nil {
		return true, err
	}
	in := bufio.NewReaderSize(io.NewSectionReader(c.file, c.at.offset, limit-c.at.offset), 16<<10)
	var entry []byte
	for {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		n, err := int64(0), error(nil)
		entry, n, err = nextLine(in, entry[:0])
		c.at.offset += n
		if line, ok := decode(c.function, entry); ok && !yield(line) {
			return false, nil
		}
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("output of function %s: %w", c.function, err)
		}
	}
}

// open opens the file of the cursor's place. One that is gone has no lines.
func (c *cursor) open() error {
	if c.file != nil {
		return nil
	}
	f, err := os.Open(c.w.path(&roll{stem: escape(c.function)}, c.at.number))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("output of function %s: %w", c.function, err)
	}
	c.file = f
	return nil
}

// nextLine reads up to and with the next end of line into entry, and counts its bytes. Of a line over the limit it keeps
// just more than the limit, which decode refuses.
func nextLine(in *bufio.Reader, entry []byte) ([]byte, int64, error) {
	var total int64
	for {
		part, err := in.ReadSlice('\n')
		total += int64(len(part))
		if len(entry) <= lineBytesMax {
			entry = append(entry, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return entry, total, err
		}
	}
}
