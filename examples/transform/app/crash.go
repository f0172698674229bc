package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
)

// places is how many there are where a call may crash.
const places = 4

// fate is the place at which a call crashes, if any.
type fate int

// newFate lets CRASH_PERCENT of all calls crash, each anywhere.
func newFate() fate {
	percent, err := strconv.Atoi(os.Getenv("CRASH_PERCENT"))
	if err != nil || rand.IntN(100) >= percent {
		return -1
	}
	return fate(rand.IntN(places))
}

// at ends the program, without a reply or a cleanup, if this is the place: as a bug would, or a kill -9.
func (f fate) at(place int) {
	if int(f) != place {
		return
	}
	fmt.Println("crash at place", place)
	if place%2 == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	os.Exit(1)
}
