package call

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/cloudevent"
	"github.com/quipu-run/quipu/xtest"
)

// later is a world whose time stands still unless it is moved.
type later struct {
	*world
	clock *xtest.Clock
	noon  time.Time // when it began: now, since the deadlines of contexts are of the machine's clock
}

func newLater(t testing.TB) *later {
	noon := time.Now().UTC().Truncate(time.Second)
	c := xtest.NewClock(noon)
	return &later{newWorldAt(t, c), c, noon}
}

// async asks for a call of a function that is called later.
func (w *later) async(r quipu.CallRequest) quipu.CallInfo {
	w.t.Helper()
	info, err := w.tryAsync(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return info
}

func (w *later) tryAsync(r quipu.CallRequest) (quipu.CallInfo, error) {
	if r.Method == "" {
		r.Method, r.Path = "POST", "/"
	}
	return w.InvokeAsync(w.ctx, r)
}

func (w *later) info(id string) quipu.CallInfo {
	w.t.Helper()
	info, err := w.Call(w.ctx, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return info
}

// reaches waits until a call is in a state.
func (w *later) reaches(id string, state quipu.CallState) quipu.CallInfo {
	w.t.Helper()
	var info quipu.CallInfo
	w.eventually(fmt.Sprintf("the call is %s", state), func() bool {
		info = w.info(id)
		return info.State == state
	}, func() string { return fmt.Sprintf("%+v", info) })
	return info
}

// eventually polls what other goroutines do.
func (w *later) eventually(what string, holds func() bool, describe ...func() string) {
	w.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			w.t.Fatalf("not after 20 s: %s; %s", what, func() (all string) {
				for _, f := range describe {
					all += f()
				}
				return all
			}())
		}
	}
}

// rules gives a function others for calls that nobody waits for.
func (w *later) rules(name string, change func(*quipu.AsyncSpec)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.functions[name]
	f.Spec.Async = quipu.AsyncDefault()
	change(&f.Spec.Async)
	w.functions[name] = f
}

func (w *later) remove(name string) {
	w.mu.Lock()
	delete(w.functions, name)
	w.mu.Unlock()
	w.Sync()
}

// events are the data of those in a topic.
func (w *later) events(name string) (all []notice) {
	w.t.Helper()
	events, err := w.topics.Read(name, 1, 10_000)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range events {
		all = append(all, noticeOf(w.t, e.Data))
	}
	return all
}

func noticeOf(t testing.TB, event []byte) notice {
	var e struct {
		Type, Source, Subject, ID string
		Data                      notice
	}
	if err := json.Unmarshal(event, &e); err != nil {
		t.Errorf("%s: %v", event, err)
	}
	kind := map[bool]string{true: cloudevent.TypeCallSucceeded, false: cloudevent.TypeCallFailed}[e.Data.State == quipu.CallSucceeded]
	if e.Type != kind || e.ID != e.Data.Call || e.Subject != e.ID || e.Source != "/functions/"+e.Data.Function {
		t.Errorf("the envelope does not fit what is in it: %s", event)
	}
	return e.Data
}

func (w *later) result(id string) (status int, body string, err error) {
	reply, err := w.CallResult(w.ctx, id)
	if err != nil {
		return 0, "", err
	}
	text, err := io.ReadAll(reply.Body)
	return reply.Status, string(text), err
}

func (w *later) wantResult(id string, status int, body string) {
	w.t.Helper()
	if s, b, err := w.result(id); err != nil || s != status || b != body {
		w.t.Errorf("the result is %d %q, %v; want %d %q", s, b, err, status, body)
	}
}

func wantCode(t testing.TB, err error, code quipu.Code) {
	t.Helper()
	if quipu.CodeOf(err) != code {
		t.Errorf("got %v, want %s", err, code)
	}
}

func TestACallThatNobodyWaitsForIsOneRecordAndItsEndAnother(t *testing.T) {
	for _, atomic := range []bool{true, false} {
		t.Run(fmt.Sprintf("atomic=%v", atomic), func(t *testing.T) {
			w := newLater(t)
			w.function("f", atomic, func(rw http.ResponseWriter, r *http.Request, s quipu.Session) {
				body, _ := io.ReadAll(r.Body)
				if atomic {
					put(s, "n", string(body))
				}
				rw.Header().Set("X-Own", "yes")
				rw.WriteHeader(201)
				fmt.Fprintf(rw, "%s %s %s %s", r.Method, r.URL.RequestURI(), body, r.Header.Get("X-Mine"))
			})
			before := w.records()
			info := w.async(quipu.CallRequest{Function: "f", Method: "PUT", Path: "/a%2Fb", RawQuery: "x=1", Body: strings.NewReader("hello"),
				ContentLength: 5, Header: http.Header{"X-Mine": {"m"}}, Trigger: "http"})
			if info.State != quipu.CallQueued || info.ID == "" {
				t.Errorf("it was accepted as %+v", info)
			}
			end := w.reaches(info.ID, quipu.CallSucceeded)
			if end.Status != 201 || end.Attempts != 1 || end.Trigger != "http" || !end.Queued.Equal(w.noon) || end.Seq == 0 {
				t.Errorf("it ended as %+v", end)
			}
			w.wantResult(info.ID, 201, "PUT /a%2Fb?x=1 hello m")
			if got := w.records() - before; got != 2 {
				t.Errorf("it took %d records, want 2", got)
			}
			if atomic && w.shared("n") != "hello" {
				t.Errorf("its effect is %q", w.shared("n"))
			}
			slice, err := w.Slice(w.ctx, info.ID)
			if err != nil || slice.Request.Text != "hello" || slice.Query != "x=1" || slice.Missing != "" {
				t.Errorf("%+v, %v", slice, err)
			}
		})
	}
}

// A call fails twice and then succeeds: each attempt comes after its back-off, and not before.
func TestAFailedAttemptIsRepeatedAfterItsBackOff(t *testing.T) {
	w := newLater(t)
	attempts := make(chan string, 10)
	w.function("f", true, func(rw http.ResponseWriter, r *http.Request, s quipu.Session) {
		n := r.Header.Get(quipu.HeaderAttempt)
		put(s, "tries", get(s, "tries")+n)
		if n < "3" {
			rw.WriteHeader(500)
			fmt.Fprint(rw, "not yet")
		}
		attempts <- n
	})
	id := w.async(quipu.CallRequest{Function: "f"}).ID
	for n, wait := range []time.Duration{time.Second, 2 * time.Second} {
		if got := <-attempts; got != fmt.Sprint(n+1) {
			t.Fatalf("attempt %s, want %d", got, n+1)
		}
		info := w.reaches(id, quipu.CallWaiting)
		if info.Attempts != n+1 || !info.Next.Equal(w.clock.Now().Add(wait)) || info.Status != 500 || info.Cause != "status 500: not yet" {
			t.Errorf("after attempt %d it waits as %+v", n+1, info)
		}
		if _, _, err := w.result(id); quipu.CodeOf(err) != quipu.CodeCallPending {
			t.Errorf("it has a result before its end: %v", err)
		}
		w.clock.Move(wait - time.Millisecond)
		w.Sync()
		if info := w.info(id); info.State != quipu.CallWaiting {
			t.Errorf("a millisecond before its time it is %+v", info)
		}
		w.clock.Move(time.Millisecond)
	}
	if end := w.reaches(id, quipu.CallSucceeded); end.Attempts != 3 || end.Cause != "" {
		t.Errorf("it ended as %+v", end)
	}
	if got := w.shared("tries"); got != "3" {
		t.Errorf("the attempts that failed left %q behind", got)
	}
}

// untilEnd moves the clock until a call has ended.
func (w *later) untilEnd(id string) quipu.CallInfo {
	w.t.Helper()
	var info quipu.CallInfo
	w.eventually("the call has ended", func() bool {
		if info = w.info(id); info.State == quipu.CallWaiting {
			w.clock.Move(max(0, info.Next.Sub(w.clock.Now())))
		}
		return !info.State.Pending()
	}, func() string { return fmt.Sprintf("%+v", info) })
	return info
}

func TestACallThatHasUsedItsRetriesGoesToTheDeadLetterTopic(t *testing.T) {
	w := newLater(t)
	w.function("f", false, func(rw http.ResponseWriter, _ *http.Request, _ quipu.Session) {
		rw.Header().Set("Content-Type", "text/plain")
		rw.WriteHeader(503)
		fmt.Fprint(rw, "never")
	})
	id := w.async(quipu.CallRequest{Function: "f", Body: strings.NewReader(`{"n":1}`), ContentLength: 7,
		Header: http.Header{"Content-Type": {"application/json"}, "Authorization": {"secret"}}}).ID
	end := w.untilEnd(id)
	if end.State != quipu.CallFailed || end.Attempts != 1+quipu.AsyncRetriesDefault || end.Status != 503 {
		t.Errorf("it ended as %+v", end)
	}
	w.wantResult(id, 503, "never")
	dead := w.events("f-dead")
	if len(dead) != 1 {
		t.Fatalf("%d dead letters", len(dead))
	}
	n := dead[0]
	if n.Call != id || n.State != quipu.CallFailed || n.Attempts != 4 || n.Status != 503 || n.Request.Text != `{"n":1}` ||
		n.Request.ContentType != "application/json" || n.Reply == nil || n.Reply.Text != "never" {
		t.Errorf("the dead letter is %+v", n)
	}
}

func TestWhatAFunctionRefusesIsNotTriedAgain(t *testing.T) {
	for status, attempts := range map[int]int{400: 1, 404: 1, 422: 1, 408: 4, 425: 4, 429: 4, 500: 4} {
		w := newLater(t)
		w.function("f", true, func(rw http.ResponseWriter, _ *http.Request, s quipu.Session) {
			put(s, "effect", "yes")
			rw.WriteHeader(status)
		})
		end := w.untilEnd(w.async(quipu.CallRequest{Function: "f"}).ID)
		if end.State != quipu.CallFailed || end.Attempts != attempts || end.Status != status {
			t.Errorf("a function that answers %d: %+v", status, end)
		}
		if w.shared("effect") != "" {
			t.Errorf("a function that answers %d left its effect behind", status)
		}
	}
}

func TestACallWhoseFunctionBreaksOffEndsWithItsCode(t *testing.T) {
	w := newLater(t)
	w.function("f", true, func(http.ResponseWriter, *http.Request, quipu.Session) { panic("ouch") })
	id := w.async(quipu.CallRequest{Function: "f"}).ID
	if end := w.untilEnd(id); end.State != quipu.CallFailed || end.Error != quipu.CodeCrashed || end.Attempts != 4 {
		t.Errorf("it ended as %+v", end)
	}
	_, _, err := w.result(id)
	wantCode(t, err, quipu.CodeCrashed)
	if dead := w.events("f-dead"); len(dead) != 1 || dead[0].Error != quipu.CodeCrashed || dead[0].Reply != nil {
		t.Errorf("dead letters: %+v", dead)
	}
}

// A function that does not start gets no attempt, and its calls wait for it, but not for ever.
func TestACallExpiresWhenItsFunctionDoesNotStart(t *testing.T) {
	w := newLater(t)
	w.function("f", true, increment)
	w.rules("f", func(s *quipu.AsyncSpec) { s.MaxAge = quipu.Duration(time.Minute) })
	w.fails.Store(true)
	id := w.async(quipu.CallRequest{Function: "f"}).ID
	w.eventually("the queue has stalled", func() bool { return w.info(id).Error == quipu.CodeStart })
	if info := w.info(id); info.Attempts != 0 || info.State != quipu.CallQueued || !info.Next.After(w.clock.Now()) {
		t.Errorf("while it does not start the call is %+v", info)
	}
	w.clock.Move(time.Minute)
	end := w.reaches(id, quipu.CallExpired)
	if end.Attempts != 0 || end.Error != quipu.CodeCallExpired {
		t.Errorf("it ended as %+v", end)
	}
	_, _, err := w.result(id)
	wantCode(t, err, quipu.CodeCallExpired)
	if dead := w.events("f-dead"); len(dead) != 1 || dead[0].State != quipu.CallExpired {
		t.Errorf("dead letters: %+v", dead)
	}
	w.fails.Store(false)
	w.clock.Move(time.Minute)
	second := w.async(quipu.CallRequest{Function: "f"}).ID
	w.eventually("the next call succeeds", func() bool {
		w.clock.Move(quipu.BackoffMax)
		return !w.info(second).State.Pending()
	})
	if got := w.shared("n"); got != "1" {
		t.Errorf("two calls, one expired, counted %q", got)
	}
}

// A function that starts again is trusted again: what held its calls back is forgotten with the first that reaches it.
func TestOneCallThatSucceedsEndsTheStallOfItsFunction(t *testing.T) {
	w := newLater(t)
	g := newGate()
	w.function("f", true, func(_ http.ResponseWriter, r *http.Request, _ quipu.Session) { g.pass(r.Context()) })
	w.fails.Store(true)
	first := w.async(quipu.CallRequest{Function: "f"}).ID
	second := w.async(quipu.CallRequest{Function: "f"}).ID
	w.eventually("the queue has stalled", func() bool { return w.info(first).Error == quipu.CodeStart })
	w.fails.Store(false)
	w.clock.Move(quipu.BackoffMax)
	<-g.running
	g.open <- struct{}{}
	<-g.running
	w.reaches(first, quipu.CallSucceeded)
	w.waits.mu.Lock()
	stalls := w.waits.queue.lanes["f"].stalls
	w.waits.mu.Unlock()
	if stalls != 0 {
		t.Errorf("the next stall would be the %dth in a row", stalls+1)
	}
	close(g.open)
	w.reaches(second, quipu.CallSucceeded)
}

// No attempt is begun after the call's time: one that would come later does not come.
func TestACallWhoseNextAttemptWouldComeTooLateExpiresAtOnce(t *testing.T) {
	w := newLater(t)
	w.function("f", false, func(rw http.ResponseWriter, _ *http.Request, _ quipu.Session) { rw.WriteHeader(500) })
	w.rules("f", func(s *quipu.AsyncSpec) {
		s.MaxAge, s.Retry.Backoff = quipu.Duration(5*time.Second), quipu.Duration(2*time.Second)
	})
	end := w.untilEnd(w.async(quipu.CallRequest{Function: "f"}).ID)
	if end.State != quipu.CallExpired || end.Attempts != 2 || w.clock.Now().Sub(w.noon) != 2*time.Second {
		t.Errorf("after %s it ended as %+v", w.clock.Now().Sub(w.noon), end)
	}
}

// gate is a function that waits until it is let go, and tells when it runs.
type gate struct{ running, open chan struct{} }

func newGate() gate { return gate{make(chan struct{}, 100), make(chan struct{})} }

func (g gate) pass(ctx context.Context) {
	g.running <- struct{}{}
	select {
	case <-g.open:
	case <-ctx.Done():
	}
}

func TestACancelledCallHasNoEffect(t *testing.T) {
	w := newLater(t)
	g := newGate()
	w.function("f", true, func(rw http.ResponseWriter, r *http.Request, s quipu.Session) {
		if r.Header.Get("X-Fail") != "" {
			rw.WriteHeader(500)
		}
		increment(rw, r, s)
		g.pass(r.Context())
	})
	cancel := func(id string) {
		t.Helper()
		if info, err := w.CancelCall(w.ctx, id); err != nil || info.State != quipu.CallCancelled {
			t.Fatalf("cancel: %+v, %v", info, err)
		}
		if info := w.info(id); info.State != quipu.CallCancelled {
			t.Errorf("after the cancel it is %+v", info)
		}
		_, _, err := w.result(id)
		wantCode(t, err, quipu.CodeCallCancelled)
		_, err = w.CancelCall(w.ctx, id)
		wantCode(t, err, quipu.CodeCallEnded)
	}
	running := w.async(quipu.CallRequest{Function: "f"}).ID // an atomic function is called one at a time at first
	<-g.running
	w.reaches(running, quipu.CallRunning)
	queued := w.async(quipu.CallRequest{Function: "f"}).ID
	if info := w.info(queued); info.State != quipu.CallQueued {
		t.Errorf("behind another it is %+v", info)
	}
	cancel(queued)
	killed := w.killed.Load()
	cancel(running)
	w.eventually("the attempt is cut, with its instance", func() bool { return w.killed.Load() == killed+1 })
	close(g.open)
	waits := w.async(quipu.CallRequest{Function: "f", Header: http.Header{"X-Fail": {"1"}}}).ID
	w.reaches(waits, quipu.CallWaiting)
	cancel(waits)
	w.clock.Move(time.Hour)
	done := w.async(quipu.CallRequest{Function: "f"}).ID
	w.reaches(done, quipu.CallSucceeded)
	_, err := w.CancelCall(w.ctx, done)
	wantCode(t, err, quipu.CodeCallEnded)
	_, err = w.CancelCall(w.ctx, "01ARZ3NDEKTSV4RRFFQ69G5FAV")
	wantCode(t, err, quipu.CodeNotFound)
	if got := w.shared("n"); got != "1" {
		t.Errorf("one call was not cancelled, and %q counted", got)
	}
	if list := w.events("f-dead"); len(list) != 0 {
		t.Errorf("cancelled calls have dead letters: %+v", list)
	}
}

func TestACancelledPlainCallIsCutAndNotRecorded(t *testing.T) {
	w := newLater(t)
	g, cut := newGate(), make(chan struct{})
	w.function("f", false, func(rw http.ResponseWriter, r *http.Request, _ quipu.Session) {
		g.pass(r.Context())
		<-r.Context().Done()
		close(cut)
	})
	id := w.async(quipu.CallRequest{Function: "f"}).ID
	<-g.running
	if _, err := w.CancelCall(w.ctx, id); err != nil {
		t.Fatal(err)
	}
	close(g.open)
	<-cut
	if info := w.info(id); info.State != quipu.CallCancelled {
		t.Errorf("it is %+v", info)
	}
}

// Calls are cancelled while they commit: what counts and what is said agree.
func TestOfACancelAndACommitOneWins(t *testing.T) {
	w := newLater(t)
	w.function("f", true, increment)
	succeeded := 0
	for i := range 200 {
		id := w.async(quipu.CallRequest{Function: "f"}).ID
		if i%2 == 0 { // some are let go further
			w.eventually("it runs", func() bool { return w.info(id).State != quipu.CallQueued })
		}
		_, err := w.CancelCall(w.ctx, id)
		state := w.untilEnd(id).State
		if (err == nil) != (state == quipu.CallCancelled) {
			t.Fatalf("cancel answered %v, and the call is %s", err, state)
		}
		if state == quipu.CallSucceeded {
			succeeded++
		}
	}
	if got := w.shared("n"); got != fmt.Sprint(succeeded) && succeeded > 0 {
		t.Errorf("%d calls succeeded, %s counted", succeeded, got)
	}
	t.Logf("%d of 200 calls were faster than their cancel", succeeded)
}

func TestDestinationsLearnOfTheEndInTheSameRecord(t *testing.T) {
	w := newLater(t)
	got := make(chan notice, 10)
	w.function("f", true, increment)
	w.function("after", true, func(rw http.ResponseWriter, r *http.Request, s quipu.Session) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Content-Type") != quipu.MediaCloudEvent || r.Header.Get(quipu.HeaderTrigger) != "destination" {
			t.Errorf("the destination is called with %v", r.Header)
		}
		got <- noticeOf(t, body)
	})
	w.rules("f", func(s *quipu.AsyncSpec) { s.OnSuccess.Function = "after" })
	id := w.async(quipu.CallRequest{Function: "f"}).ID
	if n := <-got; n.Call != id || n.State != quipu.CallSucceeded || n.Reply.Text != "1" {
		t.Errorf("the destination got %+v", n)
	}
	w.rules("f", func(s *quipu.AsyncSpec) { s.OnSuccess.Topic = "done" })
	id = w.async(quipu.CallRequest{Function: "f"}).ID
	end := w.reaches(id, quipu.CallSucceeded)
	if list := w.events("done"); len(list) != 1 || list[0].Call != id {
		t.Errorf("the topic has %+v", list)
	}
	slice, err := w.Slice(w.ctx, id)
	views := map[string]bool{}
	for _, op := range slice.Ops {
		views[op.View] = true
	}
	if err != nil || slice.Seq != end.Seq || !views["kv"] || !views["topic"] || !views[Name] {
		t.Errorf("effect, event and result are not one record: %+v, %v", slice.Ops, err)
	}
}

// A destination that is gone, or leads in a circle, loses nothing and ends.
func TestAnEventWhoseFunctionCannotBeCalledIsADeadLetterOfThatFunction(t *testing.T) {
	w := newLater(t)
	w.function("f", true, increment)
	w.rules("f", func(s *quipu.AsyncSpec) { s.OnSuccess.Function = "gone" })
	id := w.async(quipu.CallRequest{Function: "f"}).ID
	w.reaches(id, quipu.CallSucceeded)
	if list := w.events("gone-dead"); len(list) != 1 || list[0].Call != id {
		t.Errorf("the topic has %+v", list)
	}
	w.rules("f", func(s *quipu.AsyncSpec) { s.OnSuccess.Function = "f" })
	w.async(quipu.CallRequest{Function: "f"})
	w.eventually("the circle has an end", func() bool { return len(w.events("f-dead")) == 1 })
	if got := w.shared("n"); got != fmt.Sprint(2+quipu.CallDepthMax) {
		t.Errorf("%s calls were made", got)
	}
}

func TestADestinationThatCannotBeWrittenDoesNotHoldTheCall(t *testing.T) {
	w := newLater(t)
	w.function("f", true, increment)
	w.rules("f", func(s *quipu.AsyncSpec) { s.OnSuccess.Topic = "$platform" })
	end := w.reaches(w.async(quipu.CallRequest{Function: "f"}).ID, quipu.CallSucceeded)
	if end.Undelivered != quipu.CodeTopicName || w.shared("n") != "1" {
		t.Errorf("it ended as %+v with %s", end, w.shared("n"))
	}
}

func TestARequestWithTheSameKeyIsAnsweredWithTheSameCall(t *testing.T) {
	w := newLater(t)
	g := newGate()
	w.function("f", true, func(rw http.ResponseWriter, r *http.Request, s quipu.Session) {
		g.pass(r.Context())
		increment(rw, r, s)
	})
	request := func(body string) quipu.CallRequest {
		return quipu.CallRequest{Function: "f", IdempotencyKey: "k", Body: strings.NewReader(body), ContentLength: int64(len(body))}
	}
	first := w.async(request("one"))
	if again := w.async(request("one")); again.ID != first.ID {
		t.Errorf("a second request became call %s besides %s", again.ID, first.ID)
	}
	_, err := w.tryAsync(request("other"))
	wantCode(t, err, quipu.CodeIdempotency)
	r := request("one") // somebody who would wait is told
	r.Method, r.Path = "POST", "/"
	_, err = w.try(r)
	wantCode(t, err, quipu.CodeCallPending)
	close(g.open)
	w.reaches(first.ID, quipu.CallSucceeded)
	if again := w.async(request("one")); again.ID != first.ID || again.State != quipu.CallSucceeded {
		t.Errorf("after the end the request became %+v", again)
	}
	_, err = w.tryAsync(request("other"))
	wantCode(t, err, quipu.CodeIdempotency)
	r.Body = strings.NewReader("one")
	if a, err := w.try(r); err != nil || a.call != first.ID || a.body != "1" {
		t.Errorf("who waits gets %+v, %v", a, err)
	}
	if got := w.shared("n"); got != "1" {
		t.Errorf("one key counted %s", got)
	}
	r = request("sync")
	r.Method, r.Path, r.IdempotencyKey = "POST", "/", "waited"
	a, err := w.try(r)
	if err != nil {
		t.Fatal(err)
	}
	r.Body = strings.NewReader("sync")
	if info := w.async(r); info.ID != a.call || info.State != quipu.CallSucceeded {
		t.Errorf("a key whose caller waited became %+v", info)
	}
	w.wantResult(a.call, 200, "2")
}

// Inside an atomic call, a call is there when that commits, once however often it ran, and not at all if it fails.
func TestACallAcceptedInsideAnAtomicOneIsPartOfItsTransaction(t *testing.T) {
	w := newLater(t)
	w.function("f", true, increment)
	var runs atomic.Int32
	var id atomic.Value
	w.function("caller", true, func(rw http.ResponseWriter, r *http.Request, s quipu.Session) {
		get(s, "contended")
		info, err := s.InvokeAsync(r.Context(), quipu.CallRequest{Function: "f", Method: "POST", Path: "/"})
		if err != nil {
			t.Error(err)
		}
		if _, err := w.Call(w.ctx, info.ID); quipu.CodeOf(err) != quipu.CodeNotFound {
			t.Errorf("it is there before the commit: %v", err)
		}
		id.Store(info.ID)
		put(s, "called", "yes")
		if runs.Add(1) == 1 { // somebody else is faster, once
			if err := w.Outside("").Apply(w.ctx, quipu.StoreShared, []quipu.Change{{Key: "contended", Value: []byte("x")}}); err != nil {
				t.Error(err)
			}
		}
		if r.Header.Get("X-Fail") != "" {
			rw.WriteHeader(500)
		}
	})
	w.call("caller")
	if runs.Load() != 2 {
		t.Fatalf("the caller ran %d times", runs.Load())
	}
	w.reaches(id.Load().(string), quipu.CallSucceeded)
	if got := w.shared("n"); got != "1" {
		t.Errorf("a caller that ran twice had its call made %s times", got)
	}
	if a, err := w.try(quipu.CallRequest{Function: "caller", Header: http.Header{"X-Fail": {"1"}}}); err != nil || a.status != 500 {
		t.Fatalf("%+v, %v", a, err)
	}
	_, err := w.Call(w.ctx, id.Load().(string))
	wantCode(t, err, quipu.CodeNotFound)
	if list, err := w.Calls(w.ctx, "f", 10); err != nil || len(list) != 1 {
		t.Errorf("%d calls of f, %v", len(list), err)
	}
}

func TestCallsOfAFunctionThatIsRemovedEndWithACode(t *testing.T) {
	w := newLater(t)
	g := newGate()
	w.function("f", true, func(rw http.ResponseWriter, r *http.Request, s quipu.Session) {
		g.pass(r.Context())
		increment(rw, r, s)
	})
	w.rules("f", func(s *quipu.AsyncSpec) { s.OnFailure.Topic = "lost" })
	running := w.async(quipu.CallRequest{Function: "f"}).ID
	<-g.running
	var ids []string
	for range 2*endsMax + 1 {
		ids = append(ids, w.async(quipu.CallRequest{Function: "f"}).ID)
	}
	w.remove("f")
	for _, id := range ids {
		if end := w.reaches(id, quipu.CallFailed); end.Error != quipu.CodeNoFunction || end.Attempts != 0 {
			t.Errorf("it ended as %+v", end)
		}
	}
	close(g.open) // a call under way finishes
	w.reaches(running, quipu.CallSucceeded)
	lost := map[string]bool{}
	for _, n := range w.events("lost") {
		lost[n.Call] = true
	}
	if len(lost) != len(ids) || lost[running] {
		t.Errorf("%d of %d were told to the destination", len(lost), len(ids))
	}
	_, err := w.tryAsync(quipu.CallRequest{Function: "f"})
	wantCode(t, err, quipu.CodeNoFunction)
}

func TestALargeBodyWaitsAsABlobThatIsReferredTo(t *testing.T) {
	w := newLater(t)
	g := newGate()
	w.function("f", false, func(rw http.ResponseWriter, r *http.Request, _ quipu.Session) {
		g.pass(r.Context())
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(rw, n)
	})
	body := strings.Repeat("x", quipu.InlineBytesMax+1)
	id := w.async(quipu.CallRequest{Function: "f", Body: strings.NewReader(body), ContentLength: int64(len(body))}).ID
	refs := 0
	tx := w.o.Book.Look()
	if err := errors.Join(w.o.Results.Blobs(tx, func(r quipu.BlobRef) { refs += int(r.Size) }), tx.Close()); err != nil {
		t.Fatal(err)
	}
	if refs != len(body) {
		t.Errorf("the views refer to %d bytes", refs)
	}
	close(g.open)
	w.reaches(id, quipu.CallSucceeded)
	w.wantResult(id, 200, fmt.Sprint(len(body)))
	huge := strings.NewReader(strings.Repeat("x", quipu.AsyncBodyMax+1))
	_, err := w.tryAsync(quipu.CallRequest{Function: "f", Body: huge, ContentLength: -1})
	wantCode(t, err, quipu.CodeBodySize)
}

// A result is kept a day from the end of its call on, however long that waited.
func TestAResultIsForgottenADayAfterTheEnd(t *testing.T) {
	w := newLater(t)
	var fail atomic.Bool
	fail.Store(true)
	w.function("f", true, func(rw http.ResponseWriter, r *http.Request, s quipu.Session) {
		if fail.Load() {
			rw.WriteHeader(500)
		}
	})
	w.rules("f", func(s *quipu.AsyncSpec) { s.MaxAge = quipu.Duration(10 * 24 * time.Hour) })
	id := w.async(quipu.CallRequest{Function: "f", IdempotencyKey: "k"}).ID
	w.reaches(id, quipu.CallWaiting)
	w.clock.Move(0)
	fail.Store(false)
	w.clock.Move(3 * 24 * time.Hour)
	w.reaches(id, quipu.CallSucceeded)
	for _, step := range []struct {
		after time.Duration
		kept  bool
	}{{quipu.ResultKept - time.Minute, true}, {2 * time.Minute, false}} {
		w.clock.Move(step.after)
		if _, err := w.Sweep(w.ctx); err != nil {
			t.Fatal(err)
		}
		_, err := w.Call(w.ctx, id)
		if (err == nil) != step.kept {
			t.Errorf("kept=%v: %v", step.kept, err)
		}
	}
	if again := w.async(quipu.CallRequest{Function: "f", IdempotencyKey: "k"}).ID; again == id {
		t.Error("the key was not forgotten with the result")
	}
}

// dice are chance that goroutines share; the log of a test has their seed.
type dice struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func newDice(t *testing.T) *dice {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return &dice{rng: rand.New(rand.NewPCG(seed, 0))}
}

// is answers true with a chance in percent.
func (d *dice) is(percent int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.IntN(100) < percent
}

func (d *dice) other() *rand.Rand {
	d.mu.Lock()
	defer d.mu.Unlock()
	return rand.New(rand.NewPCG(d.rng.Uint64(), 0))
}

// moody makes of code a function that does all it should and fails all the same, now and then.
func (d *dice) moody(code handler) handler {
	return func(rw http.ResponseWriter, r *http.Request, s quipu.Session) {
		if d.is(10) {
			rw.WriteHeader(500)
		}
		code(rw, r, s)
		if d.is(10) {
			panic("crashed after all was done")
		}
	}
}

// Hundreds of calls of functions that fail at random, atomic ones and plain, while the node crashes again and again:
// every accepted call of the atomic function counts once, each end is told once, and nothing is left.
func TestWhateverCrashesEveryAcceptedCallHasItsEffectAndItsEventOnce(t *testing.T) {
	w, luck := newLater(t), newDice(t)
	w.function("count", true, luck.moody(func(_ http.ResponseWriter, r *http.Request, s quipu.Session) {
		body, _ := io.ReadAll(r.Body)
		put(s, string(body), get(s, string(body))+"x")
	}))
	w.function("plain", false, luck.moody(func(http.ResponseWriter, *http.Request, quipu.Session) {}))
	w.function("after", true, luck.moody(func(_ http.ResponseWriter, r *http.Request, s quipu.Session) {
		body, _ := io.ReadAll(r.Body)
		call := noticeOf(t, body).Call
		put(s, call, get(s, call)+"x")
	}))
	for f, to := range map[string]quipu.Destination{"count": {Function: "after"}, "plain": {Topic: "ends"}, "after": {}} {
		w.rules(f, func(s *quipu.AsyncSpec) { s.Retry.Max, s.OnSuccess = 100, to })
	}
	const rounds, each = 12, 25
	accepted := map[string]string{} // call by key
	for round := range rounds {
		for i := range each {
			key := fmt.Sprintf("%d-%d", round, i)
			f := []string{"count", "plain"}[i%2]
			info, err := w.tryAsync(quipu.CallRequest{Function: f, IdempotencyKey: key, Body: strings.NewReader(key), ContentLength: int64(len(key))})
			if err != nil {
				t.Fatal(err)
			}
			accepted[key] = info.ID
			if luck.is(20) {
				w.clock.Move(time.Second)
			}
		}
		w.crash(luck.other())
	}
	for key, id := range accepted {
		if end := w.untilEnd(id); end.State != quipu.CallSucceeded {
			t.Fatalf("call %s: %+v", key, end)
		}
	}
	w.nothingLeft()
	told := map[string]int{}
	for _, n := range w.events("ends") {
		told[n.Call]++
	}
	for key, id := range accepted {
		if w.info(id).Function == "plain" {
			if told[id] != 1 {
				t.Errorf("the end of call %s was told %d times", key, told[id])
			}
			continue
		}
		if count, after := w.shared(key), w.shared(id); count != "x" || after != "x" {
			t.Errorf("call %s had its effect %d times, its destination %d times", key, len(count), len(after))
		}
	}
}

func (w *later) nothingLeft() {
	w.t.Helper()
	w.eventually("the queue is empty", func() bool {
		w.clock.Move(quipu.BackoffMax)
		w.waits.mu.Lock()
		defer w.waits.mu.Unlock()
		return len(w.waits.queue.calls)+len(w.waits.queue.lanes) == 0
	})
	tx := w.o.Book.Look()
	defer tx.Close()
	if err := w.o.Results.eachWaiting(tx, func(p *pending) error { return fmt.Errorf("call %s is left", p.Info.ID) }); err != nil {
		w.t.Error(err)
	}
}
