package workflow

import (
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/view"
)

func TestAnOperationSaysWhatItDoes(t *testing.T) {
	n := name(quipu.WorkflowKey{App: "shop", ID: "7"})
	running := prior{there: true, status: quipu.WorkflowRunning}
	at := func(s quipu.WorkflowStatus) head { return head{kind: flow.KindStep, status: s} }
	ops := map[string][]byte{
		"start workflow 7 of shop":               (&step{name: n, head: at(quipu.WorkflowPending), static: []byte("{}"), messages: [][]byte{{1}}}).encode(),
		"workflow 7 of shop: 2 events, 1 timer":  (&step{name: n, head: at(quipu.WorkflowRunning), prior: running, events: [][]byte{{1}, {2}}, timers: []string{"0"}}).encode(),
		"workflow 7 of shop: 1 message":          (&step{name: n, head: at(quipu.WorkflowRunning), prior: running, messages: [][]byte{{1}}}).encode(),
		"workflow 7 of shop: 1 event, completed": (&step{name: n, head: at(quipu.WorkflowCompleted), prior: running, events: [][]byte{{1}}}).encode(),
		"workflow 7 of shop":                     (&step{name: n, head: at(quipu.WorkflowRunning), prior: running}).encode(),
		"forget workflow 7 of shop":              (&purge{name: n, head: at(quipu.WorkflowFailed)}).encode(),
		errForm.Error():                          {opStep, 1, 2},
	}
	for want, op := range ops {
		if got := DescribeOp(op); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for op, want := range map[string]string{"start workflow 7 of shop": "start a workflow of shop", "workflow 7 of shop: 1 message": "a message to workflow 7 of shop", "workflow 7 of shop: 1 event, completed": ""} {
		if what, _, ok := DescribeEffect(ops[op]); what != want || ok != (want != "") {
			t.Errorf("the effect of %q is %q, want %q", op, what, want)
		}
	}
}

func TestAKeyIsShownInWords(t *testing.T) {
	n := name(quipu.WorkflowKey{App: "shop", ID: "7"})
	for key, want := range map[string]string{
		byHead + n:                        "workflow 7 of shop",
		byStatic + n:                      "start of workflow 7 of shop",
		partKey(n, 1, 2):                  "history of workflow 7 of shop",
		messageKey(n, 3):                  "inbox of workflow 7 of shop",
		byTimer + n + "\x00retry":         "timer retry of workflow 7 of shop",
		byTimer + n + "\x00":              "timers of workflow 7 of shop",
		byTimer + n + "\x01":              "",
		byTimer + n + "\x00" + startTimer: "timer start of workflow 7 of shop",
		pin("shop", flow.KindStep, "abc", quipu.WorkflowRunning): "revision abc of shop, in use by executions",
		view.After(byHead): "",
		"x":                "",
	} {
		if got := DescribeKey(key); got != want {
			t.Errorf("%q is %q, want %q", key, got, want)
		}
	}
}
