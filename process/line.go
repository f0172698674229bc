package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/quipu-run/quipu/process/lifeline"
)

// helperLine is our end of the lifeline: what the helper says, in order.
type helperLine struct {
	conn *net.UnixConn
	rest []byte // read, not yet parsed

	mu      sync.Mutex // guards the fields below; held while a dial is written, so that answers are in the order of waiting
	waiting []chan answer
	ended   bool
}

// answer is one line of the helper.
type answer struct {
	kind    byte
	n, step int
	file    *os.File // nil if there is none
}

// lineBytes is more than any answer of the helper has.
const lineBytes = 256

// next reads a line. io.EOF is the end of the helper.
func (l *helperLine) next() (answer, error) {
	var file *os.File
	for {
		if text, rest, ok := bytes.Cut(l.rest, []byte("\n")); ok {
			l.rest = rest
			return parseAnswer(text, file)
		}
		if len(l.rest) > lineBytes {
			return answer{}, errors.New("the helper says too much")
		}
		buf, control := make([]byte, lineBytes), make([]byte, controlBytes)
		n, c, _, _, err := l.conn.ReadMsgUnix(buf, control)
		if err != nil {
			return answer{}, err
		}
		if n == 0 {
			return answer{}, io.EOF
		}
		l.rest = append(l.rest, buf[:n]...)
		if c > 0 {
			if file, err = fileOf(control[:c]); err != nil {
				return answer{}, err
			}
		}
	}
}

func parseAnswer(text []byte, file *os.File) (answer, error) {
	a := answer{file: file}
	if len(text) < 2 {
		return a, errors.New("the helper says nothing")
	}
	a.kind = text[0]
	_, err := fmt.Sscan(string(text[1:]), &a.n)
	if _, step, ok := bytes.Cut(text, []byte(" ")); ok && err == nil {
		_, err = fmt.Sscan(string(step), &a.step)
	}
	return a, err
}

// send writes a request in packets that a socket takes.
func (l *helperLine) send(request []byte) error {
	for len(request) > 0 {
		n := min(len(request), lifeline.PacketMax)
		if _, err := l.conn.Write(request[:n]); err != nil {
			return err
		}
		request = request[n:]
	}
	return nil
}

// quiet tells whether a helper that was asked nothing is there: it has neither ended nor said that it failed.
func (l *helperLine) quiet() (quiet bool) {
	raw, err := l.conn.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Control(func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = err == syscall.EAGAIN
	})
	return quiet && err == nil
}

// terminate asks for SIGTERM; cut is the end, on which the helper kills.
func (l *helperLine) terminate() {
	l.conn.Write([]byte{lifeline.SignalTerm}) //nolint:errcheck // then it is gone, or cut will do
}

func (l *helperLine) cut() {
	l.conn.CloseWrite() //nolint:errcheck // closed: the helper has read the end already
}

// dial has the helper connect to the function.
func (l *helperLine) dial(ctx context.Context, how byte) (*os.File, error) {
	mine := make(chan answer, 1)
	if err := l.ask(how, mine); err != nil {
		return nil, err
	}
	select {
	case a, ok := <-mine:
		if !ok {
			return nil, errGone
		}
		if a.file == nil {
			return nil, syscall.Errno(a.n)
		}
		return a.file, nil
	case <-ctx.Done():
		go func() { // what comes after all is thrown away; the end of the helper ends this
			if a := <-mine; a.file != nil {
				a.file.Close() //nolint:errcheck // never used
			}
		}()
		return nil, ctx.Err()
	}
}

var errGone = errors.New("the instance has ended")

// dialsMax bounds those that wait for the helper.
const dialsMax = 1024

func (l *helperLine) ask(how byte, mine chan answer) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.ended:
		return errGone
	case len(l.waiting) >= dialsMax:
		return syscall.EAGAIN
	}
	if _, err := l.conn.Write([]byte{lifeline.Dial, how}); err != nil {
		return err
	}
	l.waiting = append(l.waiting, mine)
	return nil
}

// dialed gives an answer to who has waited longest.
func (l *helperLine) dialed(a answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 { // a helper that nobody asked
		if a.file != nil {
			a.file.Close() //nolint:errcheck // never used
		}
		return
	}
	l.waiting[0] <- a
	l.waiting = l.waiting[1:]
}

// end tells all who wait that nothing comes any more.
func (l *helperLine) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	for _, w := range l.waiting {
		close(w)
	}
	l.waiting = nil
	l.conn.Close() //nolint:errcheck // nobody is at the other end
}

// connection makes one of a file that may still be connecting: a function whose queue is full lets it wait.
func connection(ctx context.Context, f *os.File) (net.Conn, error) {
	defer f.Close() //nolint:errcheck // FileConn has its own
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		conn, err := net.FileConn(f)
		if err != nil {
			return nil, err
		}
		if conn.RemoteAddr() != nil {
			return conn, nil
		}
		if err := conn.Close(); err != nil {
			return nil, err
		}
		if err := connectError(f); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// connectError is why a connection did not come about, nil while it may.
func connectError(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		n, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ERROR)
		if err == nil && n != 0 {
			err = syscall.Errno(n)
		}
		failed = err
	})
	return errors.Join(err, failed)
}

// controlBytes is room for one file.
var controlBytes = syscall.CmsgSpace(4)

// fileOf takes the file out of a control message.
func fileOf(control []byte) (*os.File, error) {
	messages, err := syscall.ParseSocketControlMessage(control)
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(errors.New("the helper sends something odd"), err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(errors.New("the helper sends something odd"), err)
	}
	syscall.CloseOnExec(fds[0])
	if err := syscall.SetNonblock(fds[0], true); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "from helper"), nil
}
