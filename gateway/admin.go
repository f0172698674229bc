package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/bundle"
	"github.com/quipu-run/quipu/sdk"
)

const (
	adminPrefix     = "/-/v1"
	bodyTimeout     = 2 * time.Minute // for the body of a request to us to arrive
	adminBytesMax   = 1 << 20         // of a body, where the route says nothing else
	anyMethod       = ""
	listLimitMax    = 1000
	tailLinesMax    = 10_000
	jsonType        = "application/json"
	jsonLinesType   = "application/jsonl"
	eventsType      = "text/event-stream"
	bytesType       = "application/octet-stream"
	bundleType      = "application/gzip"
	tarType         = "application/x-tar"
	pathKeySegments = "..." // marks a parameter that takes the rest of the path, slashes and all
)

// adminRoute is one operation of the admin API: routing, checks and the OpenAPI document come from it.
type adminRoute struct {
	id      string // of the operation
	method  string
	path    string // below adminPrefix; {name} is one segment, {name...} the rest
	summary string
	query   []param
	header  []param
	body    string // content type of the request, "" for none
	takes   any    // the Go value whose type is that of a JSON request
	bodyMax int64
	status  int    // of success
	reply   string // content type of the reply, "" for none
	shape   any    // the Go value whose type is the reply's, or one line or event of it
	codes   []quipu.Code
	creates bool // the namespace, if there is none of that name
	serve   func(*ask) error
}

// fits tells whether a method is the operation's. HEAD comes with GET where the reply has an end.
func (op adminRoute) fits(method string) bool {
	head := method == http.MethodHead && op.method == http.MethodGet && (op.reply == jsonType || op.reply == bytesType)
	return op.method == method || op.method == anyMethod || head
}

type param struct{ name, kind, about string }

// ask is one request to one operation.
type ask struct {
	http.ResponseWriter
	Request   *http.Request
	namespace string // its name
	ns        Namespace
	values    map[string]string // of the path, unescaped
	query     url.Values
}

// Context ends when the client leaves.
func (a *ask) Context() context.Context { return a.Request.Context() }

// readBody takes all of the body, within the limit of the operation and a time: a client that sends a byte a
// minute must not hold us.
func (a *ask) readBody() ([]byte, error) {
	// Not every writer has deadlines (HTTP/2 streams, tests); those connections have other limits.
	conn := http.NewResponseController(a.ResponseWriter)
	_ = conn.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(a.Request.Body)
	// Without a deadline again: net/http reads on to notice a client that leaves, and must not take a long
	// operation for one.
	_ = conn.SetReadDeadline(time.Time{})
	var tooLarge *http.MaxBytesError
	if err == nil || errors.As(err, &tooLarge) {
		return body, err
	}
	return nil, &quipu.Error{Code: quipu.CodeBadJSON, Text: "the body did not arrive whole", Err: err}
}

// object reads a body that is one JSON object. CodeBadJSON.
func (a *ask) object(v any) error {
	body, err := a.readBody()
	if err != nil {
		return err
	}
	if err := decodeStrict(body, v); err != nil {
		return &quipu.Error{Code: quipu.CodeBadJSON, Text: "the body cannot be used: " + clip(err.Error())}
	}
	return nil
}

// reply answers with JSON.
func (a *ask) reply(v any) error {
	writeJSON(a.ResponseWriter, http.StatusOK, v)
	return nil
}

var (
	limitParam    = param{"limit", "integer", "at most so many; 1 to 1000, which is also the default"}
	fromParam     = param{"from", "seq", "the first seq wanted; default: the first there is"}
	tagParam      = param{"tag", "string", "only records with this tag"}
	revisionParam = param{quipu.HeaderRevision, "string", "the revision to call, by name, number or alias; default: what the split of the traffic says"}
	asParam       = param{"as", "string", "the function whose keys statestore means"}
)

// adminRoutes is the table of the admin API.
func (g *Gateway) adminRoutes() []adminRoute {
	return slices.Concat(g.nodeRoutes(), asyncRoutes(), g.functionRoutes(), g.revisionRoutes(), billingRoutes(), g.stateRoutes(), g.topicRoutes(), g.bookRoutes(), g.logRoutes(), g.recordRoutes(), g.attachRoutes(), g.namespaceRoutes(), g.traceRoutes(), jobRoutes(), actorRoutes(), leaseRoutes(), workflowRoutes())
}

func (g *Gateway) nodeRoutes() []adminRoute {
	return []adminRoute{
		{id: "getNode", method: "GET", path: "/node", summary: "What the node says about itself.",
			status: 200, reply: jsonType, shape: sdk.Node{}, serve: g.getNode},
		{id: "getOpenAPI", method: "GET", path: "/openapi.json", summary: "This document.",
			status: 200, reply: jsonType, serve: g.getOpenAPI},
		{id: "backup", method: "POST", path: "/backup", summary: "An archive (tar) of all that the node has acknowledged, as of the beginning of the reply. A connection that breaks off left no backup.",
			status: 200, reply: tarType, codes: []quipu.Code{quipu.CodeOverloaded}, serve: g.backup},
		{id: "listRoutes", method: "GET", path: "/routes", summary: "Which requests go to which function.",
			status: 200, reply: jsonType, shape: sdk.Page[sdk.Route]{}, serve: listRoutes},
		{id: "listInstances", method: "GET", path: "/instances", summary: "Running copies of functions.",
			status: 200, reply: jsonType, shape: sdk.Page[sdk.Instance]{}, serve: listInstances},
		{id: "listCalls", method: "GET", path: "/calls", summary: "Calls, the newest first.",
			query:  []param{{"function", "string", "only calls of this function"}, limitParam},
			status: 200, reply: jsonType, shape: sdk.Page[quipu.CallInfo]{}, serve: listCalls},
		{id: "getCall", method: "GET", path: "/calls/{call}", summary: "One call.",
			status: 200, reply: jsonType, shape: quipu.CallInfo{}, codes: []quipu.Code{quipu.CodeNotFound}, serve: getCall},
		{id: "getCallSlice", method: "GET", path: "/calls/{call}/slice", summary: "All that one call did, from its own record: input, reads, writes, events, result, timing. missing, if set, says why that is not known.",
			status: 200, reply: jsonType, shape: quipu.CallSlice{}, codes: []quipu.Code{quipu.CodeNotFound}, serve: getCallSlice},
	}
}

func (g *Gateway) functionRoutes() []adminRoute {
	missing := []quipu.Code{quipu.CodeNoFunction}
	return []adminRoute{
		{id: "deploy", method: "POST", path: "/deploys", creates: true, summary: "Deploy an application: a tar archive of its folder, compressed with gzip. All of it takes traffic on return, or nothing changed.",
			query: []param{{"app", "string", "name of the application, required"},
				{"traffic", "boolean", "false leaves the traffic of functions that are there where it is; default true"}}, body: bundleType, bodyMax: bundle.BytesMax,
			status: 200, reply: jsonType, shape: sdk.Page[quipu.Function]{},
			codes: []quipu.Code{quipu.CodeManifest, quipu.CodeSource, quipu.CodeBuild, quipu.CodeRoute, quipu.CodeNoTool, quipu.CodeBundleSize, quipu.CodeRefused, quipu.CodePinned}, serve: deploy},
		{id: "listFunctions", method: "GET", path: "/functions", summary: "What is deployed, by name.",
			status: 200, reply: jsonType, shape: sdk.Page[quipu.Function]{}, serve: listFunctions},
		{id: "getFunction", method: "GET", path: "/functions/{function}", summary: "One function, at the newest revision that has traffic.",
			status: 200, reply: jsonType, shape: quipu.Function{}, codes: missing, serve: getFunction},
		{id: "removeFunction", method: "DELETE", path: "/functions/{function}", summary: "Take a function away. Calls under way finish.",
			status: 204, codes: missing, serve: removeFunction},
		{id: "getLogs", method: "GET", path: "/functions/{function}/logs", summary: "What instances printed, a line of JSON for each line.",
			query:  []param{{"tail", "integer", "how many of the last lines; default 100, at most 10000"}, {"follow", "boolean", "go on with new lines"}},
			status: 200, reply: jsonLinesType, shape: sdk.LogLine{}, codes: missing, serve: g.getLogs},
		{id: "call", method: anyMethod, path: "/functions/{function}/call/{path...}", summary: "Call a function with this method, path, query and body; the reply is the function's. With Prefer: respond-async the reply is 202 as soon as the call is durable, with its id.",
			header: []param{revisionParam, {quipu.HeaderPrefer, "string", "respond-async: do not wait for the reply"},
				{quipu.HeaderTrace, "string", "keep: remember the trace, which traceparent names and says is recorded"}}, body: "*/*", bodyMax: g.opt.BodyBytesMax, status: 200, reply: "*/*",
			codes: slices.Concat(callCodes, []quipu.Code{quipu.CodeNoRevision, quipu.CodeIdempotency, quipu.CodeCallPending, quipu.CodeCallQueue}), serve: g.callFunction},
	}
}

func (g *Gateway) revisionRoutes() []adminRoute {
	missing := []quipu.Code{quipu.CodeNoFunction, quipu.CodeNoRevision}
	list := sdk.Page[quipu.Revision]{}
	return []adminRoute{
		{id: "listAllRevisions", method: "GET", path: "/revisions", summary: "The revisions of all functions, the newest of each first.",
			status: 200, reply: jsonType, shape: list, serve: listAllRevisions},
		{id: "listRevisions", method: "GET", path: "/functions/{function}/revisions", summary: "The revisions of a function that are remembered, the newest first, with their part of the traffic.",
			status: 200, reply: jsonType, shape: list, codes: []quipu.Code{quipu.CodeNoFunction}, serve: listRevisions},
		{id: "splitTraffic", method: "PUT", path: "/functions/{function}/traffic", summary: "Give each revision its part of the calls that name none; the parts are 100 percent in all. Answers all revisions.",
			body: jsonType, takes: sdk.Split{}, status: 200, reply: jsonType, shape: list,
			codes: append(slices.Clone(missing), quipu.CodeSplit, quipu.CodeRoute), serve: splitTraffic},
		{id: "rollback", method: "POST", path: "/functions/{function}/rollback", summary: "Give all traffic to a revision, without one to that from which the newest with traffic took over. Answers all revisions.",
			body: jsonType, takes: sdk.Rollback{}, status: 200, reply: jsonType, shape: list,
			codes: append(slices.Clone(missing), quipu.CodeNoFormer, quipu.CodeRoute), serve: rollback},
		{id: "putAlias", method: "PUT", path: "/functions/{function}/aliases/{alias}", summary: "Name a revision.",
			body: jsonType, takes: sdk.Alias{}, status: 204, codes: append(slices.Clone(missing), quipu.CodeTooMany), serve: putAlias},
		{id: "removeAlias", method: "DELETE", path: "/functions/{function}/aliases/{alias}", summary: "Take a name of a revision away.",
			status: 204, codes: missing, serve: removeAlias},
	}
}

func (g *Gateway) stateRoutes() []adminRoute {
	keyCodes := []quipu.Code{quipu.CodeNoStore, quipu.CodeKey}
	writeCodes := append(slices.Clone(keyCodes), quipu.CodeETag, quipu.CodeETagForm)
	match := param{"If-Match", "string", "do it only if the key's etag is this"}
	return []adminRoute{
		{id: "listState", method: "GET", path: "/state/{store}", summary: "Keys in order of their bytes, without their values.",
			query:  []param{{"prefix", "string", "only keys that start so"}, {"after", "string", "only greater keys"}, limitParam, asParam},
			status: 200, reply: jsonType, shape: sdk.Page[sdk.Item]{}, codes: keyCodes, serve: listState},
		{id: "getState", method: "GET", path: "/state/{store}/{key...}", summary: "The value of a key, with its etag in ETag.",
			query: []param{asParam}, status: 200, reply: bytesType, codes: append(slices.Clone(keyCodes), quipu.CodeNotFound), serve: getState},
		{id: "putState", method: "PUT", path: "/state/{store}/{key...}", summary: "Write a value; durable on return.",
			query: []param{{"ttl", "integer", "seconds to live"}, asParam}, header: []param{match, {"If-None-Match", "string", "* asks that the key does not exist"}},
			body: bytesType, bodyMax: quipu.ValueBytesMax, status: 204,
			codes: append(slices.Clone(writeCodes), quipu.CodeTTL, quipu.CodeBodySize, quipu.CodeValueSize), serve: putState},
		{id: "deleteState", method: "DELETE", path: "/state/{store}/{key...}", summary: "Delete a key; it need not exist.",
			query: []param{asParam}, header: []param{match}, status: 204, codes: writeCodes, serve: deleteState},
	}
}

// serveAdmin finds the operation and answers with what it, or its error, says.
func (g *Gateway) serveAdmin(w http.ResponseWriter, r *http.Request) {
	seen := &watcher{ResponseWriter: w}
	op, values, err := g.findOperation(seen, r)
	if err == nil {
		defer func() { g.metrics.admin.WithLabelValues(op.id, statusLabel(seen.status)).Inc() }()
		err = g.serveOperation(seen, r, op, values)
	}
	if err == nil {
		return
	}
	if seen.status != 0 {
		panic(http.ErrAbortHandler) // a stream broke off: the client must not take it for complete
	}
	g.fail(seen, r, err)
}

func (g *Gateway) findOperation(w http.ResponseWriter, r *http.Request) (adminRoute, map[string]string, error) {
	path, below := strings.CutPrefix(r.URL.EscapedPath(), adminPrefix+"/")
	path = "/" + path
	var allow []string
	for _, op := range g.admin {
		values, ok := matchPath(op.path, path)
		if !ok || !below {
			continue
		}
		if op.fits(r.Method) {
			return op, values, nil
		}
		allow = append(allow, op.method)
	}
	if allow == nil {
		return adminRoute{}, nil, &quipu.Error{Code: quipu.CodeNoRoute, Text: "the node has nothing at " + quote(r.URL.Path),
			Hint: "the OpenAPI document at /-/v1/openapi.json lists what there is"}
	}
	w.Header().Set("Allow", strings.Join(allow, ", "))
	return adminRoute{}, nil, &quipu.Error{Code: quipu.CodeMethod, Text: quote(r.URL.Path) + " does not take " + quote(r.Method)}
}

func (g *Gateway) serveOperation(w http.ResponseWriter, r *http.Request, op adminRoute, values map[string]string) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil && op.method != anyMethod {
		return usage("the query cannot be read: %v", err)
	}
	name := namespaceOf(r)
	if op.method != anyMethod && query.Has("namespace") {
		name = query.Get("namespace")
	}
	find := g.opt.Namespaces
	if op.creates {
		find = func(name string) (Namespace, error) { return g.opt.Create(r.Context(), name) }
	}
	ns, err := find(name)
	if err != nil {
		return err
	}
	if op.method != anyMethod {
		most := op.bodyMax
		if most == 0 {
			most = adminBytesMax
		}
		r.Body = http.MaxBytesReader(w, r.Body, most)
	}
	return op.serve(&ask{ResponseWriter: w, Request: r, namespace: name, ns: ns, values: values, query: query})
}

// matchPath compares an escaped path with the path of an operation, without cleaning it: a key may have
// double slashes and dots.
func matchPath(pattern, path string) (map[string]string, bool) {
	values := map[string]string{}
	for pattern != "" {
		want, restPattern := cutSegment(pattern)
		got, rest := cutSegment(path)
		name, isParam := strings.CutPrefix(want, "{")
		name = strings.TrimSuffix(name, "}")
		if all, ok := strings.CutSuffix(name, pathKeySegments); ok && isParam {
			if path == "" {
				return nil, false
			}
			name, got, rest = all, path[1:], ""
		}
		switch text, err := url.PathUnescape(got); {
		case err != nil || path == "":
			return nil, false
		case isParam && text != "" || isParam && restPattern == "" && strings.HasSuffix(want, pathKeySegments+"}"):
			values[name] = text
		case want != text:
			return nil, false
		}
		pattern, path = restPattern, rest
	}
	return values, path == ""
}

// cutSegment takes "/a" off "/a/b".
func cutSegment(path string) (segment, rest string) {
	if path == "" {
		return "", ""
	}
	if i := strings.IndexByte(path[1:], '/'); i >= 0 {
		return path[1 : i+1], path[i+1:]
	}
	return path[1:], ""
}
