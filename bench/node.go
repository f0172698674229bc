package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/quipu-run/quipu/internal/bundle"
	"github.com/quipu-run/quipu/sdk"
)

// node is the real binary, in a process and a data directory of its own.
type node struct {
	cmd    *exec.Cmd
	data   string
	info   sdk.Node
	client *sdk.Client
}

// build compiles the binary once per run of the benchmark.
func build(dir string) (string, error) {
	program := filepath.Join(dir, "quipu")
	cmd := exec.Command("go", "build", "-o", program, "github.com/quipu-run/quipu/cmd/quipu")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build quipu: %w\n%s", err, out)
	}
	return program, nil
}

const readyMax = 30 * time.Second

// startNode starts a node and answers how long it took from exec until it answered /-/healthz.
func startNode(program, data string, flags ...string) (*node, time.Duration, error) {
	flags = append([]string{"serve", "--data", data, "--port", "0", "--dapr-http-port", "0", "--dapr-grpc-port", "0"}, flags...)
	n := &node{data: data, cmd: exec.Command(program, flags...)}
	n.cmd.Stderr = io.Discard
	start := time.Now()
	if err := n.cmd.Start(); err != nil {
		return nil, 0, err
	}
	for {
		text, err := os.ReadFile(filepath.Join(data, "node.json"))
		if err == nil && json.Unmarshal(text, &n.info) == nil && n.info.PID == n.cmd.Process.Pid {
			break
		}
		if time.Since(start) > readyMax {
			return nil, 0, errors.Join(errors.New("the node was not ready in time"), n.stop())
		}
		time.Sleep(200 * time.Microsecond)
	}
	resp, err := http.Get("http://" + n.info.HTTP + "/-/healthz")
	if err != nil {
		return nil, 0, errors.Join(err, n.stop())
	}
	took := time.Since(start)
	resp.Body.Close()
	n.client, err = sdk.New(sdk.Options{URL: n.info.HTTP})
	return n, took, err
}

func (n *node) stop() error {
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return n.cmd.Wait()
}

// deploy sends the application of this folder.
func (n *node) deploy(ctx context.Context) error {
	packed, err := bundle.Pack(ctx, filepath.Join(folder(), "app"))
	if err != nil {
		return err
	}
	_, err = n.client.Deploy(ctx, "bench", packed)
	return err
}

// deployFn builds and sends the functions of bench/fn.
func (n *node) deployFn(ctx context.Context, dir string) error {
	dir = filepath.Join(dir, "fn")
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
		return err
	}
	manifest, err := os.ReadFile(filepath.Join(folder(), "fn", "quipu.yaml"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "quipu.yaml"), manifest, 0o644)
	}
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "bin")+string(filepath.Separator), "./"+filepath.Join(folder(), "fn")+"/...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build bench/fn: %w\n%s", err, out)
	}
	packed, err := bundle.Pack(ctx, dir)
	if err != nil {
		return err
	}
	_, err = n.client.Deploy(ctx, "fn", packed)
	return err
}

// folder is where the sources of bench are, wherever it was started.
func folder() string {
	for dir := "."; ; dir = filepath.Join("..", dir) {
		if _, err := os.Stat(filepath.Join(dir, "bench", "app", "quipu.yaml")); err == nil {
			return filepath.Join(dir, "bench")
		}
		if len(dir) > 100 {
			return "bench"
		}
	}
}

// instancesOf are those of one function.
func (n *node) instancesOf(ctx context.Context, function string) (of []sdk.Instance, err error) {
	all, err := n.client.Instances(ctx)
	for _, i := range all {
		if i.Function == function {
			of = append(of, i)
		}
	}
	return of, err
}

// untilRest waits until a function has no instance.
func (n *node) untilRest(ctx context.Context, function string) error {
	for start := time.Now(); time.Since(start) < readyMax; time.Sleep(restPoll) {
		if of, err := n.instancesOf(ctx, function); err != nil || len(of) == 0 {
			return err
		}
	}
	return errors.New("the function " + function + " does not come to rest")
}

// pidsOf are the processes of a function's instances.
func (n *node) pidsOf(ctx context.Context, function string) (pids []int) {
	of, _ := n.instancesOf(ctx, function) // who is not seen is not counted
	for _, i := range of {
		pids = append(pids, i.PID)
	}
	return pids
}

// rss is the resident memory of a process in KiB, from /proc.
func rss(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		}
	}
	return 0, errors.New("no VmRSS in /proc")
}

// caller makes requests on connections that stay open.
func caller() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024}, Timeout: 30 * time.Second}
}

// call makes one request, and is an error unless it is answered with success.
func call(ctx context.Context, c *http.Client, method, url, body string) error {
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	_, err = answerOf(c, r)
	return err
}

// fetch is a GET that answers the body.
func fetch(ctx context.Context, c *http.Client, url string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return nil, err
	}
	return answerOf(c, r)
}

func answerOf(c *http.Client, r *http.Request) ([]byte, error) {
	resp, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %.200s", r.Method, r.URL, resp.Status, answer)
	}
	return answer, err
}
