package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/process/lifeline"
)

// Instance is a running command with everything it started. It implements quipu.Instance.
type Instance struct {
	runtime *Runtime
	spec    quipu.InstanceSpec
	mark    string // value of markEnv in all its processes
	record  string

	// As the instance sees it.
	port      int
	socket    string
	home, tmp string
	doors     []int // ports

	walls walls
	*ground
	noted chan struct{} // closed when the two below are set
	pid   int           // as the machine knows it
	fault error         // it could not be noted
	where atomic.Value  // string: where it was first seen to listen

	spending sync.Mutex    // guards the fields below, and the group's count against its end
	seen     time.Duration // of the processors, by the process' own clock; in the end all of it
	over     bool

	tooMuch   atomic.Bool // it was killed for the memory it took
	killOnce  sync.Once
	killTimer *time.Timer // set within killOnce
	done      chan struct{}
	exit      string // set before done is closed
}

var _ quipu.Instance = (*Instance)(nil)

// PID is that of the function itself, not of its helper.
func (i *Instance) PID() int {
	<-i.noted
	return i.pid
}

// Done is closed when no process of the instance is left and its output was delivered.
func (i *Instance) Done() <-chan struct{} { return i.done }

// Exit says how the function ended, after Done.
func (i *Instance) Exit() string {
	select {
	case <-i.done:
		return i.exit
	default:
		return ""
	}
}

// Ready polls until the instance accepts a connection. CodeStart, with the last lines of its
// standard error, as soon as it ends; ctx's error if that comes first.
func (i *Instance) Ready(ctx context.Context) error {
	wait := pollFirst
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		conn, network, err := i.dial(ctx)
		if err == nil {
			i.where.Store(network)
			return conn.Close()
		}
		select {
		case <-i.done:
			return i.endedEarly()
		case <-ctx.Done():
			return fmt.Errorf("function %s did not listen on port %d or %s: %w", i.spec.Function, i.port, i.socket, ctx.Err())
		case <-timer.C:
		}
		wait = min(wait*5/4, pollMost)
		timer.Reset(wait)
	}
}

func (i *Instance) endedEarly() error {
	text := fmt.Sprintf("function %s ended before it listened: %s", i.spec.Function, i.exit)
	if last := i.output.lastErrors(); last != "" {
		text += "; its last words: " + last
	}
	return &quipu.Error{Code: quipu.CodeStart, Op: "instance.start", Text: text}
}

// Dial connects to where Ready found it.
func (i *Instance) Dial(ctx context.Context) (net.Conn, error) {
	if network, ok := i.where.Load().(string); ok {
		return i.dialTo(ctx, network)
	}
	conn, _, err := i.dial(ctx)
	return conn, err
}

// Stop sends SIGTERM to the process group, kills everything after grace, and returns when
// it is gone.
func (i *Instance) Stop(grace time.Duration) {
	if grace > 0 {
		i.line.terminate()
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-i.done:
			return
		case <-timer.C:
		}
	}
	i.kill()
	<-i.done
}

// kill cuts the lifeline, on which the helper kills everything. A helper that does not is killed
// itself: then watch looks for survivors.
func (i *Instance) kill() {
	i.killOnce.Do(func() {
		i.line.cut()
		i.killTimer = time.AfterFunc(lostWait, func() { i.process.Kill() }) //nolint:errcheck // gone is what we want
	})
}

// unkill ends the wait for a helper that is gone.
func (i *Instance) unkill() {
	i.killOnce.Do(func() {})
	if i.killTimer != nil {
		i.killTimer.Stop()
	}
}

// start brings helper and function to life, or leaves nothing but what takeDown takes away.
func (i *Instance) start(ctx context.Context) error {
	program, err := i.program()
	if err != nil {
		return err
	}
	if err := i.layOut(program); err != nil {
		return i.noStart("prepare its place", err)
	}
	request := lifeline.Request{Path: program, Dir: i.spec.Dir, Args: i.spec.Command, Env: i.environment(), Walls: i.walls.request}
	for _, s := range slices.Concat([]string{request.Dir}, request.Args, request.Env) {
		if strings.ContainsRune(s, 0) {
			return i.noStart("prepare its command", errors.New("a zero byte in folder, command or environment"))
		}
	}
	i.output.deliver(i.spec.Output)
	return i.startFunction(ctx, request)
}

// program finds it, and makes the folders absolute. A command with a slash is relative to the function's folder.
func (i *Instance) program() (path string, err error) {
	if len(i.spec.Command) == 0 || i.spec.Command[0] == "" {
		return "", &quipu.Error{Code: quipu.CodeStart, Op: "instance.start", Text: "function " + i.spec.Function + " has no command"}
	}
	if i.spec.Root == "" {
		i.spec.Root = i.spec.Dir
	}
	for _, dir := range []*string{&i.spec.Dir, &i.spec.Root} {
		if *dir, err = filepath.Abs(*dir); err != nil {
			return "", i.noStart("find its folder", err)
		}
	}
	path = i.spec.Command[0]
	if strings.ContainsRune(path, filepath.Separator) && !filepath.IsAbs(path) {
		path = filepath.Join(i.spec.Dir, path)
	}
	path, err = exec.LookPath(path)
	if err != nil {
		return "", &quipu.Error{
			Code: quipu.CodeNoTool, Op: "instance.start", Err: err,
			Text: fmt.Sprintf("function %s needs the program %s, which is not on this node", i.spec.Function, i.spec.Command[0]),
		}
	}
	return path, nil
}

func (i *Instance) noStart(doing string, err error) error {
	return &quipu.Error{
		Code: quipu.CodeStart, Op: "instance.start", Err: err,
		Text: fmt.Sprintf("function %s: could not %s", i.spec.Function, doing),
	}
}

// startFunction hands the request over and waits until the function runs.
func (i *Instance) startFunction(ctx context.Context, r lifeline.Request) error {
	stop := context.AfterFunc(ctx, func() { i.line.conn.SetDeadline(time.Unix(1, 0)) }) //nolint:errcheck // sockets can
	defer stop()
	err := i.line.send(r.Encode())
	var a answer
	for err == nil {
		if a, err = i.line.next(); err != nil || a.kind == 'P' || a.kind == 'E' {
			break
		}
		err = i.receive(a)
	}
	switch {
	case err != nil:
		return i.noStart("talk to its helper", errors.Join(ctx.Err(), err))
	case !stop():
		return i.noStart("wait for it", ctx.Err())
	case a.kind == 'E' && a.step == lifeline.StepExec:
		return i.noStart("run "+r.Path, syscall.Errno(a.n))
	case a.kind == 'E':
		return i.noStart(i.stepName(a.step), syscall.Errno(a.n))
	}
	go i.note(a.n)
	return nil
}

// note finds out the process id and writes it down for the next node, while the function begins. One that cannot be noted must not run.
func (i *Instance) note(pid int) {
	defer close(i.noted)
	i.pid = i.outside(pid)
	if i.fault = i.writeRecord(); i.fault != nil {
		i.kill()
	}
}

// watch waits for the end, makes sure that it is the end, and tells.
func (i *Instance) watch() {
	a, err := i.line.next()
	for ; err == nil && a.kind == 'C'; a, err = i.line.next() {
		i.line.dialed(a)
	}
	<-i.noted
	state, waitErr := i.process.Wait()
	i.unkill()
	switch {
	case i.fault != nil:
		i.exit = "killed, since its process id could not be noted: " + i.fault.Error()
	case err == nil && a.kind == 'X':
		i.exit = describe(syscall.WaitStatus(a.n))
	default: // the helper was killed: its children are orphans now
		killRemains(i.process.Pid, i.pid, i.mark)
		i.exit = "signal: killed, with its helper (" + howEnded(state, waitErr) + ")"
	}
	if why := i.overdrawn(); why != "" {
		i.exit = why
	}
	i.spend(state)
	i.walls.out.close() // it prints what was refused
	i.output.finish()
	i.line.end()
	close(i.done)
	i.runtime.forget(i)
}

func howEnded(state *os.ProcessState, err error) string {
	if err != nil {
		return err.Error()
	}
	return state.String()
}
