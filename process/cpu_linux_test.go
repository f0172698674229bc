package process_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/process"
)

// burnt is how much of a processor a function takes that burns.
const burnt = 150 * time.Millisecond

// burn takes so much of a processor as the kernel counts it, whoever else wants it.
func burn(clock int32) {
	var t unix.Timespec
	for t.Nano() < int64(burnt) {
		if err := unix.ClockGettime(clock, &t); err != nil {
			panic(err)
		}
	}
}

// beParent has a child burn, and burns itself.
func beParent() {
	if os.Getenv("CHILD") == "" {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "CHILD=1")
		if err := cmd.Run(); err != nil {
			panic(err)
		}
	}
	burn(unix.CLOCK_PROCESS_CPUTIME_ID)
	if os.Getenv("CHILD") == "" && os.Getenv("STAY") != "" {
		fmt.Println("burnt")
		forever()
	}
}

// spent is the processor time of an instance.
func (s *story) spent(inst quipu.Instance) time.Duration {
	s.Helper()
	spent, err := inst.(quipu.CPUMeter).CPUTime()
	if err != nil {
		s.Fatal(err)
	}
	return spent
}

// At the end an instance's processor time has that of all that it started and waited for, with walls and without.
func TestProcessorTimeIsOfAllProcessesOfAnInstance(t *testing.T) {
	for name, s := range map[string]func(*testing.T) *story{"bare": newStory, "walled": func(t *testing.T) *story { return walled(t, process.Options{}) }} {
		t.Run(name, func(t *testing.T) {
			s := s(t)
			inst := s.start("parent")
			s.done(inst)
			first := s.spent(inst)
			if first < 2*burnt || first > 4*burnt {
				t.Errorf("two processes took %s, burnt each; want a little more than %s", first, 2*burnt)
			}
			if again := s.spent(inst); again != first {
				t.Errorf("after its end it went on from %s to %s", first, again)
			}
		})
	}
}

// While it runs it never goes back, and does not fall behind what the function has taken itself.
func TestProcessorTimeGrowsWhileAnInstanceRuns(t *testing.T) {
	for name, s := range map[string]func(*testing.T) *story{"bare": newStory, "walled": func(t *testing.T) *story { return walled(t, process.Options{}) }} {
		t.Run(name, func(t *testing.T) {
			s := s(t)
			inst := s.start("parent", "STAY=1")
			inst.PID() // it is known by now
			last := time.Duration(0)
			s.until("it has burnt", func() bool {
				now := s.spent(inst)
				if now < last {
					t.Fatalf("it went back from %s to %s", last, now)
				}
				last = now
				return len(s.printed()) > 0
			})
			if now := s.spent(inst); now < burnt {
				t.Errorf("it is %s, less than the function burnt itself", now)
			}
			inst.Stop(0)
			if end := s.spent(inst); end < max(last, 2*burnt) {
				t.Errorf("in the end it is %s; it was %s, and two processes have burnt %s", end, last, 2*burnt)
			}
		})
	}
}

func BenchmarkCPUTime(b *testing.B) {
	rt, err := process.New(process.Options{Dir: b.TempDir(), Sandbox: true})
	if err != nil {
		b.Fatal(err)
	}
	defer rt.Close() //nolint:errcheck // the test is over
	inst, err := rt.Start(b.Context(), quipu.InstanceSpec{ID: "i", Function: "never", Dir: b.TempDir(), Command: []string{testBinary()}, Env: []string{"FUNCTION=never"}})
	if err != nil {
		b.Fatal(err)
	}
	inst.PID()
	for b.Loop() {
		if _, err := inst.(quipu.CPUMeter).CPUTime(); err != nil {
			b.Fatal(err)
		}
	}
}
