package http

import (
	"net"
	"syscall"
)

// acknowledge has the kernel acknowledge at once what came. Many simple servers (Python's http.server is one) write the
// head of a reply and its body apart, and their kernel holds the body back until the head is acknowledged, which
// ours would otherwise do only after 40 ms.
func acknowledge(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return // the connection is closed; whoever reads will hear
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1) // without it, it is only slower
	})
}
