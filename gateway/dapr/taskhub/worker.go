package taskhub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dapr/durabletask-go/api/protos"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/internal/grpcwire"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// batchMax is how many work items a stream takes at a time.
const batchMax = 16

var errStopping = status.Error(codes.Unavailable, "the node is stopping")

// Worker is who opens a stream of work items.
type Worker struct {
	ID string // as people see it
	// Hold keeps the worker's instance from being stopped until release is called; ok is false if it cannot be kept now. nil means that
	// nobody stops it for idleness.
	Hold func() (release func(), ok bool)
	// Leaving is closed when the instance has to go: the worker gets nothing new, and its stream ends when it has done what it has begun, or
	// leaveMax later. It may be nil.
	Leaving <-chan struct{}
}

// keep holds the instance of a worker that has work items, and a little longer: most turns are followed by another.
type keep struct {
	hold func() (release func(), ok bool)

	mu      sync.Mutex
	release func() // nil if it is not held
}

// update holds the instance, or lets it go, as wanted says.
func (k *keep) update(wanted func() bool) {
	if k.hold == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch want := wanted(); {
	case want && k.release == nil:
		if release, ok := k.hold(); ok {
			k.release = release
		}
	case !want && k.release != nil:
		k.release()
		k.release = nil
	}
}

func yes() bool { return true }
func no() bool  { return false }

// work sends work items to a worker until ctx ends, or it reads no more.
func (h *Hub) work(ctx context.Context, app string, w Worker, stream grpc.ServerStream) error {
	select {
	case <-h.ctx.Done():
		return errStopping
	case <-w.Leaving:
		return errStopping // it has come again
	default:
	}
	s, kept := h.attach(app, w.ID), &keep{hold: w.Hold}
	defer kept.update(no)
	sent := make(chan error, 1)
	go func() { sent <- h.sendAll(s, kept, stream) }()
	stuck, err := h.watch(ctx, s, w.Leaving, kept, sent)
	h.detach(s)
	if !stuck { // else it ends when the connection does
		<-sent
	}
	return err
}

// watch waits for the end of a stream: its client's, the hub's, that of its instance, or that of its patience with a worker that does not read.
func (h *Hub) watch(ctx context.Context, s *stream, leaving <-chan struct{}, kept *keep, sent chan error) (stuck bool, err error) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var end <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return false, nil
		case <-h.ctx.Done():
			return false, errStopping
		case <-end:
			return false, errStopping
		case err := <-sent:
			sent <- err
			return false, err
		case <-leaving:
			leaving, end = nil, time.After(leaveMax)
			h.leave(s)
		case <-look.C:
		}
		if h.isStuck(s) {
			return true, status.Error(codes.Unavailable, "timed out while sending work item")
		}
		kept.update(func() bool { return h.needs(s) })
		if h.hasLeft(s) {
			return false, errStopping
		}
	}
}

func (h *Hub) isStuck(s *stream) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !s.sending.IsZero() && h.o.Clock.Now().Sub(s.sending) > sendMax
}

// needs tells whether a stream has had items since it was last asked.
func (h *Hub) needs(s *stream) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	rested := s.rested
	s.rested = len(s.items) == 0
	return !rested || !s.rested
}

// leave gives a stream no more items.
func (h *Hub) leave(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.retire(s)
}

// hasLeft tells whether a stream that gets no more items has none.
func (h *Hub) hasLeft(s *stream) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return s.leaving && len(s.items) == 0
}

// AwaitWorker waits until an application has a worker.
func (h *Hub) AwaitWorker(ctx context.Context, name string) error {
	for {
		h.mu.Lock()
		came := h.came
		h.mu.Unlock()
		if h.HasWorker(name) {
			return nil
		}
		select {
		case <-came:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// HasWorker tells whether an application has a worker.
func (h *Hub) HasWorker(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.apps[name]
	return a != nil && len(a.streams) > 0
}

func (h *Hub) sendAll(s *stream, kept *keep, stream grpc.ServerStream) error {
	items := make([]*item, 0, batchMax)
	for {
		if items = h.next(s, items); items == nil {
			return errStopping
		}
		kept.update(yes)
		for _, i := range items {
			out := i.wire()
			if out.Len() > itemBytesMax {
				h.oversized(i, out)
				continue
			}
			if err := stream.SendMsg(&grpcwire.Bytes{Out: out}); err != nil {
				return err
			}
		}
	}
}

// oversized deals with a work item that no worker can get.
func (h *Hub) oversized(i *item, out mem.BufferSlice) {
	why := fmt.Sprintf("the history has %d bytes, and a work item may have %d: end long loops with continue-as-new", out.Len(), itemBytesMax)
	h.mu.Lock()
	defer h.mu.Unlock()
	l, t := i.live, i.turn
	if i.dead || t == nil || l.turn != t || t.answered {
		return
	}
	t.answered = true
	i.kill()
	h.commitLater(l, t, h.failed(l, t, errors.New(why)))
}

// completed is what a worker says about an activity. It returns when that is durable.
func (h *Hub) completed(app string, r *protos.ActivityResponse) error {
	h.mu.Lock()
	if !h.enter() {
		h.mu.Unlock()
		return errStopping
	}
	defer h.tasks.Done()
	i := h.acts[actKey{app, r.InstanceId, r.TaskId}]
	if i == nil || r.CompletionToken != "" && r.CompletionToken != i.token {
		h.mu.Unlock()
		return status.Errorf(codes.Unknown, "unknown instance ID/task ID combo: %s/%d", r.InstanceId, r.TaskId)
	}
	l := i.live
	res := h.newResult(i.task, r)
	h.forget(i.task)
	l.results = append(l.results, res)
	h.rouse(l)
	h.kick(l)
	h.mu.Unlock()
	return h.settle(l, res)
}

// newResult makes the event that a result is. One that is too large is a failure.
func (h *Hub) newResult(t *task, r *protos.ActivityResponse) *result {
	run := t.event.GetTaskScheduled().GetTaskExecutionId()
	e := &protos.HistoryEvent{EventId: -1, Timestamp: timestamppb.New(h.o.Clock.Now()), Router: t.event.Router}
	f := r.FailureDetails
	if n := len(r.Result.GetValue()); n > quipu.WorkflowPayloadMax {
		f = &protos.TaskFailureDetails{ErrorType: "ResultTooLarge", IsNonRetriable: true,
			ErrorMessage: fmt.Sprintf("the result has %d bytes, the most is %d: store large data as state and answer its key", n, quipu.WorkflowPayloadMax)}
	}
	if f != nil {
		e.EventType = &protos.HistoryEvent_TaskFailed{TaskFailed: &protos.TaskFailedEvent{TaskScheduledId: t.id, TaskExecutionId: run, FailureDetails: f}}
	} else {
		e.EventType = &protos.HistoryEvent_TaskCompleted{TaskCompleted: &protos.TaskCompletedEvent{TaskScheduledId: t.id, TaskExecutionId: run, Result: r.Result}}
	}
	return &result{event: e, bytes: encode(e), done: make(chan error, 1)}
}

// settle waits until a result is durable: with the turn that takes it, or, if that takes long, by itself.
func (h *Hub) settle(l *live, r *result) error {
	alone := time.NewTimer(resultAloneMin)
	defer alone.Stop()
	select {
	case err := <-r.done:
		return err
	case <-alone.C:
	}
	err := h.o.Store.Commit(h.ctxOfCommits(), []flow.Change{{WorkflowKey: l.key, Message: r.bytes}})
	if code := quipu.CodeOf(err); code == quipu.CodeNoWorkflow || code == quipu.CodeWorkflowEnded {
		return nil // nobody needs it any more
	}
	return err
}
