// Package server wires a configuration into a running node: the log, the views, functions and their
// instances, and the doors. It is the only package that knows all of them.
//
// Run returns when ctx ends, after it has drained: no new requests, calls under way get up to DrainMax,
// then instances, views and log close in that order. After a kill nothing needs to be done: the next Run
// recovers what was acknowledged.
package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/gateway"
	"github.com/quipu-run/quipu/internal/blob"
	"github.com/quipu-run/quipu/internal/clock"
	"github.com/quipu-run/quipu/internal/mapping"
	"github.com/quipu-run/quipu/internal/trace"
	"github.com/quipu-run/quipu/locallog"
	"github.com/quipu-run/quipu/process"
	"github.com/quipu-run/quipu/process/egress"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/view"
)

// drainMax is Config.DrainMax's default: how long calls under way may take after the node was asked to stop.
const drainMax = 8 * time.Second

// Config of a node.
type Config struct {
	Data         string // directory, made if missing
	Listen       string // host; "" means 127.0.0.1
	Port         int    // of the main listener; 0 means any free one, as for the others
	DaprHTTPPort int
	DaprGRPCPort int
	FreePorts    bool   // take a free port where one is taken
	Sync         string // of the log: always, which "" means, or os
	Token        string // asked for by the admin API and the outside doors; required beyond loopback
	// InstanceToken makes every instance prove itself with DAPR_API_TOKEN, as a production node does.
	InstanceToken bool
	// Unconfined leaves the walls around instances out.
	Unconfined bool
	// Bounds of the functions of each namespace together: calls that run at a time, and instances. 0 means the defaults of
	// package pool.
	CallsMax, InstancesMax int
	// Elsewhere invokes what the node does not have, for clients of its Dapr API; nil means that there is no such place. CodeNoFunction:
	// it does not have it either.
	Elsewhere func(context.Context, quipu.CallRequest) (*quipu.CallReply, error)
	// DrainMax is how long calls under way may take after the node was asked to stop; 0 means 8s.
	DrainMax time.Duration
	// Components says which types of Dapr's components the log serves; "" means mapping.Log.
	Components mapping.Policy
	// Clock is what the node goes by; nil means the machine's. Probe, if not nil, looks in. Both are for tests of functions.
	Clock   quipu.Clock
	Probe   Probe
	Trace   trace.Config
	Version string
	// Fault makes this a developer's node: it is asked, before each request to a function, what is wrong with the
	// application. Nil for all other nodes.
	Fault  gateway.FaultFunc
	Logger *slog.Logger
	Ready  func(sdk.Node) // called once, when the node serves
}

// Node is a running node.
type Node struct {
	cfg     Config
	started time.Time
	clock   quipu.Clock
	upkeep  quipu.Clock // shows the same, but its waits are those of the machine
	info    sdk.Node

	log        *locallog.Log
	blobs      *blob.Store
	store      *view.Store
	runtime    *process.Runtime
	registry   *prometheus.Registry
	gateway    *gateway.Gateway
	trace      *trace.Tracer
	labels     *labels
	runs       *prometheus.CounterVec
	took       *prometheus.HistogramVec
	deliveries *prometheus.CounterVec
	ends       *prometheus.CounterVec
	later      laterMetrics
	executions executionMetrics
	starts     *prometheus.CounterVec
	cold       *prometheus.HistogramVec
	turns      *prometheus.HistogramVec
	namespaces namespaces
	collector  collector
	listeners  *listeners
	backups    sync.Mutex // held while a backup is made
	failed     chan error // the first thing that makes it impossible to go on
}

// Run runs a node until ctx ends or it cannot go on.
// CodeDataInUse, CodePortTaken, CodeOpenListen, CodeCorrupt: it did not start.
func Run(ctx context.Context, cfg Config) error {
	n, err := open(ctx, cfg)
	if err != nil {
		return err
	}
	if err := n.publish(); err != nil {
		return errors.Join(err, n.close())
	}
	if cfg.Ready != nil {
		cfg.Ready(n.info)
	}
	select {
	case <-ctx.Done():
	case err = <-n.failed:
	}
	return errors.Join(err, n.close())
}

// open brings up all parts, in the order in which they need each other. What was opened is closed again if a
// later part fails.
func open(ctx context.Context, cfg Config) (n *Node, err error) {
	if cfg.Sync == "" {
		cfg.Sync = string(locallog.SyncAlways)
	}
	if cfg.Clock == nil {
		cfg.Clock = &clock.Wall{}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	n = &Node{cfg: cfg, started: time.Now(), clock: cfg.Clock, upkeep: clock.Passing{Clock: cfg.Clock}, registry: prometheus.NewRegistry(),
		failed: make(chan error, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
			n = nil
		}
	}()
	if n.listeners, err = listen(cfg); err != nil {
		return n, err
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return n, fmt.Errorf("make data directory: %w", err)
	}
	if err := n.openStorage(); err != nil {
		return n, err
	}
	if err := n.unpublish(); err != nil {
		return n, err
	}
	if n.runtime, err = n.openRuntime(); err != nil {
		return n, err
	}
	if err := n.openTrace(ctx); err != nil {
		return n, err
	}
	n.info = n.describe()
	n.gateway = gateway.New(gateway.Options{Namespaces: n.namespaceAPI, Create: n.createNamespaceAPI, Node: n.status,
		Backup: n.Backup, Travel: n, LogStats: n.logStats, Sync: cfg.Sync,
		Fault: cfg.Fault, Trace: n.trace, Token: cfg.Token, Registry: n.registry, Logger: cfg.Logger})
	n.registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	n.measure()
	if err := n.openNamespaces(ctx); err != nil {
		return n, err
	}
	n.startCollector()
	n.serve()
	return n, nil
}

// openRuntime keeps instances from the data directory and from the node's own listeners. Where the routes of functions are, with the
// admin API beside them, instances find the routes alone.
func (n *Node) openRuntime() (*process.Runtime, error) {
	data, err := filepath.Abs(n.cfg.Data)
	if err != nil {
		return nil, err
	}
	isMain := egress.Listeners(func() []netip.AddrPort { return n.listeners.addresses(mainDoor) })
	return process.New(process.Options{Dir: n.path("run"), Logger: n.cfg.Logger, Sandbox: !n.cfg.Unconfined, Private: []string{data},
		Own: egress.Listeners(func() []netip.AddrPort { return n.listeners.addresses(daprDoor, grpcDoor) }),
		Redirect: func(to netip.AddrPort) (netip.AddrPort, bool) {
			return n.listeners.addresses(insideDoor)[0], isMain(to)
		}})
}

// openStorage opens log and views side by side: both read from disk.
func (n *Node) openStorage() (err error) {
	if n.blobs, err = blob.Open(vfs.Default, n.path("blobs")); err != nil {
		return err
	}
	opened := make(chan error, 1)
	go func() (err error) {
		defer func() { opened <- err }()
		n.store, err = view.OpenStore(view.Options{Dir: n.path("views"), FS: vfs.Default, Logger: n.cfg.Logger, Reading: n.blobs.Reading, Failed: n.fail})
		return err
	}()
	metrics := newLogMetrics()
	n.log, err = locallog.Open(locallog.Options{Dir: n.path("log"), Clock: n.upkeep, Logger: n.cfg.Logger, Sync: locallog.SyncMode(n.cfg.Sync), Observe: metrics.observe})
	if err = errors.Join(err, <-opened); err != nil {
		return err
	}
	metrics.log = n.log.Stats
	n.registry.MustRegister(metrics)
	return nil
}

func (n *Node) path(elem ...string) string {
	return filepath.Join(append([]string{n.cfg.Data}, elem...)...)
}

// fail makes Run return err.
func (n *Node) fail(err error) {
	select {
	case n.failed <- err:
	default: // the first one counts
	}
}

// close ends all parts in the order opposite to open.
func (n *Node) close() error {
	err := n.unpublish()
	ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(n.cfg.DrainMax, drainMax))
	defer cancel()
	if n.gateway != nil {
		n.gateway.Drain()
	}
	n.namespaces.drain()
	if n.listeners != nil {
		err = errors.Join(err, n.listeners.close(ctx))
	}
	n.collector.close()
	err = errors.Join(err, n.namespaces.close(ctx))
	if n.runtime != nil {
		err = errors.Join(err, n.runtime.Close())
	}
	if n.store != nil {
		err = errors.Join(err, n.store.Close())
	}
	if n.log != nil {
		err = errors.Join(err, n.log.Close())
	}
	n.closeTrace()
	return err
}
