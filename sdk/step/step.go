// Package step is for durable functions in Go: functions with "durable: true" in quipu.yaml, whose calls have a journal.
//
//	func main() { log.Fatal(step.Serve(order)) }
//
//	func order(c *step.Call) (any, error) {
//		var o Order
//		if err := c.Input(&o); err != nil { return nil, err }
//		paid, err := step.Do(c, "charge", func(ctx context.Context) (Receipt, error) { return charge(ctx, o, c.Key()) })
//		if err != nil { return nil, err }
//		c.Sleep(24 * time.Hour) // nothing runs meanwhile
//		…
//	}
//
// A step's result is recorded once. When the function runs again, after a crash or a wait, it gets what was recorded: so all between steps must do
// the same each time, which leaves no room for the time, chance, and the world outside. A step that was under way in a crash is done again;
// its Key is the same then. docs/reference/steps.md has the protocol; there is a library for Python and for TypeScript, too.
package step

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quipu-run/quipu/sdk/fn"
)

const (
	journalPath  = "/v1.0-quipu/journal"
	bodyBytesMax = 8 << 20
	shortWait    = 500 * time.Millisecond // that a run waits itself, before it ends to be called again
)

// ErrTimeout says that an event did not come in time.
var ErrTimeout = errors.New("the event did not come in time")

// Error is how a step or a call failed, as it was recorded.
type Error struct {
	Type    string `json:"type,omitempty"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Message }

// Refusal, returned by a function, is its last word: the execution fails, and its caller gets the status.
type Refusal struct {
	Status  int // 400 to 499
	Message string
}

func (r *Refusal) Error() string { return r.Message }

// Call is one run of an execution, or one of several branches of it. It belongs to one goroutine.
type Call struct {
	context.Context
	Request *http.Request // its body is in Input
	ID      string        // of the execution
	input   []byte
	run     string
	journal map[string]*entry // of earlier runs
	prefix  string            // of places
	next    int
}

type entry struct {
	ID      string          `json:"id"`
	Kind    string          `json:"kind"`
	Name    string          `json:"name,omitempty"`
	Done    bool            `json:"done,omitempty"`
	Timeout bool            `json:"timeout,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *Error          `json:"error,omitempty"`
	Millis  *int64          `json:"ms,omitempty"`
	Path    string          `json:"path,omitempty"`
	Input   json.RawMessage `json:"input,omitempty"`
}

// stop ends a run from wherever it is: to wait for places, or because it is over. It is a panic, since it is no error that
// a function could handle.
type stop struct{ places []string }

// Serve serves calls of a durable function until the node goes.
func Serve(f func(*Call) (any, error)) error { return fn.Serve(Handler(f)) }

// Handler serves calls of a durable function.
func Handler(f func(*Call) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &Call{Context: r.Context(), Request: r, ID: r.Header.Get("Quipu-Execution"), run: r.Header.Get("Quipu-Run")}
		out, err := c.prepare()
		if err == nil {
			out, err = c.attempt(f)
		}
		reply(w, out, err)
	})
}

func (c *Call) prepare() (_ any, err error) {
	if c.run == "" {
		return nil, errors.New("this is no call of a durable function: does quipu.yaml say durable: true?")
	}
	if c.input, err = io.ReadAll(c.Request.Body); err != nil {
		return nil, err
	}
	if n := c.Request.Header.Get("Quipu-Journal"); n != "0" {
		return nil, c.read()
	}
	return nil, nil
}

// read takes what earlier runs have left.
func (c *Call) read() error {
	c.journal = map[string]*entry{}
	for next := 0; ; {
		var page struct {
			Entries []*entry `json:"entries"`
			Next    int      `json:"next"`
		}
		if _, err := c.ask(http.MethodGet, journalPath+"?from="+strconv.Itoa(next), nil, &page); err != nil {
			return err
		}
		for _, e := range page.Entries {
			c.journal[e.ID] = e
		}
		if next = page.Next; next == 0 {
			return nil
		}
	}
}

// attempt runs the function, and takes its stop for what it is.
func (c *Call) attempt(f func(*Call) (any, error)) (out any, err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case stop:
			err = stopped(p)
		case broken:
			err = p
		default:
			panic(p)
		}
	}()
	return f(c)
}

type stopped stop

func (s stopped) Error() string { return "the run has ended to wait" }

func reply(w http.ResponseWriter, out any, err error) {
	var s stopped
	var refusal *Refusal
	switch {
	case errors.As(err, &s):
		w.Header().Set("Quipu-Suspended", cmp.Or(strings.Join(s.places, ","), "-"))
		w.WriteHeader(http.StatusAccepted)
	case errors.As(err, &refusal):
		http.Error(w, refusal.Message, refusal.Status)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		write(w, out)
	}
}

func write(w http.ResponseWriter, out any) {
	body, isBytes := out.([]byte)
	if !isBytes && out != nil {
		var err error
		if body, err = json.Marshal(out); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
	}
	_, _ = w.Write(body) // a node that is gone asks again
}

// Input reads the body of the request, which is JSON, into v.
func (c *Call) Input(v any) error {
	if err := json.Unmarshal(c.input, v); err != nil {
		return &Refusal{Status: http.StatusBadRequest, Message: err.Error()}
	}
	return nil
}

// Body is the body of the request.
func (c *Call) Body() []byte { return c.input }

// Key names what the next step does outside, the same in each run: give it to who can leave out doubles by it.
func (c *Call) Key() string { return c.ID + "/" + c.prefix + strconv.Itoa(c.next) }

func (c *Call) place() string {
	place := c.prefix + strconv.Itoa(c.next)
	c.next++
	return place
}

// Retry says how often a step is tried before its error is recorded, and how long to wait before the second time; then it is
// twice as long each time. A function waits itself meanwhile.
type Retry struct {
	Attempts int // 0 means 1
	Backoff  time.Duration
}

// Final marks an error that is not worth another attempt.
func Final(err error) error { return final{err} }

type final struct{ error }

func (f final) Unwrap() error { return f.error }

// Do does what lies outside, once: its result, or error, is durable when Do returns, and the same in each run.
func Do[T any](c *Call, name string, f func(context.Context) (T, error), retry ...Retry) (out T, err error) {
	return do(c, name, f, retry, true)
}

// do keeps errors in the journal, or lets the run fail with them.
func do[T any](c *Call, name string, f func(context.Context) (T, error), retry []Retry, keep bool) (out T, err error) {
	place := c.place()
	if known := c.known(place, "step", name); known != nil {
		return result[T](known)
	}
	out, err = try(c, f, retry)
	if err != nil && c.Err() != nil {
		panic(stop{})
	}
	if err != nil && !keep {
		panic(broken{fmt.Errorf("%s: %w", name, err)})
	}
	e := &entry{ID: place, Kind: "step", Name: name}
	if err != nil {
		e.Error = &Error{Message: err.Error()}
		if typed := (*Error)(nil); errors.As(err, &typed) {
			e.Error.Type = typed.Type
		}
		err = e.Error
	} else if e.Result, err = json.Marshal(out); err != nil {
		return out, fmt.Errorf("result of step %s: %w", name, err)
	}
	if there := c.append(e); there != nil { // an earlier run's was on its way
		return result[T](there)
	}
	return out, err
}

func try[T any](c *Call, f func(context.Context) (T, error), retry []Retry) (out T, err error) {
	policy := Retry{Attempts: 1}
	if len(retry) > 0 {
		policy = retry[0]
	}
	for n, wait := 1, policy.Backoff; ; n, wait = n+1, 2*wait {
		if out, err = f(c.Context); err == nil || n >= policy.Attempts || errors.As(err, &final{}) {
			return out, err
		}
		select {
		case <-time.After(wait):
		case <-c.Done():
			return out, err
		}
	}
}

// known is what earlier runs have at a place. What is something else, the node is told by append.
func (c *Call) known(place, kind, name string) *entry {
	e := c.journal[place]
	if e != nil && (e.Kind != kind || e.Name != name) {
		return c.append(&entry{ID: place, Kind: kind, Name: name})
	}
	return e
}

func result[T any](e *entry) (out T, err error) {
	if e.Error != nil {
		return out, e.Error
	}
	if len(e.Result) > 0 {
		err = json.Unmarshal(e.Result, &out)
	}
	return out, err
}

// append adds an entry; it answers what the journal has there if that is not just this one.
func (c *Call) append(e *entry) *entry {
	body, err := json.Marshal(e)
	if err != nil {
		panic(err) // texts, and results that were checked
	}
	var there entry
	found, err := c.ask(http.MethodPost, journalPath, body, &there)
	if err != nil {
		panic(broken{err})
	}
	if !found {
		return nil
	}
	return &there
}

// broken is what a run cannot go on after.
type broken struct{ error }

// ask answers whether there was a reply with a body, which is in out then.
func (c *Call) ask(method, path string, body []byte, out any) (bool, error) {
	r, err := http.NewRequestWithContext(c.Context, method, path, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	r.Header["Quipu-Run"] = []string{c.run}
	resp, err := fn.Do(r)
	if err != nil {
		if c.Err() != nil {
			panic(stop{})
		}
		return false, err
	}
	defer resp.Body.Close()
	if resp.Header.Get("Quipu-Suspended") != "" {
		panic(stop{})
	}
	if resp.StatusCode == http.StatusNoContent {
		return false, nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, bodyBytesMax))
	if err != nil {
		return false, err
	}
	if resp.StatusCode == http.StatusOK {
		return true, json.Unmarshal(text, out)
	}
	var problem struct{ Code, Detail string }
	if json.Unmarshal(text, &problem) == nil && problem.Code == "Q0822" { // another run goes on
		panic(stop{})
	}
	return false, fmt.Errorf("the journal answers %s: %s %s", resp.Status, problem.Code, cmp.Or(problem.Detail, string(text)))
}

// begin adds an entry that is waited for, and waits: here if it is short, else the run ends.
func (c *Call) begin(e *entry) *entry {
	there := c.known(e.ID, e.Kind, e.Name)
	if there == nil {
		there = c.append(e)
	}
	if there.Done {
		return there
	}
	path := fmt.Sprintf("%s/wait?id=%s&ms=%d", journalPath, there.ID, shortWait.Milliseconds())
	var now entry
	if _, err := c.ask(http.MethodGet, path, nil, &now); err != nil {
		panic(broken{err})
	}
	if !now.Done {
		panic(stop{[]string{e.ID}})
	}
	return &now
}

func millis(d time.Duration) *int64 {
	ms := d.Milliseconds()
	return &ms
}

// Sleep goes on after d, whatever is restarted meanwhile.
func (c *Call) Sleep(d time.Duration) {
	c.begin(&entry{ID: c.place(), Kind: "sleep", Millis: millis(d)})
}

// WaitEvent waits for an event that somebody raises for this execution, also if that was before. timeout 0 waits for ever. ErrTimeout.
func WaitEvent[T any](c *Call, name string, timeout time.Duration) (out T, err error) {
	e := &entry{ID: c.place(), Kind: "event", Name: name}
	if timeout > 0 {
		e.Millis = millis(timeout)
	}
	e = c.begin(e)
	if e.Timeout {
		return out, ErrTimeout
	}
	return result[T](e)
}

// Invoke calls another function, with POST /: a durable one as an execution of its own, an atomic one exactly once, a plain one at least
// once. A status of 400 or above is an Error.
func Invoke[T any](c *Call, function string, in any) (out T, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	return result[T](c.begin(&entry{ID: c.place(), Kind: "call", Name: function, Input: body}))
}

// All runs branches side by side, at most 1,000, and returns when all are over: the first error by their order, if there is any. A branch must
// use the Call that it gets. What waits in one branch lets the others go on; the run ends when all that is left waits.
func (c *Call) All(branches ...func(*Call) error) error {
	place := c.place()
	errs := make([]error, len(branches))
	panics := make([]any, len(branches))
	var all sync.WaitGroup
	for i, f := range branches {
		branch := &Call{Context: c.Context, Request: c.Request, ID: c.ID, input: c.input, run: c.run, journal: c.journal, prefix: fmt.Sprintf("%s/%d/", place, i)}
		all.Go(func() {
			defer func() { panics[i] = recover() }()
			errs[i] = f(branch)
		})
	}
	all.Wait()
	var waits []string
	for _, p := range panics {
		s, ok := p.(stop)
		if p != nil && (!ok || len(s.places) == 0) {
			panic(p)
		}
		waits = append(waits, s.places...)
	}
	if len(waits) > 0 {
		panic(stop{waits})
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Saga remembers how to undo what was done.
type Saga struct {
	c    *Call
	undo []undo
}

type undo struct {
	name string
	f    func(context.Context) error
}

// Saga begins one.
func (c *Call) Saga() *Saga { return &Saga{c: c} }

// OnUndo adds what undoes the step before.
func (s *Saga) OnUndo(name string, f func(context.Context) error) {
	s.undo = append(s.undo, undo{name, f})
}

// Undo undoes what was done, the last first, each as a step. What cannot be undone is no result: the run fails, and is made again by the
// function's rules.
func (s *Saga) Undo(retry ...Retry) {
	for _, u := range slices.Backward(s.undo) {
		_, _ = do(s.c, u.name, func(ctx context.Context) (any, error) { return nil, u.f(ctx) }, retry, false) // it does not return with an error
	}
	s.undo = nil
}
