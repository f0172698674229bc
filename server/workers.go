package server

import (
	"context"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/gateway/dapr/taskhub"
	"github.com/quipu-run/quipu/internal/flow"
)

// Limits of bringing a worker.
const (
	workerComesMax  = 15 * time.Second // after its instance serves
	workerSilentMax = 3                // times that an instance served and no worker came
	workerWaitMin   = time.Second      // between tries, twice as long each time
	workerWaitMax   = 30 * time.Second
)

// wakers start instances of deployed functions whose workflows have something to do and no worker. They go on until a worker has come; one
// that starts and is no worker is left alone after workerSilentMax, until something new is to be done.
type wakers struct {
	mu      sync.Mutex
	tasks   sync.WaitGroup
	of      map[string]bool          // applications, while a worker is brought; true: it was asked for again meanwhile
	leaving map[string]chan struct{} // instances; closed when one has to go
	ctx     context.Context
	stop    context.CancelFunc
}

// open is called before there is anything to do.
func (w *wakers) open() {
	w.of, w.leaving = map[string]bool{}, map[string]chan struct{}{}
	w.ctx, w.stop = context.WithCancel(context.Background())
}

// close waits for those that bring workers; nobody is asked for any more.
func (w *wakers) close() {
	w.mu.Lock()
	w.stop()
	w.mu.Unlock()
	w.tasks.Wait()
}

// arrive makes an instance one that can be told to leave.
func (w *wakers) arrive(instance string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leaving[instance] = make(chan struct{})
}

// leave has the worker of an instance take no more work.
func (w *wakers) leave(instance string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.leaving[instance]; c != nil {
		select {
		case <-c:
		default:
			close(c)
		}
	}
}

func (w *wakers) gone(instance string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.leaving, instance)
}

// leavingOf is closed when an instance has to go; nil for one that nobody tells to leave.
func (w *wakers) leavingOf(instance string) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.leaving[instance]
}

// worker is the worker that may be in an instance.
func (ns *namespace) worker(f quipu.Function, instance string) taskhub.Worker {
	w := taskhub.Worker{ID: instance, Leaving: ns.flows.wakers.leavingOf(instance)}
	if f.Revision != quipu.RevisionAttached {
		w.Hold = func() (func(), bool) { return ns.pool.Hold(f, instance) }
	}
	return w
}

// wakeWorker has a worker of an application come, if it is a deployed function; others come by themselves. It returns at once.
func (ns *namespace) wakeWorker(app string) {
	w := &ns.flows.wakers
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, on := w.of[app]; on {
		w.of[app] = true
		return
	}
	if w.ctx.Err() != nil {
		return
	}
	w.of[app] = false
	w.tasks.Go(func() {
		for again := true; again; again = w.again(app) {
			ns.bringWorker(app)
		}
	})
}

// wakeFlows has what waits for a function go on that is another now, or there for the first time: a durable one gets the executions
// that were started before anybody knew that it would be one; of others the worker comes, for whom nobody was found before. It returns at
// once.
func (ns *namespace) wakeFlows(f quipu.Function) {
	if f.Spec.Durable {
		ns.flows.wakers.run(func(ctx context.Context) { ns.adoptExecutions(ctx, f.Name) })
		return
	}
	if ns.flows.view.CountBusy(flow.KindDapr, f.Name) > 0 {
		ns.wakeWorker(f.Name)
	}
}

// adoptExecutions gives a durable function what was started for it when it was none, again until that is durable.
func (ns *namespace) adoptExecutions(ctx context.Context, function string) {
	for {
		err := ns.flows.store.Adopt(ctx, function)
		if err == nil || ctx.Err() != nil {
			return
		}
		ns.node.cfg.Logger.Error("executions that were started before their function was deployed cannot be handed to it; it is tried again", "fn", function, "err", err)
		select {
		case <-ns.node.clock.After(workerWaitMax):
		case <-ctx.Done():
		}
	}
}

// run does something until close, unless that was called.
func (w *wakers) run(do func(context.Context)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() == nil {
		w.tasks.Go(func() { do(w.ctx) })
	}
}

// again tells whether a worker was asked for since it was brought.
func (w *wakers) again(app string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of[app] && w.ctx.Err() == nil {
		w.of[app] = false
		return true
	}
	delete(w.of, app)
	return false
}

// bringWorker starts instances of a function until a worker has come.
func (ns *namespace) bringWorker(app string) {
	ctx, wait, silent := ns.flows.wakers.ctx, workerWaitMin, 0
	for {
		f, err := ns.find(app)
		if err != nil || f.Revision == quipu.RevisionAttached || f.Spec.Durable || ns.flows.hub.HasWorker(app) {
			return // it may come by itself
		}
		served, err := ns.startWorker(ctx, f)
		if err == nil || ctx.Err() != nil {
			return
		}
		if served {
			silent++
		}
		if silent == workerSilentMax {
			ns.node.cfg.Logger.Warn("a function has workflows to go on with, and its instances open no stream of work items", "fn", app)
			return
		}
		pause, done := context.WithTimeout(ctx, wait)
		err = ns.flows.hub.AwaitWorker(pause, app)
		done()
		if err == nil {
			return
		}
		wait = min(2*wait, workerWaitMax)
	}
}

// startWorker has an instance of a function serve, and keeps it until a worker comes. served tells whether it did.
func (ns *namespace) startWorker(ctx context.Context, f quipu.Function) (served bool, err error) {
	l, err := ns.pool.Acquire(ctx, f)
	if err != nil {
		return false, err
	}
	release, held := ns.pool.Hold(f, l.ID())
	l.Release()
	if held {
		defer release()
	}
	ctx, done := context.WithTimeout(ctx, workerComesMax)
	defer done()
	return true, ns.flows.hub.AwaitWorker(ctx, f.Name)
}
