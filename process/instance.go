package process

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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
	port    int
	socket  string
	record  string

	helper  *os.Process
	line    *os.File // our end of the lifeline
	answers *bufio.Reader
	pid     int
	output  *output
	network atomic.Value // string: where it was first seen to listen

	killOnce  sync.Once
	killTimer *time.Timer // set within killOnce
	done      chan struct{}
	exit      string // set before done is closed
}

var _ quipu.Instance = (*Instance)(nil)

// PID is that of the function itself, not of its helper.
func (i *Instance) PID() int { return i.pid }

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
			i.network.Store(network)
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
	if network, ok := i.network.Load().(string); ok {
		return i.dialTo(ctx, network)
	}
	conn, _, err := i.dial(ctx)
	return conn, err
}

// Stop sends SIGTERM to the process group, kills everything after grace, and returns when
// it is gone.
func (i *Instance) Stop(grace time.Duration) {
	if grace > 0 {
		i.line.Write([]byte{lifeline.SignalTerm}) //nolint:errcheck // then it is gone, or kill will do
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
		shutdownWrite(i.line)
		i.killTimer = time.AfterFunc(lostWait, func() { i.helper.Kill() }) //nolint:errcheck // gone is what we want
	})
}

// unkill ends the wait for a helper that is gone.
func (i *Instance) unkill() {
	i.killOnce.Do(func() {})
	if i.killTimer != nil {
		i.killTimer.Stop()
	}
}

// start brings helper and function to life, or leaves nothing.
func (i *Instance) start(ctx context.Context) error {
	request, err := i.request()
	if err != nil {
		return err
	}
	if err := i.startHelper(); err != nil {
		return i.noStart("start a helper process", err)
	}
	if err := i.startFunction(ctx, request); err != nil {
		shutdownWrite(i.line)
		i.helper.Wait() //nolint:errcheck // it has nothing to say
		i.output.finish()
		i.line.Close() //nolint:errcheck // only bytes of a dead process could be in it
		return err
	}
	return nil
}

// request finds the program. A command with a slash is relative to the function's folder.
func (i *Instance) request() (lifeline.Request, error) {
	if len(i.spec.Command) == 0 || i.spec.Command[0] == "" {
		return lifeline.Request{}, &quipu.Error{Code: quipu.CodeStart, Op: "instance.start", Text: "function " + i.spec.Function + " has no command"}
	}
	dir, err := filepath.Abs(i.spec.Dir)
	if err != nil {
		return lifeline.Request{}, i.noStart("find its folder", err)
	}
	i.spec.Dir = dir
	path := i.spec.Command[0]
	if strings.ContainsRune(path, filepath.Separator) && !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	path, err = exec.LookPath(path)
	if err != nil {
		return lifeline.Request{}, &quipu.Error{
			Code: quipu.CodeNoTool, Op: "instance.start", Err: err,
			Text: fmt.Sprintf("function %s needs the program %s, which is not on this node", i.spec.Function, i.spec.Command[0]),
		}
	}
	r := lifeline.Request{Path: path, Dir: dir, Args: i.spec.Command, Env: i.environment()}
	for _, s := range append(append([]string{dir}, r.Args...), r.Env...) {
		if strings.ContainsRune(s, 0) {
			return r, i.noStart("prepare its command", errors.New("a zero byte in folder, command or environment"))
		}
	}
	return r, nil
}

func (i *Instance) noStart(doing string, err error) error {
	return &quipu.Error{
		Code: quipu.CodeStart, Op: "instance.start", Err: err,
		Text: fmt.Sprintf("function %s: could not %s", i.spec.Function, doing),
	}
}

// startHelper re-executes this binary, which package lifeline takes over. One processor is
// enough for what it does.
func (i *Instance) startHelper() error {
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	defer theirs.Close() //nolint:errcheck // the helper has its own
	null, err := os.Open(os.DevNull)
	if err != nil {
		return errors.Join(err, ours.Close())
	}
	defer null.Close() //nolint:errcheck // only read
	out, files, err := newOutput(i.spec.Output)
	if err != nil {
		return errors.Join(err, ours.Close())
	}
	exe, err := self()
	if err == nil {
		i.helper, err = os.StartProcess(exe, []string{"quipu-lifeline"}, &os.ProcAttr{
			Env:   []string{lifeline.Env + "=" + lifeline.EnvFD, "GOMAXPROCS=1"},
			Files: []*os.File{null, files[0], files[1], theirs},
			Sys:   &syscall.SysProcAttr{Setsid: true},
		})
	}
	for _, f := range files {
		f.Close() //nolint:errcheck // the helper has its own
	}
	if err != nil {
		out.finish()
		return errors.Join(err, ours.Close())
	}
	i.line, i.answers, i.output = ours, bufio.NewReader(ours), out
	return nil
}

// startFunction hands the request over and waits for the function's process id.
func (i *Instance) startFunction(ctx context.Context, r lifeline.Request) error {
	stop := context.AfterFunc(ctx, func() { i.line.SetDeadline(time.Unix(1, 0)) }) //nolint:errcheck // sockets can
	defer stop()
	if _, err := i.line.Write(r.Encode()); err != nil {
		return i.noStart("talk to its helper", errors.Join(ctx.Err(), err))
	}
	kind, n, err := i.answer()
	if err != nil {
		return i.noStart("talk to its helper", errors.Join(ctx.Err(), err))
	}
	if !stop() {
		return i.noStart("wait for it", ctx.Err())
	}
	if kind != 'P' {
		return i.noStart("run "+r.Path, syscall.Errno(n))
	}
	i.pid = n
	if err := i.writeRecord(); err != nil {
		return i.noStart("note its process id", err)
	}
	return nil
}

// answer reads one line of the helper.
func (i *Instance) answer() (kind byte, n int, err error) {
	text, err := i.answers.ReadString('\n')
	if err != nil {
		return 0, 0, err
	}
	n, err = strconv.Atoi(text[1 : len(text)-1])
	return text[0], n, err
}

// watch waits for the end, makes sure that it is the end, and tells.
func (i *Instance) watch() {
	kind, n, err := i.answer()
	state, waitErr := i.helper.Wait()
	i.unkill()
	switch {
	case err == nil && kind == 'X':
		i.exit = describe(syscall.WaitStatus(n))
	default: // the helper was killed: its children are orphans now
		killRemains(i.helper.Pid, i.pid, i.mark)
		i.exit = "signal: killed, with its helper (" + howEnded(state, waitErr) + ")"
	}
	i.output.finish()
	i.line.Close() //nolint:errcheck // nobody is at the other end
	close(i.done)
	i.runtime.forget(i)
}

func howEnded(state *os.ProcessState, err error) string {
	if err != nil {
		return err.Error()
	}
	return state.String()
}
