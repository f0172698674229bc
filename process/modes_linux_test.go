package process_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/process"
)

// The functions of these tests are this binary, told by FUNCTION what to be. That it is also the
// helper needs nothing here: package lifeline takes over before TestMain.
func TestMain(m *testing.M) {
	if mode, ok := modes[os.Getenv("FUNCTION")]; ok {
		mode()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var modes = map[string]func(){
	"socket":   func() { serve("unix", os.Getenv("QUIPU_SOCKET")) },
	"port":     func() { serve("tcp", "127.0.0.1:"+os.Getenv("PORT")) },
	"never":    forever,
	"exit":     func() {},
	"late":     beLate,
	"fail":     func() { fmt.Fprint(os.Stderr, "first\nlast words\x00\xff"); os.Exit(3) },
	"flood":    flood,
	"family":   beFamily,
	"child":    beChild,
	"orphan":   func() { signal.Ignore(syscall.SIGTERM, syscall.SIGHUP); forever() },
	"stubborn": func() { signal.Ignore(syscall.SIGTERM); serve("unix", os.Getenv("QUIPU_SOCKET")) },
	"polite":   bePolite,
	"node":     beNode,
	"attacker": beAttacker,
	"bomb":     beBomb,
	"hog":      beHog,
	"filler":   beFiller,
	"busy":     beBusy,
	"caller":   beCaller,
	"client":   beClient,
	"parent":   beParent,
	"env":      func() { fmt.Println(strings.Join(os.Environ(), "\n")) },
}

func forever() {
	for { // not select {}: without other goroutines the runtime would take that for a deadlock
		time.Sleep(time.Hour)
	}
}

func serve(network, address string) {
	l, err := net.Listen(network, address)
	if err != nil {
		panic(err)
	}
	panic(http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })))
}

// beLate listens once the file GATE exists.
func beLate() {
	for {
		if _, err := os.Stat(os.Getenv("GATE")); err == nil {
			serve("unix", os.Getenv("QUIPU_SOCKET"))
		}
		time.Sleep(time.Millisecond)
	}
}

func flood() {
	w := bufio.NewWriter(os.Stdout)
	for n := range floodLines {
		fmt.Fprintf(w, "line %d\n", n)
	}
	w.Write(bytes.Repeat([]byte("x"), 200<<10))
	w.WriteString("\nno end")
	w.Flush()
}

// bePolite prints when it is asked to end, and ends with a status of its own.
func bePolite() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	go serve("unix", os.Getenv("QUIPU_SOCKET"))
	<-asked
	fmt.Println("goodbye")
	os.Exit(7)
}

// beFamily starts a child in a session of its own, which starts an orphan in another, and both
// keep its output open.
func beFamily() {
	spawn("child")
	serve("unix", os.Getenv("QUIPU_SOCKET"))
}

func beChild() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP)
	spawn("orphan")
	spawn("orphan")
	fmt.Println("family complete")
	if os.Getenv("DAEMON") == "" {
		forever()
	}
}

func spawn(mode string) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "FUNCTION="+mode)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
}

// beNode runs families until it is killed, and prints the process ids of their functions.
func beNode() {
	rt, err := process.New(process.Options{Dir: os.Getenv("DIR")})
	if err != nil {
		panic(err)
	}
	for n := range 3 {
		complete := make(chan struct{})
		inst, err := rt.Start(context.Background(), quipu.InstanceSpec{
			ID: strconv.Itoa(n), Function: "family", Dir: os.Getenv("DIR"), Command: []string{"/proc/self/exe"},
			Env: []string{"FUNCTION=family", "TAG=" + os.Getenv("TAG")},
			Output: func(_ string, line []byte) {
				if string(line) == "family complete" {
					close(complete)
				}
			},
		})
		if err != nil {
			panic(err)
		}
		if err := inst.Ready(context.Background()); err != nil {
			panic(err)
		}
		<-complete
		fmt.Println(inst.PID())
	}
	fmt.Println("up")
	forever()
}
