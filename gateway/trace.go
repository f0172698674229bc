package gateway

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/trace"
)

// traceWait is how long who asks for a trace waits for spans that have begun to end: the reply of a call is at its client a
// moment before the span of its request is over.
const traceWait = 2 * time.Second

func (g *Gateway) traceRoutes() []adminRoute {
	return []adminRoute{
		{id: "getTrace", method: "GET", path: "/traces/{trace}", summary: "What the node remembers of a trace, by its id, or that of a call in it. It waits up to 2 s for spans that have begun to end.",
			status: 200, reply: jsonType, shape: quipu.Trace{}, codes: []quipu.Code{quipu.CodeNoTrace}, serve: g.getTrace},
	}
}

func (g *Gateway) getTrace(a *ask) error {
	ctx, cancel := context.WithTimeout(a.Context(), traceWait)
	defer cancel()
	t, ok := g.opt.Trace.Trace(ctx, a.values["trace"])
	if !ok {
		return &quipu.Error{Code: quipu.CodeNoTrace, Text: "the node remembers no trace " + quote(a.values["trace"])}
	}
	return a.reply(t)
}

// entered is the span of a request, nil if it is not recorded.
type entered struct {
	span *trace.Span
	w    *watcher
}

// enter begins the span of a request for a function. r is to be used from then on.
func (g *Gateway) enter(w *watcher, r *http.Request, function string, keep bool) (entered, *http.Request) {
	ctx, span := g.opt.Trace.Enter(r.Context(), r.Header, "HTTP", trace.Server, keep)
	if span == nil {
		return entered{}, r
	}
	method := r.Method
	if !slices.Contains(knownMethods, method) {
		method = "_OTHER" // as the conventions have it: names of spans are few
	}
	span.Rename(method + " " + function)
	span.Str("http.request.method", method)
	span.Str("url.path", r.URL.Path)
	span.Str("url.scheme", "http")
	span.Str("server.address", r.Host)
	span.Str("user_agent.original", r.UserAgent())
	span.Str("faas.invoked_name", function)
	return entered{span, w}, r.WithContext(ctx)
}

var knownMethods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"}

// leave ends the span of a request, also of one that broke off.
func (e entered) leave() {
	if e.span == nil {
		return
	}
	e.span.Int("http.response.status_code", int64(e.w.status))
	if e.w.status >= http.StatusInternalServerError {
		e.span.Failed(http.StatusText(e.w.status), "")
	}
	e.span.End()
}
