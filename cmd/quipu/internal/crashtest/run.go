package crashtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/clock"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/server"
	"github.com/quipu-run/quipu/trigger"
)

// Times, of the machine's clock, and limits of a run.
const (
	look        = time.Millisecond      // between looks at whether something goes on
	calm        = 10 * time.Millisecond // without anything, until time is moved on
	calmAtLast  = 30 * time.Millisecond // without anything, until a run is over
	hurryMost   = 5 * time.Second       // how far time is moved at once while a call waits for an instance
	settleMost  = time.Minute           // for a step to have had all its effects
	tickAhead   = time.Second           // on the clock of the run: how long before a tick it stops
	repeatsMost = 5                     // of a call by its client
	pendingMost = 1000                  // calls that are looked at for some that nobody waits for
)

// run is one life of the application, on a node of its own.
type run struct {
	o         *Options
	w         *worker
	rec       *recorder
	clock     *clock.Skip
	client    *sdk.Client
	functions []quipu.Function
	reference *State // of the undisturbed run; nil in that
	end       time.Time
	state     State
}

// play runs the scenario in the folder data, and kills at target.
func (w *worker) play(ctx context.Context, data string, target *Point, reference *State) (*run, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o := w.o
	r := &run{o: o, w: w, rec: newRecorder(target), clock: clock.NewSkip(o.start), reference: reference, end: o.start}
	defer r.clock.Stop()
	ready, ended := make(chan sdk.Node, 1), make(chan error, 1)
	go func() {
		ended <- server.Run(ctx, server.Config{Data: data, Sync: "os", InstanceToken: true, Unconfined: o.Unconfined, Version: o.Version,
			Clock: r.clock, Probe: r.rec.probe, Ready: func(n sdk.Node) { ready <- n }})
	}()
	select {
	case node := <-ready:
		err := r.all(ctx, node, data)
		cancel()
		return r, errors.Join(err, <-ended)
	case err := <-ended:
		return r, err
	}
}

// all is the deploy, the steps, and what is left by them.
func (r *run) all(ctx context.Context, node sdk.Node, data string) (err error) {
	if r.client, err = sdk.New(sdk.Options{URL: node.HTTP}); err != nil {
		return err
	}
	if err := r.w.reuse(data); err != nil {
		return err
	}
	if r.functions, err = r.client.Deploy(ctx, r.o.App, r.o.bundle); err != nil {
		return err
	}
	for i, s := range r.o.Scenario.Steps {
		r.rec.begin(i + 1)
		result, err := r.do(ctx, i, s)
		if err == nil {
			r.state.Results = append(r.state.Results, result)
			err = r.settle(ctx, calm)
		}
		if err != nil {
			return fmt.Errorf("step %d, %s: %w", i+1, s.Title(), err)
		}
	}
	if err := r.settle(ctx, calmAtLast); err != nil {
		return err
	}
	return r.read(ctx)
}

// reuse takes what the run before has built: the same bundle gives the same revisions.
func (w *worker) reuse(data string) error {
	apps := filepath.Join(data, "apps", server.DefaultNamespace)
	if before := w.built; before != "" {
		if err := errors.Join(os.RemoveAll(apps), os.MkdirAll(filepath.Dir(apps), 0o700)); err != nil {
			return err
		}
		if err := os.Rename(before, apps); err != nil {
			return err
		}
	}
	w.built = apps
	return nil
}

// do takes a step, and answers when the one who took it has an answer.
func (r *run) do(ctx context.Context, i int, s Step) (Result, error) {
	switch {
	case s.Advance != 0:
		r.end = r.end.Add(s.Advance.Std())
		return Result{}, r.advance(ctx)
	case s.Publish != nil:
		data, kind, err := body(s.Publish.Data)
		if err == nil {
			_, err = r.client.Publish(ctx, s.Publish.Topic, sdk.Publication{Data: data, ContentType: kind})
		}
		return Result{}, err
	}
	type answer struct {
		Result
		err error
	}
	done := make(chan answer, 1)
	go func() {
		result, err := r.call(ctx, i, s.Call)
		done <- answer{result, err}
	}()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case a := <-done:
			return a.Result, a.err
		case <-tick.C:
			if r.rec.idleFor(2 * calm) { // the call waits for an instance, or for a time
				r.clock.Skip(r.clock.Now().Add(hurryMost))
				r.rec.touch()
			}
		}
	}
}

// call is what a careful client does: it asks again, with the same key, until it has an answer.
func (r *run) call(ctx context.Context, i int, c *Call) (result Result, err error) {
	for range repeatsMost {
		if result, err = r.ask(ctx, c); err != nil || !r.again(i, result) {
			return result, err
		}
	}
	return result, nil
}

// again tells whether an answer is none to a careful client: the platform could not get one, or the function broke where
// it would not have.
func (r *run) again(i int, now Result) bool {
	switch now.Code {
	case quipu.CodeCrashed, quipu.CodeStart, quipu.CodeTimeout, quipu.CodeReply, quipu.CodeUnknown, quipu.CodeBusy, quipu.CodeContention:
		return r.reference == nil || now.Code != r.reference.Results[i].Code
	}
	return now.Status >= 500 && r.reference != nil && r.reference.Results[i].Status < 500
}

func (r *run) ask(ctx context.Context, c *Call) (Result, error) {
	data, kind, err := body(c.Data)
	if err != nil {
		return Result{}, err
	}
	header := http.Header{}
	if kind != "" {
		header.Set("Content-Type", kind)
	}
	header.Set(quipu.HeaderIdempotency, c.Key)
	for name, value := range c.Headers {
		header.Set(name, value)
	}
	resp, err := r.client.Invoke(ctx, c.Function, c.Method, c.Path, header, bytes.NewReader(data))
	if code := quipu.CodeOf(err); code == quipu.CodeNoNode || code == quipu.CodeInternal {
		return Result{}, err
	} else if err != nil {
		return Result{Code: code, Status: quipu.Codes[code].Status}, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return Result{Code: quipu.CodeCrashed}, nil // it broke off
	}
	return Result{Status: resp.StatusCode, Body: string(text)}, nil
}

// advance moves time on to the end of all steps so far, from one tick of a schedule to the next. Shortly before a tick it
// stops, so that the node has looked at its clock and takes the tick for no missed one.
func (r *run) advance(ctx context.Context) error {
	for {
		next, err := r.nextTick()
		if err != nil {
			return err
		}
		stop := r.end
		if next.Before(stop) {
			stop = next.Add(-tickAhead)
		}
		r.clock.Until(stop)
		r.rec.touch()
		if err := r.settle(ctx, calm); err != nil || !next.Before(r.end) {
			return err
		}
		for r.clock.Skip(next) {
			r.rec.touch()
		}
		r.clock.Until(next)
		r.rec.touch()
		if err := r.settle(ctx, calm); err != nil {
			return err
		}
	}
}

// nextTick is the next of all schedules, or the end.
func (r *run) nextTick() (time.Time, error) {
	now, first := r.clock.Now(), r.end
	for _, f := range r.functions {
		for _, t := range f.Spec.Triggers {
			if t.Schedule == nil {
				continue
			}
			next, err := trigger.NextTick(t.Schedule.Cron, t.Schedule.Timezone, now)
			if err != nil {
				return now, err
			}
			if !next.IsZero() && next.Before(first) {
				first = next
			}
		}
	}
	return first, nil
}

// settle returns when nothing goes on, and nothing is to be done. What waits for a time gets it.
func (r *run) settle(ctx context.Context, quiet time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, settleMost, fmt.Errorf("it did not come to rest within %s", settleMost))
	defer cancel()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		if !r.rec.idleFor(quiet) {
			continue
		}
		left, err := r.left(ctx)
		if err != nil || left == "" && r.rec.idleFor(quiet) {
			return err
		}
		if left != "" && r.clock.Skip(r.clock.Now().Add(quipu.AsyncMaxAgeMax)) {
			r.rec.touch()
		}
	}
}

// left names something that is still to be done, "" for nothing. Delayed messages wait for a step that advances the time.
func (r *run) left(ctx context.Context) (string, error) {
	topics, err := r.client.Topics(ctx)
	if err != nil {
		return "", err
	}
	for _, f := range r.functions {
		for _, t := range f.Spec.Triggers {
			if t.Schedule == nil {
				continue
			}
			ticks, err := r.client.Topic(ctx, trigger.ScheduleTopic(f.Name, *t.Schedule))
			if err != nil && quipu.CodeOf(err) != quipu.CodeNoTopic {
				return "", err
			}
			topics = append(topics, ticks)
		}
	}
	for _, t := range topics {
		for _, s := range t.Subscriptions {
			if s.Consumers > 0 && (s.Lag > 0 || s.Retrying > 0 || s.InFlight > 0) {
				return "events of " + t.Name, nil
			}
		}
	}
	calls, err := r.client.Calls(ctx, "", pendingMost)
	for _, c := range calls {
		if c.State.Pending() {
			return "a call of " + c.Function, nil
		}
	}
	return "", err
}

// read takes down what the run has left.
func (r *run) read(ctx context.Context) error {
	r.state.Keys, r.state.Events = map[string]string{}, map[Event]int{}
	if err := r.readStore(ctx, quipu.StoreShared, ""); err != nil {
		return err
	}
	for _, f := range r.functions {
		if err := r.readStore(ctx, quipu.StoreDefault, f.Name); err != nil {
			return err
		}
	}
	topics, err := r.client.Topics(ctx)
	if err != nil {
		return err
	}
	for _, t := range topics {
		for e, err := range r.client.Events(ctx, t.Name, sdk.EventsRequest{From: "earliest"}) {
			if err != nil {
				return err
			}
			r.state.Events[Event{t.Name, dataOf(e)}]++
		}
	}
	return nil
}

func (r *run) readStore(ctx context.Context, store, function string) error {
	s, after := r.client.State(store, function), ""
	for {
		page, err := s.List(ctx, quipu.ListRequest{After: after})
		if err != nil {
			return err
		}
		for _, item := range page.Items {
			full, err := s.Get(ctx, item.Key)
			if err != nil {
				return fmt.Errorf("state of %s: %w", item.Key, err)
			}
			r.state.Keys[strings.TrimPrefix(store+"/"+function+"/"+item.Key, "shared//")] = string(full.Value)
		}
		if after = page.Next; after == "" {
			return nil
		}
	}
}

// dataOf is the data of an event, in whichever form it came.
func dataOf(e sdk.Event) string {
	envelope := struct {
		Data       json.RawMessage `json:"data"`
		DataBase64 []byte          `json:"data_base64"`
	}{e.Data, e.DataBase64}
	if len(e.Event) > 0 && json.Unmarshal(e.Event, &envelope) != nil {
		return string(e.Event)
	}
	if len(envelope.Data) > 0 {
		return string(envelope.Data)
	}
	return string(envelope.DataBase64)
}
