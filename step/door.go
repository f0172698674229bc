package step

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/internal/timers"
)

// JournalPath is where an instance's own listener has the journals of its runs (docs/reference/steps.md).
const JournalPath = "/v1.0-quipu/journal"

const (
	waitPath      = JournalPath + "/wait"
	waitMillisMax = 1000 // of one request that waits
	pageEntries   = 1000
	pageBytesMax  = 4 << 20
	bodyBytesMax  = ResultMax + 64<<10
	millisMax     = 100 * 366 * 24 * 60 * 60 * 1000 // of a sleep or a wait: a hundred years
)

// Door serves the journals of a function's runs to its instances.
func (e *Engine) Door(function string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := e.serve(w, r, function); err != nil {
			refuse(w, err)
		}
	})
}

func (e *Engine) serve(w http.ResponseWriter, r *http.Request, function string) error {
	token := ""
	if values := r.Header[HeaderRun]; len(values) > 0 {
		token = values[0]
	}
	return e.asked(function, token, func(x *execution) error {
		switch {
		case r.URL.Path == JournalPath && r.Method == http.MethodPost:
			return e.post(w, r, x, token)
		case r.URL.Path == JournalPath && r.Method == http.MethodGet:
			return getPage(w, r, x, token)
		case r.URL.Path == waitPath && r.Method == http.MethodGet:
			return getWait(w, r, x, token)
		}
		return &quipu.Error{Code: quipu.CodeNotFound, Op: "step.door", Text: fmt.Sprintf("there is no %s %s", r.Method, r.URL.Path)}
	})
}

// asked does what a run of a function asks for, if it is the newest of its execution. CodeLeaseLost.
func (e *Engine) asked(function, token string, do func(*execution) error) error {
	found, ok := e.runs.Load(token)
	if !ok || found.(*execution).key.App != function {
		return lost()
	}
	x := found.(*execution)
	err := do(x)
	if err != nil {
		x.note(token, err)
	}
	return err
}

// refuse answers an error as the admin API does. What is not a user's is internal.
func refuse(w http.ResponseWriter, err error) {
	p := quipu.AsError(err)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(quipu.Codes[p.Code].Status)
	_ = json.NewEncoder(w).Encode(map[string]any{"title": quipu.Codes[p.Code].Title, "status": quipu.Codes[p.Code].Status,
		"code": p.Code, "detail": p.Text, "hint": p.Hint}) // a client that is gone needs no answer
}

// note remembers what no further run would be spared either: the execution fails with it, instead of doing again what it did.
func (x *execution) note(token string, err error) {
	switch quipu.CodeOf(err) {
	case quipu.CodeJournal, quipu.CodeWorkflowSize, quipu.CodeTooMany, quipu.CodeUsage:
	default:
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.token == token && x.refused == nil {
		x.refused = err
	}
}

func lost() error {
	return &quipu.Error{Code: quipu.CodeLeaseLost, Op: "step.door", Text: "this run is over, so its journal is not its own any more",
		Hint: "end the request; if the execution has not ended, another run goes on with it"}
}

// wanted is an entry as a function asks for it.
type wanted struct {
	ID     string          `json:"id"`
	Kind   string          `json:"kind"`
	Name   string          `json:"name"`
	Result json.RawMessage `json:"result"`
	Error  *Failure        `json:"error"`
	Millis *int64          `json:"ms"`    // of a sleep, or the longest wait for an event
	Until  *time.Time      `json:"until"` // instead
	Path   string          `json:"path"`  // of a call; "/" if it is ""
	Input  json.RawMessage `json:"input"`

	change flow.Change // that starts what is called
}

// shown is an entry as a function gets it.
type shown struct {
	ID      string          `json:"id"`
	Kind    string          `json:"kind"`
	Name    string          `json:"name,omitempty"`
	Done    bool            `json:"done"`
	Timeout bool            `json:"timeout,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *Failure        `json:"error,omitempty"`
	Until   time.Time       `json:"until,omitzero"`

	suspended bool // the execution is: the run is to end
}

// tell says in the header that the run is to end, if it is.
func (s shown) tell(w http.ResponseWriter) {
	if s.suspended {
		w.Header()[HeaderSuspended] = []string{suspendedPlace}
	}
}

func (s shown) answer(w http.ResponseWriter) error {
	s.tell(w)
	return answer(w, s)
}

// show is of an entry that is in the log. mu is held.
func (x *execution) show(n *entry) shown {
	s := shown{ID: n.ID, Kind: n.Kind, Name: n.Name, Until: instant(n.Until), suspended: x.j.suspended}
	if s.Done = n.done && n.doneBy < x.durable; s.Done {
		s.Timeout, s.Result, s.Error = n.timeout, n.Result, n.Error
	}
	return s
}

// post adds an entry, or answers the one that is there.
func (e *Engine) post(w http.ResponseWriter, r *http.Request, x *execution, token string) error {
	body, err := readBody(r)
	if err != nil {
		return err
	}
	var want wanted
	if err := json.Unmarshal(body, &want); err != nil {
		return &quipu.Error{Code: quipu.CodeBadJSON, Op: "step.append", Text: "the entry is no JSON: " + err.Error()}
	}
	s, known, err := e.enter(r.Context(), x, token, &want)
	if err != nil {
		return err
	}
	if !known && s.Kind == kindStep {
		s.tell(w)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return s.answer(w)
}

// enter adds an entry, or answers the one that is known there.
func (e *Engine) enter(ctx context.Context, x *execution, token string, want *wanted) (s shown, known bool, err error) {
	ev, err := e.entry(want)
	if err != nil {
		return s, false, err
	}
	n, known, err := e.append(ctx, x, token, ev, want)
	if err != nil {
		return s, false, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.show(n), known, nil
}

func readBody(r *http.Request) ([]byte, error) {
	if r.ContentLength > bodyBytesMax {
		return nil, tooLarge()
	}
	if n := r.ContentLength; n >= 0 {
		b := make([]byte, n)
		_, err := io.ReadFull(r.Body, b)
		return b, err
	}
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(r.Body, bodyBytesMax+1))
	if n > bodyBytesMax {
		return nil, tooLarge()
	}
	return b.Bytes(), err
}

func tooLarge() error {
	return &quipu.Error{Code: quipu.CodeWorkflowSize, Op: "step.append", Text: fmt.Sprintf("a result may have at most %d bytes", ResultMax),
		Hint: quipu.Codes[quipu.CodeWorkflowSize].Next}
}

func answer(w http.ResponseWriter, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header()["Content-Type"] = []string{"application/json"}
	_, _ = w.Write(b) // a run that is gone needs no answer
	return nil
}

// entry is the event of what a function asks for.
func (e *Engine) entry(want *wanted) (*event, error) {
	now := e.o.Clock.Now()
	ev := &event{Event: evEntry, At: millis(now), ID: want.ID, Kind: want.Kind, Name: want.Name}
	switch want.Kind {
	case kindStep:
		ev.Result, ev.Error = want.Result, want.Error
	case kindSleep, kindEvent:
		switch {
		case want.Millis != nil && *want.Millis > millisMax:
			return nil, &quipu.Error{Code: quipu.CodeUsage, Op: "step.append", Text: fmt.Sprintf("ms is %d, the most is %d, a hundred years", *want.Millis, int64(millisMax))}
		case want.Until != nil:
			ev.Until = max(1, millis(*want.Until))
		case want.Millis != nil:
			ev.Until = max(1, millis(now)+*want.Millis)
		case want.Kind == kindSleep:
			return nil, &quipu.Error{Code: quipu.CodeUsage, Op: "step.append", Text: "a sleep needs ms or until"}
		}
	case kindCall:
	default:
		return nil, &quipu.Error{Code: quipu.CodeUsage, Op: "step.append", Text: fmt.Sprintf("there is no kind %.40q of entries", want.Kind),
			Hint: "step, sleep, event and call are there"}
	}
	return ev, nil
}

// append adds an entry and returns when it is durable; known is whether it was there.
func (e *Engine) append(ctx context.Context, x *execution, token string, ev *event, want *wanted) (n *entry, known bool, err error) {
	x.mu.Lock()
	n, err = x.admit(token, ev)
	if err == nil && n == nil && ev.Kind == kindCall {
		x.mu.Unlock()
		if err := e.call(ctx, x, ev, want); err != nil {
			return nil, false, err
		}
		x.mu.Lock()
		n, err = x.admit(token, ev) // it took a while
	}
	if err != nil {
		x.mu.Unlock()
		return nil, false, err
	}
	if known = n != nil; !known {
		x.add(ev)
		n = x.j.byID[ev.ID]
		if !n.done && n.Until != 0 {
			x.turn.set = append(x.turn.set, timers.Timer{Key: timers.Key{ID: n.ID}, Due: instant(n.Until)})
		}
		if n.Child != "" {
			x.turn.extra = append(x.turn.extra, want.change)
		}
	}
	if known && n.n < x.durable {
		x.mu.Unlock()
		return n, known, nil
	}
	return n, known, e.commits.flush(x)
}

// admit wants the run to be the newest, and the entry to fit.
func (x *execution) admit(token string, ev *event) (*entry, error) {
	if x.token != token || x.broken != nil || x.j.terminate != nil {
		return nil, lost()
	}
	return x.j.admit(ev)
}

// call begins a call of a durable function, which is an execution of its own, or makes that of another: the latter has the same key in
// each run, so that an atomic function's happens once.
func (e *Engine) call(ctx context.Context, x *execution, ev *event, want *wanted) error {
	f, err := e.o.Find(ev.Name, "", x.key.ID+"/"+ev.ID)
	if err != nil {
		return err
	}
	path := want.Path
	if path == "" {
		path = "/"
	}
	id := x.key.ID + "/" + ev.ID
	r := Request{Function: f, ID: id, Call: id, Method: http.MethodPost, Path: path, Header: http.Header{"Content-Type": {"application/json"}}, Trigger: "step", Body: want.Input}
	if f.Spec.Durable {
		if err := r.check(); err != nil {
			return err
		}
		ev.Child = id
		want.change = e.childStart(x, ev.ID, r)
		return nil
	}
	reply, err := e.o.Invoke(ctx, quipu.CallRequest{Function: f.Name, Method: r.Method, Path: path, Header: r.Header, Body: bytes.NewReader(r.Body),
		ContentLength: int64(len(r.Body)), Trigger: r.Trigger, IdempotencyKey: x.key.App + "/" + id})
	if err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(reply.Body, ResultMax+1))
	if err = errors.Join(err, reply.Body.Close()); err != nil {
		return &quipu.Error{Code: quipu.CodeCrashed, Op: "step.call", Text: fmt.Sprintf("function %s broke off in its reply", f.Name), Err: err}
	}
	switch {
	case reply.Status >= http.StatusInternalServerError:
		return &quipu.Error{Code: quipu.CodeOutside, Op: "step.call", Text: fmt.Sprintf("function %s answered %d: %.500s", f.Name, reply.Status, body)}
	case reply.Status >= http.StatusBadRequest:
		ev.Error = failureOf(reply.Status, body)
	case len(body) > ResultMax:
		ev.Error = failureFrom(tooLarge())
	default:
		ev.Result = asJSON(body)
	}
	return nil
}

func (e *Engine) childStart(x *execution, place string, r Request) flow.Change {
	now := e.o.Clock.Now()
	begin := event{Event: evBegin, At: millis(now), Request: &request{Call: r.Call, Method: r.Method, Path: r.Path, Header: r.Header, Trigger: r.Trigger, Parent: place}}
	parent := x.key
	return flow.Change{WorkflowKey: quipu.WorkflowKey{App: r.Function.Name, ID: r.ID}, Start: &flow.Start{Kind: flow.KindStep,
		Version: r.Function.Revision, Input: r.Body, Parent: &parent, Messages: [][]byte{begin.encode()}}}
}

func getPage(w http.ResponseWriter, r *http.Request, x *execution, token string) error {
	from, err := strconv.Atoi(r.URL.Query().Get("from"))
	if err != nil && r.URL.Query().Get("from") != "" || from < 0 {
		return &quipu.Error{Code: quipu.CodeUsage, Op: "step.read", Text: "from is the number of an entry"}
	}
	p, err := x.page(token, from, pageBytesMax)
	if err != nil {
		return err
	}
	return answer(w, p)
}

// page is entries of a journal, and where to go on, 0 if that is all.
type page struct {
	Entries []shown `json:"entries"`
	Next    int     `json:"next,omitempty"`
}

func (x *execution) page(token string, from, bytesMax int) (p page, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.token != token {
		return p, lost()
	}
	size := 0
	for i := from; i < len(x.j.entries); i++ {
		n := x.j.entries[i]
		if size += len(n.Result) + 200; len(p.Entries) == pageEntries || size > bytesMax && i > from {
			p.Next = i
			break
		}
		if n.n < x.durable {
			p.Entries = append(p.Entries, x.show(n))
		}
	}
	return p, nil
}

func getWait(w http.ResponseWriter, r *http.Request, x *execution, token string) error {
	q := r.URL.Query()
	ms, err := strconv.Atoi(q.Get("ms"))
	if err != nil || ms < 0 {
		return &quipu.Error{Code: quipu.CodeUsage, Op: "step.wait", Text: "ms is how long to wait, in milliseconds"}
	}
	s, err := x.wait(r.Context(), token, q.Get("id"), ms)
	if err != nil {
		return err
	}
	return s.answer(w)
}

// wait answers an entry when it is done, or as it is after so many milliseconds.
func (x *execution) wait(ctx context.Context, token, id string, ms int) (s shown, err error) {
	over := time.NewTimer(time.Duration(min(ms, waitMillisMax)) * time.Millisecond)
	defer over.Stop()
	for late := false; ; {
		x.mu.Lock()
		n := x.j.byID[id]
		if x.token != token || x.broken != nil || n == nil {
			x.mu.Unlock()
			return s, lost()
		}
		s = x.show(n)
		news := x.listen()
		x.mu.Unlock()
		if s.Done || s.suspended || late {
			return s, nil
		}
		select {
		case <-news:
		case <-over.C:
			late = true
		case <-ctx.Done():
			return s, ctx.Err()
		}
	}
}
