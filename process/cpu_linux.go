package process

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/quipu-run/quipu/process/cgroup"
)

func (i *Instance) groupTime() (time.Duration, error) {
	if i.group.Group == nil {
		return 0, cgroup.ErrNotCounted
	}
	return i.group.CPUTime()
}

// processTime is that of all threads of a process (clock_getcpuclockid(3): the clock is the pid, inverted, and 2 for what the
// scheduler has counted).
func processTime(pid int) (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(^int32(pid)<<3|2, &t); err != nil {
		return 0, err
	}
	return time.Duration(t.Nano()), nil
}
