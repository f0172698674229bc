package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// sweepTimeMax bounds the hunt for survivors; more than a scheduler's delay is never needed.
const sweepTimeMax = 3 * time.Second

// self is this binary, even if another was put in its place since.
func self() (string, error) { return "/proc/self/exe", nil }

// killRemains kills what a helper that was killed itself could not: the function's group, the
// session that the helper had led, everything with the mark, and what descends from those.
func killRemains(helper, pid int, mark string) {
	syscall.Kill(-pid, syscall.SIGKILL) //nolint:errcheck // perhaps nothing is left
	sweep(func(p proc) bool {           //nolint:errcheck // bounded; what a kill -9 does not end, nothing does
		return p.session == helper || p.marked(mark)
	})
}

// killRecorded is killRemains for instances of an earlier node.
func killRecorded(strays []record) error {
	if len(strays) == 0 {
		return nil
	}
	return sweep(func(p proc) bool {
		for _, r := range strays {
			if p.is(r.PID, r.Start) || p.is(r.Helper, r.Since) || p.marked(r.Mark) {
				return true
			}
		}
		return false
	})
}

// sweep kills all processes that match and their descendants, until a walk finds none.
func sweep(match func(proc) bool) error {
	deadline := time.Now().Add(sweepTimeMax)
	for wait := time.Millisecond; ; wait *= 2 {
		victims := withDescendants(processes(), match)
		if len(victims) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v do not die", victims)
		}
		for _, pid := range victims {
			syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // it may be gone; if not, the next walk sees it
		}
		time.Sleep(min(wait, 50*time.Millisecond))
	}
}

// proc is a process as /proc shows it.
type proc struct {
	pid, parent, session int
	state                byte
	start                uint64
}

func (p proc) is(pid int, start uint64) bool { return p.pid == pid && p.start == start && start != 0 }

// marked reads the environment that the process was started with.
func (p proc) marked(mark string) bool {
	env, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/environ")
	return err == nil && mark != "" && bytes.Contains(env, []byte(markEnv+"="+mark))
}

// withDescendants lists the living that match or descend from one that does; never this process.
func withDescendants(all map[int]proc, match func(proc) bool) []int {
	known := map[int]bool{0: false, 1: false, os.Getpid(): false}
	var decide func(pid, depth int) bool
	decide = func(pid, depth int) bool {
		if verdict, ok := known[pid]; ok {
			return verdict
		}
		p, ok := all[pid]
		verdict := ok && (match(p) || depth < len(all) && decide(p.parent, depth+1))
		known[pid] = verdict
		return verdict
	}
	var found []int
	for pid, p := range all {
		if decide(pid, 0) && p.state != 'Z' && p.state != 'X' {
			found = append(found, pid)
		}
	}
	return found
}

// processes lists all of the machine that we may see.
func processes() map[int]proc {
	all := map[int]proc{}
	dir, err := os.Open("/proc")
	if err != nil {
		return all
	}
	defer dir.Close() //nolint:errcheck // only read
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			if p, ok := readProc(pid); ok {
				all[pid] = p
			}
		}
	}
	return all
}

// readProc reads /proc/PID/stat; see proc_pid_stat(5). The second field is a name in parentheses
// and may hold anything, so fields count from the last parenthesis.
func readProc(pid int) (proc, bool) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return proc{}, false
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return proc{}, false
	}
	p := proc{pid: pid, state: fields[0][0]}
	p.parent, _ = strconv.Atoi(fields[1])
	p.session, _ = strconv.Atoi(fields[3])
	p.start, _ = strconv.ParseUint(fields[19], 10, 64)
	return p, true
}

// startTime is in ticks since the machine started; 0 if there is no such process.
func startTime(pid int) uint64 {
	p, _ := readProc(pid)
	return p.start
}

func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}
