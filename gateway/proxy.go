package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// serveFunction calls the function whose route fits.
func (g *Gateway) serveFunction(w http.ResponseWriter, r *http.Request) {
	started := time.Now()
	name := namespaceOf(r)
	if g.opt.Fault != nil && g.faulty(w, r, name) {
		return
	}
	function, allow, slash := g.tableOf(name).find(r.Method, r.URL)
	switch {
	case function != "":
		seen := &watcher{ResponseWriter: w}
		in, r := g.enter(seen, r, function, false)
		defer func() {
			in.leave()
			g.metrics.call(name, function, seen.status, time.Since(started), in.span)
		}()
		g.callRoute(seen, r, name, function)
	case slash:
		// Permanent and with method and body kept, unlike what ServeMux would send.
		to := url.URL{Path: r.URL.Path + "/", RawQuery: r.URL.RawQuery}
		http.Redirect(w, r, to.String(), http.StatusPermanentRedirect)
	case len(allow) > 0:
		w.Header().Set("Allow", strings.Join(allow, ", "))
		g.fail(w, r, &quipu.Error{Code: quipu.CodeMethod, Text: quote(r.URL.Path) + " does not take " + quote(r.Method)})
	default:
		g.fail(w, r, &quipu.Error{Code: quipu.CodeNoRoute, Text: "no function has a route for " + quote(r.URL.Path)})
	}
}

func (g *Gateway) tableOf(namespace string) *table {
	if t := (*g.tables.Load())[namespace]; t != nil {
		return t
	}
	return noRoutes
}

var noRoutes = func() *table {
	t, err := newTable(nil)
	if err != nil {
		panic(err)
	}
	return t
}()

func (g *Gateway) callRoute(w http.ResponseWriter, r *http.Request, namespace, function string) {
	ns, err := g.opt.Namespaces(namespace)
	if err != nil {
		g.fail(w, r, err)
		return
	}
	g.call(w, r, &following{caller: ns, moved: func() string {
		to, _, _ := g.tableOf(namespace).find(r.Method, r.URL)
		return to
	}}, CallOf(r, function, r.URL.EscapedPath(), TriggerRoute))
}

// following calls the function that a route leads to now, if a deploy took away the one it led to when the
// request came. Routes change before a function goes, so there is a successor, or the answer stands.
type following struct {
	caller
	moved func() string // where the route leads now; "" nowhere
}

// movesMax bounds how many deploys one request follows.
const movesMax = 8

func (f *following) Invoke(ctx context.Context, r quipu.CallRequest) (*quipu.CallReply, error) {
	return follow(ctx, f, r, f.caller.Invoke)
}

func (f *following) InvokeAsync(ctx context.Context, r quipu.CallRequest) (quipu.CallInfo, error) {
	return follow(ctx, f, r, f.caller.InvokeAsync)
}

func follow[T any](ctx context.Context, f *following, r quipu.CallRequest, call func(context.Context, quipu.CallRequest) (T, error)) (T, error) {
	for range movesMax {
		reply, err := call(ctx, r)
		to := ""
		if quipu.CodeOf(err) == quipu.CodeNoFunction && untouched(r.Body) {
			to = f.moved()
		}
		if to == "" || to == r.Function {
			return reply, err
		}
		r.Function = to
	}
	return call(ctx, r)
}

// untouched tells whether a body can still be sent whole.
func untouched(body io.Reader) bool {
	l, ok := body.(*limited)
	return body == nil || ok && l.left == l.max
}

// call invokes and answers, or has it done later; c is of r.
func (g *Gateway) call(w http.ResponseWriter, r *http.Request, ns caller, c quipu.CallRequest) {
	body, err := LimitBody(r, g.opt.BodyBytesMax)
	if err != nil {
		g.fail(w, r, err)
		return
	}
	c.Body = body
	if WantsAsync(&c) {
		info, err := ns.InvokeAsync(r.Context(), c)
		if err != nil {
			g.fail(w, r, err)
			return
		}
		WriteAccepted(w, namespaceOf(r), info)
		return
	}
	reply, err := ns.Invoke(r.Context(), c)
	if err != nil {
		g.fail(w, r, err)
		return
	}
	WriteReply(w, reply)
}

// LimitBody is r's body, nil for none, which fails with CodeBodySize once it passes max; at once if it is
// known to.
func LimitBody(r *http.Request, max int64) (io.Reader, error) {
	if r.ContentLength > max {
		return nil, bodyTooLarge(max)
	}
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil, nil
	}
	return &limited{from: r.Body, left: max, max: max}, nil
}

type limited struct {
	from      io.Reader
	left, max int64
}

func (l *limited) Read(b []byte) (int, error) {
	if l.left < 0 {
		return 0, bodyTooLarge(l.max)
	}
	if int64(len(b)) > l.left+1 {
		b = b[:l.left+1] // one more than allowed, to tell the end from too much
	}
	n, err := l.from.Read(b)
	if l.left -= int64(n); l.left < 0 {
		return n - 1, bodyTooLarge(l.max)
	}
	return n, err
}

// TriggerRoute is the trigger of calls that come through a route, from whoever reaches it.
const TriggerRoute = "http"

// CallOf turns a request into a call of function at path, without its body.
func CallOf(r *http.Request, function, path, trigger string) quipu.CallRequest {
	return quipu.CallRequest{
		Function: function, Revision: r.Header.Get(quipu.HeaderRevision), Method: r.Method, Path: path, RawQuery: r.URL.RawQuery, Trigger: trigger,
		Header: forwarded(r), ContentLength: r.ContentLength, IdempotencyKey: r.Header.Get(quipu.HeaderIdempotency),
	}
}

// hopByHop belongs to one connection (RFC 9110, 7.6.1).
var hopByHop = []string{"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// ours is set by the platform alone, or is no business of a function's.
var ours = []string{quipu.HeaderCallID, quipu.HeaderAttempt, quipu.HeaderTrigger, quipu.HeaderRevision, quipu.HeaderTrace, sdk.HeaderToken, sdk.HeaderNamespace}

func forwarded(r *http.Request) http.Header {
	h := endToEnd(r.Header)
	for _, name := range ours {
		delete(h, name)
	}
	if ip, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		h.Set("X-Forwarded-For", strings.Join(append(r.Header.Values("X-Forwarded-For"), ip), ", "))
	}
	h.Set("X-Forwarded-Host", r.Host)
	h.Set("X-Forwarded-Proto", "http")
	if r.TLS != nil {
		h.Set("X-Forwarded-Proto", "https")
	}
	return h
}

// endToEnd copies what is not of one connection. The slices of values are shared, which is safe since Set and
// Del replace them.
func endToEnd(from http.Header) http.Header {
	h := make(http.Header, len(from)+4)
	for name, values := range from {
		if !slices.Contains(hopByHop, name) {
			h[name] = values
		}
	}
	for _, list := range from.Values("Connection") {
		for name := range strings.SplitSeq(list, ",") {
			delete(h, textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name)))
		}
	}
	return h
}

// WriteReply answers with a function's reply and closes it. A body of unknown length, which is how events and
// other streams come, is flushed piece by piece. If it breaks off, so does the connection: a client must not
// take a part for the whole.
func WriteReply(w http.ResponseWriter, reply *quipu.CallReply) {
	defer reply.Body.Close()
	h := w.Header()
	for name, values := range endToEnd(reply.Header) {
		h[name] = values
	}
	if reply.Call != "" { // else it was no call of a function
		h.Set(quipu.HeaderCallID, reply.Call)
		h.Set(quipu.HeaderRevision, reply.Revision)
	}
	if reply.Session != 0 {
		h.Set(quipu.HeaderSession, reply.Session.String())
	}
	w.WriteHeader(reply.Status)
	_, held := reply.Body.(interface{ Len() int }) // nobody waits for a part of it
	if err := copyBody(w, reply.Body, !held && h.Get("Content-Length") == ""); err != nil {
		panic(http.ErrAbortHandler)
	}
	for name, values := range reply.Trailer {
		h[http.TrailerPrefix+name] = values
	}
}

var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

func copyBody(w http.ResponseWriter, body io.Reader, flush bool) error {
	buf := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buf)
	out := http.NewResponseController(w)
	for {
		n, err := body.Read(buf[:])
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case flush:
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
}

// watcher remembers the status for the metrics.
type watcher struct {
	http.ResponseWriter
	status int
}

func (w *watcher) WriteHeader(status int) {
	if w.status == 0 || w.status < 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *watcher) Unwrap() http.ResponseWriter { return w.ResponseWriter }
