package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/gateway/dapr"
	"github.com/quipu-run/quipu/test/fake"
)

// startTemplate runs a function on a Unix socket, as the platform does, and answers how to call it.
func startTemplate(t *testing.T, dir string, command []string) func(path string) string {
	t.Helper()
	ns := fake.New()
	door := httptest.NewServer(dapr.Handler(dapr.Options{Token: "secret", RequireToken: true,
		Session: func(*http.Request) (quipu.Session, error) { return ns.Session("hello"), nil }}))
	t.Cleanup(door.Close)
	short, err := os.MkdirTemp("", "q") // the path of a socket may have only about 100 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	socket := filepath.Join(short, "s")
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	cmd.Env = append(os.Environ(), "QUIPU_SOCKET="+socket, "DAPR_API_TOKEN=secret", "GOFLAGS=-mod=mod", "GOWORK=off",
		"DAPR_HTTP_PORT="+door.URL[strings.LastIndex(door.URL, ":")+1:])
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // go run has a child
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may have ended by itself
		_ = cmd.Wait()
	})
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	waitForSocket(t, socket)
	return func(path string) string {
		resp, err := client.Get("http://function" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
}

// waitForSocket polls, for nothing tells when another process listens.
func waitForSocket(t *testing.T, socket string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(60 * time.Second)
	for {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the function does not listen")
		}
	}
}

// What a user is told to run first: the test of each template passes as it is, without a node or a network, and fails when
// the function is wrong.
func TestEachTemplateHasATestOfItsOwn(t *testing.T) {
	for name, c := range map[string]struct {
		in, source string // folder and file of the function
		command    []string
	}{
		"go":         {"hello", "main.go", []string{"go", "test", "./..."}},
		"python":     {"hello", "greet.py", []string{"python3", "-m", "unittest"}},
		"node":       {".", "greet.js", []string{"node", "--test", "hello/greet.test.js"}},
		"typescript": {".", "greet.ts", []string{"npm", "test"}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(c.command[0]); err != nil {
				t.Skipf("%s is not installed", c.command[0])
			}
			dir := filepath.Join(t.TempDir(), "app")
			if code := run(t.Context(), []string{"new", name, dir}, nil, io.Discard, os.Stderr); code != 0 {
				t.Fatalf("new: exit %d", code)
			}
			if out, err := runTemplateTest(filepath.Join(dir, c.in), c.command); err != nil {
				t.Fatalf("%v: %v\n%s", c.command, err, out)
			}
			readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
			if err != nil || !strings.Contains(string(readme), strings.Join(c.command, " ")) {
				t.Errorf("README.md does not name %v: %v", c.command, err)
			}
			breakFile(t, filepath.Join(dir, "hello", c.source), "You were greeted", "You met")
			if out, err := runTemplateTest(filepath.Join(dir, c.in), c.command); err == nil {
				t.Errorf("the function is broken, and its test passes:\n%s", out)
			}
		})
	}
}

// The templates are deployed on a node, called, and killed after every operation.
func TestEachTemplateIsCrashSafe(t *testing.T) {
	for name, tool := range map[string]string{"go": "go", "python": "python3", "node": "node", "typescript": "node"} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(tool); err != nil {
				t.Skipf("%s is not installed", tool)
			}
			dir := filepath.Join(t.TempDir(), "app")
			if code := run(t.Context(), []string{"new", name, dir}, nil, io.Discard, os.Stderr); code != 0 {
				t.Fatalf("new: exit %d", code)
			}
			var out strings.Builder
			// Two calls of a read, a write and a reply.
			if code := run(t.Context(), []string{"test", dir}, nil, &out, os.Stderr); code != 0 || !strings.Contains(out.String(), "crash-safe: 6 crash points") {
				t.Errorf("exit %d: %s", code, out.String())
			}
			t.Log(out.String())
		})
	}
}

// What is wrong shows as text, as JSON, and in the exit code.
func TestAnApplicationThatLeaksFailsItsTest(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 is not installed")
	}
	dir := filepath.Join(t.TempDir(), "app")
	if code := run(t.Context(), []string{"new", "python", dir}, nil, io.Discard, os.Stderr); code != 0 {
		t.Fatalf("new: exit %d", code)
	}
	breakFile(t, filepath.Join(dir, "quipu.yaml"), "atomic: true ", "atomic: false ")
	var text, list strings.Builder
	if code := run(t.Context(), []string{"test", dir, "--max-runs", "3"}, nil, &text, io.Discard); code != 1 {
		t.Errorf("exit %d", code)
	}
	for _, part := range []string{"LEAK before the reply of hello, in step 1", "LEAK after PUT statestore/Ana by hello, in step 2", "key statestore/hello/Ana\n    expected 2\n    found    3", "of 6 crash points 3 were tried"} {
		if !strings.Contains(text.String(), part) {
			t.Errorf("the report has no %q:\n%s", part, text.String())
		}
	}
	if code := run(t.Context(), []string{"test", dir, "--max-runs", "6", "-o", "json"}, nil, &list, io.Discard); code != 1 {
		t.Errorf("exit %d", code)
	}
	var report struct {
		Points, Tried int
		Leaks         []struct{ Text string }
	}
	if err := json.Unmarshal([]byte(list.String()), &report); err != nil || report.Points != 6 || report.Tried != 6 || len(report.Leaks) != 4 {
		t.Errorf("%v: %s", err, list.String())
	}
	interrupted, interrupt := context.WithCancel(t.Context())
	interrupt()
	if code := run(interrupted, []string{"test", dir}, nil, io.Discard, io.Discard); code != 1 {
		t.Errorf("interrupted: exit %d", code)
	}
	if code := run(t.Context(), []string{"test", dir, "--timeout", "1ms"}, nil, io.Discard, io.Discard); code != 1 {
		t.Errorf("out of time: exit %d", code)
	}
	if code := run(t.Context(), []string{"test", t.TempDir()}, nil, io.Discard, io.Discard); code != 2 {
		t.Errorf("without a scenario: exit %d", code)
	}
}

func runTemplateTest(dir string, command []string) ([]byte, error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOPROXY=off", "GOWORK=off", "npm_config_update_notifier=false")
	return cmd.CombinedOutput()
}

func breakFile(t *testing.T, file, before, after string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err == nil && !strings.Contains(string(text), before) {
		t.Fatalf("%s has no %q", file, before)
	}
	if err == nil {
		err = os.WriteFile(file, []byte(strings.ReplaceAll(string(text), before, after)), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
