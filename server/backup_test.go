package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

func (n *node) put(key, value string) {
	n.t.Helper()
	err := n.client.State(quipu.StoreShared, "").Apply(n.t.Context(), quipu.Change{Key: key, Value: []byte(value)})
	if err != nil {
		n.t.Fatal(err)
	}
}

// backup is the archive of a running node.
func (n *node) backup() []byte {
	n.t.Helper()
	r, err := n.client.Backup(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		n.t.Fatal(err)
	}
	return text
}

// restored is a node on what is restored from an archive.
func restored(t *testing.T, archive []byte, upto quipu.Seq) *node {
	t.Helper()
	data := filepath.Join(t.TempDir(), "restored")
	if _, err := Restore(t.Context(), Restoring{From: "-", Stdin: bytes.NewReader(archive), Data: data, Upto: upto}); err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, data: data}
	n.run()
	t.Cleanup(func() {
		if err := n.stop(); err != nil {
			t.Errorf("the restored node did not end well: %v", err)
		}
		n.noneLeft()
	})
	return n
}

// tail is the newest record of the default namespace.
func (n *node) tail() quipu.Seq {
	n.t.Helper()
	books, err := n.client.Books(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	for _, b := range books {
		if b.Name == "quipu/default" {
			return b.Tail
		}
	}
	n.t.Fatal("the default namespace has no book")
	return 0
}

const counterPy = `
import lib
def handle(r):
    n = int(lib.state("GET", "shared/count")[1] or 0) + 1
    lib.state("POST", "shared/", '[{"key":"count","value":%d}]' % n)
    r.answer(200, n)
lib.serve(handle)`

// Functions, small and large values come back, each acknowledged write whole, while others write on.
func TestABackupOfABusyNodeIsANode(t *testing.T) {
	n := start(t)
	n.python(counterPy, "atomic: true")
	large := strings.Repeat("large", 50_000)
	n.put("large", `"`+large+`"`)
	n.get("/f/").want(t, 200, "1")
	var acked atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	writers.Go(func() {
		for i := 1; ctx.Err() == nil; i++ {
			n.put("busy", fmt.Sprint(i))
			acked.Store(int64(i))
		}
	})
	for acked.Load() < 50 {
		n.get("/f/")
	}
	before := acked.Load()
	archive := n.backup()
	cancel()
	writers.Wait()
	if _, err := os.Stat(filepath.Join(n.data, stagingFolder)); err == nil {
		t.Error("the staging folder is still there")
	}

	r := restored(t, archive, 0)
	var busy int64
	if _, err := fmt.Sscan(r.state("busy"), &busy); err != nil || busy < before || busy > acked.Load() {
		t.Errorf("busy is %d, %v; %d were acknowledged before the backup, %d in all", busy, err, before, acked.Load())
	}
	if got := r.state("large"); got != `"`+large+`"` {
		t.Errorf("the large value has %d bytes", len(got))
	}
	var count int
	if _, err := fmt.Sscan(r.state("count"), &count); err != nil {
		t.Fatal(err)
	}
	r.get("/f/").want(t, 200, fmt.Sprint(count+1))
	if err := r.client.VerifyBook(t.Context(), "quipu/default", func(sdk.Progress) {}); err != nil {
		t.Error(err)
	}
}

// With snapshots and a trimmed log too, a node can be had as of any record that the backup tells.
func TestANodeIsRestoredUpToASeq(t *testing.T) {
	n := start(t)
	filler := `"` + strings.Repeat("f", 60_000) + `"`
	fill := func(mib int) {
		var all sync.WaitGroup
		for w := range 4 {
			all.Go(func() {
				for i := range mib * 1024 / 60 / 4 {
					n.put(fmt.Sprintf("fill%d-%d", w, i%10), filler)
				}
			})
		}
		all.Wait()
	}
	n.put("key", `"early"`)
	early := n.tail()
	fill(210) // three snapshots, so that the log is trimmed
	n.put("key", `"then"`)
	then := n.tail()
	n.put("key", `"later"`)
	n.put("new", `"later"`)
	archive := n.backup()
	b, err := Inspect(Restoring{From: "-", Stdin: bytes.NewReader(archive)})
	if err != nil || b.From <= early || b.From >= then || b.Tail < then+2 || len(b.Snapshots) == 0 {
		t.Fatalf("the backup says %+v, %v; early %s, then %s", b, err, early, then)
	}
	r := restored(t, archive, then)
	if r.state("key") != `"then"` || r.state("new") != "" || r.state("fill0-0") != filler {
		t.Errorf("key is %s, new is %q", r.state("key"), r.state("new"))
	}
	r.put("key", `"after"`)
	if r.tail() <= b.Tail {
		t.Errorf("a seq was given twice: %s, and the backup goes up to %s", r.tail(), b.Tail)
	}
	_, err = Restore(t.Context(), Restoring{From: "-", Stdin: bytes.NewReader(archive), Data: filepath.Join(t.TempDir(), "x"), Upto: early})
	if quipu.CodeOf(err) != quipu.CodeUsage || !strings.Contains(err.Error(), b.From.String()) {
		t.Errorf("up to what is trimmed: %v", err)
	}
}

// A backup that is damaged or was cut short leaves nothing, and says so.
func TestABadBackupIsRefused(t *testing.T) {
	n := start(t)
	n.put("key", `"value"`)
	archive := n.backup()
	flipped := bytes.Clone(archive)
	flipped[bytes.Index(flipped, []byte("QSEG"))+8192] ^= 1
	for name, bad := range map[string][]byte{
		"cut in a file":    archive[:len(archive)/2],
		"cut at its end":   archive[:len(archive)-3000],
		"empty":            {},
		"no archive":       []byte(strings.Repeat("hello ", 1000)),
		"a flipped bit":    flipped,
		"leaves the place": bytes.ReplaceAll(archive, []byte("log/000001.seg"), []byte("log/../../seg\x00")),
	} {
		data := filepath.Join(t.TempDir(), "x")
		_, err := Restore(t.Context(), Restoring{From: "-", Stdin: bytes.NewReader(bad), Data: data})
		if quipu.CodeOf(err) != quipu.CodeCorrupt {
			t.Errorf("%s: %v", name, err)
		}
		if left, _ := filepath.Glob(data + "*"); len(left) > 0 {
			t.Errorf("%s left %v", name, left)
		}
	}
	_, err := Restore(t.Context(), Restoring{From: "-", Stdin: bytes.NewReader(archive), Data: n.data})
	if quipu.CodeOf(err) != quipu.CodeUsage {
		t.Errorf("into a directory that is in use: %v", err)
	}
}

// The commands, to a file and to a folder, beside a running node.
func TestBackupAndRestoreOnTheCommandLine(t *testing.T) {
	n := start(t)
	n.put("key", `"value"`)
	dir := t.TempDir()
	for _, to := range []string{filepath.Join(dir, "b.tar"), filepath.Join(dir, "folder") + "/"} {
		if r := command(t, "backup", to, "--node", n.info.HTTP); r.exit != 0 || !strings.Contains(r.out, "has everything up to") {
			t.Fatalf("%+v", r)
		}
		data := filepath.Join(dir, "data"+filepath.Base(to))
		if r := command(t, "restore", to, "--data", data, "-o", "json"); r.exit != 0 || !strings.Contains(r.out, `"tail"`) {
			t.Fatalf("%+v", r)
		}
		if r := command(t, "restore", to, "--data", data); r.exit != 2 || !strings.Contains(r.err, "not empty") {
			t.Errorf("again into the same: %+v", r)
		}
		if r := command(t, "restore", to, "--show"); r.exit != 0 || !strings.Contains(r.out, "restorable from 0000000000000000") {
			t.Errorf("%+v", r)
		}
		again := &node{t: t, data: data}
		again.run()
		if got := again.state("key"); got != `"value"` {
			t.Errorf("key is %q", got)
		}
		if err := again.stop(); err != nil {
			t.Error(err)
		}
	}
}
