package process

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/quipu-run/quipu/process/lifeline"
)

// walls is what an instance has of them.
type walls struct {
	inside  bool // it has a root and a network of its own; the node reaches it through its helper
	request lifeline.Walls
	scratch string // a folder of the machine for this instance alone, "" if it needs none
	opened  int    // doors
	out     wayOut
}

// receive takes what the helper hands over while it makes the walls.
func (i *Instance) receive(a answer) error {
	switch {
	case a.kind == 'L' && a.file != nil:
		return i.openDoor(a.file)
	case a.kind == 'N' && a.file != nil:
		return i.supervise(a.file)
	}
	return fmt.Errorf("it says %c", a.kind)
}

// openDoor serves at the next listener within the walls.
func (i *Instance) openDoor(file *os.File) error {
	defer file.Close() //nolint:errcheck // FileListener has its own
	if i.walls.opened >= len(i.spec.Doors) {
		return errors.New("it opens more doors than there are")
	}
	l, err := net.FileListener(file)
	if err != nil {
		return err
	}
	i.spec.Doors[i.walls.opened].Serve(l)
	i.walls.opened++
	return nil
}

// settleHere gives the instance a port of the machine, and serves on the machine's own loopback.
func (i *Instance) settleHere() (err error) {
	if i.port, err = i.runtime.freePort(); err != nil {
		return err
	}
	for _, d := range i.spec.Doors {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		i.doors = append(i.doors, l.Addr().(*net.TCPAddr).Port)
		d.Serve(l)
	}
	return nil
}

// takeDown gives back what the walls stood on. What cannot be removed is removed by the next node.
func (i *Instance) takeDown() {
	i.walls.out.close() // if it never ran
	if i.ground != nil {
		i.group.remove()
	}
	if !i.walls.inside {
		os.Remove(i.socket) //nolint:errcheck // most functions never make it
	}
	if i.walls.scratch != "" {
		os.RemoveAll(i.walls.scratch) //nolint:errcheck // see above
	}
}
