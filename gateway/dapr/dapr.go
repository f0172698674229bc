// Package dapr is the door for Dapr's API (as of Dapr 1.18) over HTTP and gRPC, so that an app written for a Dapr
// sidecar runs with its SDK unchanged: state, publish and subscribe, service invocation, bindings, secrets, configuration, locks,
// cryptography, conversation, metadata, health. Components are found by name in the set that a request may use.
//
// Paths, methods, statuses, headers and errors are Dapr's. What differs on purpose: a save of several keys, or a
// bulk publish, happens as a whole or not at all; values are kept byte for byte as sent; user mistakes that Dapr
// answers with 500 (a bad ttlInSeconds, an unknown concurrency, a malformed CloudEvent or query) get 400. The door keeps
// nothing but the attributes set with PUT metadata and the open subscriptions to configuration, which end with it. What success
// promises, also after a crash, is what quipu.Session promises: inside an atomic call it means "in the call's
// transaction". Other components than state and topics on the log act at once. What goes wrong inside of one is told to the client if it
// is a quipu.Error; anything else is internal, and in the log. Reading requests is apart from doing them, so that both protocols do
// the same. Workers of workflows speak a protocol of their own, which is in package taskhub.
//
// An app speaks through the listener of its instance, and its Session is that instance's. A client from outside
// has no instance: like an app that daprd was started for, it has an app id, which is "default" unless the
// header dapr-caller-app-id names another (OutsideAppID). It is not the header dapr-app-id, since that one
// names the target of an invocation.
package dapr

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/gateway"
	"github.com/quipu-run/quipu/internal/clock"
	"github.com/quipu-run/quipu/internal/component"
	"google.golang.org/grpc"
)

// RuntimeVersion is the version of Dapr whose API this is.
const RuntimeVersion = "1.18.2"

const bodyBytesMaxDefault = 64 << 20

// Options are checked by New; a zero field gets the default it names. A request of gRPC is one of HTTP/2: the
// functions see its metadata as headers, the called method as path, and no body.
type Options struct {
	// Session answers where the operations of a request belong. Required.
	// CodeNoCall: an atomic function outside of a call.
	Session func(*http.Request) (quipu.Session, error)
	// AppID is whose request it is, in a call or not. nil means that of the Session.
	AppID func(*http.Request) string
	// Components are what a request may use, by name. nil means BuiltIn without secrets.
	Components func(*http.Request) (*component.Set, error)
	// SecretAllowed tells whether a request may have a secret of a store. nil means that it may.
	SecretAllowed func(r *http.Request, store, name string) bool
	// Tell sends a request to the application whose request this was, and wants a 2xx. nil means that there is none to tell.
	Tell func(r *http.Request, method, path string, body []byte) error
	// Admit tells whether a request may use a part of the API: the version and path of its route over HTTP, like v1.0 and
	// state/mystore/bulk, or v1.0 and invoke for what is an invocation by its header; "" and the full name of the method over
	// gRPC. What it refuses looks as if it did not exist. It is asked once for a request. nil means yes.
	Admit func(r *http.Request, version, path string) bool
	// Endpoint finds a target of invocations outside of the platform, by its name or by a URL like https://host:port. nil means
	// that there are none.
	Endpoint func(r *http.Request, name string) (Endpoint, bool)
	// Subscriptions are shown in metadata. nil means none.
	Subscriptions func(*http.Request) []quipu.TopicTrigger
	// About is what else metadata shows. nil means nothing.
	About func(*http.Request) About
	// Ready tells whether the components of a request are loaded. nil means that they are.
	Ready func(*http.Request) bool
	// Running tells whether the application whose request it is was found where it listens. nil means that it was.
	Running func(*http.Request) bool
	// Shutdown ends the application whose request it is, by force or as usual, and returns before it has. nil means that
	// applications do not end themselves.
	Shutdown func(r *http.Request, force bool)
	// Subscribe is quipu.Topics' for the namespace of a request, until the request's context ends. nil means that
	// streams of events are refused.
	Subscribe func(*http.Request, quipu.SubscribeRequest, func(context.Context, quipu.Event) quipu.Outcome) error
	// Actors are those of the application whose request it is. nil, or nothing of a request, means that it hosts none and calls none.
	Actors func(*http.Request) Actors
	// Workflows keeps the workflows of a request's namespace. nil means that there are none.
	Workflows func(*http.Request) (quipu.Workflows, error)
	// Services adds others to those of GRPC. They are guarded like Dapr's own, and find the request of a call by RequestOf. nil adds
	// none.
	Services func(grpc.ServiceRegistrar)
	// Token is asked for in dapr-api-token, if RequireToken is set or the request has one.
	Token        string
	RequireToken bool
	// AnyHost lets requests without a token be addressed to others than loopback: who opened the door beyond it meant to. A web
	// page of another origin is refused all the same.
	AnyHost      bool
	Logger       *slog.Logger // nil means slog.Default
	BodyBytesMax int64        // of a request, and of a message of gRPC; 0 means 64 MiB
	Version      string       // of the node, shown in metadata
	Clock        quipu.Clock  // of events; nil means the machine's
}

// OutsideAppID is the app id that a client outside of any instance speaks as.
func OutsideAppID(r *http.Request) string {
	if id := r.Header.Get(callerHeader); id != "" {
		return id
	}
	return "default"
}

// Door serves one instance, or the clients from outside: HTTP by itself, gRPC by what GRPC makes.
type Door struct {
	opt      Options
	builtIn  *component.Set
	mu       sync.Mutex
	extended map[string]string // guarded by mu
	configs  configSubs
	closing  context.Context // ends with Close
	close    context.CancelFunc
}

// New panics without Session.
func New(opt Options) *Door {
	if opt.Session == nil {
		panic("dapr: Session is required")
	}
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	if opt.Clock == nil {
		opt.Clock = &clock.Wall{}
	}
	if opt.BodyBytesMax == 0 {
		opt.BodyBytesMax = bodyBytesMaxDefault
	}
	d := &Door{opt: opt, builtIn: component.NewSet(BuiltIn(nil)...), extended: map[string]string{"quipuVersion": opt.Version}, configs: configSubs{open: map[string]context.CancelFunc{}}}
	d.closing, d.close = context.WithCancel(context.Background())
	return d
}

// Close ends the streams of events and of configuration, now and later. Their clients are told to try again.
func (d *Door) Close() {
	d.close()
	d.configs.close()
}

// Handler is a door that speaks HTTP alone.
func Handler(opt Options) http.Handler { return New(opt) }

// appID is "" if nobody says whose request it is.
func (d *Door) appID(r *http.Request) (string, error) {
	if d.opt.AppID != nil {
		return d.opt.AppID(r), nil
	}
	session, err := d.opt.Session(r)
	if quipu.CodeOf(err) == quipu.CodeNoCall {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return session.Function(), nil
}

// Headers as net/http keeps them: to ask for any other way of writing them costs an allocation each time.
const (
	tokenHeader  = "Dapr-Api-Token"
	callerHeader = "Dapr-Caller-App-Id"
	calleeHeader = "Dapr-Callee-App-Id"
	targetHeader = "Dapr-App-Id"
)

const (
	permissionDenied = "ERR_PERMISSION_DENIED"
	noTarget         = "failed getting app id either from the URL path or the header dapr-app-id"
	noShutdown       = "the platform starts and stops its instances; quipu rm functions NAME removes one"
)

func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at, parts := split(r.URL.EscapedPath())
	health := isHealth(r.Method, parts)
	given := r.Header.Get(tokenHeader)
	if !health && !d.admits(given) {
		http.Error(w, "invalid api token", http.StatusUnauthorized)
		return
	}
	if given == "" || !d.opt.RequireToken {
		if err := d.checkLocal(r); err != nil && !health {
			d.fail(w, r, permissionDenied, err)
			return
		}
	}
	r.Header.Del(tokenHeader)
	if d.opt.Admit != nil && !health && !d.offers(r, at, parts) {
		answer(w, http.StatusNotFound, "ERR_DIRECT_INVOKE", noTarget)
		return
	}
	d.route(w, r, parts)
}

// parts of the API, by their first word. What starts with none of them is an invocation.
var apis = []string{"state", "publish", "bindings", "invoke", "secrets", "configuration", "lock", "unlock", "crypto", "subtlecrypto", "conversation",
	"metadata", "shutdown", "actors", "workflows", "jobs", "healthz"}

func (d *Door) offers(r *http.Request, at string, parts []string) bool {
	if len(parts) > 1 && strings.HasPrefix(parts[0], "v1.0") && slices.Contains(apis, parts[1]) {
		return d.opt.Admit(r, parts[0], at[len(parts[0])+1:])
	}
	return d.opt.Admit(r, "v1.0", "invoke")
}

// checkLocal is for requests that no token speaks for.
func (d *Door) checkLocal(r *http.Request) error {
	if d.opt.AnyHost {
		return gateway.CheckOrigin(r)
	}
	return gateway.CheckLocal(r)
}

// isHealth is exact: what it lets pass needs no token.
func isHealth(method string, parts []string) bool {
	if method != http.MethodGet || len(parts) < 2 || parts[0] != "v1.0" || parts[1] != "healthz" {
		return false
	}
	return len(parts) == 2 || len(parts) == 3 && parts[2] == "outbound"
}

// admits refuses a wrong token even where none is needed: it is a mistake that would otherwise show late.
func (d *Door) admits(given string) bool {
	if given == "" || d.opt.Token == "" {
		return !d.opt.RequireToken
	}
	return gateway.TokenEqual(given, d.opt.Token)
}

// split cleans an escaped path, without its first slash, and takes it apart, as daprd does.
func split(escaped string) (at string, parts []string) {
	if !strings.HasPrefix(escaped, "/") {
		escaped = "/" + escaped
	}
	at = path.Clean(escaped)[1:]
	return at, strings.Split(at, "/")
}

// route finds the API; like daprd it takes everything else for an invocation.
func (d *Door) route(w http.ResponseWriter, r *http.Request, parts []string) {
	version, api := parts[0], ""
	if len(parts) > 1 {
		api = parts[1]
	}
	switch {
	case version == "v1.0" && api == "state" && len(parts) > 2:
		d.state(w, r, parts[2:])
	case version == "v1.0-alpha1" && api == "state" && len(parts) == 4 && (parts[3] == "query" || parts[3] == "keys"):
		d.stateAlpha(w, r, unescape(parts[2]), parts[3])
	case (version == "v1.0" || version == "v1.0-alpha1") && api == "publish" && len(parts) > 3 && parts[2] == "bulk":
		d.publishBulk(w, r)
	case version == "v1.0" && api == "publish":
		d.publish(w, r)
	case version == "v1.0" && api == "secrets" && len(parts) == 4:
		d.getSecret(w, r, unescape(parts[2]), unescape(parts[3]))
	case version == "v1.0" && api == "bindings" && len(parts) == 3:
		d.binding(w, r, unescape(parts[2]))
	case (version == "v1.0" || version == "v1.0-alpha1") && api == "configuration" && len(parts) > 2:
		d.configuration(w, r, parts[2:])
	case version == "v1.0-alpha1" && (api == "lock" || api == "unlock") && isLock(parts):
		d.locks(w, r, parts[1:])
	case (version == "v1.0-alpha1" || version == "v1.0-alpha2") && api == "conversation" && len(parts) == 4 && parts[3] == "converse":
		d.conversation(w, r, version, unescape(parts[2]))
	case version == "v1.0-alpha1" && api == "crypto" && len(parts) == 4 && (parts[3] == "encrypt" || parts[3] == "decrypt"):
		d.crypto(w, r, unescape(parts[2]), parts[3])
	case version == "v1.0-alpha1" && api == "subtlecrypto" && len(parts) == 4 && subtleMethods[parts[3]] != nil:
		d.subtleCrypto(w, r, unescape(parts[2]), parts[3])
	case (version == "v1.0" || version == "v1.0-alpha1") && api == "jobs" && len(parts) == 3:
		d.job(w, r, unescape(parts[2]))
	case api == "workflows" && isWorkflows(version, parts[1:]):
		d.workflows(w, r, parts[1:])
	case version == "v1.0" && api == "metadata" && len(parts) <= 3:
		d.metadata(w, r, parts[2:])
	case version == "v1.0" && api == "actors" && isActors(parts):
		d.actors(w, r, parts)
	case isHealth(http.MethodGet, parts):
		d.health(w, r)
	case version == "v1.0" && api == "shutdown" && len(parts) == 2:
		d.shutdown(w, r)
	default:
		d.invoke(w, r)
	}
}

// allow answers 405 unless the method is one of those.
func allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	for _, m := range methods {
		if r.Method == m {
			return true
		}
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	w.WriteHeader(http.StatusMethodNotAllowed)
	return false
}

// unescape takes a segment of a path; a bad escape cannot come through net/http.
func unescape(segment string) string {
	if text, err := url.PathUnescape(segment); err == nil {
		return text
	}
	return segment
}
