package process

import (
	"errors"
	"os"
	"syscall"

	"github.com/quipu-run/quipu/process/lifeline"
)

// helper is a process between the node and a function, which may not be known yet.
type helper struct {
	process *os.Process
	line    *helperLine
	output  *output
}

// startHelper re-executes this binary, which package lifeline takes over. One processor is
// enough for what it does.
func startHelper(attributes *syscall.SysProcAttr) (*helper, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close() //nolint:errcheck // the helper has its own
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	defer null.Close() //nolint:errcheck // only read
	out, files, err := newOutput()
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	h := &helper{line: &helperLine{conn: ours}, output: out}
	exe, err := self()
	if err == nil {
		h.process, err = os.StartProcess(exe, []string{"quipu-lifeline"}, &os.ProcAttr{
			Env:   []string{lifeline.Env + "=" + lifeline.EnvFD, "GOMAXPROCS=1", "GOGC=off"},
			Files: []*os.File{null, files[0], files[1], theirs},
			Sys:   attributes,
		})
	}
	for _, f := range files {
		f.Close() //nolint:errcheck // the helper has its own
	}
	if err != nil {
		out.finish()
		return nil, errors.Join(err, ours.Close())
	}
	return h, nil
}

// discard ends a helper that runs nothing, and waits for it.
func (h *helper) discard() {
	h.line.cut()
	h.process.Wait() //nolint:errcheck // it has nothing to say
	h.output.finish()
	h.line.end()
}
