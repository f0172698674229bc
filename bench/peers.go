package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// benchPeers measures NATS JetStream and Redis Streams, if their servers are on the PATH, beside the events of this
// run. Each is started on a free port of loopback with a directory of its own, and ended.
func benchPeers(r *runner) error { return r.peers("events") }

// peers has each peer do a part of what its client measures.
func (r *runner) peers(part string) error {
	client := filepath.Join(r.dir, "peers")
	if err := buildPeers(client); err != nil {
		return err
	}
	for _, p := range []struct {
		name, program, durable string
		args                   func(dir, port string) ([]string, error)
		parts                  string
	}{
		{"nats-always", "nats-server", "fsync before ack", natsArgs("always"), "events append"},
		{"nats", "nats-server", "page cache", natsArgs("2m"), "events"},
		{"redis-always", "redis-server", "fsync before ack", redisArgs, "events append"},
	} {
		if !strings.Contains(p.parts, part) {
			continue
		}
		if _, err := exec.LookPath(p.program); err != nil {
			r.note("%s is not measured: %s is not on the PATH", p.name, p.program)
			continue
		}
		if err := r.peer(client, part, p.name, p.program, p.durable, p.args); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// buildPeers compiles the client of peers, once.
func buildPeers(client string) error {
	if _, err := os.Stat(client); err == nil {
		return nil
	}
	cmd := exec.Command("go", "build", "-o", client, ".")
	cmd.Dir = filepath.Join(folder(), "peers")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the clients of peers: %w\n%s", err, out)
	}
	return nil
}

func natsArgs(sync string) func(dir, port string) ([]string, error) {
	return func(dir, port string) ([]string, error) {
		conf := filepath.Join(dir, "nats.conf")
		text := fmt.Sprintf("listen: 127.0.0.1:%s\njetstream { store_dir: %q, sync_interval: %s }\n", port, dir, sync)
		return []string{"-c", conf}, os.WriteFile(conf, []byte(text), 0o600)
	}
}

func redisArgs(dir, port string) ([]string, error) {
	return []string{"--port", port, "--bind", "127.0.0.1", "--dir", dir, "--appendonly", "yes", "--appendfsync", "always", "--save", ""}, nil
}

// peer runs one server and its client, and prints what the client says.
func (r *runner) peer(client, part, name, program, durable string, args func(dir, port string) ([]string, error)) (err error) {
	dir, err := os.MkdirTemp(r.dir, name+"-")
	if err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	with, err := args(dir, port)
	if err != nil {
		return err
	}
	server := exec.Command(program, with...)
	if err := server.Start(); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, server.Process.Signal(syscall.SIGTERM))
		_ = server.Wait() // some end with a status for being asked to
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	if err := reachable(port); err != nil {
		return err
	}
	load := exec.Command(client, "-part", part, "-peer", name, "-address", "127.0.0.1:"+port, "-durable", durable, "-d", r.d.String())
	load.Stderr = os.Stderr
	out, err := load.StdoutPipe()
	if err != nil {
		return err
	}
	if err := load.Start(); err != nil {
		return err
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var f figure
		if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
			return err
		}
		r.print(f)
		if r.seen != nil {
			r.seen(f)
		}
	}
	return load.Wait()
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), nil
}

func reachable(port string) error {
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			return conn.Close()
		}
		if time.Since(start) > readyMax {
			return err
		}
	}
}
