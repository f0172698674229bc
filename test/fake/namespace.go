// Package fake is a namespace in memory, for tests of what stands in front of one: gateway, doors, command
// line. It is simple instead of fast, keeps nothing, and runs functions that are Go functions.
package fake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/bundle"
	"github.com/quipu-run/quipu/internal/grpcwire"
	"github.com/quipu-run/quipu/sdk"
)

// Epoch is when everything here happens.
var Epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Namespace has everything the gateway shows. The zero value is not usable; see New.
type Namespace struct {
	Book *Books
	*Broker
	billing
	mu        sync.Mutex
	functions map[string]quipu.Function
	handlers  map[string]http.Handler
	calls     []quipu.CallInfo
	items     map[string]quipu.Item // by store, NUL, prefixed key
	version   int
	workflows Workflows
	Aliases   map[string]map[string]bool // by function
	Waiting   []quipu.CallRequest        // accepted by InvokeAsync
	Lines     []sdk.LogLine
	Running   []sdk.Instance
	// OnDeploy, if set, decides on a deploy instead of taking everything.
	OnDeploy func(app string, bundle []byte) ([]quipu.Function, error)
	// OnVerify, if set, is the outcome of Verify.
	OnVerify error
	// Flows and Alarms are what sessions start and set; nil unless a test gives them.
	Flows  quipu.WorkflowStarter
	Alarms quipu.Alarms
	// OnRoutes, if set, is told of every change of what is deployed.
	OnRoutes func([]quipu.Function)
}

// New is an empty namespace.
func New() *Namespace {
	return &Namespace{Book: newBooks(), Broker: newBroker(), functions: map[string]quipu.Function{}, handlers: map[string]http.Handler{}, items: map[string]quipu.Item{}}
}

// Add deploys a function that h serves.
func (n *Namespace) Add(fn quipu.Function, h http.Handler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if fn.Revision == "" {
		fn.Revision, fn.Number, fn.App, fn.Deployed = "r1", 1, "app", Epoch
	}
	n.functions[fn.Name], n.handlers[fn.Name] = fn, h
}

// Jobs are the Alarms.
func (n *Namespace) Jobs() quipu.Alarms { return n.Alarms }

// Actors has none.
func (n *Namespace) Actors(context.Context, quipu.ActorList) (quipu.ActorPage, error) {
	return quipu.ActorPage{Actors: []quipu.ActorInfo{}}, nil
}

// Leases has one.
func (n *Namespace) Leases(context.Context, quipu.LeaseList) (quipu.LeasePage, error) {
	return quipu.LeasePage{Leases: []quipu.Lease{{Name: "actor/cat/tom", Owner: "i1@run", Token: 7, Since: Epoch}}}, nil
}

// HTTP is a function with one route.
func HTTP(name, path string, methods ...string) quipu.Function {
	return quipu.Function{Name: name, Spec: quipu.Spec{Runtime: "exec", Contract: "http", Protocol: "http",
		Triggers: []quipu.Trigger{{HTTP: &quipu.HTTPTrigger{Path: path, Methods: methods}}}}}
}

// Function is quipu.Functions.
func (n *Namespace) Function(name string) (quipu.Function, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fn, ok := n.functions[name]
	if !ok {
		return fn, &quipu.Error{Code: quipu.CodeNoFunction, Text: fmt.Sprintf("no function %q is deployed", name)}
	}
	return fn, nil
}

// Functions is quipu.Functions.
func (n *Namespace) Functions() []quipu.Function {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []quipu.Function
	for _, fn := range n.functions {
		out = append(out, fn)
	}
	slices.SortFunc(out, func(a, b quipu.Function) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Deploy checks that the bundle is one, and adds a function named like the app that echoes.
func (n *Namespace) Deploy(_ context.Context, app string, data []byte, _ quipu.DeployOptions) ([]quipu.Function, error) {
	if n.OnDeploy != nil {
		return n.OnDeploy(app, data)
	}
	dir, err := os.MkdirTemp("", "fake")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := bundle.Unpack(bytes.NewReader(data), dir); err != nil {
		return nil, err
	}
	fn := HTTP(app, "/"+app)
	fn.Revision, fn.App, fn.Deployed = fmt.Sprintf("r%d", len(data)), app, Epoch
	n.Add(fn, http.HandlerFunc(Echo))
	if n.OnRoutes != nil {
		n.OnRoutes(n.Functions())
	}
	return []quipu.Function{fn}, nil
}

// Remove is quipu.Functions.
func (n *Namespace) Remove(_ context.Context, name string) error {
	if _, err := n.Function(name); err != nil {
		return err
	}
	n.mu.Lock()
	delete(n.functions, name)
	n.mu.Unlock()
	if n.OnRoutes != nil {
		n.OnRoutes(n.Functions())
	}
	return nil
}

// Echo answers with the request as a function sees it.
func Echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.RequestURI(), body)
}

// Invoke runs the handler. The reply streams; a panic in the handler breaks it off.
func (n *Namespace) Invoke(ctx context.Context, c quipu.CallRequest) (*quipu.CallReply, error) {
	n.mu.Lock()
	h, chosen := n.handlers[c.Function], c.Revision == "" || c.Revision == "r1"
	id := fmt.Sprintf("call-%d", len(n.calls)+1)
	n.calls = append(n.calls, quipu.CallInfo{ID: id, Function: c.Function, Revision: "r1", Trigger: c.Trigger, Method: c.Method,
		Path: c.Path, Status: 200, Runs: 1, Start: Epoch, Micros: 1500})
	n.mu.Unlock()
	if h == nil {
		return nil, &quipu.Error{Code: quipu.CodeNoFunction, Text: fmt.Sprintf("no function %q is deployed", c.Function)}
	}
	if !chosen {
		return nil, noRevision(c.Revision)
	}
	uri := c.Path
	if c.RawQuery != "" {
		uri += "?" + c.RawQuery
	}
	body := c.Body
	if body == nil {
		body = http.NoBody
	}
	failed := &watch{from: body}
	r := httptest.NewRequestWithContext(ctx, c.Method, "/", failed)
	u, err := url.Parse("http://function" + uri) // unlike URL.Parse it leaves dots alone
	if err != nil {
		return nil, err
	}
	r.URL, r.Header, r.ContentLength = u, c.Header, c.ContentLength
	if grpcwire.Is(c.Header.Get("Content-Type")) { // then h may be a grpc.Server, which wants HTTP/2
		r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
	}
	w := newPipe()
	go w.serve(h, r)
	select {
	case <-w.started:
	case <-ctx.Done():
		return nil, &quipu.Error{Code: quipu.CodeTimeout, Err: ctx.Err()}
	}
	if failed.err != nil { // the request's body broke: its error is the call's
		return nil, failed.err
	}
	return &quipu.CallReply{Call: id, Revision: "r1", Status: w.status, Header: w.sent, Body: w.out, Trailer: w.trailer, Session: quipu.MakeSeq(1, 7)}, nil
}

// watch keeps the error of a body.
type watch struct {
	from io.Reader
	err  error
}

func (w *watch) Read(b []byte) (int, error) {
	n, err := w.from.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

// pipe is a ResponseWriter whose body is read elsewhere.
type pipe struct {
	header, sent, trailer http.Header
	announced             []string // trailers
	status                int
	once                  sync.Once
	started               chan struct{}
	out                   *io.PipeReader
	in                    *io.PipeWriter
}

func newPipe() *pipe {
	out, in := io.Pipe()
	return &pipe{header: http.Header{}, trailer: http.Header{}, started: make(chan struct{}), out: out, in: in}
}

func (p *pipe) Header() http.Header { return p.header }

func (p *pipe) WriteHeader(status int) {
	p.once.Do(func() {
		p.status, p.sent = status, p.header.Clone()
		p.announced = p.sent.Values("Trailer")
		p.sent.Del("Trailer")
		close(p.started)
	})
}

func (p *pipe) Write(b []byte) (int, error) {
	p.WriteHeader(http.StatusOK)
	return p.in.Write(b)
}

// Flush sends the headers; the body is never kept.
func (p *pipe) Flush() { p.WriteHeader(http.StatusOK) }

// end takes the trailers: those that were announced, and those with the prefix of net/http.
func (p *pipe) end() {
	for _, name := range p.announced {
		if values := p.header.Values(name); values != nil {
			p.trailer[name] = values
		}
	}
	for name, values := range p.header {
		if name, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			p.trailer[name] = values
		}
	}
}

func (p *pipe) serve(h http.Handler, r *http.Request) {
	defer func() {
		why := recover()
		p.WriteHeader(http.StatusOK)
		if why != nil {
			p.in.CloseWithError(fmt.Errorf("function panicked: %v", why))
			return
		}
		p.end()
		p.in.Close()
	}()
	h.ServeHTTP(p, r)
}

// Call is quipu.Calls.
func (n *Namespace) Call(_ context.Context, id string) (quipu.CallInfo, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.calls {
		if c.ID == id {
			return c, nil
		}
	}
	return quipu.CallInfo{}, &quipu.Error{Code: quipu.CodeNotFound, Text: fmt.Sprintf("no call has the id %q", id)}
}

// InvokeAsync keeps the call for ever, and its body in Waiting.
func (n *Namespace) InvokeAsync(_ context.Context, c quipu.CallRequest) (quipu.CallInfo, error) {
	if _, err := n.Function(c.Function); err != nil {
		return quipu.CallInfo{}, err
	}
	var body []byte
	if c.Body != nil {
		var err error
		if body, err = io.ReadAll(c.Body); err != nil {
			return quipu.CallInfo{}, err
		}
	}
	c.Body = bytes.NewReader(body)
	n.mu.Lock()
	defer n.mu.Unlock()
	info := quipu.CallInfo{ID: fmt.Sprintf("call-%d", len(n.calls)+1), Function: c.Function, Revision: "r1", Trigger: c.Trigger, Method: c.Method,
		Path: c.Path, Start: Epoch, State: quipu.CallQueued, Queued: Epoch, Expires: Epoch.Add(quipu.AsyncMaxAgeDefault)}
	n.calls = append(n.calls, info)
	n.Waiting = append(n.Waiting, c)
	return info, nil
}

// CancelCall cancels what waits.
func (n *Namespace) CancelCall(ctx context.Context, id string) (quipu.CallInfo, error) {
	info, err := n.Call(ctx, id)
	if err != nil {
		return info, err
	}
	if !info.State.Pending() {
		return info, &quipu.Error{Code: quipu.CodeCallEnded, Text: fmt.Sprintf("call %s has ended", id)}
	}
	info.State = quipu.CallCancelled
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls[slices.IndexFunc(n.calls, func(c quipu.CallInfo) bool { return c.ID == id })] = info
	return info, nil
}

// CallResult is the same for every call that does not wait.
func (n *Namespace) CallResult(ctx context.Context, id string) (*quipu.CallReply, error) {
	info, err := n.Call(ctx, id)
	switch {
	case err != nil:
		return nil, err
	case info.State.Pending():
		return nil, &quipu.Error{Code: quipu.CodeCallPending, Text: fmt.Sprintf("call %s has not ended", id)}
	case info.State == quipu.CallCancelled:
		return nil, &quipu.Error{Code: quipu.CodeCallCancelled, Text: fmt.Sprintf("call %s was cancelled", id)}
	}
	return &quipu.CallReply{Call: id, Status: http.StatusOK, Header: http.Header{"Content-Type": {"text/plain"}, "X-Own": {"yes"}},
		Body: io.NopCloser(strings.NewReader("short and stout"))}, nil
}

// Slice tells the same of every call: it read a key, wrote one and published an event.
func (n *Namespace) Slice(ctx context.Context, id string) (quipu.CallSlice, error) {
	info, err := n.Call(ctx, id)
	if err != nil {
		return quipu.CallSlice{}, err
	}
	info.Seq, info.Reads, info.Writes = quipu.MakeSeq(1, 7), 2, 2
	return quipu.CallSlice{CallInfo: info, End: info.Start.Add(time.Duration(info.Micros) * time.Microsecond), Query: "x=1",
		Request: quipu.CallBody{Size: 20_000, Text: "first line\nsecond \x1b[31mline", Truncated: true},
		Header:  map[string][]string{"Content-Type": {"image/png"}}, Reply: quipu.CallBody{Size: 2, Base64: []byte{0xff, 0}},
		Snapshot: quipu.MakeSeq(1, 5), Read: []quipu.CallKey{{View: "kv", Key: "shared/n"}},
		Ranges:  []quipu.CallRange{{View: "kv", From: "shared/a", To: "shared/c", Through: true}, {View: "kv", From: "shared/x"}},
		Written: []quipu.CallKey{{View: "kv", Key: "shared/n"}}, Events: []quipu.CallEvent{{Topic: "orders", ID: "e1", Size: 120}},
		Ops: []quipu.CallOp{{View: "kv", Text: "set shared/n", Size: 30}, {View: "call", Text: "keep the result", Size: 200}}}, nil
}

// Calls is quipu.Calls.
func (n *Namespace) Calls(_ context.Context, name string, limit int) ([]quipu.CallInfo, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []quipu.CallInfo
	for _, c := range slices.Backward(n.calls) {
		if (name == "" || c.Function == name) && len(out) < limit {
			out = append(out, c)
		}
	}
	return out, nil
}

// Attach tells that the application is attached, and that it listens if it is to, and waits for ctx unless it is brief.
func (n *Namespace) Attach(ctx context.Context, appID string, a sdk.Attachment, tell func(sdk.Attached) error) error {
	if appID == "taken" {
		return &quipu.Error{Code: quipu.CodeUsage, Text: "a function of that name is deployed"}
	}
	err := tell(sdk.Attached{State: sdk.AttachedOpen, DaprHTTP: "3501", DaprGRPC: "50002", Token: "secret"})
	if err == nil && a.Port != 0 {
		err = tell(sdk.Attached{State: sdk.AttachedListening, Subscriptions: []string{"orders"}})
	}
	if err == nil && appID != "brief" {
		<-ctx.Done()
	}
	return err
}

// Reload knows the attachment "1" alone.
func (n *Namespace) Reload(_ context.Context, appID, id string, _ sdk.AttachedResources) error {
	if id == "1" {
		return nil
	}
	return &quipu.Error{Code: quipu.CodeNoFunction, Text: "there is no such attachment of " + appID}
}

// Instances lists Running.
func (n *Namespace) Instances() []sdk.Instance { return n.Running }

// LogsFound wants functions that are there.
func (n *Namespace) LogsFound(r sdk.LogsRequest) error {
	for _, name := range r.Functions {
		if _, err := n.Function(name); err != nil {
			return err
		}
	}
	return nil
}

// Logs yields the last of Lines, and with Follow waits for ctx.
func (n *Namespace) Logs(ctx context.Context, r sdk.LogsRequest) iter.Seq2[sdk.LogLine, error] {
	return func(yield func(sdk.LogLine, error) bool) {
		for _, l := range n.Lines[max(0, len(n.Lines)-r.Tail):] {
			if !yield(l, nil) {
				return
			}
		}
		if r.Follow {
			<-ctx.Done()
			yield(sdk.LogLine{}, ctx.Err())
		}
	}
}

// Verify reports in two steps.
func (n *Namespace) Verify(_ context.Context, _ string, progress func(done, total int64)) error {
	progress(50, 100)
	progress(100, 100)
	return n.OnVerify
}

// Log holds Book.
func (n *Namespace) Log() quipu.Log { return n.Book.log }

// State is the state as function sees it.
func (n *Namespace) State(function string) quipu.State { return state{n, function} }

// Session is a session of an instance of function, outside any call.
func (n *Namespace) Session(function string) quipu.Session {
	return session{state{n, function}, n.Broker, n.Flows, n.Alarms, n}
}

type session struct {
	state
	quipu.Publisher
	quipu.WorkflowStarter
	quipu.Alarms
	n *Namespace
}

func (s session) Function() string { return s.state.function }

func (s session) Invoke(ctx context.Context, c quipu.CallRequest) (*quipu.CallReply, error) {
	return s.n.Invoke(ctx, c)
}

func (s session) InvokeAsync(ctx context.Context, c quipu.CallRequest) (quipu.CallInfo, error) {
	return s.n.InvokeAsync(ctx, c)
}

// EffectID is none: nothing here is in a call.
func (s session) EffectID() string { return "" }

// Together does what do does; this fake takes nothing back.
func (s session) Together(_ context.Context, do func(quipu.Group) error) error { return do(s) }

// Holds believes that every lease is held.
func (s session) Holds(quipu.Lease) error { return nil }

type state struct {
	n        *Namespace
	function string
}

func (s state) prefix(store string) (string, error) {
	switch store {
	case quipu.StoreDefault:
		return store + "\x00" + s.function + "||", nil
	case quipu.StoreShared:
		return store + "\x00", nil
	}
	if kind, _, ok := strings.Cut(store, ":"); ok && kind != "" {
		return store + "\x00", nil
	}
	return "", &quipu.Error{Code: quipu.CodeNoStore, Text: fmt.Sprintf("no state store %q", store)}
}

func checkKey(key string) error {
	if key == "" || len(key) > quipu.KeyBytesMax || strings.Contains(key, "||") {
		return &quipu.Error{Code: quipu.CodeKey, Text: fmt.Sprintf("the key %.20q cannot be used", key)}
	}
	return nil
}

func (s state) Get(_ context.Context, store string, keys ...string) ([]quipu.Item, error) {
	p, err := s.prefix(store)
	if err != nil {
		return nil, err
	}
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	var out []quipu.Item
	for _, k := range keys {
		if err := checkKey(k); err != nil {
			return nil, err
		}
		item := s.n.items[p+k]
		item.Key = k
		out = append(out, item)
	}
	return out, nil
}

func (s state) List(_ context.Context, store string, r quipu.ListRequest) (quipu.Page, error) {
	p, err := s.prefix(store)
	if err != nil {
		return quipu.Page{}, err
	}
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	var page quipu.Page
	for full, item := range s.n.items {
		if k, ok := strings.CutPrefix(full, p); ok && strings.HasPrefix(k, r.Prefix) && k > r.After {
			item.Key = k
			page.Items = append(page.Items, item)
		}
	}
	slices.SortFunc(page.Items, func(a, b quipu.Item) int { return strings.Compare(a.Key, b.Key) })
	if len(page.Items) > r.Limit {
		page.Items = page.Items[:r.Limit]
		page.Next = page.Items[r.Limit-1].Key
	}
	return page, nil
}

func (s state) Apply(_ context.Context, store string, changes []quipu.Change) error {
	p, err := s.prefix(store)
	if err != nil {
		return err
	}
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	for _, c := range changes {
		if err := checkKey(c.Key); err != nil {
			return err
		}
		if err := checkETag(s.n.items[p+c.Key], c); err != nil {
			return err
		}
	}
	for _, c := range changes {
		s.n.version++
		if c.Delete {
			delete(s.n.items, p+c.Key)
			continue
		}
		item := quipu.Item{Value: c.Value, ETag: fmt.Sprintf("%016x", s.n.version)}
		if c.TTL > 0 {
			item.Expires = Epoch.Add(c.TTL).UnixNano()
		}
		s.n.items[p+c.Key] = item
	}
	return nil
}

func checkETag(item quipu.Item, c quipu.Change) error {
	if _, err := strconv.ParseUint(c.ETag, 16, 64); c.ETag != "" && (err != nil || len(c.ETag) != 16) {
		return &quipu.Error{Code: quipu.CodeETagForm, Text: "the etag is malformed"}
	}
	if c.ETag != "" && c.ETag != item.ETag || c.ETag == "" && c.FirstWrite && item.Exists() {
		return &quipu.Error{Code: quipu.CodeETag, Text: fmt.Sprintf("key %q changed since you read it", c.Key)}
	}
	return nil
}
