package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/quipu-run/quipu/sdk"
)

// attached are applications that a node serves as quipu run does: they came with the component files of the sidecars.
type attached struct {
	*node
	apps []sdk.Attached
	stop func() error
}

// attachedNode starts a node and attaches an application for each port.
func (r *runner) attachedNode(name string, ports []int) (*attached, error) {
	n, _, err := startNode(r.program, filepath.Join(r.dir, name))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &attached{node: n}
	a.stop = func() error {
		cancel()
		return errors.Join(n.stop(), os.RemoveAll(n.data))
	}
	for i, port := range ports {
		if err := a.attach(ctx, appName(i), port); err != nil {
			return nil, errors.Join(fmt.Errorf("attach %s: %w", appName(i), err), a.stop())
		}
	}
	return a, nil
}

// attach returns when the application is heard. It stays attached until ctx ends.
func (a *attached) attach(ctx context.Context, app string, port int) error {
	heard := make(chan error, 1)
	var at sdk.Attached
	go func() {
		for now, err := range a.client.Attach(ctx, app, sdk.Attachment{Port: port, Protocol: "http",
			Resources: map[string]string{"redis.yaml": fmt.Sprintf(daprdComponents, "6379")}}) {
			switch {
			case err != nil:
				if ctx.Err() == nil {
					heard <- err
				}
				return
			case now.State == sdk.AttachedOpen:
				at = now
			case now.State == sdk.AttachedListening:
				heard <- nil
			}
		}
	}()
	err := <-heard
	a.apps = append(a.apps, at)
	return err
}

// runs are processes of quipu run, each with one application, which only waits.
type runs []*exec.Cmd

// startRuns has quipu run attach applications that listen already.
func (r *runner) startRuns(n *node, ports []int) (all runs, err error) {
	for i, port := range ports {
		cmd := exec.Command(r.program, "--node", n.info.HTTP, "run", "--app-id", appName(i), "--app-port", strconv.Itoa(port), "--", "sleep", "3600")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		said, err := cmd.StderrPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			return nil, errors.Join(err, all.stop())
		}
		all = append(all, cmd)
		if err := untilAttached(said); err != nil {
			return nil, errors.Join(fmt.Errorf("quipu run %s: %w", appName(i), err), all.stop())
		}
	}
	return all, nil
}

// untilAttached reads what quipu run says until its application is part of the node.
func untilAttached(said io.Reader) error {
	var lines []byte
	for s := bufio.NewScanner(said); s.Scan(); {
		if lines = append(append(lines, s.Bytes()...), '\n'); strings.Contains(s.Text(), "is attached") {
			return nil
		}
	}
	return fmt.Errorf("it ended: %s", lines)
}

// stop ends them with what they run.
func (s runs) stop() (err error) {
	for _, cmd := range s {
		err = errors.Join(err, syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL))
		_ = cmd.Wait() // killed
	}
	return err
}
