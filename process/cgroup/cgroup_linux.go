// Package cgroup bounds what the processes of an instance take together: memory, processor, number. It speaks version 2 of the kernel's
// control groups, and version 1, each where this process may make groups.
//
// The groups are below the group that the node itself is in. A group is removed when its processes are gone; what a node that was
// killed left is removed by the next Open.
package cgroup

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Controllers that are used.
const (
	Memory = "memory"
	CPU    = "cpu"
	PIDs   = "pids"
)

// Tree is the place for groups.
type Tree struct {
	unified bool
	dirs    map[string]string // controller -> our folder; version 2 has one folder for all
}

// Limits of a group; 0 is none.
type Limits struct {
	Memory    int64 // bytes
	MilliCPU  int64 // thousandths of a processor
	Processes int64
}

// Group is the processes of an instance.
type Group struct {
	tree *Tree
	name string
	used *os.File // where the kernel counts processor time; nil if it does not
}

// Open finds where groups can be made, and removes those of processes that are no more. It answers an error if there is
// no controller at all.
func Open() (*Tree, error) {
	t, err := find(fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), opened.Add(1)))
	if err != nil {
		return nil, err
	}
	for _, dir := range t.folders() {
		if err := clearDead(filepath.Dir(dir)); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// prefix of the folder of a tree; a pid follows, and which tree of that process it is.
const prefix = "quipu-"

var opened atomic.Int64

// clearDead removes folders beside ours whose process is gone.
func clearDead(parent string) error {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return err
	}
	for _, e := range entries {
		number, ours := strings.CutPrefix(e.Name(), prefix)
		number, _, _ = strings.Cut(number, "-")
		pid, err := strconv.Atoi(number)
		if !ours || err != nil || syscall.Kill(pid, 0) != syscall.ESRCH {
			continue
		}
		dir := filepath.Join(parent, e.Name())
		if err := clear(dir); err != nil {
			return err
		}
		if err := os.Remove(dir); err != nil && !errors.Is(err, syscall.EBUSY) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// find prefers version 2, unless it lacks the memory controller, as on a machine that gives it to version 1.
func find(name string) (*Tree, error) {
	own, err := ownGroups()
	if err != nil {
		return nil, err
	}
	mounts, err := mountPoints()
	if err != nil {
		return nil, err
	}
	if at, ok := mounts[""]; ok {
		if t, err := openUnified(filepath.Join(at, own[""]), name); err == nil {
			return t, nil
		}
	}
	t := &Tree{dirs: map[string]string{}}
	var failed error
	for _, controller := range []string{Memory, CPU, PIDs} {
		at, ok := mounts[controller]
		if !ok {
			continue
		}
		dir := filepath.Join(at, own[controller], name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			failed = err
			continue
		}
		t.dirs[controller] = dir
	}
	if len(t.dirs) == 0 {
		return nil, cmp.Or(failed, errors.New("no controller is mounted"))
	}
	return t, nil
}

// openUnified makes room for groups below own. A group of version 2 has either processes or groups with limits below it, so the
// node moves into a group beside those of its instances; if others are in its group, that cannot be.
func openUnified(own, name string) (*Tree, error) {
	available, err := os.ReadFile(filepath.Join(own, "cgroup.controllers"))
	if err != nil {
		return nil, err
	}
	if !strings.Contains(" "+strings.TrimSpace(string(available))+" ", " "+Memory+" ") {
		return nil, errors.New("version 2 has no memory controller here")
	}
	t := &Tree{unified: true, dirs: map[string]string{}}
	enable := ""
	for _, controller := range strings.Fields(string(available)) {
		if controller == Memory || controller == CPU || controller == PIDs {
			enable += " +" + controller
			t.dirs[controller] = filepath.Join(own, name)
		}
	}
	node := filepath.Join(own, fmt.Sprintf("%s%d-node", prefix, os.Getpid()))
	if filepath.Base(own) == filepath.Base(node) { // it moved there for an earlier tree
		own, node = filepath.Dir(own), own
	}
	if err := os.Mkdir(node, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := write(node, "cgroup.procs", strconv.Itoa(os.Getpid())); err != nil {
		return nil, errors.Join(err, os.Remove(node))
	}
	if err := write(own, "cgroup.subtree_control", enable[1:]); err != nil {
		return nil, errors.Join(err, write(own, "cgroup.procs", strconv.Itoa(os.Getpid())), os.Remove(node))
	}
	if err := os.Mkdir(filepath.Join(own, name), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return t, write(filepath.Join(own, name), "cgroup.subtree_control", enable[1:])
}

// ownGroups maps controllers to the path of this process's group; "" is version 2. See cgroups(7).
func ownGroups() (map[string]string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	own := map[string]string{}
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 {
			continue
		}
		for _, controller := range strings.Split(fields[1], ",") {
			own[controller] = fields[2]
		}
	}
	return own, nil
}

// mountPoints maps controllers to where they are mounted; "" is version 2.
func mountPoints() (map[string]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	points := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(kind) < 3 {
			continue
		}
		switch kind[0] {
		case "cgroup2":
			points[""] = fields[4]
		case "cgroup":
			for _, option := range strings.Split(kind[2], ",") {
				points[option] = fields[4]
			}
		}
	}
	return points, nil
}

// Has tells whether a controller is there.
func (t *Tree) Has(controller string) bool {
	_, ok := t.dirs[controller]
	return ok
}

// Version is 2 or 1.
func (t *Tree) Version() int {
	if t.unified {
		return 2
	}
	return 1
}

func (t *Tree) folders() []string {
	seen := map[string]bool{}
	var all []string
	for _, dir := range t.dirs {
		if !seen[dir] {
			seen[dir] = true
			all = append(all, dir)
		}
	}
	return all
}

// Close removes the folder of the groups, which must be gone.
func (t *Tree) Close() error {
	var failed error
	for _, dir := range t.folders() {
		if err := errors.Join(clear(dir), os.Remove(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// New makes a group without processes and limits.
func (t *Tree) New(name string) (*Group, error) {
	g := &Group{tree: t, name: name}
	for _, dir := range t.folders() {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, errors.Join(err, g.Remove())
		}
	}
	g.openUsed()
	return g, nil
}

// Limit sets limits. A controller that is not there leaves its limit out.
func (g *Group) Limit(l Limits) error {
	set := func(controller, file, value string) error {
		if !g.tree.Has(controller) {
			return nil
		}
		return write(g.dir(controller), file, value)
	}
	var failed error
	if l.Memory > 0 {
		failed = errors.Join(failed, g.limitMemory(strconv.FormatInt(l.Memory, 10)))
	}
	if l.MilliCPU > 0 {
		const period = 100_000 // microseconds, the kernel's default
		quota := strconv.FormatInt(max(l.MilliCPU*period/1000, 1000), 10)
		if g.tree.unified {
			failed = errors.Join(failed, set(CPU, "cpu.max", quota+" "+strconv.Itoa(period)))
		} else {
			failed = errors.Join(failed, set(CPU, "cpu.cfs_period_us", strconv.Itoa(period)), set(CPU, "cpu.cfs_quota_us", quota))
		}
	}
	if l.Processes > 0 {
		failed = errors.Join(failed, set(PIDs, "pids.max", strconv.FormatInt(l.Processes, 10)))
	}
	return failed
}

// limitMemory takes swap away too, where the kernel counts it: a function that swaps is as good as dead.
func (g *Group) limitMemory(bytes string) error {
	if !g.tree.Has(Memory) {
		return nil
	}
	dir := g.dir(Memory)
	file, swap, most := "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", bytes
	if g.tree.unified {
		file, swap, most = "memory.max", "memory.swap.max", "0"
	}
	if err := write(dir, file, bytes); err != nil {
		return err
	}
	if err := write(dir, swap, most); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if g.tree.unified { // all of the instance, so that no half of it lives on
		return write(dir, "memory.oom.group", "1")
	}
	return nil
}

// Add puts a process into the group; what it starts is in it too.
func (g *Group) Add(pid int) error {
	var failed error
	for _, dir := range g.tree.folders() {
		failed = errors.Join(failed, write(filepath.Join(dir, g.name), "cgroup.procs", strconv.Itoa(pid)))
	}
	return failed
}

// Killed counts processes that were killed for want of memory.
func (g *Group) Killed() int {
	if !g.tree.Has(Memory) {
		return 0
	}
	file := "memory.oom_control"
	if g.tree.unified {
		file = "memory.events"
	}
	text, err := os.ReadFile(filepath.Join(g.dir(Memory), file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			count, _ := strconv.Atoi(n)
			return count
		}
	}
	return 0
}

// removeTries is how often a group is found busy by processes that are dead but not yet gone.
const removeTries = 50

// Remove takes the group away once its processes are gone.
func (g *Group) Remove() error {
	var failed error
	if g.used != nil {
		failed = g.used.Close()
		g.used = nil
	}
	for _, dir := range g.tree.folders() {
		failed = errors.Join(failed, remove(filepath.Join(dir, g.name)))
	}
	return failed
}

func (g *Group) dir(controller string) string { return filepath.Join(g.tree.dirs[controller], g.name) }

func remove(dir string) error {
	var err error
	for range removeTries {
		if err = os.Remove(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
	return err
}

// clear removes the groups below dir that have no processes. Those that have are of a node that still runs.
func clear(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, syscall.EBUSY) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func write(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
