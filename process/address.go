package process

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/quipu-run/quipu/process/lifeline"
)

// portTriesMax bounds the search for a port that no live instance was given.
const portTriesMax = 64

// freePort asks the kernel for a port of the machine, which forget gives back. Between this and the function's own bind another
// program can take it; then the function fails to start and is started again, with another port.
func (r *Runtime) freePort() (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for range portTriesMax {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		port := l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			return 0, err
		}
		if _, taken := r.ports[port]; !taken {
			r.ports[port] = struct{}{}
			return port, nil
		}
	}
	return 0, fmt.Errorf("%d tries gave only ports of other instances", portTriesMax)
}

const socketDirFile = "sockets-at" // in Dir: where the sockets are, if elsewhere

// socketDir makes an empty private directory whose names fit into a socket address: in dir, or, if
// that is too deep, among temporary files. The one of an earlier node is removed.
func socketDir(dir string) (string, error) {
	at := filepath.Join(dir, socketDirFile)
	if old, err := os.ReadFile(at); err == nil && strings.HasPrefix(filepath.Base(string(old)), "quipu-") {
		if err := os.RemoveAll(string(old)); err != nil {
			return "", err
		}
	}
	own := filepath.Join(dir, "s")
	if err := os.RemoveAll(own); err != nil {
		return "", err
	}
	if len(own)+len("/1234567890") <= socketPathMax {
		return own, os.Mkdir(own, 0o700)
	}
	temp, err := os.MkdirTemp("", "quipu-")
	if err != nil {
		return "", err
	}
	return temp, os.WriteFile(at, []byte(temp), 0o600)
}

// dial tries the Unix socket first, which is cheaper and cannot be someone else's.
func (i *Instance) dial(ctx context.Context) (net.Conn, string, error) {
	conn, unixErr := i.dialTo(ctx, "unix")
	if unixErr == nil {
		return conn, "unix", nil
	}
	conn, err := i.dialTo(ctx, "tcp4")
	if err != nil {
		return nil, "", err
	}
	// A connection to a port of ours that nobody listens on may be given that very port as
	// its own end, and then TCP connects it to itself.
	if conn.LocalAddr().String() == conn.RemoteAddr().String() {
		conn.Close() //nolint:errcheck // nothing was written
		return nil, "", fmt.Errorf("nothing listens on port %d or %s", i.port, i.socket)
	}
	return conn, "tcp4", nil
}

func (i *Instance) dialTo(ctx context.Context, network string) (net.Conn, error) {
	if i.walls.inside {
		how := byte(lifeline.DialSocket)
		if network == "tcp4" {
			how = lifeline.DialPort
		}
		f, err := i.line.dial(ctx, how)
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: network, Err: err}
		}
		return connection(ctx, f)
	}
	address := i.socket
	if network == "tcp4" {
		address = "127.0.0.1:" + strconv.Itoa(i.port)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}
