package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quipu-run/quipu/sdk"
)

// program builds the real binary.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "quipu")
	cmd := exec.Command("go", "build", "-o", path, "github.com/quipu-run/quipu/cmd/quipu")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

const nodeKills = 20

// A node is killed at random points at least 20 times over the life of the feed, its instances as well.
// Every acknowledged batch is counted exactly once, so the table equals the direct computation.
func TestKillsLoseAndDoubleNothing(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	flights, err := load("")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	var output strings.Builder
	n := &node{program: program(t), data: t.TempDir(), ports: Ports{Host: "127.0.0.1"}, output: &output}
	if err := n.start(ctx); err != nil {
		t.Fatal(err, output.String())
	}
	client, err := sdk.New(sdk.Options{URL: n.info.HTTP})
	if err != nil {
		t.Fatal(err)
	}
	if err := deploy(ctx, client, ""); err != nil {
		t.Fatal(err)
	}
	f := newFeed(n, "", 50)
	k := newKiller(t, cancel, n, client, rng)
	go k.run(ctx)
	var all []Flight
	for pass := 0; k.kills() < nodeKills; pass++ {
		f.run = fmt.Sprintf("pass-%d", pass)
		if err := f.all(ctx, flights, func(int) {}); err != nil {
			t.Fatalf("%v\n%s", err, output.String())
		}
		all = append(all, flights...)
	}
	close(k.stop)
	<-k.done
	topic, err := settled(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.report(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := judge(t.Output(), int(topic.Last), r, all); err != nil {
		t.Errorf("%d flights sent, %d published, %d counted: %v", len(all), topic.Last, r.table.flights(), err)
	}
	t.Logf("%d flights, %d kills of the node, %d of instances, %d batches sent again", len(all), k.kills(), k.instances.Load(), f.retries.Load())
	if err := n.stop(); err != nil {
		t.Errorf("the node did not end well: %v\n%s", err, output.String())
	}
	noneLeft(t, n.data)
}

// noneLeft fails if a process of the node's functions is still there.
func noneLeft(t *testing.T, data string) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if dir, err := os.Readlink(link); err == nil && strings.HasPrefix(dir, data) {
			t.Errorf("process %s was left behind in %s", filepath.Base(filepath.Dir(link)), dir)
			if p, err := os.FindProcess(atoi(filepath.Base(filepath.Dir(link)))); err == nil {
				p.Signal(syscall.SIGKILL)
			}
		}
	}
}
