// Package call is the life of a call: from a request to the function's reply and the one record of what
// it did.
//
// A plain function's operations are commits of their own and its reply streams. An atomic function's
// operations are buffered in one transaction; when it answers with a status below 400 they become one
// record, together with the result, and the reply is held until that is durable and applied. A run that
// lost to another commit is run again; after two losses the call takes a turn on what its last run touched,
// and after three on the function as well, so that contention becomes serial. Only the function's
// timeout ends that, with CodeContention.
//
// Results with effects, and those of requests with an Idempotency-Key, are kept for quipu.ResultKept in
// the call's own record. After a crash a call either committed, and its result is found by its key, or
// it left nothing behind.
//
// A call that nobody waits for is first a record: from then on it is pending, in the view and in a queue that follows
// it, until another record has its result, and the event for its destination. For an atomic function that record is the
// one of its effects; for a plain one it comes after the reply, so a crash in between has the function run again. An attempt
// that fails is a record too, before it counts. Cancelling reads and writes the same key as both, so that one of them
// wins (docs/decisions/async-calls.md). A call of a durable function is not in the queue while its execution goes on, and its
// last record is the execution's (execution.go).
package call

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/trace"
	"github.com/quipu-run/quipu/view"
)

// Lease is one place in an instance, for one call.
type Lease interface {
	// ID is the instance's.
	ID() string
	// Do sends a request to the function; it has to be answered or cancelled before Release.
	Do(r *http.Request) (*http.Response, error)
	// Release gives the place back; Kill ends the instance, which may be broken.
	Release()
	Kill()
}

// States is the part of the kv view that works inside a transaction.
type States interface {
	Get(tx *view.Tx, function, store string, keys []string) ([]quipu.Item, error)
	List(tx *view.Tx, function, store string, r quipu.ListRequest) (quipu.Page, error)
	Change(tx *view.Tx, function, store string, changes []quipu.Change) error
}

// Topics is the part of the topic view that works inside a transaction.
type Topics interface {
	Publish(tx *view.Tx, ms []quipu.Message) error
	Cancel(tx *view.Tx, topic, id string) error
}

// Options of a Caller. All fields are required but Meter, Observe, Ended, Logger and what Slice needs.
type Options struct {
	Book    *view.Book
	Results *Results
	States  States
	Topics  Topics
	// Workflows and Alarms take part in transactions. Starter is where workflows are started and get events outside of calls.
	Workflows Workflows
	Alarms    Alarms
	Starter   quipu.WorkflowStarter
	// Plain is the state of a function outside of calls.
	Plain func(function string) quipu.State
	// Publish is where events go outside of calls.
	Publish quipu.Publisher
	// Find is the revision that the call with an id goes to.
	Find func(r quipu.CallRequest, id string) (quipu.Function, error)
	// Acquire waits for a place in an instance.
	Acquire func(ctx context.Context, f quipu.Function) (Lease, error)
	// AcquireJoined is Acquire for a call that joins another. It must not wait for calls that are on their own:
	// they may wait for that other one.
	AcquireJoined func(ctx context.Context, f quipu.Function) (Lease, error)
	// AcquireAt waits for a place in one instance, for a turn of an actor; within another call it does not wait for others.
	AcquireAt func(ctx context.Context, f quipu.Function, instance string, within bool) (Lease, error)
	// Holds adds to a transaction that a lease is held. CodeLeaseLost.
	Holds   func(tx *view.Tx, l quipu.Lease) error
	Trace   *trace.Tracer // nil means that nothing is recorded
	Clock   quipu.Clock
	Meter   Meter                // nil counts nothing
	Logger  *slog.Logger         // nil means none
	Observe func(quipu.CallInfo) // told of each call, and of each attempt of one that nobody waits for, when it has ended
	// Ended, if set, is told of each end of a call that nobody waits for, when it is durable. It must not wait.
	Ended func(quipu.CallInfo)
	// Durable makes executions of durable functions. Without it there are none.
	Durable    func(ctx context.Context, x Execution) (*quipu.CallReply, error)
	Executions Executions // required with Durable
	// Log and LogBook are where Slice finds the records of Book; without Log it shows results only.
	Log      quipu.Log
	LogBook  quipu.Book
	Describe map[string]Words // by view
}

// Caller calls functions. It is quipu.Invoker, quipu.AsyncInvoker and quipu.Calls.
type Caller struct {
	o       Options
	open    openCalls
	recent  ring
	running sync.Map // function NUL idempotency key -> chan closed at the end
	waits   *dispatcher
}

// New makes a Caller. Calls that nobody waits for are accepted from now on, and made after Start.
func New(o Options) *Caller {
	if o.Observe == nil {
		o.Observe = func(quipu.CallInfo) {}
	}
	if o.Ended == nil {
		o.Ended = func(quipu.CallInfo) {}
	}
	if o.Meter == nil {
		o.Meter = noMeter{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Caller{o: o, open: openCalls{of: map[string]map[string]*openCall{}}}
	c.waits = newDispatcher(c)
	return c
}

// request is a call on its way.
type request struct {
	quipu.CallRequest
	f        quipu.Function
	id       string
	depth    int
	start    time.Time
	deadline time.Time // set when the first run gets its instance
	body     []byte    // of an atomic call, or one with an idempotency key
	hash     string    // of an idempotent request
	info     quipu.CallInfo
	delivery *Delivery // of a trigger
	deferred *pending  // the call that this is an attempt of; nil if a caller waits
	settled  bool      // the delivery, or the deferred call: done with the effects, in one record
	span     *trace.Span
	streams  bool // the reply's end is the call's
	attempt  bool // one run of a durable function
	// execution goes on with the call that nobody waits for.
	execution string
	taken     taken
}

// Invoke calls a function.
func (c *Caller) Invoke(ctx context.Context, r quipu.CallRequest) (*quipu.CallReply, error) {
	return c.invoke(ctx, r, ulid.Make().String(), 1)
}

func (c *Caller) invoke(ctx context.Context, r quipu.CallRequest, id string, depth int) (*quipu.CallReply, error) {
	f, err := c.o.Find(r, id)
	if err == nil && depth == 1 { // what a call makes is part of it
		err = c.o.Meter.Allow(f.Name)
	}
	if err != nil {
		return nil, err
	}
	return c.run(ctx, c.newRequest(r, f, id, depth))
}

func (c *Caller) newRequest(r quipu.CallRequest, f quipu.Function, id string, depth int) *request {
	q := &request{CallRequest: r, f: f, id: id, depth: depth, start: c.o.Clock.Now()}
	q.info = quipu.CallInfo{ID: id, Function: f.Name, Revision: f.Revision, Trigger: r.Trigger,
		Method: r.Method, Path: r.Path, Start: q.start}
	return q
}

// run makes the call and remembers how it failed, if it did.
func (c *Caller) run(ctx context.Context, q *request) (*quipu.CallReply, error) {
	ctx = c.begin(ctx, q)
	reply, err := c.dispatch(ctx, q)
	if err != nil {
		q.info.Error = quipu.CodeOf(err)
		q.info.Status = quipu.Codes[q.info.Error].Status
		c.ended(q)
		if q.info.Error == quipu.CodeInternal {
			err = trace.CallError{Call: q.id, Function: q.f.Name, Err: err}
		}
	}
	if err != nil || !q.streams {
		q.finish(err)
	}
	return reply, err
}

func (c *Caller) dispatch(ctx context.Context, q *request) (*quipu.CallReply, error) {
	if q.depth > quipu.CallDepthMax {
		return nil, &quipu.Error{Code: quipu.CodeDepth, Op: "call",
			Text: fmt.Sprintf("function %s was called at depth %d", q.f.Name, q.depth), Hint: quipu.Codes[quipu.CodeDepth].Next}
	}
	if err := c.awaitSession(ctx, q.Header.Get(quipu.HeaderSession)); err != nil {
		return nil, err
	}
	durable := q.f.Spec.Durable && !q.attempt
	if q.f.Spec.Atomic || durable || q.IdempotencyKey != "" {
		if err := q.readBody(); err != nil {
			return nil, err
		}
	}
	if durable {
		return c.durable(ctx, q)
	}
	run := c.plain
	if q.f.Spec.Atomic {
		run = c.atomic
	}
	if q.IdempotencyKey != "" {
		return c.once(ctx, q, run)
	}
	return run(ctx, q)
}

// awaitSession waits until the views have come as far as a caller's session token, if it sent one.
func (c *Caller) awaitSession(ctx context.Context, token string) error {
	if token == "" {
		return nil
	}
	seq, err := quipu.ParseSeq(token)
	if err != nil {
		return err
	}
	return c.o.Book.Wait(ctx, seq)
}

// readBody holds the body, so that it can be sent again and compared.
func (q *request) readBody() (err error) {
	if q.Body == nil {
		return nil
	}
	q.body, err = io.ReadAll(io.LimitReader(q.Body, quipu.AtomicBodyMax+1))
	if err != nil {
		return &quipu.Error{Code: quipu.CodeBadJSON, Op: "call", Text: "the request's body broke off", Err: err}
	}
	if len(q.body) > quipu.AtomicBodyMax {
		return &quipu.Error{Code: quipu.CodeBodySize, Op: "call",
			Text: fmt.Sprintf("the body for function %s is over %d MiB", q.f.Name, quipu.AtomicBodyMax>>20),
			Hint: "send less at once, or make the function plain"}
	}
	q.ContentLength = int64(len(q.body))
	return nil
}

// headersAdded is how many headers the platform adds to a request at most.
const headersAdded = 6

// httpRequest is what the function gets.
func (q *request) httpRequest(ctx context.Context) *http.Request {
	header := make(http.Header, len(q.Header)+headersAdded)
	maps.Copy(header, q.Header) // values are shared, which is safe: Set and Del replace them
	values := [...]string{q.id, strconv.Itoa(max(1, q.Attempt)), q.Trigger}
	header[quipu.HeaderCallID], header[quipu.HeaderAttempt], header[quipu.HeaderTrigger] = values[0:1:1], values[1:2:2], values[2:3:3]
	if span := trace.Of(ctx); span != nil { // else it goes on as it came
		header.Set(quipu.HeaderTraceparent, span.Traceparent())
	}
	header.Del(quipu.HeaderSession)
	header.Del(quipu.HeaderRevision)
	body := q.Body
	if q.body != nil {
		body = bytes.NewReader(q.body)
	} else if body != nil {
		q.taken.in = &counted{Reader: body}
		body = q.taken.in
	}
	r := (&http.Request{
		Method: q.Method, Header: header, ContentLength: q.ContentLength, Host: "function",
		URL: requestURL(q.Path, q.RawQuery), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	if body != nil && q.ContentLength != 0 {
		r.Body = io.NopCloser(body)
	}
	if q.body != nil {
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(q.body)), nil }
	}
	return r
}

// ended remembers a call that is over and has no record. An attempt of one that nobody waits for is no call.
func (c *Caller) ended(q *request) {
	q.info.Micros = c.o.Clock.Now().Sub(q.start).Microseconds()
	if q.deferred == nil {
		if !q.taken.joins {
			c.rest(q)
		}
		if !q.attempt {
			c.recent.add(q.info)
		}
	}
	c.o.Observe(q.info)
}

// failure gives an error of the function's instance its code: a timeout is the call's, not the connection's.
func (q *request) failure(ctx context.Context, err error) error {
	if (q.deferred != nil || q.attempt) && ctx.Err() == context.Canceled {
		return cancelled(q.id)
	}
	if ctx.Err() == context.DeadlineExceeded {
		return &quipu.Error{Code: quipu.CodeTimeout, Op: "call",
			Text: fmt.Sprintf("function %s did not answer within %s", q.f.Name, q.f.Spec.Timeout.Std()),
			Hint: quipu.Codes[quipu.CodeTimeout].Next}
	}
	if quipu.CodeOf(err) == quipu.CodeInternal {
		return &quipu.Error{Code: quipu.CodeCrashed, Op: "call",
			Text: fmt.Sprintf("function %s broke off before it answered", q.f.Name),
			Hint: fmt.Sprintf("quipu logs %s shows its output", q.f.Name), Err: err}
	}
	return err
}
