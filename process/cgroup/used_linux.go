package cgroup

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// openUsed finds the file that says what the group has taken of the processors. Version 2 has it in every group; in version 1
// it is where cpuacct is mounted together with cpu, as everywhere it is mounted by systemd.
func (g *Group) openUsed() {
	for _, dir := range g.tree.folders() {
		for _, name := range []string{"cpu.stat", "cpuacct.usage"} {
			if g.tree.unified != (name == "cpu.stat") {
				continue
			}
			if f, err := os.Open(filepath.Join(dir, g.name, name)); err == nil {
				g.used = f
				return
			}
		}
	}
}

// ErrNotCounted says that the kernel does not count the processor time of groups here.
var ErrNotCounted = errors.New("the kernel does not count the processor time of this group")

// CPUTime is what the processes of the group have taken of the processors, those that are gone included. It must not be
// called while Remove runs, or after.
func (g *Group) CPUTime() (time.Duration, error) {
	if g.used == nil {
		return 0, ErrNotCounted
	}
	var buf [128]byte // usage_usec is the first line of cpu.stat
	n, err := g.used.ReadAt(buf[:], 0)
	if n == 0 {
		return 0, err
	}
	return parseUsed(buf[:n], g.tree.unified)
}

// parseUsed reads nanoseconds, or the line usage_usec of version 2.
func parseUsed(text []byte, unified bool) (time.Duration, error) {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	unit := time.Nanosecond
	if unified {
		var ok bool
		if line, ok = bytes.CutPrefix(line, []byte("usage_usec ")); !ok {
			return 0, ErrNotCounted
		}
		unit = time.Microsecond
	}
	count, err := strconv.ParseInt(string(line), 10, 64)
	return time.Duration(count) * unit, err
}
