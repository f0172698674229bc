package workflow_test

import (
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/view"
)

// begin makes an execution of a revision.
func (w *world) begin(id, revision string) {
	w.t.Helper()
	err := w.Commit(w.ctx, []flow.Change{{WorkflowKey: key(id), Start: &flow.Start{Kind: flow.KindStep, Version: revision, Messages: words("begin")}}})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) pinned(want map[string]bool) {
	w.t.Helper()
	tx := w.book.Look()
	defer tx.Close()
	for revision, want := range want {
		if got, err := w.view.Pinned(tx, "shop", revision); got != want || err != nil {
			w.t.Errorf("executions are pinned to revision %s: %v, want %v; %v", revision, got, want, err)
		}
	}
	busy := int64(0)
	err := w.Busy(w.ctx, flow.KindStep, "shop", func(quipu.WorkflowKey) bool {
		busy++
		return true
	})
	if counted := w.view.CountBusy(flow.KindStep, "shop"); counted != busy || err != nil {
		w.t.Errorf("%d executions have something to do, counted are %d; %v", busy, counted, err)
	}
}

// A revision is pinned from the start of its first execution to the end of its last, over crashes and restarts.
func TestARevisionIsPinnedWhileAnExecutionOfItHasNotEnded(t *testing.T) {
	w := newWorld(t)
	w.start("0") // of Dapr's kind, which has no revisions
	w.begin("1", "a")
	w.begin("2", "a")
	w.begin("3", "b")
	w.begin("4", "")
	reopen := func() {
		w.close()
		w.open()
	}
	for _, again := range []func(){func() {}, reopen, w.crash} {
		again()
		w.pinned(map[string]bool{"a": true, "b": true, "c": false})
	}
	w.turn("1", flow.Turn{Took: 1, Status: quipu.WorkflowCompleted})
	w.turn("3", flow.Turn{Took: 1, Status: quipu.WorkflowRunning})
	w.pinned(map[string]bool{"a": true, "b": true, "c": false})
	later := "c"
	w.turn("4", flow.Turn{Took: 1, Status: quipu.WorkflowRunning, Version: &later})
	w.turn("2", flow.Turn{Took: 1, Status: quipu.WorkflowFailed})
	w.pinned(map[string]bool{"a": false, "b": true, "c": true})
	w.begin("2", "b") // in place of one that has ended
	w.turn("3", flow.Turn{Status: quipu.WorkflowTerminated})
	for _, again := range []func(){func() {}, reopen, w.crash} {
		again()
		w.pinned(map[string]bool{"a": false, "b": true, "c": true})
	}
	if _, err := w.PurgeWorkflows(w.ctx, quipu.WorkflowPurge{WorkflowKey: key("2"), Force: true}); err != nil {
		t.Fatal(err)
	}
	w.turn("4", flow.Turn{Status: quipu.WorkflowCompleted})
	w.pinned(map[string]bool{"a": false, "b": false, "c": false})
}

// Who forgets what nobody is pinned to, and who begins there at the same time: one of the two does not commit, and looks again.
func TestAnExecutionThatBeginsMeanwhileIsSeenByWhoLooked(t *testing.T) {
	w := newWorld(t)
	looks := 0
	_, err := w.book.Change(w.ctx, func(tx *view.Tx) error {
		pinned, err := w.view.Pinned(tx, "shop", "a")
		if err != nil {
			return err
		}
		if looks++; looks == 1 {
			w.begin("1", "a")
		}
		if pinned != (looks > 1) {
			t.Errorf("look %d: pinned %v", looks, pinned)
		}
		return w.view.Change(tx, []flow.Change{{WorkflowKey: key("other"), Start: &flow.Start{Kind: flow.KindDapr}}})
	})
	if looks != 2 || err != nil {
		t.Errorf("it looked %d times: %v", looks, err)
	}
}
