package call

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// executionsFake begins executions and has each end when the test says.
type executionsFake struct {
	c          *Caller
	mu         sync.Mutex // guards ended and terminated
	ended      map[string]ExecutionEnd
	terminated []string
	during     func(id string) // called when one has begun, before the call hears of it
}

func (x *executionsFake) durable(_ context.Context, e Execution) (*quipu.CallReply, error) {
	if x.during != nil {
		x.during(e.ID)
	}
	return Recorded(e.Function.Revision, http.StatusAccepted, http.Header{}, nil), nil
}

func (x *executionsFake) AwaitEnd(_ *view.Tx, _, id string) (*ExecutionEnd, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if end, over := x.ended[id]; over {
		return &end, nil
	}
	return nil, nil
}

func (x *executionsFake) Terminate(_ *view.Tx, _, id string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.terminated = append(x.terminated, id)
	return nil
}

// end has an execution end in a record.
func (x *executionsFake) end(t *testing.T, id string, end ExecutionEnd) {
	t.Helper()
	x.mu.Lock()
	x.ended[id] = end
	x.mu.Unlock()
	_, err := x.c.o.Book.Change(t.Context(), func(tx *view.Tx) error { return x.c.ExecutionEnded(tx, "f", id, end) })
	if err != nil {
		t.Fatal(err)
	}
}

// durable makes f a durable function of the world.
func (w *later) durable() *executionsFake {
	w.function("f", false, func(http.ResponseWriter, *http.Request, quipu.Session) {})
	w.mu.Lock()
	f := w.functions["f"]
	f.Spec.Durable = true
	w.functions["f"] = f
	w.mu.Unlock()
	w.rules("f", func(s *quipu.AsyncSpec) {
		s.OnSuccess, s.OnFailure = quipu.Destination{Topic: "good"}, quipu.Destination{Topic: "bad"}
	})
	x := &executionsFake{ended: map[string]ExecutionEnd{}}
	x.of(w.Caller)
	return x
}

func (x *executionsFake) of(c *Caller) { x.c, c.o.Durable, c.o.Executions = c, x.durable, x }

// The call is pending over crashes, out of the queue and past its age, until the execution ends; and then it has ended once.
func TestACallIsPendingUntilItsExecutionEnds(t *testing.T) {
	w := newLater(t)
	x := w.durable()
	good, bad := w.async(quipu.CallRequest{Function: "f"}), w.async(quipu.CallRequest{Function: "f", IdempotencyKey: "k"})
	for _, one := range []struct{ call, execution string }{{good.ID, good.ID}, {bad.ID, "k"}} {
		if i := w.reaches(one.call, quipu.CallRunning); i.Execution != one.execution {
			w.eventually("it has begun", func() bool { return w.info(one.call).Execution == one.execution })
		}
	}
	w.clock.Move(2 * quipu.AsyncMaxAgeDefault)
	w.crash(rand.New(rand.NewPCG(1, 1)))
	x.of(w.Caller)
	if n := w.Waiting(); len(n) > 0 {
		t.Errorf("%v are in the queue", n)
	}
	if list, err := w.Calls(w.ctx, "f", 1); err != nil || len(list) != 1 || list[0].ID != bad.ID {
		t.Errorf("%+v, %v", list, err)
	}
	x.end(t, good.ID, ExecutionEnd{Status: 201, Body: []byte("made")})
	x.end(t, "k", ExecutionEnd{Err: &quipu.Error{Code: quipu.CodeWorkflowEnded, Text: "terminated"}})
	x.end(t, "k", ExecutionEnd{Err: errors.New("again")})
	if i := w.info(good.ID); i.State != quipu.CallSucceeded || i.Status != 201 {
		t.Errorf("%+v", i)
	}
	if i := w.info(bad.ID); i.State != quipu.CallFailed || i.Error != quipu.CodeWorkflowEnded || i.Cause != "terminated" {
		t.Errorf("%+v", i)
	}
	if s, err := w.Slice(w.ctx, good.ID); err != nil || len(s.Ops) > 0 || !strings.Contains(s.Missing, "workflow history "+good.ID) {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := w.Recording(w.ctx, good.ID); quipu.CodeOf(err) != quipu.CodeUsage {
		t.Errorf("it can be made again: %v", err)
	}
	if a, b := w.events("good"), w.events("bad"); len(a) != 1 || a[0].Call != good.ID || len(b) != 1 || b[0].Call != bad.ID {
		t.Errorf("told of %+v and %+v", a, b)
	}
}

// An execution that ended before its call heard that it had begun ends the call, too.
func TestAnExecutionThatIsFasterThanItsCall(t *testing.T) {
	w := newLater(t)
	x := w.durable()
	x.during = func(id string) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.ended[id] = ExecutionEnd{Status: 200, Body: []byte("fast")}
	}
	id := w.async(quipu.CallRequest{Function: "f"}).ID
	w.reaches(id, quipu.CallSucceeded)
}

// A call that was cancelled while its execution began, or goes on, takes that with it.
func TestACancelledCallTerminatesItsExecution(t *testing.T) {
	w := newLater(t)
	x := w.durable()
	late := w.async(quipu.CallRequest{Function: "f"}).ID
	w.eventually("it has begun", func() bool { return w.info(late).Execution == late })
	if _, err := w.CancelCall(w.ctx, late); err != nil {
		t.Fatal(err)
	}
	x.during = func(id string) {
		if _, err := w.CancelCall(w.ctx, id); err != nil {
			t.Error(err)
		}
	}
	early := w.async(quipu.CallRequest{Function: "f"}).ID
	w.reaches(early, quipu.CallCancelled)
	if err := w.Close(w.ctx); err != nil { // the attempt is over
		t.Fatal(err)
	}
	if len(x.terminated) != 2 || x.terminated[0] != late || x.terminated[1] != early {
		t.Errorf("terminated are %v, want %s and %s", x.terminated, late, early)
	}
}
