package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
)

// echoChild as the first argument makes this program Dapr applications that answer with what they are sent.
const echoChild = "echo-child"

// echoes is a process with applications, each with a port of its own.
type echoes struct {
	cmd   *exec.Cmd
	input io.Closer // it ends when this closes, should this process die
	ports []int
}

func startEchoes(n int) (*echoes, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	e := &echoes{cmd: exec.Command(self, echoChild, strconv.Itoa(n))}
	e.cmd.Stderr = os.Stderr
	if e.input, err = e.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := e.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := e.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &e.ports)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the applications: %w", err), e.stop())
	}
	return e, nil
}

func (e *echoes) stop() error { return errors.Join(e.input.Close(), e.cmd.Wait()) }

// runEchoChild is the process: it listens, tells its ports, and ends with its input.
func runEchoChild(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: echo-child N")
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var ports []int
	failed := make(chan error, n+1)
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
		go func() { failed <- http.Serve(l, http.HandlerFunc(echo)) }()
	}
	if err := json.NewEncoder(os.Stdout).Encode(ports); err != nil {
		return err
	}
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		failed <- err
	}()
	return <-failed
}

// echo answers what a Dapr application is asked at its start, and sends everything else back.
func echo(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/dapr/subscribe":
		_, _ = io.WriteString(w, "[]") // who left does not hear
	case "/dapr/config":
		http.NotFound(w, r)
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.Copy(w, r.Body) // as above
	}
}
