package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/quipu-run/quipu"
)

const (
	buildTimeDefault = 10 * time.Minute
	outputBytesKept  = 4 << 10 // of what a build printed last
)

// run runs a build command to its end. What it started ends with it, but for what left its process group.
func (b *builds) run(ctx context.Context, f quipu.Function, dir string, command []string) error {
	late := fmt.Errorf("not done after %s", b.time)
	ctx, cancel := context.WithTimeoutCause(ctx, b.time, late)
	defer cancel()
	var output ending
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir, cmd.Env = dir, buildEnv(os.Environ())
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return endGroup(cmd) }
	cmd.WaitDelay = time.Second // then its output is closed, which children of it may hold open
	err := cmd.Run()
	if cmd.Process != nil {
		err = errors.Join(err, endGroup(cmd))
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return &quipu.Error{Code: quipu.CodeBuild, Op: "deploy",
		Text: fmt.Sprintf("function %s: %s: %v\n%s", f.Name, strings.Join(command, " "), err, output.text()),
		Hint: "nothing was deployed; mend it and deploy again"}
}

// buildEnv is the node's environment but for what is the node's own, such as its token.
func buildEnv(environ []string) (env []string) {
	for _, e := range environ {
		if !strings.HasPrefix(e, "QUIPU_") {
			env = append(env, e)
		}
	}
	return append(env, "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=mod")
}

// endGroup kills what is left of a command's process group.
func endGroup(cmd *exec.Cmd) error {
	err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.EPERM) { // nothing but, on some systems, the dead
		return nil
	}
	return err
}

// ending keeps the last bytes that were written.
type ending struct {
	kept []byte
	cut  bool
}

func (e *ending) Write(p []byte) (int, error) {
	e.kept = append(e.kept, p[max(0, len(p)-outputBytesKept):]...)
	if over := len(e.kept) - outputBytesKept; over > 0 || len(p) > outputBytesKept {
		e.kept, e.cut = append(e.kept[:0], e.kept[max(0, over):]...), true
	}
	return len(p), nil
}

// text shows what is no text as U+FFFD.
func (e *ending) text() string {
	text := strings.TrimSpace(strings.ToValidUTF8(string(e.kept), "\uFFFD"))
	if e.cut {
		return "…" + text
	}
	return text
}
