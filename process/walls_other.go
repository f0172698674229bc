//go:build !linux

package process

import (
	"errors"
	"os"
	"syscall"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/process/lifeline"
)

// builder builds nothing: there are no walls on this system.
type builder struct{ machine *struct{} }

func newBuilder(string, Options) *builder { return &builder{} }

func (b *builder) layers() []quipu.Layer {
	var all []quipu.Layer
	for _, name := range quipu.LayerNames() {
		all = append(all, quipu.Layer{Name: name, Text: "only on Linux"})
	}
	return all
}

func (b *builder) attributes(int) *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
func (b *builder) common() lifeline.Walls              { return lifeline.Walls{} }
func (b *builder) newGroup(int, int) (group, error)    { return group{}, nil }
func (b *builder) close() error                        { return nil }

type group struct{}

func (group) remove() {}

type wayOut struct{}

func (wayOut) close() {}

func (i *Instance) layOut(string) error      { return i.settleHere() }
func (i *Instance) supervise(*os.File) error { return errors.ErrUnsupported }
func (i *Instance) outside(pid int) int      { return pid }
func (i *Instance) overdrawn() string        { return "" }
func (i *Instance) watchMemory()             {}
func (i *Instance) stepName(step int) string { return lifeline.StepName(step, nil) }
