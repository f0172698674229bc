package main

import (
	"context"
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
