package egress

import (
	"context"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lookAfter is how often a connect that waits looks whether its caller still does; nothing tells us.
const lookAfter = 250 * time.Millisecond

// call is one connect under way.
type call struct {
	id          uint64
	tid, fd     int
	closeOnExec bool
	to          destination
	sock        socket
}

// handle answers a call, or gives a function that does and may take long. Errors of an answer are not
// looked at: they mean that the caller is gone, or was interrupted and calls again.
func (s *Supervisor) handle(n notification) (wait func()) {
	c := &call{id: n.id, tid: int(n.tid), fd: int(int32(n.data.args[0]))}
	var err error
	if n.data.number == unix.SYS_LISTEN {
		err = s.listen(c, int(int32(n.data.args[1])))
	} else {
		wait, err = s.begin(c, n.data.args[1], n.data.args[2])
	}
	if err != nil {
		s.reply(c, errnoOf(err))
	}
	return wait
}

// begin reads all that the decision needs. Before valid nothing was done, so it does not matter whose
// memory and descriptors were read if the caller is gone and its number taken by another.
func (s *Supervisor) begin(c *call, at, size uint64) (wait func(), err error) {
	if c.to, err = readDestination(c.tid, at, size); err != nil {
		return nil, err
	}
	if c.to.family != unix.AF_UNSPEC && !c.to.to.IsValid() {
		s.stay(c)
		return nil, nil
	}
	if err := s.look(c); err != nil {
		return nil, err
	}
	wait = s.act(c)
	if wait == nil {
		unix.Close(c.sock.fd) //nolint:errcheck // a copy
	}
	return wait, nil
}

// look gets a copy of the caller's socket, unless the caller is gone.
func (s *Supervisor) look(c *call) error {
	fd, err := copySocket(c.tid, c.fd)
	if err != nil {
		return err
	}
	if c.sock, err = inspect(fd, s.home); err == nil {
		c.closeOnExec, err = closesOnExec(c.tid, c.fd)
	}
	if err == nil && !s.door.valid(c.id) {
		err = unix.EINTR // nobody reads it
	}
	if err != nil {
		unix.Close(fd) //nolint:errcheck // a copy
	}
	return err
}

// listen is what an instance may do with a socket of its own only; see Notify. Our copy listens, so
// that the instance cannot put another socket in its place meanwhile.
func (s *Supervisor) listen(c *call, backlog int) error {
	if err := s.look(c); err != nil {
		return err
	}
	defer unix.Close(c.sock.fd) //nolint:errcheck // a copy
	errno := unix.EACCES
	if !c.sock.outside {
		errno = errnoOf(unix.Listen(c.sock.fd, backlog))
	}
	s.reply(c, errno)
	return nil
}

// act does what the policy decides. Whoever waits closes the copy.
func (s *Supervisor) act(c *call) (wait func()) {
	a := attempt{destination: c.to, kind: c.sock.kind, domain: c.sock.domain, outside: c.sock.outside}
	switch s.policy.decide(a) {
	case keep:
		s.reply(c, 0)
	case refuse:
		s.refused.refused(normal(c.to.to), time.Now())
		s.reply(c, unix.EACCES)
	case inside:
		return s.tryInside(c, false)
	case trial:
		return s.tryInside(c, true)
	case leave:
		return s.leave(c)
	default:
		s.stay(c)
	}
	return nil
}

// tryInside connects the caller's own socket to the loopback of its namespace. It must not block our thread,
// so the socket does not block meanwhile; its only other user waits for us. orLeave is for when nobody listens.
func (s *Supervisor) tryInside(c *call, orLeave bool) (wait func()) {
	if answer, free := c.sock.busy(); !free {
		s.reply(c, answer)
		return nil
	}
	if c.sock.blocking {
		if err := unix.SetNonblock(c.sock.fd, true); err != nil {
			s.reply(c, errnoOf(err))
			return nil
		}
	}
	errno := connectNow(c.sock.fd, c.to)
	if errno == unix.EINPROGRESS && c.sock.blocking {
		return func() { s.awaitInside(c) }
	}
	s.restoreBlocking(c)
	switch {
	case errno == unix.ECONNREFUSED && orLeave:
		return s.leave(c)
	case errno == unix.ECONNREFUSED:
		s.refused.refused(normal(c.to.to), time.Now()) // perhaps somebody outside was meant
	}
	s.reply(c, errno)
	return nil
}

// connectNow is connect(2) on a non-blocking socket, with the outcome if the peer has answered already: over
// loopback its packets wait in the socket's backlog until connect returns, which says EINPROGRESS. Asking
// again tells, and makes a socket that failed as new.
func connectNow(fd int, to destination) unix.Errno {
	errno := errnoOf(unix.Connect(fd, to.sockaddr()))
	if errno == unix.EINPROGRESS {
		errno = connectAgain(fd, to)
	}
	return errno
}

// connectAgain asks for the outcome of a connect under way, EINPROGRESS if there is none yet.
func connectAgain(fd int, to destination) unix.Errno {
	switch errno := errnoOf(unix.Connect(fd, to.sockaddr())); errno {
	case unix.EALREADY:
		return unix.EINPROGRESS
	case unix.EISCONN:
		return 0
	default:
		return errno
	}
}

// awaitInside is for a listener inside whose backlog is full.
func (s *Supervisor) awaitInside(c *call) {
	defer unix.Close(c.sock.fd) //nolint:errcheck // a copy
	errno := s.await(c, c.sock.fd)
	s.restoreBlocking(c)
	s.reply(c, errno)
}

func (s *Supervisor) restoreBlocking(c *call) {
	if c.sock.blocking {
		unix.SetNonblock(c.sock.fd, false) //nolint:errcheck // it could be set a moment ago
	}
}

// leave connects a socket outside and puts it in the place of the caller's.
func (s *Supervisor) leave(c *call) (wait func()) {
	if answer, free := c.sock.busy(); !free {
		s.reply(c, answer)
		return nil
	}
	if at, ok := s.policy.redirected(c); ok {
		c.to.to = at
	}
	out, err := openLike(c.sock, c.to.to)
	if err != nil {
		s.reply(c, errnoOf(err))
		return nil
	}
	errno := errnoOf(unix.Connect(out, c.to.sockaddr()))
	if errno == unix.EINPROGRESS && c.sock.blocking {
		if errno = connectAgain(out, c.to); errno == unix.EINPROGRESS {
			return func() { s.awaitOutside(c, out) }
		}
	}
	s.finish(c, out, errno)
	return nil
}

// redirected is the other address that a connect is led to, in the family of its socket.
func (p *Policy) redirected(c *call) (at netip.AddrPort, ok bool) {
	if p.Redirect == nil || c.sock.kind != stream {
		return at, false
	}
	if at, ok = p.Redirect(normal(c.to.to)); ok && c.sock.domain == unix.AF_INET6 {
		at = netip.AddrPortFrom(netip.AddrFrom16(at.Addr().As16()), at.Port())
	}
	return at, ok
}

// awaitOutside ends a blocking connect. After SO_SNDTIMEO the socket goes on connecting in its place, as
// connect(2) does it.
func (s *Supervisor) awaitOutside(c *call, out int) {
	defer unix.Close(c.sock.fd) //nolint:errcheck // a copy
	s.finish(c, out, s.await(c, out))
}

// finish answers, after it has put out in place if that is connected or about to be. It closes our copy.
func (s *Supervisor) finish(c *call, out int, answer unix.Errno) {
	defer unix.Close(out) //nolint:errcheck // placed, or of no use
	if answer == 0 || answer == unix.EINPROGRESS {
		if err := s.place(c, out); err != nil {
			answer = errnoOf(err)
		}
	}
	s.reply(c, answer)
}

// place gives out the caller's flags and its descriptor.
func (s *Supervisor) place(c *call, out int) error {
	if c.sock.blocking {
		if err := unix.SetNonblock(out, false); err != nil {
			return err
		}
	}
	return s.door.place(c.id, out, c.fd, c.closeOnExec)
}

func (s *Supervisor) reply(c *call, errno unix.Errno) {
	s.door.answer(c.id, errno) //nolint:errcheck // see handle
}

func (s *Supervisor) stay(c *call) {
	s.door.carryOn(c.id) //nolint:errcheck // see handle
}

// await waits until the connection of sock is up or has failed. EINPROGRESS says that the caller's own limit
// has passed; ECANCELED that nobody waits for the answer.
func (s *Supervisor) await(c *call, sock int) unix.Errno {
	copied, err := unix.FcntlInt(uintptr(sock), unix.F_DUPFD_CLOEXEC, 0) // the poller closes its own
	if err != nil {
		return errnoOf(err)
	}
	f := os.NewFile(uintptr(copied), "socket")
	defer f.Close() //nolint:errcheck // a copy
	raw, err := f.SyscallConn()
	if err != nil {
		return errnoOf(err)
	}
	defer context.AfterFunc(s.ctx, func() { f.SetWriteDeadline(time.Unix(1, 0)) })() //nolint:errcheck // it ends at lookAfter then
	limit := time.Duration(1<<62 - 1)
	if t := sendTimeout(c.sock.fd); t > 0 {
		limit = t
	}
	for deadline := time.Now().Add(limit); ; {
		left := time.Until(deadline)
		if left <= 0 {
			return unix.EINPROGRESS
		}
		if err := f.SetWriteDeadline(time.Now().Add(min(left, lookAfter))); err != nil {
			return errnoOf(err)
		}
		if errno, ended := outcome(raw, c.to); ended {
			return errno
		}
		if !s.waited(c) {
			return unix.ECANCELED
		}
	}
}

// waited says whether the caller still waits, and we may.
func (s *Supervisor) waited(c *call) bool { return s.ctx.Err() == nil && s.door.valid(c.id) }

// outcome waits until the deadline of raw for the end of a connect.
func outcome(raw syscall.RawConn, to destination) (errno unix.Errno, ended bool) {
	err := raw.Write(func(fd uintptr) bool {
		errno = connectAgain(int(fd), to)
		return errno != unix.EINPROGRESS
	})
	return errno, err == nil
}
