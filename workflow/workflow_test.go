package workflow_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/internal/timers"
	"github.com/quipu-run/quipu/view"
	"github.com/quipu-run/quipu/workflow"
	"github.com/quipu-run/quipu/xtest"
)

var noon = time.Date(2001, 1, 14, 12, 0, 0, 0, time.UTC)

// alarms are timers that the test fires by hand.
type alarms map[timers.Key]timers.Timer

func (a alarms) Set(_ *view.Tx, t timers.Timer) error {
	a[t.Key] = t
	return nil
}

func (a alarms) Get(_ *view.Tx, k timers.Key) (timers.Timer, bool, error) {
	t, there := a[k]
	return t, there, nil
}

func (a alarms) Cancel(_ *view.Tx, k timers.Key) (bool, error) {
	_, there := a[k]
	delete(a, k)
	return there, nil
}

// plain is a language whose messages are words.
type plain struct{}

func (plain) Begin(s quipu.WorkflowStart, _ time.Time) []byte {
	return []byte("begin " + string(s.Input))
}
func (plain) Raise(event string, data []byte, _ time.Time) []byte {
	return fmt.Appendf(nil, "raise %s %s", event, data)
}
func (plain) Suspend(reason string, _ time.Time) []byte { return []byte("suspend " + reason) }
func (plain) Resume(reason string, _ time.Time) []byte  { return []byte("resume " + reason) }
func (plain) Terminate(output []byte, _ bool, _ time.Time) []byte {
	return []byte("terminate " + string(output))
}
func (plain) Fired(id string, body []byte, _ time.Time) []byte {
	return fmt.Appendf(nil, "fired %s %s", id, body)
}
func (plain) Tell(events [][]byte) (list []quipu.WorkflowEvent, err error) {
	for i, e := range events {
		list = append(list, quipu.WorkflowEvent{N: i, Type: string(e)})
	}
	return list, nil
}
func (plain) Waits(flow.Snapshot) ([]quipu.WorkflowWait, error) {
	return []quipu.WorkflowWait{{What: "worker"}}, nil
}
func (plain) Children(s flow.Snapshot) (list []quipu.WorkflowKey, err error) {
	for _, e := range s.History {
		if id, is := strings.CutPrefix(string(e), "child "); is {
			list = append(list, quipu.WorkflowKey{App: s.App, ID: id})
		}
	}
	return list, nil
}
func (plain) Again(s flow.Snapshot, event int, k quipu.WorkflowKey, input []byte) ([]flow.Change, error) {
	return []flow.Change{{WorkflowKey: k, Start: &flow.Start{Kind: s.Kind, Name: s.Name, Input: input, History: s.History[:event],
		Messages: [][]byte{[]byte("again")}, Open: true, Set: []timers.Timer{{Key: timers.Key{ID: "t"}, Due: noon}}}}}, nil
}

type world struct {
	*workflow.Store
	t       *testing.T
	ctx     context.Context
	clock   *xtest.Clock
	log     *xtest.Model
	id      quipu.Book
	fs      *vfs.MemFS
	alarms  alarms
	view    *workflow.View
	book    *view.Book
	store   *view.Store
	arrived []flow.Arrival // those of kind dapr
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, ctx: t.Context(), clock: xtest.NewClock(noon), fs: vfs.NewMem(), alarms: alarms{}}
	w.log = xtest.NewModel(w.clock)
	var err error
	if w.id, err = w.log.CreateBook(w.ctx, "quipu/default", quipu.BookOptions{}); err != nil {
		t.Fatal(err)
	}
	w.open()
	t.Cleanup(w.close)
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	if w.store, err = view.OpenStore(view.Options{Dir: "/views", FS: w.fs}); err != nil {
		w.t.Fatal(err)
	}
	w.view = workflow.New(workflow.Options{Timers: w.alarms, Clock: w.clock, Languages: map[string]flow.Language{flow.KindDapr: plain{}, flow.KindStep: plain{}}})
	if w.book, err = view.OpenBook(w.ctx, w.store, w.log, w.id, w.clock, w.view); err != nil {
		w.t.Fatal(err)
	}
	w.Store = w.view.Follow(w.book)
	w.Watch(flow.KindDapr, func(a flow.Arrival) { w.arrived = append(w.arrived, a) })
}

func (w *world) close() {
	if err := errors.Join(w.book.Close(), w.store.Close()); err != nil {
		w.t.Error(err)
	}
}

// crash loses what the views have on disk since their last flush, as a node that is killed does.
func (w *world) crash() {
	w.t.Helper()
	w.close()
	w.fs = vfs.NewMem()
	w.open()
}

func key(id string) quipu.WorkflowKey { return quipu.WorkflowKey{App: "shop", ID: id} }

func (w *world) start(id string) {
	w.t.Helper()
	if _, err := w.StartWorkflow(w.ctx, quipu.WorkflowStart{WorkflowKey: key(id), Name: "order", Input: []byte(`"tea"`)}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) load(id string) flow.Snapshot {
	w.t.Helper()
	s, err := w.Load(w.ctx, key(id))
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// turn commits a turn on the newest revision.
func (w *world) turn(id string, t flow.Turn, more ...flow.Change) {
	w.t.Helper()
	if err := w.tryTurn(id, t, more...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) tryTurn(id string, t flow.Turn, more ...flow.Change) error {
	w.t.Helper()
	if t.Rev == 0 {
		t.Rev = w.load(id).Rev
	}
	return w.Commit(w.ctx, append([]flow.Change{{WorkflowKey: key(id), Turn: &t}}, more...))
}

func (w *world) busy() (ids []string) {
	w.t.Helper()
	if err := w.Busy(w.ctx, flow.KindDapr, "shop", func(k quipu.WorkflowKey) bool {
		ids = append(ids, k.ID)
		return true
	}); err != nil {
		w.t.Fatal(err)
	}
	return ids
}

func words(list ...string) (out [][]byte) {
	for _, s := range list {
		out = append(out, []byte(s))
	}
	return out
}

func text(list [][]byte) string { return string(bytes.Join(list, []byte(", "))) }

func wants(t *testing.T, err error, code quipu.Code) {
	t.Helper()
	if quipu.CodeOf(err) != code {
		t.Fatalf("got %v, want %s", err, code)
	}
}

func TestAnInstanceLivesFromItsStartToItsEndAcrossCrashes(t *testing.T) {
	w := newWorld(t)
	w.start("1")
	if s := w.load("1"); s.Status != quipu.WorkflowPending || text(s.Inbox) != `begin "tea"` || string(s.Input) != `"tea"` || s.Name != "order" {
		t.Fatalf("%+v", s)
	}
	w.crash()
	w.turn("1", flow.Turn{Took: 1, Events: words("began", "asked"), Status: quipu.WorkflowRunning, Open: true})
	if err := w.RaiseWorkflow(w.ctx, key("1"), "paid", []byte("5")); err != nil {
		t.Fatal(err)
	}
	w.crash()
	s := w.load("1")
	if text(s.History) != "began, asked" || text(s.Inbox) != "raise paid 5" || !s.Open || s.Events != 2 {
		t.Fatalf("%+v", s)
	}
	custom := "nearly"
	w.turn("1", flow.Turn{Took: 1, Events: words("was paid"), Status: quipu.WorkflowCompleted, Output: []byte("done"), Custom: &custom})
	w.crash()
	i, err := w.AwaitWorkflow(w.ctx, key("1"))
	if err != nil || i.Status != quipu.WorkflowCompleted || string(i.Output) != "done" || i.Custom != "nearly" || i.Events != 3 || i.Inbox != 0 {
		t.Fatalf("%+v %v", i, err)
	}
	if ids := w.busy(); len(ids) > 0 {
		t.Errorf("%v are busy", ids)
	}
	if got := w.view.Counts(); len(got) != 1 || got[0] != (workflow.Count{App: "shop", Status: quipu.WorkflowCompleted, N: 1}) {
		t.Errorf("%v", got)
	}
}

func TestATurnOnARevisionThatIsGoneChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.start("1")
	rev := w.load("1").Rev
	w.turn("1", flow.Turn{Took: 1, Events: words("one"), Status: quipu.WorkflowRunning})
	wants(t, w.tryTurn("1", flow.Turn{Rev: rev, Events: words("two")}), quipu.CodeWorkflowStale)
	if s := w.load("1"); text(s.History) != "one" {
		t.Errorf("%s", text(s.History))
	}
	// Nor does a runner go on with an instance that was purged and started again.
	w.turn("1", flow.Turn{Status: quipu.WorkflowTerminated})
	old := w.load("1").Rev
	if _, err := w.PurgeWorkflows(w.ctx, quipu.WorkflowPurge{WorkflowKey: key("1")}); err != nil {
		t.Fatal(err)
	}
	w.clock.Move(time.Millisecond)
	w.start("1")
	wants(t, w.tryTurn("1", flow.Turn{Rev: old}), quipu.CodeWorkflowStale)
}

func TestWhatATurnDoesHappensTogetherOrNotAtAll(t *testing.T) {
	w := newWorld(t)
	w.start("parent")
	child := flow.Change{WorkflowKey: key("child"), Start: &flow.Start{Kind: flow.KindDapr, Name: "ship", Messages: words("begin")}}
	late := flow.Change{WorkflowKey: key("nobody"), Message: []byte("hello")}
	wants(t, w.tryTurn("parent", flow.Turn{Took: 1, Events: words("child child")}, child, late), quipu.CodeNoWorkflow)
	if s := w.load("parent"); s.Events != 0 || len(s.Inbox) != 1 {
		t.Errorf("%+v", s)
	}
	_, err := w.Instance(w.ctx, key("child"))
	wants(t, err, quipu.CodeNoWorkflow)
	late.Lenient = true
	w.turn("parent", flow.Turn{Took: 1, Events: words("child child"), Status: quipu.WorkflowRunning}, child, late)
	if s := w.load("child"); text(s.Inbox) != "begin" {
		t.Errorf("%+v", s)
	}
	if n := len(w.arrived); n != 2 || w.arrived[1].ID != "child" || !w.arrived[1].Started || text(w.arrived[1].Messages) != "begin" {
		t.Errorf("%+v", w.arrived)
	}
}

func TestTimersGoWithTheirInstanceAndFireOnce(t *testing.T) {
	w := newWorld(t)
	w.start("1")
	set := func(ids ...string) (list []timers.Timer) {
		for _, id := range ids {
			list = append(list, timers.Timer{Key: timers.Key{ID: id}, Due: noon.Add(time.Hour), Body: []byte("!")})
		}
		return list
	}
	w.turn("1", flow.Turn{Took: 1, Status: quipu.WorkflowRunning, Set: set("a", "b", "c")})
	var due []timers.Timer
	for _, one := range w.alarms {
		due = append(due, one)
	}
	if len(due) != 3 {
		t.Fatalf("%v", due)
	}
	w.turn("1", flow.Turn{Cancel: []string{"b"}})
	for range 2 { // a firing that is repeated does nothing
		for _, one := range due {
			if _, err := w.book.Change(w.ctx, func(tx *view.Tx) error { return w.view.Fire(tx, one) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := w.load("1"); len(got.Inbox) != 2 || strings.Contains(text(got.Inbox), "fired b") || !strings.Contains(text(got.Inbox), "fired c !") {
		t.Errorf("%s", text(got.Inbox))
	}
	clear(w.alarms)
	w.turn("1", flow.Turn{Took: 2, Set: set("d", "e")})
	w.turn("1", flow.Turn{Status: quipu.WorkflowCompleted})
	if len(w.alarms) > 0 {
		t.Errorf("%v are left", w.alarms)
	}
}

func TestContinueAsNewBeginsAnotherHistory(t *testing.T) {
	w := newWorld(t)
	w.start("1")
	for range 100 { // more parts than are deleted one by one
		w.turn("1", flow.Turn{Events: words("x")})
	}
	w.turn("1", flow.Turn{Took: 1, Again: true, Input: []byte("2"), Events: words("began again"), Status: quipu.WorkflowRunning})
	w.turn("1", flow.Turn{Events: words("and on")})
	w.crash()
	if s := w.load("1"); text(s.History) != "began again, and on" || s.Generation != 1 || string(s.Input) != "2" || s.Events != 2 {
		t.Errorf("%+v", s)
	}
}

func TestAnIDIsTakenUntilItsInstanceHasEnded(t *testing.T) {
	w := newWorld(t)
	w.start("1")
	_, err := w.StartWorkflow(w.ctx, quipu.WorkflowStart{WorkflowKey: key("1")})
	wants(t, err, quipu.CodeWorkflowExists)
	wants(t, w.purge("1", false), quipu.CodeWorkflowRunning)
	w.turn("1", flow.Turn{Took: 1, Events: words("a"), Status: quipu.WorkflowFailed, Failure: &quipu.WorkflowFailure{Type: "T", Message: "m"}})
	if i, err := w.Workflow(w.ctx, key("1")); err != nil || i.Failure == nil || i.Failure.Message != "m" {
		t.Errorf("%+v %v", i, err)
	}
	wants(t, w.RaiseWorkflow(w.ctx, key("1"), "e", nil), quipu.CodeWorkflowEnded)
	wants(t, w.tryTurn("1", flow.Turn{}), quipu.CodeWorkflowEnded)
	w.start("1")
	if s := w.load("1"); s.Status != quipu.WorkflowPending || s.Events != 0 || s.Failure != nil || len(s.Inbox) != 1 {
		t.Errorf("%+v", s)
	}
	if err := w.purge("1", true); err != nil {
		t.Fatal(err)
	}
	wants(t, w.RaiseWorkflow(w.ctx, key("1"), "e", nil), quipu.CodeNoWorkflow)
	for _, id := range []string{"", "a\x00b", "a\nb", "\xff", strings.Repeat("x", quipu.WorkflowIDMax+1)} {
		err := w.Commit(w.ctx, []flow.Change{{WorkflowKey: key(id), Start: &flow.Start{}}})
		wants(t, err, quipu.CodeWorkflowID)
	}
	if got := w.view.Counts(); len(got) > 0 {
		t.Errorf("%v", got)
	}
}

func (w *world) purge(id string, force bool) error {
	_, err := w.PurgeWorkflows(w.ctx, quipu.WorkflowPurge{WorkflowKey: key(id), Force: force})
	return err
}

func TestWhatIsOverALimitIsRefused(t *testing.T) {
	w := newWorld(t)
	w.start("1")
	big := make([]byte, quipu.WorkflowPayloadMax+1)
	wants(t, w.tryTurn("1", flow.Turn{Status: quipu.WorkflowCompleted, Output: big}), quipu.CodeWorkflowSize)
	_, err := w.StartWorkflow(w.ctx, quipu.WorkflowStart{WorkflowKey: key("2"), Input: big})
	wants(t, err, quipu.CodeWorkflowSize)
	wants(t, w.RaiseWorkflow(w.ctx, key("1"), "e", make([]byte, quipu.WorkflowPayloadMax+(1<<17))), quipu.CodeWorkflowSize)
	many := make([][]byte, quipu.WorkflowHistoryMax)
	for i := range many {
		many[i] = []byte("e")
	}
	w.turn("1", flow.Turn{Events: many})
	wants(t, w.tryTurn("1", flow.Turn{Events: words("one more")}), quipu.CodeWorkflowSize)
	w.start("3")
	var flood []flow.Change
	for range quipu.WorkflowInboxMax - 1 {
		flood = append(flood, flow.Change{WorkflowKey: key("3"), Message: []byte("m")})
	}
	if err := w.Commit(w.ctx, flood); err != nil {
		t.Fatal(err)
	}
	wants(t, w.RaiseWorkflow(w.ctx, key("3"), "e", nil), quipu.CodeTooMany)
}

func TestAStartInTheFutureSleepsOnATimer(t *testing.T) {
	w := newWorld(t)
	if _, err := w.StartWorkflow(w.ctx, quipu.WorkflowStart{WorkflowKey: key("1"), At: noon.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if ids := w.busy(); len(ids) > 0 || len(w.alarms) != 1 {
		t.Fatalf("%v are busy; %v", ids, w.alarms)
	}
	if err := w.RaiseWorkflow(w.ctx, key("1"), "early", nil); err != nil || len(w.busy()) > 0 || len(w.arrived) > 0 {
		t.Fatalf("%v, busy: %v", err, w.busy())
	}
	i, err := w.Workflow(w.ctx, key("1"))
	if err != nil || len(i.Waits) != 1 || !i.Waits[0].Until.Equal(noon.Add(time.Hour)) {
		t.Errorf("%+v %v", i, err)
	}
	if err := w.TerminateWorkflow(w.ctx, key("2"), nil, true); quipu.CodeOf(err) != quipu.CodeNoWorkflow {
		t.Error(err)
	}
	for _, one := range w.alarms {
		if _, err := w.book.Change(w.ctx, func(tx *view.Tx) error { return w.view.Fire(tx, one) }); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(w.arrived); n != 1 || !w.arrived[0].Started || len(w.busy()) != 1 || len(w.alarms) > 0 {
		t.Errorf("%v %v", w.arrived, w.alarms)
	}
	w.turn("1", flow.Turn{Took: 1, Status: quipu.WorkflowRunning})
}

func TestEndedInstancesAreForgottenInTime(t *testing.T) {
	w := newWorld(t)
	for i := range 3 {
		id := fmt.Sprint(i)
		w.start(id)
		w.turn(id, flow.Turn{Took: 1, Events: words("a"), Status: quipu.WorkflowCompleted})
		w.clock.Move(24 * time.Hour)
	}
	w.start("runs")
	w.clock.Move(quipu.WorkflowKeptDefault - 36*time.Hour)
	if n, err := w.Sweep(w.ctx); err != nil || n != 2 {
		t.Fatalf("%d %v", n, err)
	}
	page, err := w.Workflows(w.ctx, quipu.WorkflowList{})
	if err != nil || len(page.Workflows) != 2 || page.Workflows[0].ID != "2" || page.Workflows[1].ID != "runs" {
		t.Errorf("%+v %v", page, err)
	}
	if n, err := w.PurgeWorkflows(w.ctx, quipu.WorkflowPurge{Name: "other"}); err != nil || n != 0 {
		t.Errorf("%d %v", n, err)
	}
	if n, err := w.PurgeWorkflows(w.ctx, quipu.WorkflowPurge{Name: "order"}); err != nil || n != 1 {
		t.Errorf("%d %v", n, err)
	}
}

func TestAPurgeMayTakeTheChildrenToo(t *testing.T) {
	w := newWorld(t)
	w.start("p")
	w.turn("p", flow.Turn{Took: 1, Events: words("child c1", "child c2", "child gone"), Status: quipu.WorkflowCompleted},
		flow.Change{WorkflowKey: key("c1"), Start: &flow.Start{Kind: flow.KindDapr}}, flow.Change{WorkflowKey: key("c2"), Start: &flow.Start{Kind: flow.KindDapr}})
	_, err := w.PurgeWorkflows(w.ctx, quipu.WorkflowPurge{WorkflowKey: key("p"), Recursive: true})
	wants(t, err, quipu.CodeWorkflowRunning) // c1 has not ended: all of them stay
	if n, err := w.PurgeWorkflows(w.ctx, quipu.WorkflowPurge{WorkflowKey: key("p"), Recursive: true, Force: true}); err != nil || n != 3 {
		t.Fatalf("%d %v", n, err)
	}
}

func TestListsComeInPages(t *testing.T) {
	w := newWorld(t)
	for i := range 5 {
		w.start(fmt.Sprint(i))
	}
	w.turn("3", flow.Turn{Took: 1, Status: quipu.WorkflowCompleted})
	var got []string
	list := quipu.WorkflowList{App: "shop", Status: quipu.WorkflowPending, Limit: 2}
	for {
		page, err := w.Workflows(w.ctx, list)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range page.Workflows {
			got = append(got, one.ID)
		}
		if page.Next == nil {
			break
		}
		list.After = *page.Next
	}
	if fmt.Sprint(got) != "[0 1 2 4]" {
		t.Error(got)
	}
}

func TestWhoWaitsHearsOfTheEndAndOfAPurge(t *testing.T) {
	w := newWorld(t)
	w.start("1")
	w.start("2")
	ends := make(chan error, 2)
	for _, id := range []string{"1", "2"} {
		go func() {
			_, err := w.Await(w.ctx, key(id), func(i flow.Instance) bool { return i.Status.Ended() })
			ends <- err
		}()
	}
	w.turn("1", flow.Turn{Took: 1, Status: quipu.WorkflowRunning})
	w.turn("1", flow.Turn{Status: quipu.WorkflowTerminated})
	if err := <-ends; err != nil {
		t.Error(err)
	}
	if err := w.purge("2", true); err != nil {
		t.Fatal(err)
	}
	wants(t, <-ends, quipu.CodeNoWorkflow)
}

func TestARerunBeginsWithThePast(t *testing.T) {
	w := newWorld(t)
	w.start("1")
	w.turn("1", flow.Turn{Took: 1, Events: words("a", "b", "c"), Status: quipu.WorkflowCompleted})
	id, err := w.RerunWorkflow(w.ctx, key("1"), 2, "", []byte("new"))
	if err != nil {
		t.Fatal(err)
	}
	if s := w.load(id); text(s.History) != "a, b" || text(s.Inbox) != "again" || string(s.Input) != "new" || !s.Open || len(w.alarms) != 1 {
		t.Errorf("%+v", s)
	}
}

// A step costs the log the same, however long the history is.
func TestALongHistoryDoesNotMakeAStepDearer(t *testing.T) {
	w := newWorld(t)
	w.start("1")
	size := func() (n int) {
		w.turn("1", flow.Turn{Events: words("event")})
		tail, err := w.log.Tail(w.ctx, w.id, quipu.Linearizable)
		if err != nil {
			t.Fatal(err)
		}
		for rec, err := range w.log.Range(w.ctx, w.id, quipu.TagAll, tail, tail) {
			if err != nil {
				t.Fatal(err)
			}
			n = len(rec.Data)
		}
		return n
	}
	early := size()
	for range 1000 {
		w.turn("1", flow.Turn{Events: words("event")})
	}
	if late := size(); early == 0 || late > early+8 {
		t.Errorf("%d bytes at first, %d after 1000 turns", early, late)
	}
}
