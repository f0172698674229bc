package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/quipu-run/quipu/sdk"
)

const (
	startMax = 30 * time.Second
	stopMax  = 15 * time.Second
)

// Ports of a node; the host is that of all. 0 means a free one.
type Ports struct {
	Host                     string
	HTTP, DaprHTTP, DaprGRPC int
}

// Ports from which choose takes: outgoing connections get higher ones on Linux and macOS. While the node is down, one
// of those could be taken by a connection, even by one that looks for the node itself.
const (
	portFirst = 10_000
	portEnd   = 32_000
	portTries = 100
)

// choose replaces each 0 by a port that is free, so that a node that is killed finds it free again.
func (p *Ports) choose() error {
	for _, port := range []*int{&p.HTTP, &p.DaprHTTP, &p.DaprGRPC} {
		for try := 0; *port == 0; try++ {
			if try == portTries {
				return fmt.Errorf("no free port was found from %d to %d", portFirst, portEnd)
			}
			candidate := portFirst + rand.IntN(portEnd-portFirst)
			l, err := net.Listen("tcp", net.JoinHostPort(p.Host, strconv.Itoa(candidate)))
			if err != nil {
				continue // taken
			}
			if err := l.Close(); err != nil {
				return err
			}
			if candidate != p.HTTP && candidate != p.DaprHTTP {
				*port = candidate
			}
		}
	}
	return nil
}

// wait waits until the ports are free. A process that a node was about to start when it was killed holds them a moment
// longer.
func (p *Ports) wait(ctx context.Context) error {
	return until(ctx, "the ports of the node are free", func(context.Context) (bool, error) {
		for _, port := range []int{p.HTTP, p.DaprHTTP, p.DaprGRPC} {
			l, err := net.Listen("tcp", net.JoinHostPort(p.Host, strconv.Itoa(port)))
			if err != nil {
				return false, nil // taken, still
			}
			if err := l.Close(); err != nil {
				return false, err
			}
		}
		return true, nil
	})
}

// node is a node in a process of its own, so that it can be killed.
type node struct {
	program string
	data    string
	ports   Ports
	output  io.Writer
	flags   []string // of serve, besides

	cmd  *exec.Cmd
	done chan error
	info sdk.Node
}

// start runs the node and waits until it serves. The ports stay what they are, so that clients find it again.
func (n *node) start(ctx context.Context) error {
	if err := n.ports.choose(); err != nil {
		return err
	}
	if err := n.ports.wait(ctx); err != nil {
		return err
	}
	n.cmd = exec.Command(n.program, append([]string{"serve", "--data", n.data, "--listen", n.ports.Host,
		"--port", strconv.Itoa(n.ports.HTTP), "--dapr-http-port", strconv.Itoa(n.ports.DaprHTTP), "--dapr-grpc-port", strconv.Itoa(n.ports.DaprGRPC)}, n.flags...)...)
	n.cmd.Stderr = n.output
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the demo, which then stops the node
	if err := n.cmd.Start(); err != nil {
		return fmt.Errorf("start a node: %w", err)
	}
	n.done = make(chan error, 1)
	go func(cmd *exec.Cmd, done chan<- error) { done <- cmd.Wait() }(n.cmd, n.done)
	ctx, cancel := context.WithTimeout(ctx, startMax)
	defer cancel()
	if err := n.ready(ctx); err != nil {
		return errors.Join(err, n.kill())
	}
	return nil
}

// ready polls for the file that a node renames into place when it serves.
func (n *node) ready(ctx context.Context) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(filepath.Join(n.data, "node.json"))
		if err == nil && json.Unmarshal(text, &n.info) == nil && n.info.PID == n.cmd.Process.Pid {
			return nil
		}
		select {
		case err := <-n.done:
			n.done <- err
			return fmt.Errorf("the node ended before it was ready: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("the node was not ready after %s", startMax)
		case <-tick.C:
		}
	}
}

// kill is kill -9.
func (n *node) kill() error {
	if err := n.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill the node: %w", err)
	}
	<-n.done
	return nil
}

// stop asks the node to end, as a supervisor would.
func (n *node) stop() error {
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the node: %w", err)
	}
	select {
	case err := <-n.done:
		return err
	case <-time.After(stopMax):
		return errors.Join(errors.New("the node did not stop in time"), n.kill())
	}
}
