package quipu

import (
	"context"
	"net"
	"time"
)

// InstanceSpec is what a runtime needs to start one instance.
type InstanceSpec struct {
	ID       string // unique on the node
	Function string
	Revision string
	Dir      string // working directory, the built source
	Root     string // folder with all that is built, which it may read; "" means Dir
	Command  []string
	Env      []string // NAME=value, added to a minimal environment
	Doors    []Door
	Sandbox  Sandbox
	Memory   Size     // of all its processes together; 0 unlimited
	CPU      MilliCPU // 0 unlimited
	// Output receives each line the instance prints, without its end; stream is stdout or stderr.
	// It is called from one goroutine per stream.
	Output func(stream string, line []byte)
}

// Door is a listener of the node for one instance.
type Door struct {
	Port int // where the instance finds it on 127.0.0.1 if that is its own; else at any free port
	// Env is what tells the instance. It is called once, before the instance starts.
	Env func(port int) []string
	// Serve is given the listener, which it closes. It is called at most once, before the command runs, and does not wait for connections.
	Serve func(net.Listener)
}

// Runtime starts instances.
type Runtime interface {
	// Start returns when the instance runs, which is before it listens. CodeStart, CodeNoTool.
	Start(ctx context.Context, spec InstanceSpec) (Instance, error)
	// Close kills what is left and waits for it.
	Close() error
}

// Layer is one of the walls around instances, on the machine of this node.
type Layer struct {
	Name   string `json:"name"`
	Active bool   `json:"active"`
	Text   string `json:"text"` // how, or why not
}

// Names of layers.
const (
	LayerNamespaces   = "namespaces"   // a root, processes, a network and ids of its own
	LayerLandlock     = "landlock"     // files, once more
	LayerSeccomp      = "seccomp"      // system calls
	LayerCapabilities = "capabilities" // no rights, and no way to any
	LayerNetwork      = "network"      // the way out follows the function's policy
	LayerMemory       = "memory"       // bounded for all processes of an instance together
	LayerCPU          = "cpu"          // likewise
	LayerProcesses    = "processes"    // likewise
	LayerLimits       = "rlimits"      // of each process
)

// LayerNames lists them all.
func LayerNames() []string {
	return []string{LayerNamespaces, LayerLandlock, LayerSeccomp, LayerCapabilities, LayerNetwork, LayerMemory, LayerCPU, LayerProcesses, LayerLimits}
}

// Instance is a running copy of a function.
type Instance interface {
	// PID is the process id a user sees, 0 if the instance is no process.
	PID() int
	// Ready waits until the instance accepts connections. CodeStart if it ends first.
	Ready(ctx context.Context) error
	// Dial opens a connection to it.
	Dial(ctx context.Context) (net.Conn, error)
	// Done is closed when the instance and everything it started are gone.
	Done() <-chan struct{}
	// Exit says, after Done, how it ended: "exit status 1", "signal: killed".
	Exit() string
	// Stop asks it to end, kills it after grace, and returns when it is gone.
	Stop(grace time.Duration)
}

// CPUMeter is an Instance that knows what its processes have taken of the processors so far, its start included. It may be
// asked at any time; after Done it is the whole.
type CPUMeter interface{ CPUTime() (time.Duration, error) }
