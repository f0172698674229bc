package process

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// watchEvery is how often the memory of an instance is looked at that no control group bounds. What it takes in between is not bounded.
const watchEvery = 100 * time.Millisecond

// familyMax bounds a walk over an instance's processes.
const familyMax = 10_000

// watchMemory kills the instance when its processes together have more than its memory.
func (i *Instance) watchMemory() {
	if i.spec.Memory <= 0 || i.boundsMemory() {
		return
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-i.done:
			return
		case <-tick.C:
		}
		if memoryOf(i.process.Pid) > int64(i.spec.Memory) {
			i.tooMuch.Store(true)
			i.process.Kill() //nolint:errcheck // gone is what we want; with it everything in its namespace goes, and else watch sees to it
			return
		}
	}
}

// memoryOf sums what the descendants of a process have for themselves. The helper is not the function's.
func memoryOf(helper int) int64 {
	total := int64(0)
	family := childrenOf(helper)
	for n := 0; n < len(family) && n < familyMax; n++ {
		total += ownMemory(family[n])
		family = append(family, childrenOf(family[n])...)
	}
	return total
}

// ownMemory is resident memory without what is shared: proc_pid_statm(5).
func ownMemory(pid int) int64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 3 {
		return 0 // it is gone
	}
	resident, _ := strconv.ParseInt(fields[1], 10, 64)
	shared, _ := strconv.ParseInt(fields[2], 10, 64)
	return (resident - shared) * int64(os.Getpagesize())
}

// childrenOf lists those that any thread of a process started.
func childrenOf(pid int) (children []int) {
	threads, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*") // the pattern is sound
	for _, thread := range threads {
		children = append(children, startedBy(thread)...)
	}
	return children
}

// childrenOfMain lists those that the main thread of a process started.
func childrenOfMain(pid int) []int {
	return startedBy(filepath.Join("/proc", strconv.Itoa(pid), "task", strconv.Itoa(pid)))
}

// startedBy is empty on a kernel without CONFIG_PROC_CHILDREN.
func startedBy(thread string) (children []int) {
	text, _ := os.ReadFile(filepath.Join(thread, "children")) // a thread that is gone has none
	for _, field := range bytes.Fields(text) {
		if child, err := strconv.Atoi(string(field)); err == nil {
			children = append(children, child)
		}
	}
	return children
}
