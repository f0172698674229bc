package step_test

import (
	"context"
	"net"
	"testing"

	"github.com/quipu-run/quipu"
	stepsv1 "github.com/quipu-run/quipu/api/steps/v1"
	"github.com/quipu-run/quipu/step"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// journals serves the journals of f over gRPC, and answers a client.
func (w *world) journals() stepsv1.JournalServiceClient {
	w.T.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.T.Fatal(err)
	}
	s := grpc.NewServer()
	w.engine.Register(s, "f")
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.T.Fatal(err)
	}
	w.T.Cleanup(func() {
		if err := conn.Close(); err != nil {
			w.T.Error(err)
		}
		s.Stop()
		if err := <-served; err != nil {
			w.T.Error(err)
		}
	})
	return stepsv1.NewJournalServiceClient(conn)
}

func (r *run) grpc() context.Context {
	return metadata.AppendToOutgoingContext(r.ctx, step.HeaderRun, r.Header.Get(step.HeaderRun))
}

// wantFault fails the test unless an error has the code of ours, and of gRPC.
func wantFault(t *testing.T, err error, ours quipu.Code, theirs codes.Code) {
	t.Helper()
	s, _ := status.FromError(err)
	reason := ""
	for _, d := range s.Details() {
		if info, is := d.(*errdetails.ErrorInfo); is && info.Domain == "quipu.dev" {
			reason = info.Reason
		}
	}
	if s.Code() != theirs || reason != string(ours) {
		t.Errorf("got %v with reason %q, want %v and %s", err, reason, theirs, ours)
	}
}

func stepEntry(place, name, result string) *stepsv1.AppendRequest {
	return &stepsv1.AppendRequest{Id: place, Name: name, Kind: &stepsv1.AppendRequest_Step{Step: &stepsv1.Step{Outcome: &stepsv1.Step_Result{Result: []byte(result)}}}}
}

// A function that has its journal over gRPC: what it adds is there in the next run, whatever it asks for in between.
func TestAJournalOverGRPC(t *testing.T) {
	w := newWorld(t)
	journal := w.journals()
	w.is("f", func(r *run) step.Reply {
		ctx := r.grpc()
		add := func(in *stepsv1.AppendRequest) *stepsv1.AppendResponse {
			out, err := journal.Append(ctx, in)
			if err != nil {
				panic(err)
			}
			return out
		}
		if out := add(stepEntry("0", "charge", `{"receipt":"r-7"}`)); out.Known != (r.Header.Get(step.HeaderJournal) != "0") || string(out.Entry.Result) != `{"receipt":"r-7"}` || !out.Entry.Done {
			t.Errorf("step: %v", out)
		}
		if out := add(stepEntry("0", "charge", `"another"`)); !out.Known || string(out.Entry.Result) != `{"receipt":"r-7"}` {
			t.Errorf("step, again: %v", out)
		}
		add(&stepsv1.AppendRequest{Id: "1", Name: "refused", Kind: &stepsv1.AppendRequest_Step{Step: &stepsv1.Step{Outcome: &stepsv1.Step_Error{Error: &stepsv1.Failure{Type: "T", Message: "m"}}}}})
		if out := add(&stepsv1.AppendRequest{Id: "2", Name: "atomic", Kind: &stepsv1.AppendRequest_Call{Call: &stepsv1.Call{Input: []byte("7")}}}); string(out.Entry.Result) != `{"key":"f/x/2","body":7}` {
			t.Errorf("call: %v", out)
		}
		add(&stepsv1.AppendRequest{Id: "3", Kind: &stepsv1.AppendRequest_Sleep{Sleep: &stepsv1.Sleep{End: &stepsv1.Sleep_Ms{Ms: 1}}}})
		if out, err := journal.Wait(ctx, &stepsv1.WaitRequest{Id: "3", Ms: 1 << 31}); err != nil || !out.Entry.Done || out.Entry.UntilUnixMs == 0 {
			t.Errorf("sleep: %v, %v", out, err)
		}
		if out := add(&stepsv1.AppendRequest{Id: "4", Name: "go", Kind: &stepsv1.AppendRequest_Event{Event: &stepsv1.Event{}}}); !out.Entry.Done {
			return suspended("4")
		}
		all, err := journal.Read(ctx, &stepsv1.ReadRequest{From: 1})
		if err != nil || len(all.Entries) != 4 || all.Next != 0 || all.Entries[0].Error.GetMessage() != "m" || string(all.Entries[3].Result) != `"on"` {
			t.Errorf("%v, %v", all, err)
		}
		return ok("done")
	})
	reply := make(chan error, 1)
	go func() {
		_, err := w.run("x")
		reply <- err
	}()
	w.Eventually("it waits", func() bool {
		i, err := w.flows.Workflow(t.Context(), quipu.WorkflowKey{App: "f", ID: "x"})
		return err == nil && len(i.Waits) == 1 && i.Waits[0].Name == "go"
	})
	if err := w.flows.RaiseWorkflow(t.Context(), quipu.WorkflowKey{App: "f", ID: "x"}, "go", []byte(`"on"`)); err != nil {
		t.Fatal(err)
	}
	if err := <-reply; err != nil {
		t.Fatal(err)
	}
	w.want("x", 200, "done")
}

// What cannot be is refused with the code that it has over HTTP, and nothing is added.
func TestWhatAJournalRefusesOverGRPC(t *testing.T) {
	w := newWorld(t)
	journal := w.journals()
	w.is("f", func(r *run) step.Reply {
		ctx := r.grpc()
		refused := func(in *stepsv1.AppendRequest, ours quipu.Code, theirs codes.Code) {
			t.Helper()
			_, err := journal.Append(ctx, in)
			wantFault(t, err, ours, theirs)
		}
		switch r.Path {
		case "/form":
			refused(stepEntry("0", "a", "{"), quipu.CodeBadJSON, codes.InvalidArgument)
			refused(&stepsv1.AppendRequest{Id: "0"}, quipu.CodeUsage, codes.InvalidArgument)
		case "/place":
			refused(stepEntry("x", "a", "1"), quipu.CodeUsage, codes.InvalidArgument)
		case "/order":
			if _, err := journal.Append(ctx, stepEntry("0", "a", "1")); err != nil {
				t.Error(err)
			}
			refused(stepEntry("0", "b", "1"), quipu.CodeJournal, codes.FailedPrecondition)
		case "/size":
			refused(stepEntry("0", "a", `"`+string(make([]byte, step.ResultMax))+`"`), quipu.CodeBadJSON, codes.InvalidArgument)
		case "/ages":
			refused(&stepsv1.AppendRequest{Id: "0", Kind: &stepsv1.AppendRequest_Sleep{Sleep: &stepsv1.Sleep{End: &stepsv1.Sleep_Ms{Ms: 1 << 62}}}}, quipu.CodeUsage, codes.InvalidArgument)
		}
		return ok("done")
	})
	for path, want := range map[string]quipu.Code{"/form": quipu.CodeUsage, "/place": quipu.CodeUsage, "/order": quipu.CodeJournal, "/size": "", "/ages": quipu.CodeUsage} {
		q := w.request(path)
		q.Path = path
		if _, err := w.engine.Invoke(t.Context(), q); quipu.CodeOf(err) != want {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
	for _, ctx := range []context.Context{t.Context(), metadata.AppendToOutgoingContext(t.Context(), step.HeaderRun, "1-1")} {
		_, err := journal.Read(ctx, &stepsv1.ReadRequest{})
		wantFault(t, err, quipu.CodeLeaseLost, codes.FailedPrecondition)
	}
}
