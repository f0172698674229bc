package taskhub

import (
	"strings"
	"testing"

	"github.com/dapr/durabletask-go/api/protos"
)

func (w *world) history(id string) string {
	w.t.Helper()
	h, err := w.api.WorkflowHistory(w.ctx, key(id))
	if err != nil {
		w.t.Fatal(err)
	}
	var types []string
	for _, e := range h {
		types = append(types, e.Type)
	}
	return strings.Join(types, ", ")
}

// The next activity begins when what its turn took in is durable. If the node is killed before the decision is, a worker makes it
// again, and it is in the history once.
func TestADecisionThatWasNotSavedIsMadeAgain(t *testing.T) {
	w := newWorld(t)
	k := w.worker("shop")
	w.start("shop", "1")
	k.turn()
	k.answer("1", schedule(0, "a"))
	k.activity()
	done := k.completing("1", 0, "x")
	k.turn()
	if err := <-done; err != nil {
		t.Fatalf("a result is durable before its turn ends: %v", err)
	}
	k.answer("1", schedule(1, "b"))
	if a := k.activity(); a.Name != "b" {
		t.Fatalf("%v", a)
	}
	before := w.history("1")
	w.crash()
	k = w.worker("shop")
	if before == "turn, started, activity, turn, activity completed" { // else the machine is so slow that it was saved
		r := k.turn()
		if n := len(r.PastEvents); n != 5 || len(r.NewEvents) != 1 || r.PastEvents[4].GetTaskCompleted() == nil {
			t.Fatalf("%v", r)
		}
		k.answer("1", schedule(1, "b"))
	}
	if a := k.activity(); a.Name != "b" || a.TaskId != 1 {
		t.Fatalf("%v", a)
	}
	done = k.completing("1", 1, "y")
	k.turn()
	k.answer("1", completes(2, "z"))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	w.ended("shop", "1")
	if h := w.history("1"); strings.Count(h, "activity,") != 2 || strings.Count(h, "activity completed") != 2 {
		t.Error(h)
	}
}

// People see what an instance waits for, although no other record follows.
func TestADecisionIsSavedByItselfSoonAfter(t *testing.T) {
	w := newWorld(t)
	k := w.worker("shop")
	w.start("shop", "1")
	k.turn()
	k.answer("1", schedule(0, "a"))
	k.activity()
	done := k.completing("1", 0, "x")
	k.turn()
	k.answer("1", schedule(1, "b"))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	eventually(t, "it waits for b", func() bool {
		i := w.info("shop", "1")
		return len(i.Waits) == 1 && i.Waits[0].Name == "b"
	})
	w.crash()
	k = w.worker("shop")
	if a := k.activity(); a.Name != "b" {
		t.Fatalf("%v", a)
	}
}

// A turn that finds a patch has it at its beginning, where code that runs again looks for it, also when what it took in was in the log before.
func TestAPatchIsAtTheBeginningOfItsTurn(t *testing.T) {
	w := newWorld(t)
	k := w.worker("shop")
	w.start("shop", "1")
	k.turn()
	k.answer("1", schedule(0, "a"))
	k.activity()
	done := k.completing("1", 0, "x")
	k.turn()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	patched := &protos.WorkflowResponse{InstanceId: "1", Version: &protos.WorkflowVersion{Patches: []string{"p"}}, Actions: []*protos.WorkflowAction{schedule(1, "b")}}
	if err := w.hub.answer(key("1"), patched); err != nil {
		t.Fatal(err)
	}
	k.activity()
	w.crash()
	k = w.worker("shop")
	k.activity()
	done = k.completing("1", 1, "y")
	r := k.turn()
	if n := len(r.PastEvents); n != 6 && n != 8 || r.PastEvents[3].GetWorkflowStarted().GetVersion().GetPatches()[0] != "p" ||
		r.PastEvents[4].GetTaskCompleted().GetResult().GetValue() != "x" || r.PastEvents[5].GetTaskScheduled().GetName() != "b" {
		t.Fatalf("%v", r)
	}
	if err := w.hub.answer(key("1"), &protos.WorkflowResponse{InstanceId: "1", Version: &protos.WorkflowVersion{Patches: []string{"p"}},
		Actions: []*protos.WorkflowAction{completes(2, "z")}}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	w.ended("shop", "1")
}

// Instances that stand still with tasks under way are looked at once more by each new node; that leaves nothing in their histories.
func TestATurnWithNothingNewAndNothingToSayIsNotRecorded(t *testing.T) {
	w := newWorld(t)
	k := w.worker("shop")
	w.start("shop", "1")
	k.turn()
	k.answer("1", schedule(0, "a"), schedule(1, "b"))
	k.activity()
	k.activity()
	done := k.completing("1", 0, "x")
	k.turn()
	k.answer("1") // it waits for both
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	w.crash()
	k = w.worker("shop")
	before := w.records()
	k.turn()
	k.answer("1")
	if n := w.records() - before; n != 0 {
		t.Errorf("%d records", n)
	}
}
