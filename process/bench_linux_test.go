package process_test

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/quipu-run/quipu/process"
)

// BenchmarkColdStart is Start to Ready of a function that listens at once.
func BenchmarkColdStart(b *testing.B) {
	rt, err := process.New(process.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer rt.Close()
	s := &story{dir: b.TempDir(), tag: "bench"}
	spec := s.spec("socket")
	for b.Loop() {
		inst, err := rt.Start(context.Background(), spec)
		if err != nil {
			b.Fatal(err)
		}
		if err := inst.Ready(context.Background()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		inst.Stop(0)
		b.StartTimer()
	}
}

// BenchmarkColdStartBare is the peer: fork and exec of the same program, until it accepts.
func BenchmarkColdStartBare(b *testing.B) {
	socket := filepath.Join(b.TempDir(), "s")
	for b.Loop() {
		cmd := exec.Command(testBinary())
		cmd.Env = append(os.Environ(), "FUNCTION=socket", "QUIPU_SOCKET="+socket)
		cmd.Stdout = io.Discard
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		for {
			if conn, err := net.Dial("unix", socket); err == nil {
				conn.Close()
				break
			}
			time.Sleep(time.Millisecond)
		}
		b.StopTimer()
		cmd.Process.Kill() //nolint:errcheck // it runs
		cmd.Wait()         //nolint:errcheck // killed
		os.Remove(socket)  //nolint:errcheck // it was made
		b.StartTimer()
	}
}
