package egress

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// connectsWaitingMax bounds the blocking connects of an instance that wait for a peer. While there are as many,
// further connects wait in the kernel.
const connectsWaitingMax = 64

// interruptsMax is far above what signals and kills can bring about between two system calls.
const interruptsMax = 1 << 16

// Supervisor answers the connects of one instance.
type Supervisor struct {
	policy  Policy
	home    uint64 // cookie of the node's network namespace
	file    *os.File
	door    door
	refused *notices

	ctx     context.Context // ends with Close, or when nobody has the filter any more
	cancel  context.CancelFunc
	waiting sync.WaitGroup
	slots   chan struct{} // one token for each connect that waits
	done    chan struct{} // closed when all has ended
	err     error         // why it ended, if not by Close or with the instance; written before done
}

// Supervise answers the connects that come from listener, the descriptor of a filter with the
// instructions of Notify, until Close or until no process has the filter any more. It takes
// listener over, also if it fails.
//
// refused, if not nil, is called for an address that the policy refused: not for each of many
// attempts, and by one goroutine at a time. It must not block, as the instance's connects wait for it.
func Supervise(listener *os.File, p Policy, refused func(netip.AddrPort)) (*Supervisor, error) {
	file, err := pollable(listener)
	if err != nil {
		return nil, fmt.Errorf("take over the listener of a filter: %w", err)
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	home, err := homeCookie()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("tell our network namespace: %w", err), file.Close())
	}
	s := &Supervisor{
		policy: p, home: home, file: file, door: door{raw}, refused: newNotices(refused),
		slots: make(chan struct{}, connectsWaitingMax), done: make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	go s.run()
	return s, nil
}

// Close ends the supervision and waits until all of it has ended. Connects that wait fail
// with ENOSYS. The error is what ended it before, if anything went wrong.
func (s *Supervisor) Close() error {
	s.cancel()
	s.file.Close() //nolint:errcheck // it may have ended by itself
	<-s.done
	return s.err
}

// Done is closed when the supervision has ended, by Close or with the instance.
func (s *Supervisor) Done() <-chan struct{} { return s.done }

// Refused is how many connects the policy refused.
func (s *Supervisor) Refused() uint64 { return s.refused.count.Load() }

// pollable is the same descriptor as a file that Go's poller watches, so that no thread waits for it.
func pollable(f *os.File) (*os.File, error) {
	defer f.Close() //nolint:errcheck // the duplicate counts
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "seccomp listener"), nil
}

// run ends with the listener; it waits for the connects that wait.
func (s *Supervisor) run() {
	defer close(s.done)
	for {
		n, err := s.next()
		if err != nil {
			s.end(err)
			return
		}
		if wait := s.handle(n); wait != nil {
			s.start(wait)
		}
	}
}

func (s *Supervisor) end(why error) {
	if s.ctx.Err() == nil && !errors.Is(why, errNobody) {
		s.err = fmt.Errorf("read the notifications of a filter: %w", why)
	}
	s.cancel()
	s.file.Close() //nolint:errcheck // Close may have been first
	s.waiting.Wait()
}

// errNobody says that the last process with the filter has ended.
var errNobody = errors.New("nobody has the filter any more")

// next waits for a notification.
func (s *Supervisor) next() (notification, error) {
	var n notification
	var failed error
	err := s.door.raw.Read(func(fd uintptr) (ready bool) {
		ready, failed = take(int(fd), &n)
		return ready
	})
	if err == nil {
		err = failed
	}
	return n, err
}

// take receives a notification if there is one. The ioctl knows no O_NONBLOCK, so poll(2) is asked first; a
// caller that was killed in between gives ENOENT.
func take(fd int, n *notification) (ready bool, err error) {
	for range interruptsMax {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		count, err := unix.Poll(poll, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return true, err
		case count == 0:
			return false, nil
		case poll[0].Revents&unix.POLLIN == 0:
			return true, errNobody
		}
		if err = receive(fd, n); err != unix.ENOENT && err != unix.EINTR {
			return true, err
		}
	}
	return true, fmt.Errorf("%d notifications in a row were interrupted", interruptsMax)
}

// start runs a connect that waits in a goroutine of its own, when there is a place.
func (s *Supervisor) start(wait func()) {
	s.slots <- struct{}{} // ends: each holder stops with s.ctx
	s.waiting.Add(1)
	go func() {
		defer s.waiting.Done()
		defer func() { <-s.slots }()
		wait()
	}()
}
