package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/actor"
	"github.com/quipu-run/quipu/call"
	"github.com/quipu-run/quipu/deploy"
	"github.com/quipu-run/quipu/gateway"
	"github.com/quipu-run/quipu/internal/delivery"
	"github.com/quipu-run/quipu/internal/linelog"
	"github.com/quipu-run/quipu/kv"
	"github.com/quipu-run/quipu/locallog"
	"github.com/quipu-run/quipu/meter"
	"github.com/quipu-run/quipu/pool"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/step"
	"github.com/quipu-run/quipu/topic"
	"github.com/quipu-run/quipu/trigger"
	"github.com/quipu-run/quipu/view"
)

// DefaultNamespace is there from the start.
const DefaultNamespace = "default"

var namespaceForm = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$`)

// namespaces are those of the node, by name.
type namespaces struct {
	changing sync.Mutex // held while one is opened or removed, so that it is so once

	mu sync.Mutex // guards of
	of map[string]*namespace
}

// find answers nil if there is none of that name.
func (s *namespaces) find(name string) *namespace {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of[name]
}

func (s *namespaces) add(ns *namespace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = map[string]*namespace{}
	}
	s.of[ns.name] = ns
}

func (s *namespaces) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.of, name)
}

// namespace is one book with its views, functions and instances. It is gateway.Namespace.
type namespace struct {
	*deploy.View
	*call.Caller
	*trigger.Engine
	quipu.Billing // meter

	node      *Node
	name      string
	id        quipu.Book  // of its own book
	origin    *origin     // of a fork; nil for what began empty
	store     *view.Store // its own, or the node's
	kv        *kv.Store
	results   *call.Results
	topic     *topic.View
	ticker    *trigger.Ticker
	actors    *actor.Engine
	streams   actorStreams
	wakes     wakes
	later     later
	meter     *meter.View
	book      *view.Book
	pool      *pool.Pool
	lines     *linelog.Writer
	runtime   *watched
	apps      sync.Map // instance id -> app
	doors     sync.Map // instance id -> *line.Door
	attached  attachments
	uses      revisionUses
	using     sync.Map // instance id -> *uses
	outsiders outsideUses
	access    accessLists
	feeders   feeders
	steps     *step.Engine
	flows     flows

	stop  context.CancelFunc
	tasks sync.WaitGroup
}

// openNamespaces opens the default namespace and all that have a book.
func (n *Node) openNamespaces(ctx context.Context) error {
	books, err := n.log.Books(ctx)
	if err != nil {
		return err
	}
	names := map[string]bool{DefaultNamespace: true}
	for _, b := range books {
		if name, ok := strings.CutPrefix(b.Name, quipu.PlatformPrefix); ok {
			names[name] = true
		}
	}
	if err := errors.Join(n.tidyForks(ctx, names), n.pruneStore(ctx)); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if _, err := n.createNamespace(ctx, name); err != nil {
			return fmt.Errorf("open namespace %s: %w", name, err)
		}
	}
	return nil
}

// namespace finds a namespace. CodeNotFound.
func (n *Node) namespace(name string) (*namespace, error) {
	if ns := n.namespaces.find(name); ns != nil {
		return ns, nil
	}
	return nil, &quipu.Error{Code: quipu.CodeNotFound, Op: "namespace.find",
		Text: fmt.Sprintf("there is no namespace %q", name),
		Hint: fmt.Sprintf("quipu deploy DIR -n %s makes it", name)}
}

// namespaceAPI and createNamespaceAPI answer an interface that is nil when there is an error.
func (n *Node) namespaceAPI(name string) (gateway.Namespace, error) {
	ns, err := n.namespace(name)
	if err != nil {
		return nil, err
	}
	return ns, nil
}

func (n *Node) createNamespaceAPI(ctx context.Context, name string) (gateway.Namespace, error) {
	ns, err := n.createNamespace(ctx, name)
	if err != nil {
		return nil, err
	}
	return ns, nil
}

// createNamespace finds a namespace, or makes it with its book.
func (n *Node) createNamespace(ctx context.Context, name string) (*namespace, error) {
	n.namespaces.changing.Lock()
	defer n.namespaces.changing.Unlock()
	if ns := n.namespaces.find(name); ns != nil {
		return ns, nil
	}
	if err := checkNamespace(name); err != nil {
		return nil, err
	}
	return n.openNamespace(ctx, name)
}

func checkNamespace(name string) error {
	if namespaceForm.MatchString(name) {
		return nil
	}
	return &quipu.Error{Code: quipu.CodeUsage, Op: "namespace.create",
		Text: fmt.Sprintf("%q cannot be the name of a namespace", name),
		Hint: "use lower-case letters, digits and hyphens, at most 63, a letter first"}
}

// openNamespace opens one, whose book is made if it is missing, and adds it to those of the node.
func (n *Node) openNamespace(ctx context.Context, name string) (*namespace, error) {
	ns := n.newNamespace(name)
	if err := ns.open(ctx); err != nil {
		return nil, err
	}
	n.namespaces.add(ns)
	return ns, nil
}

// newNamespace makes the views of a namespace, which read and write nothing before it is opened.
func (n *Node) newNamespace(name string) *namespace {
	ns := &namespace{node: n, name: name, store: n.store, kv: kv.New(n.blobs), topic: topic.New(), results: call.NewResults(n.blobs), later: newLater()}
	ns.meter = ns.newMeter()
	ns.newFlows()
	ns.Billing = ns.meter
	ns.runtime = &watched{Runtime: metered{n.runtime, ns.meter}, probe: n.cfg.Probe}
	ns.pool = pool.New(pool.Options{Runtime: ns.runtime, Prepare: ns.prepare, Healthy: ns.healthy, Clock: n.upkeep, Logger: n.cfg.Logger,
		Started: ns.countStart(n.observeStart(name)), CallsMax: n.cfg.CallsMax, InstancesMax: n.cfg.InstancesMax,
		Leaving: func(_ quipu.Function, instance string) {
			ns.flows.wakers.leave(instance)
			ns.actors.Leave(instance)
		}})
	ns.View = deploy.New(deploy.Options{Dir: n.path("apps", name), Blobs: n.blobs, Clock: n.clock,
		CheckRoutes: ns.checkTogether, CheckSchedule: ns.checkSchedule, CheckSandbox: n.runtime.Check, Try: ns.try, Settle: ns.pool.Settle, Busy: ns.busy, Pinned: ns.flows.view.Pinned,
		Commit: ns.deployed, Changed: ns.changed})
	ns.ticker = trigger.NewTicker(trigger.TickerOptions{Clock: n.clock, Logger: n.cfg.Logger, Functions: ns.scheduled, Put: ns.topic.Put})
	return ns
}

// machines are the views of the namespace.
func (ns *namespace) machines() []view.Machine {
	return []view.Machine{ns.kv, ns.View, ns.results, ns.topic, ns.ticker, ns.meter, ns.later.timers, ns.later.alarms, ns.later.leases, ns.flows.view}
}

// open brings a namespace up. What was opened is closed again if a later part fails.
func (ns *namespace) open(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, ns.release())
		}
	}()
	if err := ns.openStorage(ctx); err != nil {
		return err
	}
	ns.openFlows()
	n, publisher := ns.node, topic.Outside{View: ns.topic, Book: ns.book}
	ns.Caller = call.New(call.Options{Book: ns.book, Results: ns.results, States: ns.kv, Topics: ns.topic, Alarms: ns.later.alarms, Workflows: ns.flows.view, Starter: ns.flows.store, Clock: n.clock, Meter: ns.meter,
		Plain: ns.State, Publish: publisher, Find: ns.choose, Acquire: ns.acquirer(ns.pool.Acquire),
		AcquireJoined: ns.acquirer(ns.pool.AcquireJoined), AcquireAt: ns.acquireAt, Holds: ns.later.leases.Check, Logger: n.cfg.Logger, Observe: ns.observed(n.observeCall(ns.name)), Trace: n.trace, Ended: n.observeEnd(ns.name), Durable: ns.execute, Executions: executions{ns.flows.view}, Log: n.log, LogBook: ns.id, Describe: words})
	ns.Engine = trigger.New(trigger.Options{Book: ns.book, Store: ns.topic, Clock: n.clock, Logger: n.cfg.Logger,
		Call: ns.deliver, Function: ns.find, Judge: judge, Route: route, Publish: publisher, Observe: n.observeDelivery(ns.name)})
	ns.actors = ns.newActors()
	ns.openLater()
	return ns.start()
}

// openStorage opens the output, the store if it is the namespace's own, and the book with its views.
func (ns *namespace) openStorage(ctx context.Context) (err error) {
	n := ns.node
	if ns.lines, err = linelog.New(n.path("logs", ns.name)); err != nil {
		return err
	}
	if ns.origin, err = n.originOf(ns.name); err != nil {
		return err
	}
	if ns.origin != nil {
		if ns.store, err = n.storeOf(ns.name, ns.origin); err != nil {
			return err
		}
	}
	ns.id, err = n.log.OpenBook(ctx, quipu.PlatformPrefix+ns.name)
	if quipu.CodeOf(err) == quipu.CodeNoBook {
		ns.id, err = n.log.CreateBook(ctx, quipu.PlatformPrefix+ns.name, quipu.BookOptions{})
	}
	if err != nil {
		return err
	}
	ns.book, err = view.OpenBook(ctx, ns.store, n.log, ns.id, n.clock, ns.machines()...)
	return err
}

// release closes the book, the output, and the store if it is the namespace's own.
func (ns *namespace) release() (err error) {
	if ns.book != nil {
		err = ns.book.Close()
	}
	if ns.store != nil && ns.store != ns.node.store {
		err = errors.Join(err, ns.store.Close())
	}
	if ns.lines != nil {
		err = errors.Join(err, ns.lines.Close())
	}
	return err
}

// start follows the book, and begins what runs by itself.
func (ns *namespace) start() error {
	ns.kv.Start(ns.book)
	ns.topic.Start(ns.book, func(delivery.Subscription) { ns.Engine.Sync() })
	if err := ns.meter.Start(ns.book); err != nil {
		return err
	}
	if err := ns.View.Start(ns.book); err != nil {
		return err
	}
	tasks, stop := context.WithCancel(context.Background())
	ns.stop = stop
	ns.tasks.Go(func() { ns.sweep(tasks) })
	ns.tasks.Go(func() { ns.watch(tasks) })
	ns.tasks.Go(func() { ns.meter.Run(tasks) })
	if ns.quiet() {
		return nil
	}
	if err := ns.Caller.Start(); err != nil {
		return err
	}
	ns.actors.Start()
	ns.tasks.Go(func() { ns.ticker.Run(tasks, ns.book) })
	ns.Engine.Start()
	ns.startFlows()
	ns.later.runner.Start()
	return nil
}

// deployed adds to the record of a deploy what its topics and triggers stand for.
func (ns *namespace) deployed(tx *view.Tx, app string, topics map[string]quipu.TopicSpec, functions []quipu.Function) error {
	if topics != nil {
		if err := ns.topic.Declare(tx, app, topics); err != nil {
			return err
		}
	}
	return ns.topic.SetFunctions(tx, trigger.Wanted(functions))
}

func (ns *namespace) checkSchedule(cron, timezone string) error {
	return trigger.ParseSchedule(cron, timezone, ns.node.clock.Now())
}

// deliver makes the call of a trigger.
func (ns *namespace) deliver(ctx context.Context, c trigger.Call) (trigger.Reply, error) {
	out, err := ns.Deliver(ctx, call.Delivery{CallRequest: c.CallRequest, Accept: c.Accept, Settle: c.Settle})
	return trigger.Reply{Function: out.Function, Status: out.Status, Body: out.Body, Lost: out.Lost, Settled: out.Settled}, err
}

// poolLease is a place in an instance of the pool, with the way to talk to it.
type poolLease struct {
	*pool.Lease
	app app
}

func (l poolLease) Do(r *http.Request) (*http.Response, error) { return l.app.Do(r) }

// acquirer waits for a place in one of the pool's two ways.
func (ns *namespace) acquirer(acquire func(context.Context, quipu.Function) (*pool.Lease, error)) func(context.Context, quipu.Function) (call.Lease, error) {
	return func(ctx context.Context, f quipu.Function) (call.Lease, error) {
		if l, err := ns.attached.lease(ctx, f); l != nil || err != nil {
			return l, err
		}
		l, err := acquire(ctx, f)
		if err != nil {
			return nil, err
		}
		if ns.node.cfg.Probe != nil {
			return probedLease{poolLease{l, ns.appOf(l)}, ns, f.Name}, nil
		}
		return poolLease{l, ns.appOf(l)}, nil
	}
}

// State is the state of a function outside of calls.
func (ns *namespace) State(function string) quipu.State { return ns.kv.State(ns.book, function) }

// Log holds the books of the namespace.
func (ns *namespace) Log() quipu.Log { return ownBooks{ns.node.log, ns.name, ns.id} }

// Instances lists what runs.
func (ns *namespace) Instances() []sdk.Instance {
	infos := ns.pool.Snapshot()
	list := make([]sdk.Instance, len(infos))
	for i, info := range infos {
		list[i] = sdk.Instance{Function: info.Function, Revision: info.Revision, ID: info.ID, PID: info.PID,
			State: string(info.State), Calls: info.Inflight, Started: info.Started,
			ColdStart: sdk.ColdStart{WaitMicros: info.Cold.Wait.Microseconds(), StartMicros: info.Cold.Start.Microseconds(), InitMicros: info.Cold.Init.Microseconds()}}
	}
	return list
}

// Verify reads every byte of the log that the book lies in.
func (ns *namespace) Verify(ctx context.Context, book string, progress func(done, total int64)) error {
	if _, err := ns.Log().OpenBook(ctx, book); err != nil {
		return err
	}
	_, err := ns.node.log.Verify(ctx, func(p locallog.Progress) { progress(p.Bytes, p.Total) })
	return err
}

// watch stops the node when the namespace's views cannot go on.
func (ns *namespace) watch(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-ns.book.Failed():
		ns.node.fail(ns.book.Err())
	}
}

// close drains the instances and stops the views.
func (ns *namespace) close(ctx context.Context) error {
	ns.stop()
	ns.tasks.Wait()
	ns.feeders.close()
	ns.outsiders.forget()
	ns.actors.Close(ctx)
	err := errors.Join(ns.Engine.Close(ctx), ns.Caller.Close(ctx), ns.later.runner.Close(ctx), ns.pool.Close(ctx))
	ns.Engine.Wait() // what it called has ended with the pool
	ns.later.runner.Wait()
	ns.actors.Wait()
	ns.Caller.Wait()
	ns.closeFlows()
	last := ns.meter.Close(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		ns.node.cfg.Logger.Warn("calls were cut off at the end of the drain", "namespace", ns.name)
		err = nil
	}
	ns.runtime.wait()
	return errors.Join(err, last, ns.release())
}

// drain has everything end that goes on by itself.
func (s *namespaces) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ns := range s.of {
		ns.Engine.Stop()
		ns.Caller.Stop()
		ns.stopFlows()
		ns.later.runner.Stop()
	}
}

func (s *namespaces) close(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for _, ns := range s.of {
		err = errors.Join(err, ns.close(ctx))
	}
	return err
}
