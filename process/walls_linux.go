package process

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/process/cgroup"
	"github.com/quipu-run/quipu/process/egress"
	"github.com/quipu-run/quipu/process/lifeline"
	"github.com/quipu-run/quipu/process/sandbox"
)

// builder makes the walls of instances out of what can be had here.
type builder struct {
	machine *sandbox.Machine // nil without Options.Sandbox
	trial   string           // folder of the program that walls are tried with
	why     error            // no namespaces
	groups  *cgroup.Tree     // nil if there are none
	noGroup error            // why
}

// doorFirst is the port of a door that does not mind which it has.
const doorFirst = 20000

func newBuilder(dir string, o Options) *builder {
	b := &builder{trial: filepath.Join(dir, "trial")}
	if !o.Sandbox {
		return b
	}
	defer func() {
		if b.why != nil {
			o.Logger.Warn("functions run without namespaces, behind fewer walls; quipu doctor shows which", "err", b.why)
		}
	}()
	stage := filepath.Join(dir, "root")
	b.machine = sandbox.Look(stage, searchPath(), append([]string{dir}, o.Private...))
	b.groups, b.noGroup = cgroup.Open()
	if b.why = os.MkdirAll(stage, 0o755); b.why != nil {
		return b
	}
	for _, n := range []sandbox.Namespaces{sandbox.UserNamespaces, sandbox.RootNamespaces} {
		if n == sandbox.RootNamespaces && os.Geteuid() != 0 {
			break
		}
		b.machine.Namespaces = n
		for range triesMax { // what fails once may be the machine's load
			if b.why = b.try(); b.why == nil {
				return b
			}
		}
	}
	b.machine.Namespaces = sandbox.NoNamespaces
	return b
}

const triesMax = 3

// tryTime bounds the trial of walls, which takes a few milliseconds.
const tryTime = 10 * time.Second

// try starts a program that ends at once behind the walls that b would build.
func (b *builder) try() error {
	exit, err := trialProgram(b.trial)
	if err != nil {
		return err
	}
	g, err := (&grounds{builder: b}).lay()
	if err != nil {
		return err
	}
	defer g.discard()
	walls := b.machine.Walls(sandbox.Wish{Root: b.trial, Program: exit, Tmp: 1 << 20})
	walls.Notify = false
	g.line.conn.SetDeadline(time.Now().Add(tryTime)) //nolint:errcheck // sockets can
	g.output.deliver(nil)
	err = g.line.send(lifeline.Request{Path: exit, Dir: "/", Args: []string{exit}, Walls: walls}.Encode())
	for err == nil {
		var a answer
		switch a, err = g.line.next(); {
		case err != nil || a.kind == 'P':
		case a.kind == 'E':
			err = fmt.Errorf("%s: %w", b.stepName(a.step, walls.Mounts), syscall.Errno(a.n))
		case a.kind == 'X' && a.n == 0:
			return nil
		default:
			err = errors.New(describe(syscall.WaitStatus(a.n)))
		}
	}
	return err
}

func (b *builder) attributes(n int) *syscall.SysProcAttr {
	if b.machine == nil {
		return &syscall.SysProcAttr{Setsid: true}
	}
	return b.machine.Attributes(n)
}

// common are the walls of every instance.
func (b *builder) common() lifeline.Walls {
	if b.machine == nil {
		return lifeline.Walls{}
	}
	return b.machine.Ground()
}

// newGroup puts a helper, and so all that comes of it, into a group.
func (b *builder) newGroup(n, pid int) (group, error) {
	if b.groups == nil {
		return group{}, nil
	}
	made, err := b.groups.New(strconv.Itoa(n))
	if err != nil {
		return group{}, err
	}
	if err := made.Add(pid); err != nil {
		return group{}, errors.Join(err, made.Remove())
	}
	return group{made}, nil
}

// group is one of the kernel's, or none.
type group struct{ *cgroup.Group }

func (g group) remove() {
	if g.Group != nil {
		g.Remove() //nolint:errcheck // the next node removes it
	}
}

func (b *builder) stepName(step int, mounts []lifeline.Mount) string {
	return lifeline.StepName(step, append(b.common().Mounts, mounts...))
}

func (i *Instance) stepName(step int) string {
	return i.runtime.grounds().builder.stepName(step, i.walls.request.Mounts)
}

func (b *builder) layers() []quipu.Layer {
	if b.machine == nil {
		var all []quipu.Layer
		for _, name := range quipu.LayerNames() {
			all = append(all, quipu.Layer{Name: name, Text: "switched off"})
		}
		return all
	}
	all := b.machine.Layers(b.why)
	for _, c := range [][2]string{{quipu.LayerMemory, cgroup.Memory}, {quipu.LayerCPU, cgroup.CPU}, {quipu.LayerProcesses, cgroup.PIDs}} {
		l := quipu.Layer{Name: c[0]}
		switch {
		case b.groups != nil && b.groups.Has(c[1]):
			l.Active, l.Text = true, fmt.Sprintf("control groups, version %d", b.groups.Version())
		case b.noGroup != nil:
			l.Text = "no control groups: " + b.noGroup.Error()
		default:
			l.Text = "no such controller for this process"
		}
		all = append(all, b.instead(l))
	}
	return all
}

// instead tells what takes the place of a control group.
func (b *builder) instead(l quipu.Layer) quipu.Layer {
	switch {
	case l.Active:
	case l.Name == quipu.LayerMemory:
		l.Active, l.Text = true, fmt.Sprintf("looked at every %s", watchEvery)
	case l.Name == quipu.LayerProcesses && b.machine.Namespaces != sandbox.NoNamespaces:
		l.Active, l.Text = true, "rlimit of the instance's own user"
	}
	return l
}

func (b *builder) close() error {
	if b.groups == nil {
		return nil
	}
	return b.groups.Close()
}

// wayOut is the supervisor of what leaves the walls, or none.
type wayOut struct{ *egress.Supervisor }

func (w wayOut) close() {
	if w.Supervisor != nil {
		w.Close() //nolint:errcheck // the instance is gone, and whatever ended the supervision before
	}
}

// layOut decides where everything is for the instance.
func (i *Instance) layOut(program string) error {
	b := i.runtime.grounds().builder
	if b.machine == nil {
		return i.settleHere()
	}
	if i.walls.inside = b.machine.Namespaces != sandbox.NoNamespaces; i.walls.inside {
		i.layOutInside()
	} else if err := i.layOutHere(); err != nil {
		return err
	}
	i.walls.request = b.machine.Walls(sandbox.Wish{Number: i.number, Root: i.spec.Root, Program: program,
		Tmp: i.tmpSize(), Processes: i.processes(), Ports: i.doors, Scratch: i.walls.scratch})
	if i.group.Group == nil {
		return nil
	}
	return i.group.Limit(cgroup.Limits{Memory: int64(i.spec.Memory), MilliCPU: int64(i.spec.CPU), Processes: int64(i.processes())})
}

// layOutInside: every address is free there.
func (i *Instance) layOutInside() {
	i.port, i.socket, i.home, i.tmp = sandbox.Port, sandbox.SocketPath, "/tmp", "/tmp"
	for n, d := range i.spec.Doors {
		port := d.Port
		if port == 0 {
			port = doorFirst + n
		}
		i.doors = append(i.doors, port)
	}
}

// layOutHere gives the instance a folder of the machine, and doors on its loopback.
func (i *Instance) layOutHere() error {
	i.walls.scratch = i.socket // that name, for a folder with the socket in it
	i.home, i.tmp, i.socket = i.walls.scratch, i.walls.scratch, filepath.Join(i.walls.scratch, "f")
	return errors.Join(os.MkdirAll(i.walls.scratch, 0o700), i.settleHere())
}

func (i *Instance) processes() int {
	if n := i.spec.Sandbox.Processes; n > 0 {
		return n
	}
	return quipu.ProcessesDefault
}

// tmpSize is not more than half of the memory that it is taken from.
func (i *Instance) tmpSize() int64 {
	size := int64(quipu.TmpDefault)
	if i.spec.Memory > 0 {
		size = min(size, int64(i.spec.Memory)/2)
	}
	if i.spec.Sandbox.Tmp > 0 {
		size = int64(i.spec.Sandbox.Tmp)
	}
	return size
}

// supervise keeps the way out. What is refused is told where people look: in the function's own output.
func (i *Instance) supervise(listener *os.File) error {
	policy, err := policyOf(i.spec.Sandbox)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	policy.Deny, policy.Redirect = i.runtime.options.Own, i.runtime.options.Redirect
	i.walls.out.Supervisor, err = egress.Supervise(listener, policy, func(to netip.AddrPort) {
		if i.spec.Output != nil {
			i.spec.Output("stderr", fmt.Appendf(nil, "quipu: a connection to %s was refused by the sandbox; sandbox.network and sandbox.allow of quipu.yaml say what may be reached", to))
		}
	})
	return err
}

// policyOf reads what deploy has checked.
func policyOf(s quipu.Sandbox) (egress.Policy, error) {
	var p egress.Policy
	switch s.Network {
	case quipu.NetworkPublic:
		p.Mode = egress.Public
	case quipu.NetworkNone:
		p.Mode = egress.None
	}
	for _, text := range s.Allow {
		rule, err := egress.ParseRule(text)
		if err != nil {
			return p, err
		}
		p.Allow = append(p.Allow, rule)
	}
	return p, nil
}

// outside is the pid of the function as the machine knows it: the helper's only child.
func (i *Instance) outside(pid int) int {
	if !i.walls.inside {
		return pid
	}
	if children := childrenOfMain(i.process.Pid); len(children) > 0 {
		return children[0]
	}
	for pid, p := range processes() { // a kernel without CONFIG_PROC_CHILDREN
		if p.parent == i.process.Pid {
			return pid
		}
	}
	return 0 // it is gone
}

func (i *Instance) boundsMemory() bool {
	return i.group.Group != nil && i.runtime.grounds().builder.groups.Has(cgroup.Memory)
}

// overdrawn says how an instance ended that took more memory than it may; "" if it did not.
func (i *Instance) overdrawn() string {
	if i.spec.Memory <= 0 || !i.tooMuch.Load() && (!i.boundsMemory() || i.group.Killed() == 0) {
		return ""
	}
	most, _ := i.spec.Memory.MarshalText() // never fails
	return fmt.Sprintf("out of memory: it took more than its %s", most)
}
