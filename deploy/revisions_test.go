package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// deploy deploys one function a, whose content is version.
func (w *world) deploy(version string, o quipu.DeployOptions) (quipu.Function, error) {
	w.t.Helper()
	list, err := w.Deploy(w.ctx, "app", pack(w.t, "quipu.yaml\n"+fn("a", ""), run+"# "+version+"\n"), o)
	if err != nil {
		return quipu.Function{}, err
	}
	return list[0], nil
}

func (w *world) mustDeploy(version string) quipu.Function {
	w.t.Helper()
	f, err := w.deploy(version, quipu.DeployOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// traffic is that of function a as "number=percent", the newest first, with all that is remembered.
func (w *world) traffic() string {
	w.t.Helper()
	list, err := w.Revisions("a")
	if err != nil {
		w.t.Fatal(err)
	}
	var parts []string
	for _, r := range list {
		parts = append(parts, fmt.Sprintf("%d=%d", r.Number, r.Percent))
	}
	return strings.Join(parts, " ")
}

func (w *world) wantTraffic(want string) {
	w.t.Helper()
	if got := w.traffic(); got != want {
		w.t.Fatalf("traffic %s, want %s", got, want)
	}
}

func (w *world) reopen() {
	w.t.Helper()
	w.close()
	w.open()
}

// rebuild has the views made anew from the log alone.
func (w *world) rebuild() {
	w.t.Helper()
	w.close()
	if err := w.fs.RemoveAll("/views"); err != nil {
		w.t.Fatal(err)
	}
	w.open()
}

func TestRevisionsAndTheirTrafficSurvive(t *testing.T) {
	w := newWorld(t)
	for _, version := range []string{"one", "two", "three"} {
		w.mustDeploy(version)
	}
	if _, err := w.Split(w.ctx, "a", []quipu.Part{{Revision: "1", Percent: 30}, {Revision: "3", Percent: 70}}); err != nil {
		t.Fatal(err)
	}
	if err := w.SetAlias(w.ctx, "a", "stable", "2"); err != nil {
		t.Fatal(err)
	}
	for _, again := range []func(){w.reopen, w.rebuild} {
		again()
		w.wantTraffic("3=70 2=0 1=30")
		if f, err := w.Choose("a", "stable", "", true); err != nil || f.Number != 2 {
			t.Error(f.Number, err)
		}
		if len(w.tried)+w.settled > 0 {
			t.Error("what was live was looked at again")
		}
	}
}

// A roll-back makes one record and builds nothing; what it goes back to can be built again from its own sources.
func TestARollbackIsOneRecordAndNeedsNothingElse(t *testing.T) {
	w := newWorld(t)
	first := w.mustDeploy("one")
	w.mustDeploy("two")
	before, settled := w.records(), w.settled
	if err := os.RemoveAll(w.Folder(first)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Rollback(w.ctx, "a", ""); err != nil {
		t.Fatal(err)
	}
	if w.records() != before+1 || w.settled != settled {
		t.Errorf("%d records, %d tries", w.records()-before, w.settled-settled)
	}
	w.wantTraffic("2=0 1=100")
	f, err := w.Function("a")
	if err != nil || f.Revision != first.Revision {
		t.Fatal(f, err)
	}
	dir, err := w.Prepare(w.ctx, f)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(dir + "/run"); err != nil || !strings.Contains(string(text), "# one") {
		t.Errorf("%s, %v", text, err)
	}
	if _, err := w.Rollback(w.ctx, "a", "1"); err != nil || w.records() != before+1 {
		t.Errorf("going where it is already makes a record: %v", err)
	}
}

func (w *world) records() (n int) {
	w.t.Helper()
	for _, err := range w.log.Range(w.ctx, w.id, quipu.TagAll, 0, quipu.SeqMax) {
		if err != nil {
			w.t.Fatal(err)
		}
		n++
	}
	return n
}

// One function of three does not start: the deploy is refused, the others are let go of, and what was live is.
func TestARevisionThatDoesNotStartRefusesItsApplication(t *testing.T) {
	w := newWorld(t)
	live := w.mustDeploy("one")
	before := w.book.Applied()
	refused := &quipu.Error{Code: quipu.CodeRefused, Text: "no flour"}
	w.try = func(ctx context.Context, f quipu.Function) error {
		if f.Name == "b" {
			return refused
		}
		return ctx.Err()
	}
	_, err := w.Deploy(w.ctx, "app", pack(t, "quipu.yaml\n"+fn("a", "")+fn("b", "")+fn("c", ""), run), quipu.DeployOptions{})
	if !errors.Is(err, refused) {
		t.Fatal(err)
	}
	if w.book.Applied() != before || w.names() != "a" || len(w.tried) > 0 {
		t.Errorf("deployed %s, not settled %v", w.names(), w.tried)
	}
	if f, err := w.Function("a"); err != nil || f.Revision != live.Revision {
		t.Error(f.Revision, err)
	}
	folders, err := os.ReadDir(w.dir)
	if err != nil || len(folders) != 1 || folders[0].Name() != "a-"+live.Revision {
		t.Errorf("folders %v, %v", folders, err)
	}
	w.try = nil
	w.mustDeploy("two")
	w.wantTraffic("2=100 1=0")
}

// A roll-back does not wait for a deploy that takes long, whose time comes later.
func TestARollbackDoesNotWaitForADeploy(t *testing.T) {
	w := newWorld(t)
	w.mustDeploy("one")
	w.mustDeploy("two")
	starting, start := make(chan struct{}), make(chan struct{})
	w.try = func(context.Context, quipu.Function) error {
		close(starting)
		<-start
		return nil
	}
	deployed := make(chan error, 1)
	go func() {
		_, err := w.deploy("three", quipu.DeployOptions{})
		deployed <- err
	}()
	<-starting
	if _, err := w.Rollback(w.ctx, "a", ""); err != nil {
		t.Fatal(err)
	}
	w.wantTraffic("2=0 1=100")
	close(start)
	if err := <-deployed; err != nil {
		t.Fatal(err)
	}
	w.wantTraffic("3=100 2=0 1=0")
	if _, err := w.Rollback(w.ctx, "a", ""); err != nil {
		t.Fatal(err)
	}
	w.wantTraffic("3=0 2=0 1=100") // from which 3 took over
}

func TestADeployWithoutTrafficChangesNothingButWhatThereIs(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Deploy(w.ctx, "app", pack(t, "quipu.yaml\n"+fn("a", "")+fn("b", ""), run), quipu.DeployOptions{}); err != nil {
		t.Fatal(err)
	}
	list, err := w.Deploy(w.ctx, "app", pack(t, "quipu.yaml\n"+fn("a", "  timeout: 1s\n")+fn("c", ""), run), quipu.DeployOptions{NoTraffic: true})
	if err != nil {
		t.Fatal(err)
	}
	if w.names() != "a b c" || list[0].Number != 2 {
		t.Errorf("deployed %s, revision %d", w.names(), list[0].Number)
	}
	w.wantTraffic("2=0 1=100")
	if c, err := w.Function("c"); err != nil || c.Number != 1 {
		t.Error("a function that is new has no traffic: ", err)
	}
	if _, err := w.Split(w.ctx, "a", []quipu.Part{{Revision: "2", Percent: 5}, {Revision: "1", Percent: 95}}); err != nil {
		t.Fatal(err)
	}
	w.wantTraffic("2=5 1=95")
	w.routes = &quipu.Error{Code: quipu.CodeRoute} // what would be routes then collides
	if _, err := w.Rollback(w.ctx, "a", "1"); quipu.CodeOf(err) != quipu.CodeRoute {
		t.Error(err)
	}
	w.wantTraffic("2=5 1=95")
}

// From outside only what has traffic or an alias can be chosen: an old revision may have been replaced for a reason.
func TestWhoComesFromOutsideChoosesAmongWhatIsOpen(t *testing.T) {
	w := newWorld(t)
	for _, version := range []string{"one", "two", "three"} {
		w.mustDeploy(version)
	}
	if err := w.SetAlias(w.ctx, "a", "blue", "2"); err != nil {
		t.Fatal(err)
	}
	for which, open := range map[string]bool{"3": true, "blue": true, "2": true, "1": false, "": true} {
		if _, err := w.Choose("a", which, "key", false); err != nil {
			t.Errorf("%q, from inside: %v", which, err)
		}
		_, err := w.Choose("a", which, "key", true)
		if open && err != nil || !open && quipu.CodeOf(err) != quipu.CodeNoRevision {
			t.Errorf("%q, from outside: %v", which, err)
		}
	}
	for _, which := range []string{"4", "0", "-1", "green", "1.0", strings.Repeat("9", 100)} {
		if _, err := w.Choose("a", which, "key", false); quipu.CodeOf(err) != quipu.CodeNoRevision {
			t.Errorf("%.20q: %v", which, err)
		}
	}
	if _, err := w.Choose("b", "", "key", false); quipu.CodeOf(err) != quipu.CodeNoFunction {
		t.Error(err)
	}
}

// A bundle is referred to for as long as its revision is remembered, and the sources of what is forgotten go.
func TestBundlesAndFoldersAreThoseOfWhatIsRemembered(t *testing.T) {
	w := newWorld(t)
	var all []quipu.Function
	for n := range quipu.RevisionsKept + 3 {
		all = append(all, w.mustDeploy(fmt.Sprint(n)))
	}
	tx := w.book.Look()
	defer tx.Close()
	referred := map[quipu.BlobRef]bool{}
	if err := w.Blobs(tx, func(ref quipu.BlobRef) { referred[ref] = true }); err != nil {
		t.Fatal(err)
	}
	followed := map[quipu.BlobRef]bool{}
	w.Bundles(func(ref quipu.BlobRef) { followed[ref] = true })
	for n, f := range all {
		_, err := os.Stat(w.Folder(f))
		remembered := n >= 3
		if referred[f.Bundle] != remembered || followed[f.Bundle] != remembered || (err == nil) != remembered {
			t.Errorf("revision %d: referred to %v, followed %v, folder %v; remembered %v", f.Number, referred[f.Bundle], followed[f.Bundle], err == nil, remembered)
		}
	}
	if err := w.Remove(w.ctx, "a"); err != nil {
		t.Fatal(err)
	}
	w.Bundles(func(ref quipu.BlobRef) { t.Errorf("%v is referred to by nothing", ref) })
	if f := w.mustDeploy("9"); f.Number != 1 {
		t.Errorf("what was removed is remembered: number %d", f.Number)
	}
}

// old is a record of a deploy in the form before revisions: each function is set as a whole.
func (w *world) old(set []quipu.Function, remove ...string) {
	w.t.Helper()
	body, err := json.Marshal(map[string]any{"set": set, "remove": remove})
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = w.book.Change(w.ctx, func(tx *view.Tx) error { return tx.Do(quipu.Op{View: Name, Body: body}) })
	if err != nil {
		w.t.Fatal(err)
	}
}

// oldFunction is what an older version deployed: it has no number, and its bundle is kept.
func (w *world) oldFunction(name string) quipu.Function {
	w.t.Helper()
	ref, err := w.o.Blobs.Put(pack(w.t, "quipu.yaml\n"+fn(name, ""), run+"# old\n"))
	if err != nil {
		w.t.Fatal(err)
	}
	return quipu.Function{Name: name, App: "app", Revision: "0123456789ab", Bundle: ref, Deployed: time.Unix(1e9, 0).UTC(),
		Spec: quipu.Spec{Source: ".", Runtime: "exec", Command: []string{"./run"}}}
}

func TestWhatAnOlderVersionDeployedIsARevision(t *testing.T) {
	w := newWorld(t)
	was := w.oldFunction("a")
	w.old([]quipu.Function{w.oldFunction("b"), was})
	w.old(nil, "b")
	for name, again := range map[string]func(){"at once": func() {}, "after a restart": w.reopen, "from the log": w.rebuild} {
		again()
		if w.names() != "a" {
			t.Fatal(name, w.names())
		}
		w.wantTraffic("1=100")
	}
	w.mustDeploy("two")
	for _, again := range []func(){w.reopen, w.rebuild} {
		again()
		w.wantTraffic("2=100 1=0")
	}
	if _, err := w.Rollback(w.ctx, "a", ""); err != nil {
		t.Fatal(err)
	}
	f, err := w.Function("a")
	if err != nil || f.Revision != was.Revision || f.Bundle != was.Bundle {
		t.Fatalf("%+v, %v", f, err)
	}
	if _, err := w.Prepare(w.ctx, f); err != nil {
		t.Error(err)
	}
	if err := w.Remove(w.ctx, "a"); err != nil || w.names() != "" {
		t.Error(err)
	}
}

func TestWhatANewerVersionWroteIsRefused(t *testing.T) {
	if _, err := decodeLine("a", []byte(`{"version":3,"parts":[]}`)); quipu.CodeOf(err) != quipu.CodeDataFormat {
		t.Error(err)
	}
	c := change{Version: 3, Lines: map[string]line{"a": {}}}
	if err := c.each(func(string, []byte) error { t.Error("it was applied"); return nil }); quipu.CodeOf(err) != quipu.CodeDataFormat {
		t.Error(err)
	}
}

// Many change the traffic at once, while others deploy: it stays whole, and everybody is answered.
func TestChangesAtOnceLoseNothing(t *testing.T) {
	w := newWorld(t)
	w.mustDeploy("one")
	w.mustDeploy("two")
	errs := make(chan error)
	const each = 20
	go func() {
		for n := range each {
			_, err := w.Split(w.ctx, "a", []quipu.Part{{Revision: "1", Percent: n + 1}, {Revision: "2", Percent: 99 - n}})
			errs <- err
		}
	}()
	go func() {
		for n := range each {
			errs <- w.SetAlias(w.ctx, "a", fmt.Sprint("alias-", n), "1")
		}
	}()
	go func() {
		for n := range each {
			_, err := w.deploy(fmt.Sprint("more ", n), quipu.DeployOptions{NoTraffic: true})
			errs <- err
		}
	}()
	for range 3 * each {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	list, err := w.Revisions("a")
	if err != nil || list[0].Number != 2+each {
		t.Fatalf("%d, %v", list[0].Number, err)
	}
	i := slices.IndexFunc(list, func(r quipu.Revision) bool { return r.Number == 1 })
	if i < 0 || len(list[i].Aliases) != each || list[i].Percent != each {
		t.Errorf("%+v", list[i])
	}
}

// What an execution sleeps on stays as it is, sources and build included, until it has ended and a deploy looks again.
func TestARevisionThatExecutionsArePinnedToStays(t *testing.T) {
	w := newWorld(t)
	asleep := w.mustDeploy("asleep")
	w.pinned = map[string]bool{asleep.Revision: true}
	for n := range quipu.RevisionsKept + 5 {
		w.mustDeploy(fmt.Sprint(n))
	}
	for _, again := range []func(){func() {}, w.reopen, w.rebuild} {
		again()
		f, err := w.Choose("a", asleep.Revision, "", false)
		if err != nil || f.Number != asleep.Number {
			t.Fatalf("%+v, %v", f, err)
		}
		if _, err := os.Stat(w.Folder(f)); err != nil {
			t.Error(err)
		}
		if list, err := w.Revisions("a"); err != nil || len(list) != quipu.RevisionsKept+1 {
			t.Errorf("%d revisions are remembered, %v", len(list), err)
		}
	}
	w.pinned = nil
	w.mustDeploy("the last")
	if _, ok := w.Revision("a", asleep.Revision); ok {
		t.Error("it is remembered without a reason")
	}
}

func TestADeployThatWouldKeepTooManyRevisionsForExecutionsIsRefused(t *testing.T) {
	w := newWorld(t)
	w.pinned = map[string]bool{}
	h := newHistory("f")
	for n := range quipu.RevisionsKept + quipu.RevisionsPinned {
		w.pinned[h.deploy(content(n+1), true).Revision] = true
	}
	tx := w.book.Look()
	defer tx.Close()
	if err := w.tidy(tx, h); err != nil || len(h.of) != quipu.RevisionsKept+quipu.RevisionsPinned {
		t.Fatalf("%d revisions, %v", len(h.of), err)
	}
	h.deploy(content(quipu.RevisionsKept+quipu.RevisionsPinned+1), true)
	if err := w.tidy(tx, h); quipu.CodeOf(err) != quipu.CodePinned {
		t.Errorf("one more: %v", err)
	}
	delete(w.pinned, content(2).Revision)
	if err := w.tidy(tx, h); err != nil {
		t.Errorf("one has ended: %v", err)
	}
	if _, ok := h.of[content(2).Revision]; ok {
		t.Error("that of the one that ended is remembered")
	}
}
