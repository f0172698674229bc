package process

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Limits of output.
const (
	lineBytesMax  = 64 << 10 // of a line; what is longer is cut
	lastBytesMax  = 4 << 10  // of standard error that is kept for messages
	lastLinesMax  = 20
	drainBytesMax = 2 << 20 // still read when all processes are gone; more than a pipe holds
)

// cutMark ends a line that was cut.
const cutMark = " [cut: line over 64 KiB]"

// output reads what an instance prints, one goroutine per stream.
type output struct {
	streams [2]*os.File
	readers sync.WaitGroup

	mu   sync.Mutex // guards last
	last []string   // newest lines of standard error
}

// newOutput answers the ends that the instance writes to.
func newOutput() (*output, [2]*os.File, error) {
	o := &output{}
	var ends [2]*os.File
	for n := range ends {
		r, w, err := blockingPipe()
		if err != nil {
			for k := range n {
				o.streams[k].Close() //nolint:errcheck // never used
				ends[k].Close()      //nolint:errcheck // never used
			}
			return nil, ends, err
		}
		o.streams[n], ends[n] = r, w
	}
	return o, ends, nil
}

// deliver starts reading.
func (o *output) deliver(to func(stream string, line []byte)) {
	if to == nil {
		to = func(string, []byte) {}
	}
	o.readers.Add(2)
	go o.read(o.streams[0], func(line []byte) { to("stdout", line) })
	go o.read(o.streams[1], func(line []byte) {
		o.remember(line)
		to("stderr", line)
	})
}

// read delivers lines until all writers are gone, or until finish says that they are.
func (o *output) read(f *os.File, deliver func([]byte)) {
	defer o.readers.Done()
	lines := splitter{deliver: deliver}
	buf := make([]byte, 16<<10)
	for {
		n, err := f.Read(buf)
		lines.write(buf[:n])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			drain(f, buf, &lines)
		}
		if err != nil { // the end, or a broken pipe: nothing more can come
			break
		}
	}
	lines.end()
}

// drain takes what is in the pipe and does not wait: an escaped process may hold the other end for ever.
func drain(f *os.File, buf []byte, lines *splitter) {
	f.SetReadDeadline(time.Time{}) //nolint:errcheck // it had one
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	for total := 0; total < drainBytesMax; {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			n, err = syscall.Read(int(fd), buf)
			return true
		})
		if err != nil || n <= 0 {
			return
		}
		lines.write(buf[:n])
		total += n
	}
}

// finish is called when the processes are gone: it delivers the rest and returns.
func (o *output) finish() {
	for _, f := range o.streams {
		f.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // pipes can
	}
	o.readers.Wait()
	for _, f := range o.streams {
		f.Close() //nolint:errcheck // only read
	}
}

// remember keeps the newest lines of standard error.
func (o *output) remember(line []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = append(o.last, string(line[:min(len(line), lastBytesMax)]))
	total := 0
	for n := len(o.last) - 1; n >= 0; n-- {
		total += len(o.last[n])
		if total > lastBytesMax || len(o.last)-n > lastLinesMax {
			o.last = o.last[n+1:]
			break
		}
	}
}

// lastErrors is quoted where it is not text.
func (o *output) lastErrors() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := strings.ToValidUTF8(strings.Join(o.last, "\n"), "\uFFFD")
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' {
			return '\uFFFD'
		}
		return r
	}, text)
}

// splitter cuts a stream into lines. What it delivers is valid until deliver returns.
type splitter struct {
	deliver func([]byte)
	line    []byte
	cut     bool // the current line was over the limit; the rest of it is dropped
}

func (s *splitter) write(p []byte) {
	for {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			s.add(p)
			return
		}
		s.add(p[:end])
		s.flush()
		p = p[end+1:]
	}
}

func (s *splitter) add(p []byte) {
	if room := lineBytesMax - len(s.line); len(p) > room {
		p, s.cut = p[:room], true
	}
	s.line = append(s.line, p...)
}

func (s *splitter) flush() {
	line := s.line
	if s.cut {
		line = append(line, cutMark...)
	} else if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	s.deliver(line)
	s.line, s.cut = line[:0], false
}

// end delivers a last line that has no end.
func (s *splitter) end() {
	if len(s.line) > 0 {
		s.flush()
	}
}
