package taskhub

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/dapr/durabletask-go/api/protos"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/internal/grpcwire"
	"github.com/quipu-run/quipu/internal/timers"
	"github.com/quipu-run/quipu/timer"
	"github.com/quipu-run/quipu/view"
	"github.com/quipu-run/quipu/workflow"
	"github.com/quipu-run/quipu/xtest"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

var noon = time.Date(2001, 1, 14, 12, 0, 0, 0, time.UTC)

// world is a log with the views and the hub of one namespace, that can crash.
type world struct {
	t     *testing.T
	ctx   context.Context
	clock *xtest.Clock
	log   *xtest.Model
	id    quipu.Book
	store *view.Store
	book  *view.Book
	flows *workflow.View
	api   *workflow.Store
	times *timer.View
	run   *timer.Runner
	hub   *Hub
	now   atomic.Pointer[Hub] // hub, for workers that live on while the node crashes
	woken chan string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, ctx: t.Context(), clock: xtest.NewClock(noon), woken: make(chan string, 100)}
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
	if w.store, err = view.OpenStore(view.Options{Dir: "/views", FS: vfs.NewMem()}); err != nil {
		w.t.Fatal(err)
	}
	w.times = timer.New()
	w.flows = workflow.New(workflow.Options{Timers: w.times, Clock: w.clock, Languages: map[string]flow.Language{flow.KindDapr: Language{}},
		Live: func(_ string, i *quipu.WorkflowInfo) { w.hub.Live(i) }})
	if w.book, err = view.OpenBook(w.ctx, w.store, w.log, w.id, w.clock, w.times, w.flows); err != nil {
		w.t.Fatal(err)
	}
	w.api = w.flows.Follow(w.book)
	w.hub = New(Options{Store: w.api, API: w.api, Clock: w.clock, Namespace: "default", Wake: func(app string) {
		select {
		case w.woken <- app:
		default:
		}
	}})
	w.now.Store(w.hub)
	w.run = timer.NewRunner(timer.Options{Book: w.book, View: w.times, Clock: w.clock, Logger: slog.Default(),
		Handlers: map[string]timer.Handler{workflow.TimerKind: func(ctx context.Context, t timers.Timer) {
			if _, err := w.book.Change(ctx, func(tx *view.Tx) error { return w.flows.Fire(tx, t) }); err != nil && ctx.Err() == nil {
				w.t.Error(err)
			}
		}}})
	w.run.Start()
	w.hub.Start()
}

func (w *world) close() {
	w.hub.Close()
	if err := errors.Join(w.run.Close(context.Background()), w.book.Close(), w.store.Close()); err != nil {
		w.t.Error(err)
	}
	w.run.Wait()
}

// crash is a node that is killed and comes again: it has the log, and nothing else.
func (w *world) crash() {
	w.t.Helper()
	w.close()
	w.open()
}

// worker is a stream of work items.
type worker struct {
	grpc.ServerStream
	w     *world
	app   string
	is    Worker
	ctx   context.Context
	leave context.CancelFunc
	items chan *protos.WorkItem
	done  chan error
	blind bool // it does not look into its work items
}

func (w *world) worker(app string) *worker { return w.workerOf(app, Worker{ID: "worker " + app}) }

func (w *world) workerOf(app string, is Worker) *worker {
	k := &worker{w: w, app: app, is: is, items: make(chan *protos.WorkItem, 20_000), done: make(chan error, 1)}
	k.ctx, k.leave = context.WithCancel(w.ctx)
	hub := w.hub
	go func() { k.done <- hub.work(k.ctx, app, k.is, k) }()
	eventually(w.t, "the worker is there", func() bool { return hub.Stats()[app].Workers > 0 })
	return k
}

// SendMsg implements grpc.ServerStream.
func (k *worker) SendMsg(m any) error {
	out := m.(*grpcwire.Bytes).Out
	i := new(protos.WorkItem)
	if k.blind {
		i.Request = &protos.WorkItem_WorkflowRequest{WorkflowRequest: &protos.WorkflowRequest{}}
		if out[0].ReadOnlyData()[0] != 1<<3|2 {
			i.Request = &protos.WorkItem_ActivityRequest{ActivityRequest: &protos.ActivityRequest{}}
		}
		k.items <- i
		return nil
	}
	if err := proto.Unmarshal(out.Materialize(), i); err != nil {
		return err
	}
	k.items <- i
	return nil
}

// gone ends the stream and waits until the hub knows.
func (k *worker) gone() {
	k.leave()
	<-k.done
}

func (k *worker) next() *protos.WorkItem {
	k.w.t.Helper()
	select {
	case i := <-k.items:
		return i
	case <-time.After(20 * time.Second):
		k.w.t.Fatal("no work item came")
		return nil
	}
}

func (k *worker) turn() *protos.WorkflowRequest {
	k.w.t.Helper()
	i := k.next()
	if i.GetWorkflowRequest() == nil {
		k.w.t.Fatalf("it is no turn: %v", i)
	}
	return i.GetWorkflowRequest()
}

func (k *worker) activity() *protos.ActivityRequest {
	k.w.t.Helper()
	i := k.next()
	if i.GetActivityRequest() == nil {
		k.w.t.Fatalf("it is no activity: %v", i)
	}
	return i.GetActivityRequest()
}

func (k *worker) tryAnswer(id string, actions ...*protos.WorkflowAction) error {
	return k.w.now.Load().answer(quipu.WorkflowKey{App: k.app, ID: id}, &protos.WorkflowResponse{InstanceId: id, Actions: actions})
}

func (k *worker) answer(id string, actions ...*protos.WorkflowAction) {
	k.w.t.Helper()
	if err := k.tryAnswer(id, actions...); err != nil {
		k.w.t.Fatal(err)
	}
}

func (k *worker) tryComplete(id string, task int32, result string) error {
	return k.w.now.Load().completed(k.app, &protos.ActivityResponse{InstanceId: id, TaskId: task, Result: wrapperspb.String(result)})
}

// completing has the worker say the result of an activity; what it answers gets how that went.
func (k *worker) completing(id string, task int32, result string) chan error {
	done := make(chan error, 1)
	go func() { done <- k.tryComplete(id, task, result) }()
	return done
}

func schedule(id int32, name string) *protos.WorkflowAction {
	return &protos.WorkflowAction{Id: id, WorkflowActionType: &protos.WorkflowAction_ScheduleTask{ScheduleTask: &protos.ScheduleTaskAction{Name: name}}}
}

func completes(id int32, result string) *protos.WorkflowAction {
	return finish(id, protos.OrchestrationStatus_ORCHESTRATION_STATUS_COMPLETED, result)
}

func finish(id int32, s protos.OrchestrationStatus, result string) *protos.WorkflowAction {
	return &protos.WorkflowAction{Id: id, WorkflowActionType: &protos.WorkflowAction_CompleteWorkflow{
		CompleteWorkflow: &protos.CompleteWorkflowAction{WorkflowStatus: s, Result: wrapperspb.String(result)}}}
}

func sleep(id int32, until time.Time) *protos.WorkflowAction {
	return &protos.WorkflowAction{Id: id, WorkflowActionType: &protos.WorkflowAction_CreateTimer{CreateTimer: &protos.CreateTimerAction{FireAt: timestamppb.New(until)}}}
}

func beget(id int32, child string) *protos.WorkflowAction {
	return &protos.WorkflowAction{Id: id, WorkflowActionType: &protos.WorkflowAction_CreateChildWorkflow{
		CreateChildWorkflow: &protos.CreateChildWorkflowAction{InstanceId: child, Name: "child"}}}
}

func (w *world) start(app, id string) {
	w.t.Helper()
	if err := w.tryStart(app, id); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) tryStart(app, id string) error {
	return w.hub.start(w.ctx, quipu.WorkflowKey{App: app, ID: id}, &protos.HistoryEvent{EventId: -1, Timestamp: timestamppb.New(w.clock.Now()),
		EventType: &protos.HistoryEvent_ExecutionStarted{ExecutionStarted: &protos.ExecutionStartedEvent{Name: "order", Input: wrapperspb.String("tea"),
			WorkflowInstance: &protos.WorkflowInstance{InstanceId: id}}}})
}

func (w *world) info(app, id string) quipu.WorkflowInfo {
	w.t.Helper()
	i, err := w.api.Workflow(w.ctx, quipu.WorkflowKey{App: app, ID: id})
	if err != nil {
		w.t.Fatal(err)
	}
	return i
}

func (w *world) ended(app, id string) quipu.WorkflowInfo {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 30*time.Second)
	defer cancel()
	i, err := w.api.AwaitWorkflow(ctx, quipu.WorkflowKey{App: app, ID: id})
	if err != nil {
		w.t.Fatal(err)
	}
	return i
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came to be that %s", what)
		}
	}
}

// rowWorker does workflows that are a row of n activities, until it leaves.
func (k *worker) row(n int) *sync.WaitGroup {
	var all sync.WaitGroup
	all.Go(func() {
		for {
			select {
			case i := <-k.items:
				all.Go(func() { k.step(i, n) })
			case <-k.ctx.Done():
				return
			}
		}
	})
	return &all
}

// step does one work item of a row. Answers that come too late are nobody's concern.
func (k *worker) step(i *protos.WorkItem, n int) {
	if a := i.GetActivityRequest(); a != nil {
		_ = k.tryComplete(a.WorkflowInstance.InstanceId, a.TaskId, "done")
		return
	}
	r := i.GetWorkflowRequest()
	done, begun := 0, 0
	for _, e := range append(r.PastEvents, r.NewEvents...) {
		if e.GetTaskCompleted() != nil {
			done++
		}
		if e.GetTaskScheduled() != nil {
			begun++
		}
	}
	switch {
	case done == n:
		_ = k.tryAnswer(r.InstanceId, completes(int32(n), "all"))
	case begun > done:
		_ = k.tryAnswer(r.InstanceId)
	default:
		_ = k.tryAnswer(r.InstanceId, schedule(int32(done), "step"))
	}
}
