// Package gateway is the door for people and callers: the routes of functions, and under /-/ everything
// of ours: health, metrics and the admin API with its OpenAPI document.
//
// It decides nothing about calls and keeps nothing: after a crash there is nothing of it to recover. What
// a request did is what the Invoker, State or Functions behind it promise. It does not rewrite paths: what a
// client sent, escapes, double slashes and all, is what a function gets.
//
// Routes are ServeMux patterns, one table per namespace, replaced as a whole by SetRoutes. Everything of ours
// is one Go table (adminRoutes) from which routing, OpenAPI and the tests of both are made.
//
// Who may use /-/: with a token, who knows it. Without one, only requests addressed to loopback, and no page
// of another origin, so that a web page the user visits cannot drive the node (nor by a rebound DNS name).
// Routes of functions are open to all who reach the listener: they are the public side.
package gateway

import (
	"context"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/trace"
	"github.com/quipu-run/quipu/sdk"
)

// Namespace is all that the admin API shows of one namespace.
type Namespace interface {
	quipu.Functions
	quipu.Invoker
	quipu.AsyncInvoker
	quipu.Calls
	quipu.Topics
	quipu.Billing
	quipu.Actors
	quipu.Owners
	// Attach makes an application that runs by itself part of the namespace until ctx ends, and tells how it stands.
	// CodeUsage, CodePortTaken, CodeAppCallback.
	Attach(ctx context.Context, appID string, a sdk.Attachment, tell func(sdk.Attached) error) error
	// Reload gives an attached application, by the id of its attachment, other resources, or leaves it as it is.
	// CodeNoFunction, CodeManifest, CodeComponent.
	Reload(ctx context.Context, appID, id string, r sdk.AttachedResources) error
	// State is the state as a function sees it: its name prefixes the keys of StoreDefault. An empty
	// name is nobody's prefix and sees only StoreShared.
	State(function string) quipu.State
	// Jobs are the jobs of its applications.
	Jobs() quipu.Alarms
	// WorkflowStore keeps its workflows.
	WorkflowStore() quipu.Workflows
	// Log holds the books that the namespace may read.
	Log() quipu.Log
	// Instances lists what runs now, by function and id.
	Instances() []sdk.Instance
	// Logs yields lines that instances of functions printed, and then, if r.Follow is set, each new one until ctx ends. An
	// error, if any, comes last.
	Logs(ctx context.Context, r sdk.LogsRequest) iter.Seq2[sdk.LogLine, error]
	// LogsFound refuses what Logs could not answer: CodeNoFunction for one that is not deployed and left no output; CodeUsage
	// for a place that is none.
	LogsFound(r sdk.LogsRequest) error
	// Verify reads every byte that a book depends on, and calls progress now and then with bytes done and
	// bytes in all. CodeCorrupt, CodeNoBook.
	Verify(ctx context.Context, book string, progress func(done, total int64)) error
}

// Options are checked by New; a zero field gets the default it names.
type Options struct {
	Namespaces func(name string) (Namespace, error) // required; CodeNotFound
	// Create finds a namespace or makes it: what a deploy does. Nil means Namespaces.
	Create   func(ctx context.Context, name string) (Namespace, error)
	Node     func() sdk.Node                             // required
	LogStats func(context.Context) (sdk.LogStats, error) // nil means that nothing is known
	Sync     string                                      // when the log acknowledges, for listings of books
	// Backup writes an archive of all that the node has. Nil means that it cannot.
	Backup       func(ctx context.Context, to io.Writer) error
	Travel       Travel               // required to list, fork, replay and remove
	Trace        *trace.Tracer        // nil means that nothing is recorded
	Token        string               // "" means none: only loopback may use /-/
	Registry     *prometheus.Registry // nil means an empty one
	Logger       *slog.Logger         // nil means slog.Default
	BodyBytesMax int64                // of requests to functions; 0 means 64 MiB
	// Fault is asked before each request to a function. Not nil at a developer's node, where browsers get problems as pages.
	Fault FaultFunc
}

const bodyBytesMaxDefault = 64 << 20

// Gateway is an http.Handler for the main listener.
type Gateway struct {
	opt     Options
	admin   []adminRoute
	openAPI []byte
	metrics *metrics
	scrape  http.Handler
	over    context.Context // ends with Drain, and with it the replies that have no end of their own
	drain   context.CancelFunc

	options sync.Mutex // serialises changes of options of books

	mu     sync.Mutex // serialises SetRoutes
	tables atomic.Pointer[map[string]*table]
}

// New makes a gateway without routes of functions. It panics if a required option is missing or the
// registry already has the gateway's metrics: both are mistakes of the caller's code.
func New(opt Options) *Gateway {
	if opt.Namespaces == nil || opt.Node == nil {
		panic("gateway: Namespaces and Node are required")
	}
	if opt.Create == nil {
		opt.Create = func(_ context.Context, name string) (Namespace, error) { return opt.Namespaces(name) }
	}
	if opt.LogStats == nil {
		opt.LogStats = func(context.Context) (sdk.LogStats, error) { return sdk.LogStats{Sync: opt.Sync}, nil }
	}
	if opt.Registry == nil {
		opt.Registry = prometheus.NewRegistry()
	}
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	if opt.BodyBytesMax == 0 {
		opt.BodyBytesMax = bodyBytesMaxDefault
	}
	g := &Gateway{opt: opt, metrics: newMetrics(opt.Registry)}
	g.over, g.drain = context.WithCancel(context.Background())
	g.scrape = promhttp.HandlerFor(opt.Registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, EnableOpenMetrics: true})
	g.tables.Store(&map[string]*table{})
	g.admin = g.adminRoutes()
	g.openAPI = openAPI(g.admin)
	return g
}

// SetRoutes makes the http triggers of functions the routes of a namespace, all at once; requests under
// way are not touched. CodeRoute as CheckRoutes, and then the old routes stay.
func (g *Gateway) SetRoutes(namespace string, functions []quipu.Function) error {
	t, err := newTable(functions)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	next := map[string]*table{}
	if len(functions) > 0 {
		next[namespace] = t
	}
	for name, old := range *g.tables.Load() {
		if name != namespace {
			next[name] = old
		}
	}
	g.metrics.keep(next)
	g.tables.Store(&next)
	return nil
}

// Drain makes health say that the node stops, and ends the replies that would go on until their client leaves,
// such as a tail of a book, so that a server which waits for its requests does not wait for them. All others are
// answered as before.
func (g *Gateway) Drain() { g.drain() }

// untilDrain is ctx for a reply without an end.
func (g *Gateway) untilDrain(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(g.over, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// ServeHTTP sends a request under /-/ to the admin side and any other to a function.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if isOurs(r.URL.Path) {
		g.serveOurs(w, r)
		return
	}
	g.serveFunction(w, r)
}

func isOurs(path string) bool { return path == "/-" || strings.HasPrefix(path, "/-/") }

// Inside is the gateway for instances: the routes of functions, and nothing of ours.
func (g *Gateway) Inside() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isOurs(r.URL.Path) {
			g.fail(w, r, &quipu.Error{Code: quipu.CodeNoRoute, Op: "route.find", Text: "instances of functions do not reach what is under /-/",
				Hint: "the instance's own Dapr door has state, topics and invocation"})
			return
		}
		g.serveFunction(w, r)
	})
}

// serveOurs guards everything under /-/. Health is open, so that a load balancer needs no secret.
func (g *Gateway) serveOurs(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/-/healthz" {
		if g.over.Err() != nil {
			g.fail(w, r, &quipu.Error{Code: quipu.CodeStopping, Op: "node.health"})
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok\n")) // a client that hung up has nobody to tell
		return
	}
	if err := admit(r, g.opt.Token); err != nil {
		g.fail(w, r, err)
		return
	}
	if r.URL.Path == "/-/metrics" {
		g.scrape.ServeHTTP(w, r)
		return
	}
	g.serveAdmin(w, r)
}

func namespaceOf(r *http.Request) string {
	if name := r.Header.Get(sdk.HeaderNamespace); name != "" {
		return name
	}
	return sdk.NamespaceDefault
}
