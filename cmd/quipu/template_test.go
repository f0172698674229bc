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
