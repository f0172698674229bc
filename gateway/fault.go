package gateway

import (
	"context"
	"html/template"
	"net/http"
	"strconv"
	"strings"

	"github.com/quipu-run/quipu/sdk"
)

// Fault is why the routes of an application do not lead to it: what was saved last cannot be deployed. It is the way of a
// developer's node to say so where the developer looks; a node in production goes on with what it has.
type Fault struct {
	Namespace, App string
	Err            error
}

// FaultFunc answers what is wrong now, nil for nothing. It may wait, until ctx ends, for what is not known yet.
type FaultFunc func(ctx context.Context) (*Fault, error)

// faulty answers with the fault of the application whose route fits, or which would have one. It waits for Options.Fault.
func (g *Gateway) faulty(w http.ResponseWriter, r *http.Request, namespace string) bool {
	f, err := g.opt.Fault(r.Context())
	if err != nil {
		g.fail(w, r, err)
		return true
	}
	if f == nil || f.Namespace != namespace || g.isOther(r, f) {
		return false
	}
	_, p := Problem(g.opt.Logger, r, f.Err)
	g.tell(w, r, http.StatusInternalServerError, p) // whatever is the code's status: the client's request is not to blame
	return true
}

// isOther tells whether a request is for a function of another application.
func (g *Gateway) isOther(r *http.Request, f *Fault) bool {
	function, _, _ := g.tableOf(f.Namespace).find(r.Method, r.URL)
	ns, err := g.opt.Namespaces(f.Namespace)
	if function == "" || err != nil {
		return false
	}
	fn, err := ns.Function(function)
	return err == nil && fn.App != f.App
}

// tell answers with a problem: as a page, if a browser asks at a developer's node.
func (g *Gateway) tell(w http.ResponseWriter, r *http.Request, status int, p sdk.Problem) {
	if g.opt.Fault == nil || isOurs(r.URL.Path) || !wantsPage(r) {
		writeJSON(w, status, p)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	title, rest, _ := strings.Cut(p.Error, "\n")
	_ = page5xx.Execute(w, struct { // it fails only if the client is gone
		sdk.Problem
		Status, Title, Output string
	}{p, strconv.Itoa(status) + " " + http.StatusText(status), title, rest})
}

// wantsPage tells whether HTML is asked for by name, which browsers do and other clients do not.
func wantsPage(r *http.Request) bool {
	for _, value := range r.Header.Values("Accept") {
		for kind := range strings.SplitSeq(value, ",") {
			if kind, _, _ = strings.Cut(kind, ";"); strings.EqualFold(strings.TrimSpace(kind), "text/html") {
				return true
			}
		}
	}
	return false
}

// page5xx has no script and loads nothing: what it shows is the output of programs.
var page5xx = template.Must(template.New("problem").Parse(`<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>{{.Title}}</title>
<style>
body{font:16px/1.5 system-ui,sans-serif;margin:3rem auto;max-width:60rem;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.3rem;border-left:.4rem solid #c22;padding-left:.8rem;overflow-wrap:anywhere}
pre{background:#f4f2ee;padding:1rem;overflow:auto;font:14px/1.45 ui-monospace,monospace}
p{color:#555}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#1b1b1b}pre{background:#272727}p{color:#aaa}}
</style>
<h1>{{.Title}}</h1>
{{if .Output}}<pre>{{.Output}}</pre>{{end}}
<p>{{.Hint}}</p>
<p>{{.Status}} · {{.Code}} · <code>quipu explain {{.Code}}</code></p>
</html>
`))
