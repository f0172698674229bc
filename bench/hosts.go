package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// language is how a function of bench/app is run, by the platform and without it.
type language struct {
	name, source string
	command      []string // without the platform
	manifest     string   // what quipu.yaml needs besides
	peer         string   // what it is called when it runs without the platform
}

// languages are those whose programs are on this machine. Each has the same function: one line for every request.
func (r *runner) languages() ([]language, error) {
	hello, err := r.buildHello()
	if err != nil {
		return nil, err
	}
	all := []language{{"go", "hello", []string{hello}, "runtime: go", "go-net-http"}}
	if python, err := interpreter(); err != nil {
		r.note("python is not measured: %v", err)
	} else {
		all = append(all, language{"python", "python", []string{python, "main.py"}, fmt.Sprintf("runtime: python\n  command: [%q, main.py]", python), "python-http"})
	}
	if node, err := exec.LookPath("node"); err != nil {
		r.note("node is not measured: %v", err)
	} else {
		all = append(all, language{"node", "node", []string{node, "index.js"}, "runtime: node", "node-http"})
	}
	return all, nil
}

// interpreter is Python itself: what is on the PATH may be the script of a version manager, which takes longer than Python.
func interpreter() (string, error) {
	out, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output()
	return strings.TrimSpace(string(out)), err
}

// folder of the function's source.
func (l language) folder() (string, error) {
	return filepath.Abs(filepath.Join(folder(), "app", l.source))
}

// start runs the function without the platform; env says where it listens.
func (l language) start(env string) (*exec.Cmd, error) {
	dir, err := l.folder()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(l.command[0], l.command[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env)
	return cmd, cmd.Start()
}

// host is a server that is measured alone: start makes it listen on a free port of loopback.
type host struct {
	peer, variant string
	start         func(port string) (*exec.Cmd, error)
}

// hosts are the functions without a platform, and workerd.
func (r *runner) hosts(all []language) (hosts []host, err error) {
	for _, l := range all {
		hosts = append(hosts, host{l.peer, l.name + ", no platform", func(port string) (*exec.Cmd, error) { return l.start("PORT=" + port) }})
	}
	workerd, err := installWorkerd()
	if err != nil {
		r.note("workerd is not measured: %v", err)
		return hosts, nil
	}
	return append(hosts, host{"workerd", "JavaScript", func(port string) (*exec.Cmd, error) {
		config := filepath.Join(r.dir, "workerd-"+port+".capnp")
		if err := os.WriteFile(config, fmt.Appendf(nil, workerdConfig, port), 0o600); err != nil {
			return nil, err
		}
		cmd := exec.Command(workerd, "serve", config)
		return cmd, cmd.Start()
	}}), nil
}

// workerdConfig answers as the functions do.
const workerdConfig = `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [ (name = "main", worker = (
    serviceWorkerScript = "addEventListener('fetch', e => e.respondWith(new Response('hello\\n')))",
    compatibilityDate = "2024-01-01")) ],
  sockets = [ (name = "http", address = "127.0.0.1:%s", http = (), service = "main") ],
);
`

const (
	workerdVersion = "1.20261117.1"
	installMax     = 3 * time.Minute
)

// installWorkerd has npm put it into the user's cache, once.
func installWorkerd() (program string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "quipu-bench", "workerd-"+workerdVersion)
	if program, err = workerdIn(dir); err == nil {
		return program, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), installMax)
	defer cancel()
	npm := exec.CommandContext(ctx, "npm", "install", "--prefix", dir, "--no-audit", "--no-fund", "--loglevel=error", "workerd@"+workerdVersion)
	if out, err := npm.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm install workerd: %w\n%s", err, out)
	}
	return workerdIn(dir)
}

// workerdIn finds the program itself: what npm links may be a script that starts it.
func workerdIn(dir string) (string, error) {
	found, err := filepath.Glob(filepath.Join(dir, "node_modules", "@cloudflare", "workerd-*", "bin", "workerd"))
	if err == nil && len(found) == 0 {
		err = errors.New("there is none for this system in " + dir)
	}
	if err != nil {
		return "", err
	}
	return found[0], nil
}

// running is a host that answers.
type running struct {
	cmd *exec.Cmd
	url string
}

func (h host) run() (*running, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	cmd, err := h.start(port)
	if err != nil {
		return nil, err
	}
	s := &running{cmd, "http://127.0.0.1:" + port + "/"}
	return s, s.untilAnswer()
}

// untilAnswer ends it if it does not answer.
func (s *running) untilAnswer() error {
	for start := time.Now(); ; time.Sleep(coldPoll) {
		resp, err := http.Get(s.url)
		if err == nil {
			return resp.Body.Close()
		}
		if time.Since(start) > readyMax {
			s.stop()
			return err
		}
	}
}

// stop kills: nothing of it is worth keeping.
func (s *running) stop() { end(s.cmd) }

func end(cmd *exec.Cmd) {
	_ = cmd.Process.Kill() // it may have ended
	_ = cmd.Wait()         // killed
}

// accepts dials until somebody accepts.
func accepts(network, address string) error {
	for start := time.Now(); ; time.Sleep(coldPoll) {
		conn, err := net.Dial(network, address)
		if err == nil {
			return conn.Close()
		}
		if time.Since(start) > readyMax {
			return err
		}
	}
}
