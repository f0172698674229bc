package taskhub

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dapr/durabletask-go/api/protos"
	"github.com/quipu-run/quipu"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func key(id string) quipu.WorkflowKey { return quipu.WorkflowKey{App: "shop", ID: id} }

// A node that is killed between any two steps goes on where it was, and each result is in the history once.
func TestAWorkflowGoesOnAfterACrashBetweenAnyTwoSteps(t *testing.T) {
	w := newWorld(t)
	w.start("shop", "1")
	w.crash()
	k := w.worker("shop")
	if r := k.turn(); len(r.NewEvents) != 2 || r.NewEvents[1].GetExecutionStarted().GetName() != "order" || len(r.PastEvents) != 0 {
		t.Fatalf("%v", r)
	}
	k.gone()
	w.crash() // before the first turn was answered
	k = w.worker("shop")
	k.turn()
	k.answer("1", schedule(0, "pay"))
	k.activity()
	w.crash() // before the activity was
	k = w.worker("shop")
	if a := k.activity(); a.Name != "pay" || a.TaskId != 0 {
		t.Fatalf("%v", a)
	}
	done := k.completing("1", 0, "paid")
	k.turn()
	if err := <-done; err != nil { // the turn was not answered: what it took in is durable before
		t.Fatal(err)
	}
	w.crash()
	k = w.worker("shop")
	r := k.turn()
	if len(r.PastEvents) != 5 || r.PastEvents[4].GetTaskCompleted().GetResult().GetValue() != "paid" || len(r.NewEvents) != 1 {
		t.Fatalf("%v", r)
	}
	k.answer("1", completes(1, "ready"))
	w.crash()
	if i := w.ended("shop", "1"); i.Status != quipu.WorkflowCompleted || string(i.Output) != "ready" {
		t.Fatalf("%+v", i)
	}
	h, err := w.api.WorkflowHistory(w.ctx, key("1"))
	var types []string
	for _, e := range h {
		types = append(types, e.Type)
	}
	if got := strings.Join(types, ", "); err != nil || got != "turn, started, activity, turn, activity completed, turn, completed" {
		t.Errorf("%s %v", got, err)
	}
}

func TestAStepCostsOneRecord(t *testing.T) {
	w := newWorld(t)
	k := w.worker("shop")
	w.start("shop", "1")
	k.turn()
	k.answer("1", schedule(0, "a"))
	k.activity()
	before := w.records()
	done := k.completing("1", 0, "x")
	k.turn()
	k.answer("1", schedule(1, "b"))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := w.records() - before; n != 1 && n != 2 { // two if the machine was so slow that the result went ahead
		t.Errorf("a step took %d records", n)
	}
}

func (w *world) records() (n int) {
	for _, err := range w.log.Range(w.ctx, w.id, quipu.TagAll, 1, quipu.Seq(1<<63)) {
		if err != nil {
			w.t.Fatal(err)
		}
		n++
	}
	return n
}

func TestAnswersThatComeTwiceOrTooLateChangeNothing(t *testing.T) {
	w := newWorld(t)
	k := w.worker("shop")
	w.start("shop", "1")
	if err := k.tryComplete("1", 0, "early"); err == nil {
		t.Error("there is no such activity")
	}
	k.turn()
	k.answer("1", schedule(0, "a"))
	if err := k.tryAnswer("1", schedule(1, "b")); err == nil {
		t.Error("there is no open turn")
	}
	k.activity()
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- k.tryComplete("1", 0, "one") }()
	k.turn()
	go func() { second <- k.tryComplete("1", 0, "two") }()
	if err := <-second; err == nil {
		t.Error("it was answered before")
	}
	k.answer("1", completes(1, "x"))
	if err := <-first; err != nil {
		t.Error(err)
	}
	if err := k.tryAnswer("1", completes(1, "y")); err == nil || string(w.ended("shop", "1").Output) != "x" {
		t.Errorf("it has ended: %v", err)
	}
	if err := w.tryStart("shop", "1"); err != nil {
		t.Errorf("its id is free: %v", err)
	}
	k.turn()
	if err := w.tryStart("shop", "1"); quipu.CodeOf(err) != quipu.CodeWorkflowExists {
		t.Errorf("its id is taken: %v", err)
	}
	if err := w.api.RaiseWorkflow(w.ctx, key("2"), "e", nil); quipu.CodeOf(err) != quipu.CodeNoWorkflow {
		t.Error(err)
	}
}

// A late answer to an earlier turn, of a worker that lost its stream, is not taken for one to the turn that is open.
func TestALateAnswerIsNotTakenForThatOfAnotherTurn(t *testing.T) {
	w := newWorld(t)
	slow := w.worker("shop")
	w.start("shop", "1")
	slow.turn()
	slow.gone()
	k := w.worker("shop")
	k.turn()
	k.answer("1", schedule(0, "a"))
	k.activity()
	done := k.completing("1", 0, "r")
	k.turn()
	if err := k.tryAnswer("1", schedule(0, "a")); err == nil { // what slow has to say about the first turn
		t.Error("it was taken")
	}
	k.turn() // it is given once more, in case that the code is to blame
	k.answer("1", schedule(1, "b"))
	if err := <-done; err != nil {
		t.Error(err)
	}
	if a := k.activity(); a.Name != "b" {
		t.Errorf("%v", a)
	}
}

func TestAWorkerThatComesAndGoesKeepsNothing(t *testing.T) {
	w := newWorld(t)
	w.start("shop", "1")
	for range 3 {
		k := w.worker("shop")
		k.turn()
		k.gone()
	}
	k := w.worker("shop")
	k.turn()
	k.answer("1", schedule(0, "a"))
	k.activity()
	i := w.info("shop", "1")
	if len(i.Waits) != 1 || i.Waits[0].What != "activity" || i.Waits[0].Name != "a" || i.Waits[0].Owner != "worker shop" {
		t.Errorf("%+v", i.Waits)
	}
	other := w.worker("shop")
	k.gone()
	if a := other.activity(); a.Name != "a" {
		t.Errorf("%v", a)
	}
}

func TestWorkWithoutAWorkerWakesTheApplication(t *testing.T) {
	w := newWorld(t)
	w.start("shop", "1")
	if app := <-w.woken; app != "shop" {
		t.Error(app)
	}
	if i := w.info("shop", "1"); len(i.Waits) != 1 || i.Waits[0].What != "worker" {
		t.Errorf("%+v", i.Waits)
	}
	w.clock.Move(time.Minute)
	w.crash()
	if app := <-w.woken; app != "shop" {
		t.Error(app)
	}
}

func TestATimerFiresOnceWhateverTheClockDoes(t *testing.T) {
	w := newWorld(t)
	k := w.worker("shop")
	w.start("shop", "1")
	k.turn()
	k.answer("1", sleep(0, noon.Add(time.Hour)), sleep(1, time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)))
	k.gone()
	w.clock.Move(-time.Hour)
	w.crash()
	k = w.worker("shop")
	w.clock.Move(100 * time.Hour)
	r := k.turn()
	if e := r.NewEvents[1].GetTimerFired(); e == nil || e.TimerId != 0 || !e.FireAt.AsTime().Equal(noon.Add(time.Hour)) {
		t.Fatalf("%v", r.NewEvents)
	}
	now := r.NewEvents[0].Timestamp.AsTime()
	w.clock.Move(-50 * time.Hour)
	if err := w.api.RaiseWorkflow(w.ctx, key("1"), "e", []byte("1")); err != nil {
		t.Fatal(err)
	}
	k.answer("1")
	if r := k.turn(); r.NewEvents[0].Timestamp.AsTime().Before(now) || r.NewEvents[1].GetEventRaised().GetName() != "e" {
		t.Errorf("%v", r.NewEvents)
	}
}

func TestTerminationNeedsNoWorkerAndTakesTheChildrenAlong(t *testing.T) {
	w := newWorld(t)
	k := w.worker("shop")
	w.start("shop", "1")
	k.turn()
	k.answer("1", beget(0, "c"), schedule(1, "a"))
	for range 2 {
		k.next()
	}
	k.answer("c", schedule(0, "b"))
	k.gone()
	if err := w.api.TerminateWorkflow(w.ctx, key("1"), []byte("enough"), true); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"1", "c"} {
		if i := w.ended("shop", id); i.Status != quipu.WorkflowTerminated || string(i.Output) != "enough" {
			t.Errorf("%+v", i)
		}
	}
	k = w.worker("shop")
	if err := k.tryComplete("1", 1, "late"); err == nil {
		t.Error("nobody waits for it")
	}
}

func TestATerminationTakesAnOpenTurnBack(t *testing.T) {
	w := newWorld(t)
	k := w.worker("shop")
	w.start("shop", "1")
	k.turn()
	if err := w.api.TerminateWorkflow(w.ctx, key("1"), nil, false); err != nil {
		t.Fatal(err)
	}
	if i := w.ended("shop", "1"); i.Status != quipu.WorkflowTerminated {
		t.Errorf("%+v", i)
	}
	if err := k.tryAnswer("1", completes(0, "x")); err == nil {
		t.Error("it was too late")
	}
}

func TestAChildTellsItsParent(t *testing.T) {
	w := newWorld(t)
	k := w.worker("shop")
	w.start("shop", "1")
	w.start("shop", "taken")
	for range 2 {
		k.turn()
	}
	k.answer("1", beget(0, "good"), beget(1, "bad"), beget(2, "taken"))
	failures, results := map[int32]string{}, map[int32]string{}
	for len(failures)+len(results) < 3 {
		r := k.turn()
		switch r.InstanceId {
		case "good":
			k.answer("good", completes(0, "yes"))
		case "bad":
			k.answer("bad", finish(0, protos.OrchestrationStatus_ORCHESTRATION_STATUS_FAILED, ""))
		case "1":
			for _, e := range r.NewEvents {
				if x := e.GetChildWorkflowInstanceCompleted(); x != nil {
					results[x.TaskScheduledId] = x.Result.GetValue()
				}
				if x := e.GetChildWorkflowInstanceFailed(); x != nil {
					failures[x.TaskScheduledId] = x.FailureDetails.GetErrorMessage()
				}
			}
			k.answer("1")
		}
	}
	if results[0] != "yes" || len(failures) != 2 || !strings.Contains(failures[2], "already exists") {
		t.Errorf("%v %v", results, failures)
	}
}

func TestActivitiesAndChildrenOfAnotherApplication(t *testing.T) {
	w := newWorld(t)
	k, bank := w.worker("shop"), w.worker("bank")
	w.start("shop", "1")
	k.turn()
	to := "bank"
	a, c := schedule(0, "pay"), beget(1, "account")
	a.Router, c.Router = &protos.TaskRouter{TargetAppID: &to}, &protos.TaskRouter{TargetAppID: &to}
	k.answer("1", a, c)
	for range 2 {
		i := bank.next()
		if r := i.GetWorkflowRequest(); r != nil {
			bank.answer("account", completes(0, "open"))
		} else {
			go func() { _ = bank.tryComplete("1", i.GetActivityRequest().TaskId, "paid") }()
		}
	}
	got := map[string]bool{}
	for len(got) < 2 {
		for _, e := range k.turn().NewEvents {
			if x := e.GetTaskCompleted(); x != nil {
				got[x.Result.GetValue()] = true
			}
			if x := e.GetChildWorkflowInstanceCompleted(); x != nil {
				got[x.Result.GetValue()] = true
			}
		}
		k.answer("1")
	}
	if !got["paid"] || !got["open"] {
		t.Error(got)
	}
	if p := w.info("bank", "account").Parent; p == nil || *p != key("1") {
		t.Errorf("%v", p)
	}
}

func TestWhatCannotBeDoneHereFailsInWords(t *testing.T) {
	w := newWorld(t)
	k := w.worker("shop")
	w.start("shop", "1")
	k.turn()
	ns, app, scope := "other", "bank", protos.HistoryPropagationScope_HISTORY_PROPAGATION_SCOPE_OWN_HISTORY
	a, b, c := schedule(0, "a"), schedule(1, "b"), beget(2, "c")
	a.Router = &protos.TaskRouter{TargetAppID: &app, TargetAppNamespace: &ns}
	b.GetScheduleTask().HistoryPropagationScope = &scope
	c.Router = a.Router
	k.answer("1", a, b, c)
	why := ""
	for _, e := range k.turn().NewEvents {
		why += e.GetTaskFailed().GetFailureDetails().GetErrorMessage() + e.GetChildWorkflowInstanceFailed().GetFailureDetails().GetErrorMessage() + ";"
	}
	if strings.Count(why, "another namespace") != 2 || strings.Count(why, "history is not propagated") != 1 {
		t.Error(why)
	}
}

func TestResultsAndHistoriesOverTheLimitFailInWords(t *testing.T) {
	w := newWorld(t)
	k := w.worker("shop")
	w.start("shop", "1")
	k.turn()
	k.answer("1", schedule(0, "a"))
	k.activity()
	big := strings.Repeat("x", quipu.WorkflowPayloadMax+1)
	go func() { _ = k.tryComplete("1", 0, big) }()
	if f := k.turn().NewEvents[1].GetTaskFailed(); f == nil || f.FailureDetails.ErrorType != "ResultTooLarge" {
		t.Errorf("%v", f)
	}
	k.answer("1", completes(1, big))
	if i := w.ended("shop", "1"); i.Status != quipu.WorkflowFailed || !strings.Contains(i.Failure.Message, "the most is") {
		t.Errorf("%+v", i)
	}
}

func TestCodeThatDoesSomethingAgainIsNotDeterministic(t *testing.T) {
	w := newWorld(t)
	k := w.worker("shop")
	w.start("shop", "1")
	k.turn()
	k.answer("1", schedule(0, "a"))
	k.activity()
	go func() { _ = k.tryComplete("1", 0, "r") }()
	k.turn()
	k.answer("1", schedule(0, "other"))
	if i := w.ended("shop", "1"); i.Status != quipu.WorkflowFailed || !strings.Contains(i.Failure.Message, "not deterministic") {
		t.Errorf("%+v", i)
	}
}

func TestAVersionThatTheWorkerLacksStallsUntilAnotherComes(t *testing.T) {
	w := newWorld(t)
	k := w.worker("shop")
	w.start("shop", "1")
	k.turn()
	v := "v2"
	if err := w.hub.answer(key("1"), &protos.WorkflowResponse{InstanceId: "1", Version: &protos.WorkflowVersion{Name: &v, Patches: []string{"p1"}}}); err != nil {
		t.Fatal(err)
	}
	if err := w.api.RaiseWorkflow(w.ctx, key("1"), "e", nil); err != nil {
		t.Fatal(err)
	}
	k.turn()
	k.answer("1") // an old worker does not know of the patch
	i := w.info("shop", "1")
	if i.Status != quipu.WorkflowStalled || i.Version != "v2" || len(i.Waits) != 1 || i.Waits[0].What != "version" || !strings.Contains(i.Waits[0].Name, "p1") {
		t.Fatalf("%+v", i)
	}
	k.gone()
	w.crash()
	k = w.worker("shop")
	r := k.turn()
	if len(r.NewEvents) != 2 || r.NewEvents[1].GetEventRaised().GetName() != "e" || r.PastEvents[0].GetWorkflowStarted().GetVersion().GetName() != "v2" {
		t.Fatalf("%v", r)
	}
	if err := w.hub.answer(key("1"), &protos.WorkflowResponse{InstanceId: "1", Version: &protos.WorkflowVersion{Name: &v, Patches: []string{"p1", "p2"}},
		Actions: []*protos.WorkflowAction{completes(0, "x")}}); err != nil {
		t.Fatal(err)
	}
	w.ended("shop", "1")
	// One that cannot go on can still be ended.
	w.start("shop", "2")
	k.turn()
	none := &protos.WorkflowAction{Id: 0, WorkflowActionType: &protos.WorkflowAction_WorkflowVersionNotAvailable{
		WorkflowVersionNotAvailable: &protos.WorkflowVersionNotAvailableAction{}}}
	k.answer("2", none)
	if i := w.info("shop", "2"); i.Status != quipu.WorkflowStalled {
		t.Fatalf("%+v", i)
	}
	if err := w.api.TerminateWorkflow(w.ctx, key("2"), nil, true); err != nil {
		t.Fatal(err)
	}
	w.ended("shop", "2")
}

func TestContinueAsNewKeepsWhatWasNotLookedAt(t *testing.T) {
	w := newWorld(t)
	k := w.worker("shop")
	w.start("shop", "1")
	k.turn()
	k.answer("1", schedule(0, "a"), sleep(1, noon.Add(time.Hour)))
	k.activity()
	if err := w.api.RaiseWorkflow(w.ctx, key("1"), "kept", []byte("7")); err != nil {
		t.Fatal(err)
	}
	r := k.turn()
	again := finish(2, protos.OrchestrationStatus_ORCHESTRATION_STATUS_CONTINUED_AS_NEW, "2")
	again.GetCompleteWorkflow().CarryoverEvents = []*protos.HistoryEvent{r.NewEvents[1]}
	k.answer("1", again)
	r = k.turn()
	if len(r.PastEvents) != 0 || len(r.NewEvents) != 3 || r.NewEvents[1].GetExecutionStarted().GetInput().GetValue() != "2" || r.NewEvents[2].GetEventRaised().GetName() != "kept" {
		t.Fatalf("%v", r)
	}
	if err := k.tryComplete("1", 0, "of the generation before"); err == nil {
		t.Error("it was taken")
	}
	k.answer("1", schedule(0, "b"))
	k.activity()
	w.clock.Move(2 * time.Hour) // the timer of the generation before is gone
	w.crash()
	if i := w.info("shop", "1"); i.Generation != 1 || string(i.Input) != "2" || i.Inbox != 0 {
		t.Errorf("%+v", i)
	}
}

func TestAPurgeByForceTakesTheWorkBack(t *testing.T) {
	w := newWorld(t)
	k := w.worker("shop")
	w.start("shop", "1")
	k.turn()
	k.answer("1", schedule(0, "a"))
	k.activity()
	if _, err := w.api.PurgeWorkflows(w.ctx, quipu.WorkflowPurge{WorkflowKey: key("1")}); quipu.CodeOf(err) != quipu.CodeWorkflowRunning {
		t.Fatal(err)
	}
	if n, err := w.api.PurgeWorkflows(w.ctx, quipu.WorkflowPurge{WorkflowKey: key("1"), Force: true}); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if err := k.tryComplete("1", 0, "x"); err == nil {
		t.Error("it was taken")
	}
	if s := w.hub.Stats()["shop"]; s.Instances != 0 || s.Activities != 0 {
		t.Errorf("%+v", s)
	}
}

func TestAThousandBranchesComeTogetherInFewTurns(t *testing.T) {
	w := newWorld(t)
	k := w.worker("shop")
	w.start("shop", "1")
	k.turn()
	const n = 1000
	var all []*protos.WorkflowAction
	for i := range int32(n) {
		all = append(all, schedule(i, "a"))
	}
	k.answer("1", all...)
	var done sync.WaitGroup
	for range n {
		k.activity()
	}
	for i := range int32(n) {
		done.Go(func() {
			if err := k.tryComplete("1", i, "x"); err != nil {
				t.Error(err)
			}
		})
	}
	results, turns := 0, 0
	for results < n {
		for _, e := range k.turn().NewEvents {
			if e.GetTaskCompleted() != nil {
				results++
			}
		}
		turns++
		if turns == 1 {
			eventually(t, "the rest has come", func() bool { return w.hub.pending(key("1")) == n-results })
		}
		k.answer("1")
	}
	done.Wait()
	if turns != 2 || results != n {
		t.Errorf("%d results in %d turns", results, turns)
	}
}

// pending is the results that no turn has taken.
func (h *Hub) pending(k quipu.WorkflowKey) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.live[k].results)
}

func TestAWorkflowOfTenThousandSteps(t *testing.T) {
	const steps = 10_000
	w := newWorld(t)
	k := w.worker("shop")
	k.blind = true
	w.start("shop", "1")
	for n := range int32(steps) {
		k.turn()
		k.answer("1", schedule(n, "a"))
		k.activity()
		go func() { _ = k.tryComplete("1", n, "x") }()
	}
	k.turn()
	k.answer("1", completes(steps, "end"))
	if i := w.ended("shop", "1"); i.Status != quipu.WorkflowCompleted || i.Events != steps*3+3 {
		t.Errorf("%+v", i)
	}
}

func TestSleepingInstancesMakeRoom(t *testing.T) {
	w := newWorld(t)
	k := w.worker("shop")
	const n = 50
	for i := range n {
		id := fmt.Sprint(i)
		w.start("shop", id)
		k.turn()
		k.answer(id, sleep(0, noon.Add(time.Hour)))
	}
	w.hub.mu.Lock()
	for w.hub.idle.Len() > 0 {
		w.hub.drop(w.hub.idle.Front().Value.(*live), nil)
	}
	active, bytes := w.hub.active, w.hub.bytes
	w.hub.mu.Unlock()
	if s := w.hub.Stats()["shop"]; s.Instances != 0 || active != 0 || bytes != 0 {
		t.Fatalf("%+v, %d active, %d bytes", s, active, bytes)
	}
	w.clock.Move(2 * time.Hour)
	for range n {
		r := k.turn()
		if r.NewEvents[1].GetTimerFired() == nil || len(r.PastEvents) != 3 {
			t.Fatalf("%v", r)
		}
		k.answer(r.InstanceId, completes(1, "x"))
	}
}

// What sleeps is not in memory for long, and wakes all the same, by an event as by its timer.
func TestSleepingInstancesLeaveMemory(t *testing.T) {
	w := newWorld(t)
	k := w.worker("shop")
	const n = 10
	until := noon.Add(10_000 * time.Hour)
	for i := range n {
		id := fmt.Sprint(i)
		w.start("shop", id)
		k.turn()
		k.answer(id, sleep(0, until))
	}
	eventually(t, "all have left", func() bool {
		w.clock.Move(idleMax)
		return w.hub.Stats()["shop"].Instances == 0
	})
	if err := w.api.RaiseWorkflow(w.ctx, key("3"), "wake", nil); err != nil {
		t.Fatal(err)
	}
	if r := k.turn(); r.InstanceId != "3" || r.NewEvents[1].GetEventRaised().GetName() != "wake" || len(r.PastEvents) != 3 {
		t.Fatalf("%v", r)
	}
	k.answer("3", completes(1, "x"))
	w.ended("shop", "3")
	w.clock.Move(until.Sub(w.clock.Now()))
	for range n - 1 {
		r := k.turn()
		if r.NewEvents[1].GetTimerFired() == nil {
			t.Fatalf("%v", r)
		}
		k.answer(r.InstanceId, completes(1, "x"))
	}
}

// Nodes crash and workers come and go at random; each workflow ends, with each result once.
func TestWorkflowsEndWhateverIsKilled(t *testing.T) {
	const workflows, steps = 40, 5
	w := newWorld(t)
	for i := range workflows {
		w.start("shop", fmt.Sprint(i))
	}
	for range 6 {
		a, b := w.worker("shop"), w.worker("shop")
		one, two := a.row(steps), b.row(steps)
		w.until(20*time.Millisecond, w.allEnded(workflows))
		a.gone()
		w.until(10*time.Millisecond, w.allEnded(workflows))
		w.crash()
		a.leave()
		b.leave()
		one.Wait()
		two.Wait()
	}
	k := w.worker("shop")
	all := k.row(steps)
	for i := range workflows {
		if got := w.ended("shop", fmt.Sprint(i)); got.Status != quipu.WorkflowCompleted {
			t.Errorf("%+v", got)
		}
		h, err := w.api.WorkflowHistory(w.ctx, key(fmt.Sprint(i)))
		seen := map[int]int{}
		for _, e := range h {
			if e.Type == "activity completed" {
				seen[e.ID]++
			}
		}
		if err != nil || len(seen) != steps || seen[0] != 1 || seen[steps-1] != 1 {
			t.Errorf("%d: %v %v", i, seen, err)
		}
	}
	k.gone()
	all.Wait()
}

func (w *world) allEnded(n int) func() bool {
	return func() bool {
		for _, c := range w.flows.Counts() {
			if c.Status == quipu.WorkflowCompleted && int(c.N) == n {
				return true
			}
		}
		return false
	}
}

// until waits for something, but not for long.
func (w *world) until(most time.Duration, is func() bool) {
	for end := time.Now().Add(most); !is() && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
}

func TestARerunDoesAgainWhatWasBegun(t *testing.T) {
	w := newWorld(t)
	k := w.worker("shop")
	w.start("shop", "1")
	k.turn()
	k.answer("1", schedule(0, "a"), beget(1, "c"), sleep(2, noon.Add(time.Hour)), schedule(3, "b"))
	for range 3 {
		k.next()
	}
	if err := w.api.TerminateWorkflow(w.ctx, key("1"), nil, false); err != nil {
		t.Fatal(err)
	}
	w.ended("shop", "1")
	if _, err := w.api.RerunWorkflow(w.ctx, key("1"), 2, "2", []byte("x")); quipu.CodeOf(err) != quipu.CodeUsage {
		t.Errorf("a timer has no input: %v", err)
	}
	if _, err := w.api.RerunWorkflow(w.ctx, key("1"), 3, "2", []byte("new")); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for range 3 {
		i := k.next()
		if a := i.GetActivityRequest(); a != nil {
			got[a.Name] = a.Input.GetValue()
		} else {
			got["child"] = i.GetWorkflowRequest().InstanceId
		}
	}
	if len(got) != 3 || got["b"] != "new" || got["child"] != "2:0001" {
		t.Errorf("%v", got)
	}
	if n := len(w.info("shop", "2").Waits); n != 4 {
		t.Errorf("%+v", w.info("shop", "2").Waits)
	}
}

func TestEventsBufferedWhileSuspendedComeInOrder(t *testing.T) {
	w := newWorld(t)
	k := w.worker("shop")
	w.start("shop", "1")
	k.turn()
	k.answer("1")
	if err := w.api.SuspendWorkflow(w.ctx, key("1"), "lunch"); err != nil {
		t.Fatal(err)
	}
	k.turn()
	k.answer("1")
	if i := w.info("shop", "1"); i.Status != quipu.WorkflowSuspended {
		t.Errorf("%+v", i)
	}
	if err := errors.Join(w.api.RaiseWorkflow(w.ctx, key("1"), "e", nil), w.api.ResumeWorkflow(w.ctx, key("1"), "")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for len(got) < 2 {
		for _, e := range k.turn().NewEvents[1:] {
			got = append(got, inWords(e).Type)
		}
		k.answer("1")
	}
	if i := w.info("shop", "1"); strings.Join(got, " ") != "event resumed" || i.Status != quipu.WorkflowRunning {
		t.Errorf("%v %+v", got, i)
	}
}

func TestTheServiceAnswersAsUpstreamDoes(t *testing.T) {
	w := newWorld(t)
	s := &service{caller: func(context.Context) (*Hub, string, error) { return w.hub, "shop", nil }}
	k := w.worker("shop")
	id, err := s.StartInstance(w.ctx, &protos.CreateInstanceRequest{Name: "order", Input: wrapperspb.String("1")})
	if err != nil {
		t.Fatal(err)
	}
	k.turn()
	k.answer(id.InstanceId, schedule(0, "a"))
	k.activity()
	in := &protos.GetInstanceRequest{InstanceId: id.InstanceId, GetInputsAndOutputs: true}
	got, err := s.WaitForInstanceStart(w.ctx, in)
	if err != nil || !got.Exists || got.WorkflowState.WorkflowStatus != protos.OrchestrationStatus_ORCHESTRATION_STATUS_RUNNING || got.WorkflowState.Input.GetValue() != "1" {
		t.Fatalf("%v %v", got, err)
	}
	if got, err := s.GetInstance(w.ctx, &protos.GetInstanceRequest{InstanceId: "nobody"}); err != nil || got.Exists {
		t.Errorf("%v %v", got, err)
	}
	if _, err := s.TerminateInstance(w.ctx, &protos.TerminateRequest{InstanceId: id.InstanceId, Output: wrapperspb.String("x")}); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"raise to one that ended: rpc error: code = FailedPrecondition": errOf(s.RaiseEvent(w.ctx, &protos.RaiseEventRequest{InstanceId: id.InstanceId, Name: "e"})),
		"raise to nobody: rpc error: code = Unknown desc = no such":     errOf(s.RaiseEvent(w.ctx, &protos.RaiseEventRequest{InstanceId: "nobody", Name: "e"})),
		"history of nobody: rpc error: code = NotFound":                 errOf(s.GetInstanceHistory(w.ctx, &protos.GetInstanceHistoryRequest{InstanceId: "nobody"})),
		"rerun of nobody: rpc error: code = NotFound":                   errOf(s.RerunWorkflowFromEvent(w.ctx, &protos.RerunWorkflowFromEventRequest{SourceInstanceID: "nobody"})),
		"no name: rpc error: code = InvalidArgument":                    errOf(s.StartInstance(w.ctx, &protos.CreateInstanceRequest{})),
		"a bad id: rpc error: code = InvalidArgument":                   errOf(s.StartInstance(w.ctx, &protos.CreateInstanceRequest{Name: "n", InstanceId: "\x01"})),
	} {
		if _, want, _ := strings.Cut(what, ": "); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	filter := &protos.PurgeInstanceFilter{CreatedTimeTo: timestamppb.New(noon.Add(time.Hour)),
		RuntimeStatus: []protos.OrchestrationStatus{protos.OrchestrationStatus_ORCHESTRATION_STATUS_TERMINATED}}
	n, err := s.PurgeInstances(w.ctx, &protos.PurgeInstancesRequest{Request: &protos.PurgeInstancesRequest_PurgeInstanceFilter{PurgeInstanceFilter: filter}})
	if err != nil || n.DeletedInstanceCount != 1 {
		t.Errorf("%v %v", n, err)
	}
}

func errOf[T any](_ T, err error) error { return err }
