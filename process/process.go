// Package process runs instances as processes of this machine.
//
// Each instance is a function's command in a process group of its own, started by a small helper
// (package lifeline) that kills it, and all it started, when the instance is stopped or the node dies.
// The instance listens on the TCP port in PORT or on the Unix socket in QUIPU_SOCKET; it is ready when
// either accepts a connection.
//
// After a crash of the node nothing is left running: the kernel closes the lifeline. Should somebody kill
// node and helpers at once, the functions die by their death signal, and what they had
// started is found by the next New with the same Dir, which knows processes by the mark in their
// environment and by process id and start time. Escape needs all of it: leaving the session,
// erasing the environment, and the death of the helper by force.
//
// With Options.Sandbox an instance runs behind walls: package sandbox says which, docs/internals/sandbox.md why. Then its
// addresses are its own (port 8080, a socket below /run), and the node reaches it through its helper, which is within the walls.
// On systems other than Linux there are no walls, and only the process group is killed.
package process

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/process/egress"
)

// socketPathMax is what fits into a Unix address on every system, with its final zero.
const socketPathMax = 103

// Options are checked by New.
type Options struct {
	// Dir keeps a small file per running instance, by which the next node finds strays, and the
	// sockets if its name is short enough. Required; made if missing; one node at a time.
	Dir string
	// Sandbox puts instances behind all the walls that can be had here.
	Sandbox bool
	// Logger is told when Sandbox is asked for and there are no namespaces. nil means nobody.
	Logger *slog.Logger
	// Private are folders that no function may see, whatever holds them. Dir is one.
	Private []string
	// Own tells the node's own listeners, which no function may reach over the network.
	Own func(netip.AddrPort) bool
	// Redirect leads functions from one of the node's listeners to another that is for them.
	Redirect func(netip.AddrPort) (netip.AddrPort, bool)
}

// Runtime starts instances as processes. It implements quipu.Runtime.
type Runtime struct {
	options Options
	dir     string          // records of running instances
	sockets string          // private directory of Unix sockets
	grounds func() *grounds // looks what walls can be had here, once

	mu        sync.Mutex // guards the fields below
	closed    bool
	count     int // of instances ever started, for names of files
	instances map[*Instance]struct{}
	ports     map[int]struct{} // handed out to live instances
	running   sync.WaitGroup   // one per instance; Add only while not closed
}

var _ quipu.Runtime = (*Runtime)(nil)

// New prepares Dir and kills what an earlier node left behind.
func New(o Options) (*Runtime, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil || o.Dir == "" {
		return nil, fmt.Errorf("directory of the process runtime %q: %w", o.Dir, errors.Join(err, os.ErrInvalid))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("process runtime: %w", err)
	}
	if err := killStrays(dir); err != nil {
		return nil, fmt.Errorf("strays of an earlier node: %w", err)
	}
	sockets, err := socketDir(dir)
	if err != nil {
		return nil, fmt.Errorf("directory of sockets: %w", err)
	}
	r := &Runtime{
		options: o, dir: dir, sockets: sockets,
		instances: map[*Instance]struct{}{}, ports: map[int]struct{}{},
	}
	r.grounds = sync.OnceValue(func() *grounds {
		g := &grounds{builder: newBuilder(dir, o)}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.refillAfter(0)
		return g
	})
	if o.Sandbox {
		go r.grounds() // so that the first instance does not wait
	}
	return r, nil
}

// Layers tells which walls instances have.
func (r *Runtime) Layers() []quipu.Layer { return r.grounds().builder.layers() }

// Check refuses a sandbox that is not one, or that cannot be had here. CodeManifest, CodeSandbox.
func (r *Runtime) Check(s quipu.Sandbox) error {
	if !slices.Contains([]string{"", quipu.NetworkMachine, quipu.NetworkPublic, quipu.NetworkNone}, s.Network) {
		return wrongSandbox("network is %q, but must be %s, %s or %s", s.Network, quipu.NetworkMachine, quipu.NetworkPublic, quipu.NetworkNone)
	}
	for _, rule := range s.Allow {
		if _, err := egress.ParseRule(rule); err != nil {
			return err
		}
	}
	layers := r.Layers()
	for _, name := range s.Require {
		i := slices.IndexFunc(layers, func(l quipu.Layer) bool { return l.Name == name })
		switch {
		case i < 0:
			return wrongSandbox("require names %q, but must be of %s", name, strings.Join(quipu.LayerNames(), ", "))
		case !layers[i].Active:
			return &quipu.Error{Code: quipu.CodeSandbox, Op: "deploy", Text: fmt.Sprintf("it requires the layer %s, which is not active on this node: %s", name, layers[i].Text)}
		}
	}
	return nil
}

func wrongSandbox(format string, args ...any) error {
	return &quipu.Error{Code: quipu.CodeManifest, Op: "deploy", Text: fmt.Sprintf(format, args...)}
}

// Start runs spec.Command. CodeNoTool if the program is not there, CodeStart if it cannot run;
// CodeStopping after Close. The instance outlives ctx.
func (r *Runtime) Start(ctx context.Context, spec quipu.InstanceSpec) (quipu.Instance, error) {
	inst, err := r.admit(spec)
	if err != nil {
		return nil, err
	}
	if inst.ground, err = r.grounds().take(); err != nil {
		err = inst.noStart("start a helper process", err)
	} else if err = inst.start(ctx); err != nil {
		inst.discard()
	}
	if err != nil {
		r.forget(inst)
		return nil, err
	}
	r.register(inst)
	go inst.watch()
	go inst.watchMemory()
	return inst, nil
}

// Close kills what is left and returns when it is gone.
func (r *Runtime) Close() error {
	r.mu.Lock()
	r.closed = true
	for inst := range r.instances {
		inst.kill()
	}
	r.mu.Unlock()
	r.running.Wait()
	return errors.Join(r.grounds().close(), os.RemoveAll(r.sockets))
}

// admit reserves a name.
func (r *Runtime) admit(spec quipu.InstanceSpec) (*Instance, error) {
	mark := make([]byte, 16)
	rand.Read(mark) //nolint:errcheck // never fails, by its documentation
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, &quipu.Error{Code: quipu.CodeStopping, Op: "instance.start"}
	}
	r.count++
	name := strconv.Itoa(r.count)
	inst := &Instance{
		runtime: r, spec: spec, mark: hex.EncodeToString(mark),
		socket: filepath.Join(r.sockets, name), home: spec.Dir, tmp: os.TempDir(), record: filepath.Join(r.dir, name+recordSuffix),
		done: make(chan struct{}), noted: make(chan struct{}),
	}
	r.running.Add(1)
	return inst, nil
}

// register makes the instance one that Close kills; if Close is waiting already, it is killed now.
func (r *Runtime) register(inst *Instance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.instances[inst] = struct{}{}
	if r.closed {
		inst.kill()
	}
}

// forget gives back what admit reserved, and removes the instance's files. A file that
// stays is found by the next New.
func (r *Runtime) forget(inst *Instance) {
	os.Remove(inst.record) //nolint:errcheck // a record without processes does no harm
	inst.takeDown()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.instances, inst)
	if !inst.walls.inside {
		delete(r.ports, inst.port)
	}
	r.running.Done()
}

// Limits of waiting for an instance.
const (
	pollFirst = 500 * time.Microsecond // between the first two looks whether it listens
	pollMost  = 10 * time.Millisecond  // between later ones
	lostWait  = 5 * time.Second        // for a helper that was told to kill; then it is killed itself
)

// markEnv is the variable by which processes of an instance are known.
const markEnv = "QUIPU_RUN"

// environment is minimal: nothing of the node's own but where programs are.
func (i *Instance) environment() []string {
	env := []string{
		"PATH=" + searchPath(), "HOME=" + i.home, "LANG=C.UTF-8", "TMPDIR=" + i.tmp,
		"PORT=" + strconv.Itoa(i.port), "APP_PORT=" + strconv.Itoa(i.port), "QUIPU_SOCKET=" + i.socket,
		"QUIPU_FUNCTION=" + i.spec.Function, "QUIPU_INSTANCE=" + i.spec.ID,
	}
	for n, d := range i.spec.Doors {
		env = append(env, d.Env(i.doors[n])...)
	}
	env = append(env, i.spec.Env...)
	return lastOfEach(append(env, markEnv+"="+i.mark))
}

// lastOfEach keeps the last value of each variable; programs disagree about which one counts.
func lastOfEach(env []string) []string {
	at := map[string]int{}
	kept := env[:0]
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if n, ok := at[name]; ok {
			kept[n] = e
			continue
		}
		at[name] = len(kept)
		kept = append(kept, e)
	}
	return kept
}

func searchPath() string {
	if p := os.Getenv("PATH"); p != "" {
		return p
	}
	return "/usr/local/bin:/usr/bin:/bin"
}

// describe turns how a process ended into words.
func describe(status syscall.WaitStatus) string {
	switch {
	case status.Exited():
		return "exit status " + strconv.Itoa(status.ExitStatus())
	case status.Signaled():
		return "signal: " + status.Signal().String()
	}
	return "wait status " + strconv.Itoa(int(status))
}
