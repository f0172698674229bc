package process

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/quipu-run/quipu/process/lifeline"
)

// Ports of the machine for instances without a network of their own. They are below those that systems give to who asks for any: a
// function may take seconds until it listens, or listen on its socket only, and meanwhile nobody is to be mistaken for it.
const (
	portFirst    = 20000
	portLast     = 29999
	portTriesMax = 64
)

// freePort chooses a port of the machine, which forget gives back. Between this and the function's own bind another
// program can take it; then the function fails to start and is started again, with another port.
func (r *Runtime) freePort() (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var busy error
	for range portTriesMax {
		port := portFirst + rand.IntN(portLast-portFirst+1)
		if _, taken := r.ports[port]; taken {
			continue
		}
		l, err := net.Listen("tcp4", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			busy = err
			continue
		}
		r.ports[port] = struct{}{}
		return port, l.Close()
	}
	return 0, errors.Join(fmt.Errorf("of %d ports that were tried none is free", portTriesMax), busy)
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
