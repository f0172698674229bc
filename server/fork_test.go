package server

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// in is the same node, asked in another namespace.
func (n *node) in(namespace string) *node {
	n.t.Helper()
	return &node{t: n.t, data: n.data, info: n.info, client: clientOf(n.t, n.info.HTTP, "", namespace)}
}

func (n *node) fork(f sdk.ForkRequest) *node {
	n.t.Helper()
	ns, err := n.client.Fork(n.t.Context(), f)
	if err != nil {
		n.t.Fatal(err)
	}
	if ns.Fork == nil || f.At != 0 && ns.Fork.At != f.At {
		n.t.Errorf("it is %+v", ns)
	}
	return n.in(f.Name)
}

// add is a counter that also publishes, and is called by its own topic.
const add = `
import json, lib
def handle(r):
    n = json.loads(lib.state("GET", "shared/n")[1] or b"0") + STEP
    lib.state("POST", "shared/", json.dumps([{"key": "n", "value": n}]))
    r.answer(200, n)
lib.serve(handle)`

func (n *node) addBy(step int) {
	n.t.Helper()
	n.python(strings.ReplaceAll(add, "STEP", fmt.Sprint(step)), "atomic: true")
}

func (n *node) calls(namespace string) answer {
	return n.post("/f/", "", sdk.HeaderNamespace, namespace)
}

// A fork has what its parent had at a record: state, functions, results. Then each goes its own way, also after a restart.
func TestAForkGoesItsOwnWay(t *testing.T) {
	n := start(t)
	n.addBy(1)
	var seqs []quipu.Seq
	for range 5 {
		a := n.calls("")
		seq, err := quipu.ParseSeq(a.header.Get(quipu.HeaderSession))
		if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, seq)
	}
	old := n.fork(sdk.ForkRequest{Name: "old", At: seqs[1]})
	now := n.fork(sdk.ForkRequest{Name: "now"})
	if old.state("n") != "2" || now.state("n") != "5" {
		t.Errorf("the forks have %s and %s, want 2 and 5", old.state("n"), now.state("n"))
	}
	old.calls("old").want(t, 200, "3")
	n.calls("").want(t, 200, "6")
	old.addBy(100) // a preview of another version, on the data that is there
	check := func() {
		t.Helper()
		if n.state("n") != "6" || old.state("n") != "3" || now.state("n") != "5" {
			t.Errorf("they have %s, %s and %s", n.state("n"), old.state("n"), now.state("n"))
		}
	}
	check()
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n.run()
	old, now = n.in("old"), n.in("now")
	check()
	old.calls("old").want(t, 200, "103")
	n.calls("").want(t, 200, "7")
	again := old.fork(sdk.ForkRequest{Name: "again"})
	if again.state("n") != "103" {
		t.Errorf("the fork of the fork has %s", again.state("n"))
	}
	for _, name := range []string{"old", "now", "again"} {
		if err := n.client.RemoveNamespace(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	n.calls("old").wantCode(t, quipu.CodeNoRoute)
	if left, err := os.ReadDir(filepath.Join(n.data, "forks")); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
	list, err := n.client.Namespaces(t.Context())
	if err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	books, err := n.client.Books(t.Context())
	if err != nil || slices.ContainsFunc(books, func(b sdk.Book) bool { return strings.Contains(b.Name, "old") }) {
		t.Errorf("%v, %v", books, err)
	}
}

const ticks = `
import json, lib
def handle(r):
    if r.path == "/fail":
        return r.answer(500, "not now")
    n = json.loads(lib.state("GET", "shared/got")[1] or b"0") + 1
    lib.state("POST", "shared/", json.dumps([{"key": "got", "value": n}]))
    r.answer(200, n)
lib.serve(handle)`

// In a fork nothing happens by itself, and then what is to happen does, once it is told to.
func TestAForkIsQuietUntilItIsResumed(t *testing.T) {
	n := start(t)
	n.deploy(files{"quipu.yaml": "apiVersion: quipu.dev/v1\nkind: Function\nmetadata: {name: f}\nspec:\n  source: ./f.py\n  runtime: python\n  atomic: true\n  scale: {min: 1}\n" +
		"  triggers: [{http: {path: /f/}}, {topic: {name: t, path: /}}]\n", "f.py": ticks})
	quiet := n.fork(sdk.ForkRequest{Name: "quiet"})
	running := n.fork(sdk.ForkRequest{Name: "running", Running: true})
	for _, in := range []*node{n, quiet, running} {
		if _, err := in.client.Publish(t.Context(), "t", sdk.Publication{Data: []byte(`{}`)}); err != nil {
			t.Fatal(err)
		}
	}
	for name, in := range map[string]*node{"parent": n, "running fork": running} {
		eventually(t, "the "+name+" has its event", func() bool { return in.state("got") == "1" })
	}
	if list, err := quiet.client.Instances(t.Context()); err != nil || len(list) > 0 || quiet.state("got") != "" {
		t.Errorf("in the quiet fork run %v, it has %q, %v", list, quiet.state("got"), err)
	}
	quiet.post("/f/", "", sdk.HeaderNamespace, "quiet").want(t, 200, "1") // but it can be called
	ns, err := n.client.ResumeFork(t.Context(), "quiet")
	if err != nil || !ns.Fork.Running {
		t.Fatalf("%+v, %v", ns, err)
	}
	eventually(t, "the resumed fork has its event", func() bool { return quiet.state("got") == "2" })
	if _, err := n.client.ResumeFork(t.Context(), "default"); quipu.CodeOf(err) != quipu.CodeUsage {
		t.Errorf("the default namespace was resumed: %v", err)
	}
}

func TestForksThatCannotBeAreRefusedAndLeaveNothing(t *testing.T) {
	n := start(t)
	n.addBy(1)
	n.calls("").want(t, 200, "1")
	before := n.records()
	for name, f := range map[string]sdk.ForkRequest{
		"a name of another": {Name: "default"}, "a bad name": {Name: "../x"}, "no name": {}, "what is to come": {Name: "x", At: 1 << 62},
	} {
		if _, err := n.client.Fork(t.Context(), f); quipu.CodeOf(err) != quipu.CodeUsage {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := n.in("nowhere").client.Fork(t.Context(), sdk.ForkRequest{Name: "x"}); quipu.CodeOf(err) != quipu.CodeNotFound {
		t.Errorf("a fork of nothing: %v", err)
	}
	if err := n.client.RemoveNamespace(t.Context(), "default"); quipu.CodeOf(err) != quipu.CodeUsage {
		t.Errorf("the default namespace was removed: %v", err)
	}
	if list, err := n.client.Namespaces(t.Context()); err != nil || len(list) != 1 || n.records() != before {
		t.Errorf("there are %v, %v", list, err)
	}
}

// A large value that was overwritten after a fork stays with the fork, and goes with it. A fork of a time whose large values are gone
// is refused, and leaves nothing.
func TestAForkKeepsItsLargeValues(t *testing.T) {
	n := inside(t, t.TempDir())
	defer n.end(t)
	put := func(value []byte) quipu.Seq {
		t.Helper()
		ns := n.main(t)
		if err := ns.State("").Apply(t.Context(), quipu.StoreShared, []quipu.Change{{Key: "k", Value: value}}); err != nil {
			t.Fatal(err)
		}
		return ns.book.Applied()
	}
	large := bytes.Repeat([]byte("x"), 1<<20)
	then := put(large)
	if _, err := n.Fork(t.Context(), DefaultNamespace, "fork", 0, false); err != nil {
		t.Fatal(err)
	}
	put([]byte("small"))
	if c := n.collected(t); c.Live != 1 {
		t.Errorf("%+v; what the fork has is live", c)
	}
	n.namespaces.find("fork").wantValue(t, "k", large)
	if err := n.RemoveNamespace(t.Context(), "fork"); err != nil {
		t.Fatal(err)
	}
	if c := n.collected(t); c.Live != 0 || c.Dead != 1 {
		t.Errorf("%+v; nobody has it any more", c)
	}
	if err := os.RemoveAll(filepath.Join(n.cfg.Data, "blobs")); err != nil { // as the collector does when there is no room
		t.Fatal(err)
	}
	if _, err := n.Fork(t.Context(), DefaultNamespace, "late", then, false); quipu.CodeOf(err) != quipu.CodeTrimmed {
		t.Errorf("a fork without its values: %v", err)
	}
	if left, err := os.ReadDir(n.forkFolder("")); err != nil || len(left) > 0 || n.namespaces.find("late") != nil {
		t.Errorf("it left %v, %v", left, err)
	}
}

// Whatever of a fork a crash leaves is used whole or removed: a folder that has no book yet, one that has not its name yet, one
// that served a replay, and keys of a namespace whose book is gone.
func TestWhatACrashLeavesOfForksIsTidied(t *testing.T) {
	data := t.TempDir()
	n := inside(t, data)
	if _, err := n.Fork(t.Context(), DefaultNamespace, "whole", 0, false); err != nil {
		t.Fatal(err)
	}
	if _, err := n.fork(t.Context(), DefaultNamespace, "replay-x", origin{From: DefaultNamespace, Scratch: true}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".unnamed", "unbooked"} {
		if err := os.CopyFS(n.forkFolder(name), os.DirFS(n.forkFolder("whole"))); err != nil {
			t.Fatal(err)
		}
	}
	gone, err := n.createNamespace(t.Context(), "gone")
	if err == nil {
		err = gone.State("").Apply(t.Context(), quipu.StoreShared, []quipu.Change{{Key: "k", Value: []byte("v")}})
	}
	n.namespaces.remove("gone")
	if err = errors.Join(err, gone.close(t.Context()), n.log.DeleteBook(t.Context(), gone.id)); err != nil {
		t.Fatal(err)
	}
	n.end(t)
	n = inside(t, data)
	defer n.end(t)
	entries, err := os.ReadDir(n.forkFolder(""))
	if err != nil || len(entries) != 1 || entries[0].Name() != "whole" {
		t.Errorf("there are %v, %v", entries, err)
	}
	if list := n.ListNamespaces(); len(list) != 2 || list[1].Name != "whole" {
		t.Errorf("there are %+v", list)
	}
	again, err := n.createNamespace(t.Context(), "gone")
	if err != nil {
		t.Fatal(err)
	}
	if items, err := again.State("").Get(t.Context(), quipu.StoreShared, "k"); err != nil || items[0].Value != nil {
		t.Errorf("a new namespace has what one of its name had: %+v, %v", items, err)
	}
}

// A backup has the forks, and is restored without those that were not there yet at the record that is wanted.
func TestABackupHasTheForks(t *testing.T) {
	n := start(t)
	n.addBy(1)
	n.calls("").want(t, 200, "1")
	before := n.fork(sdk.ForkRequest{Name: "first"})
	a := before.calls("first")
	a.want(t, 200, "2")
	upto, err := quipu.ParseSeq(a.header.Get(quipu.HeaderSession))
	if err != nil {
		t.Fatal(err)
	}
	n.fork(sdk.ForkRequest{Name: "second"}).calls("second").want(t, 200, "2")
	before.calls("first").want(t, 200, "3")
	archive := n.backup()
	all := restored(t, archive, 0)
	if all.state("n") != "1" || all.in("first").state("n") != "3" || all.in("second").state("n") != "2" {
		t.Errorf("they have %s, %s and %s", all.state("n"), all.in("first").state("n"), all.in("second").state("n"))
	}
	some := restored(t, archive, upto)
	if list, err := some.client.Namespaces(t.Context()); err != nil || len(list) != 2 || some.in("first").state("n") != "2" {
		t.Errorf("there are %+v, %v", list, err)
	}
}

// A node that is killed at any point of a fork has it whole or not at all, and its parent is as it was.
func TestANodeKilledWhileItForksHasTheForkWholeOrNotAtAll(t *testing.T) {
	k := spawn(t, t.TempDir(), "serve")
	k.addBy(1)
	k.calls("").want(t, 200, "1")
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	for round := range 8 {
		name := fmt.Sprintf("fork-%d", round)
		var asked sync.WaitGroup
		client := k.client
		asked.Go(func() { _, _ = client.Fork(t.Context(), sdk.ForkRequest{Name: name}) }) // it may or may not get its answer
		<-time.After(time.Duration(rng.IntN(80)) * time.Millisecond)                      // the random point
		k.kill()
		asked.Wait()
		k.up()
		list, err := k.client.Namespaces(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, ns := range list {
			if got := k.in(ns.Name).state("n"); got != "1" || ns.Fork == nil != (ns.Name == "default") {
				t.Errorf("%+v has %q", ns, got)
			}
		}
		t.Logf("round %d: %d namespaces", round, len(list))
	}
}

func TestTheCommandLineTravels(t *testing.T) {
	n := start(t)
	n.addBy(1)
	a := n.calls("")
	a.want(t, 200, "1")
	id, at := a.header.Get(quipu.HeaderCallID), a.header.Get(quipu.HeaderSession)
	n.calls("").want(t, 200, "2")
	forked := n.on("fork", "default@"+at, "before")
	forked.wantExit(0)
	if !strings.Contains(forked.out, "before is default at "+at) {
		t.Errorf("%q", forked.out)
	}
	if got := n.in("before").state("n"); got != "1" {
		t.Errorf("it has %q", got)
	}
	list := n.on("ls", "namespaces")
	list.wantExit(0)
	if !strings.Contains(list.out, "when called") {
		t.Errorf("%q", list.out)
	}
	n.on("fork", "resume", "before", "-o", "json").wantExit(0)
	n.on("rm", "namespace", "before", "--yes").wantExit(0)
	n.on("fork", "default@xyz", "before").wantExit(2)
	same := n.on("replay", id)
	same.wantExit(0)
	if !strings.HasSuffix(same.out, "the same\n") {
		t.Errorf("%q", same.out)
	}
	n.addBy(7)
	other := n.on("replay", id, "--revision", "2")
	other.wantExit(1)
	if !strings.Contains(other.out, "set shared/n\n  was  1\n  is   7\n") {
		t.Errorf("%q", other.out)
	}
	n.on("replay", "01HZZZZZZZZZZZZZZZZZZZZZZZ").wantErr(string(quipu.CodeNotFound))
}

// What a namespace took is on its own bill: that of a fork begins with the fork.
func TestABillIsNotForked(t *testing.T) {
	n := start(t)
	n.addBy(1)
	n.calls("").want(t, 200, "1")
	f := n.fork(sdk.ForkRequest{Name: "fork"})
	f.calls("fork").want(t, 200, "2")
	callsOf := func(in *node) (calls int64) {
		all, err := in.client.Usage(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range all {
			calls += u.Calls
		}
		return calls
	}
	if parent, fork := callsOf(n), callsOf(f); parent != 1 || fork != 1 {
		t.Errorf("the bill of the parent has %d calls, that of the fork %d", parent, fork)
	}
}
