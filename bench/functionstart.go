package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/process"
)

// starts measures the least that a start takes, from the call to a connection: bare fork and exec of each program, and package
// process with walls and without, of the static one. They take turns at every start.
func (f *functions) starts() (err error) {
	var ways []way
	for _, l := range f.languages {
		ways = append(ways, way{"raw", l.name + ", fork and exec", func() (time.Duration, error) { return f.bareStart(l) }})
	}
	for _, s := range sandboxes {
		rt, err := process.New(process.Options{Dir: filepath.Join(f.dir, "process-"+s.variant[:2]), Sandbox: s.variant == "sandbox"})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, rt.Close()) }()
		ways = append(ways, way{"process", "go, " + s.variant, func() (time.Duration, error) { return f.processStart(rt) }})
	}
	took := make([][]time.Duration, len(ways))
	for i := range coldStarts + 1 {
		for n, w := range ways {
			d, err := w.start()
			if err != nil {
				return fmt.Errorf("%s, %s: %w", w.peer, w.variant, err)
			}
			if i > 0 {
				took[n] = append(took[n], d)
			}
			time.Sleep(coldPause / 2)
		}
	}
	for n, w := range ways {
		f.rounds.addTaken(figure{Peer: w.peer, Bench: "start", Variant: w.variant, Durable: "it accepts"}, took[n])
	}
	return nil
}

// way is one way to start a program.
type way struct {
	peer, variant string
	start         func() (time.Duration, error)
}

// bareStart is what nothing that makes a process of its own can undercut.
func (f *functions) bareStart(l language) (time.Duration, error) {
	socket := filepath.Join(f.dir, "s")
	begin := time.Now()
	cmd, err := l.start("QUIPU_SOCKET=" + socket)
	if err != nil {
		return 0, err
	}
	err = accepts("unix", socket)
	took := time.Since(begin)
	end(cmd)
	return took, errors.Join(err, os.Remove(socket))
}

// processStart is from Start to Ready.
func (f *functions) processStart(rt *process.Runtime) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), readyMax)
	defer cancel()
	hello := f.languages[0].command[0]
	spec := quipu.InstanceSpec{ID: "bench", Function: "hello", Dir: filepath.Dir(hello), Command: []string{hello}}
	begin := time.Now()
	inst, err := rt.Start(ctx, spec)
	if err != nil {
		return 0, err
	}
	err = inst.Ready(ctx)
	took := time.Since(begin)
	inst.Stop(0)
	return took, err
}
