package main

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
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/process"
)

// finding is a line of doctor.
type finding struct {
	State string `json:"state"` // ok, warn, fail
	What  string `json:"what"`
	Found string `json:"found"`
	Do    string `json:"do,omitempty"`
}

func (c *cli) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "doctor", Short: "Look whether this machine has what a node needs", Args: cobra.NoArgs}
	data := cmd.Flags().String("data", ".", "where the data of a node would be")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		findings := append(tools(cmd.Context()), ports()...)
		findings = append(findings, disk(*data)...)
		findings = append(findings, walls()...)
		findings = append(findings, c.reach(cmd.Context()))
		err := c.list(tableOf("STATE\tWHAT\tFOUND\tWHAT TO DO", findings, func(f finding) []any { return []any{f.State, f.What, f.Found, f.Do} }))
		if err == nil && slices.ContainsFunc(findings, func(f finding) bool { return f.State == "fail" }) {
			return errors.New("something has to be mended before a node can run here")
		}
		return err
	}
	return cmd
}

// tools are wanted by runtimes; a node runs without those it does not use.
func tools(ctx context.Context) []finding {
	var out []finding
	for _, tool := range [][]string{{"go", "version"}, {"python3", "--version"}, {"node", "--version"}} {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		text, err := exec.CommandContext(ctx, tool[0], tool[1]).Output()
		cancel()
		f := finding{State: "ok", What: tool[0], Found: strings.TrimSpace(string(text))}
		if err != nil {
			f = finding{"warn", tool[0], "not found", "install it to run functions of that runtime"}
		}
		out = append(out, f)
	}
	return out
}

func ports() []finding {
	var out []finding
	for _, p := range [][2]string{{"8080", "--port"}, {"3500", "--dapr-http-port"}, {"50001", "--dapr-grpc-port"}} {
		f := finding{State: "ok", What: "port " + p[0], Found: "free"}
		l, err := net.Listen("tcp", "127.0.0.1:"+p[0])
		if err == nil {
			err = l.Close()
		}
		if err != nil {
			f = finding{"warn", "port " + p[0], "taken", "by a node, perhaps; else start with " + p[1] + " N"}
		}
		out = append(out, f)
	}
	return out
}

// disk measures where dir is, or would be.
func disk(dir string) []finding {
	f, err := os.CreateTemp(dir, ".quipu-doctor-*")
	if err != nil {
		return []finding{{"fail", "data directory", err.Error(), "make it, and make it writable"}}
	}
	defer os.Remove(f.Name())
	defer f.Close()
	abs, err := filepath.Abs(dir)
	if err != nil {
		abs = dir
	}
	return []finding{{State: "ok", What: "data directory", Found: "writable: " + abs}, fsyncTime(f), space(dir)}
}

// walls are the layers of the sandbox that functions would have here. One that is missing is missed by nobody who does not require it.
func walls() []finding {
	dir, err := os.MkdirTemp("", "quipu-doctor-")
	if err != nil {
		return []finding{{"warn", "sandbox", err.Error(), ""}}
	}
	defer os.RemoveAll(dir)
	rt, err := process.New(process.Options{Dir: dir, Sandbox: true})
	if err != nil {
		return []finding{{"warn", "sandbox", err.Error(), ""}}
	}
	defer rt.Close()
	var out []finding
	for _, l := range rt.Layers() {
		f := finding{State: "ok", What: "sandbox: " + l.Name, Found: l.Text}
		if !l.Active {
			f.State, f.Do = "warn", wallAdvice[l.Name]
		}
		out = append(out, f)
	}
	return out
}

var wallAdvice = map[string]string{
	quipu.LayerNamespaces: "permit user namespaces (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns), or run the node as root",
	quipu.LayerLandlock:   "use a kernel from 5.13 with landlock in its list of security modules",
	quipu.LayerSeccomp:    "use a kernel with seccomp filters",
	quipu.LayerNetwork:    "see namespaces; it needs a kernel from 5.14",
	quipu.LayerMemory:     "run the node where it may make control groups: as root, or as a systemd service with Delegate=yes",
	quipu.LayerCPU:        "likewise",
	quipu.LayerProcesses:  "likewise",
}

func fsyncTime(f *os.File) finding {
	const rounds = 11
	var took []time.Duration
	for range rounds {
		start := time.Now()
		_, err := f.Write(make([]byte, 4096))
		if err == nil {
			err = f.Sync()
		}
		if err != nil {
			return finding{"fail", "fsync", err.Error(), "use another disk"}
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	out := finding{State: "ok", What: "fsync", Found: fmt.Sprintf("%v median", took[rounds/2].Round(time.Microsecond))}
	if took[rounds/2] > 20*time.Millisecond {
		out.State, out.Do = "warn", "every commit waits so long; a solid-state disk takes under 5 ms"
	}
	return out
}

func space(dir string) finding {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return finding{"warn", "disk space", err.Error(), ""}
	}
	free := uint64(st.Bavail) * uint64(st.Bsize)
	f := finding{State: "ok", What: "disk space", Found: fmt.Sprintf("%.1f GiB free", float64(free)/(1<<30))}
	if free < 1<<30 {
		f.State, f.Do = "warn", "a node only reads when its disk is nearly full: free some"
	}
	return f
}

func (c *cli) reach(ctx context.Context) finding {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	node, err := c.client()
	if err != nil {
		return finding{"warn", "node", err.Error(), "see --node"}
	}
	n, err := node.Node(ctx)
	if err != nil {
		return finding{"warn", "node", "none answers at " + node.Address(), "quipu dev starts one"}
	}
	return finding{State: "ok", What: "node", Found: fmt.Sprintf("version %s at %s", n.Version, n.HTTP)}
}
