package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/dapr/go-sdk/actor"
	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/http"

	"github.com/quipu-run/quipu/bench/load"
)

const (
	tallyType     = "tally"
	actorsReady   = 2 * time.Minute // until a call of an actor is answered
	callMax       = 30 * time.Second
	comeMax       = 2 * time.Minute // until the last reminder has come
	reminderDelay = 2 * time.Second // from the end of setting until reminders are due, at least
	manyActors    = 1000
)

// Tally is an actor that counts. The SDK wants it exported.
type Tally struct {
	actor.ServerImplBaseCtx
	reminded func(name string)
}

// Type is that of the actors.
func (c *Tally) Type() string { return tallyType }

// Nothing is a turn without state.
func (c *Tally) Nothing(context.Context, int) (int, error) { return 0, nil }

// Add is a turn that writes a key: the SDK has it in memory after the first turn, and saves it after each.
func (c *Tally) Add(ctx context.Context, by int) (n int, err error) {
	state := c.GetStateManager()
	there, err := state.Contains(ctx, "n")
	if err == nil && there {
		err = state.Get(ctx, "n", &n)
	}
	return n + by, errors.Join(err, state.Set(ctx, "n", n+by))
}

// ReminderCall is a reminder.
func (c *Tally) ReminderCall(name string, _ []byte, _, _ string) { c.reminded(name) }

// actors hosts actors, calls them through its own sidecar as any application does, and measures that.
func actors(args []string) error {
	flags := flag.NewFlagSet("actors", flag.ExitOnError)
	listen := flags.String("listen", "127.0.0.1:8080", "where the application listens; the sidecar's port and token are in the environment, as Dapr's are")
	d := flags.Duration("d", 2*time.Second, "time of a figure")
	peer := flags.String("peer", "quipu", "name of the figures")
	durable := flags.String("durable", "on disk", "what an answer means")
	reminders := flags.String("durable-reminders", "on disk", "what an answer means to who sets a reminder")
	if err := flags.Parse(args); err != nil {
		return err
	}
	client.SetLogger(log.New(os.Stderr, "", 0)) // it would write among the figures
	c, err := client.NewClient()
	if err != nil {
		return err
	}
	defer c.Close()
	a := &actorBench{client: c, d: *d, figure: load.Figure{Peer: *peer, Durable: *durable}, out: json.NewEncoder(os.Stdout)}
	s := http.NewService(*listen)
	s.RegisterActorImplFactoryContext(func() actor.ServerContext { return &Tally{reminded: a.reminded} })
	go func() { log.Fatal(s.Start()) }() // it serves until the process ends
	if err := a.ready(); err != nil {
		return err
	}
	if err := a.calls(); err != nil {
		return err
	}
	if err := a.counted(); err != nil {
		return err
	}
	a.figure.Durable = *reminders
	return a.reminders()
}

type actorBench struct {
	client client.Client
	d      time.Duration
	figure load.Figure // what all have in common
	out    *json.Encoder

	mu      sync.Mutex // guards below, which are of the reminders of one round
	due     time.Time
	pending map[string]bool
	late    []time.Duration
	settled bool          // no more are set
	done    chan struct{} // closed when all have come
}

// calls measures turns, with and without state, of many actors and of one.
func (a *actorBench) calls() error {
	for _, method := range []string{"Nothing", "Add"} {
		for _, actors := range []int{manyActors, 1} {
			for _, conc := range []int{1, 32, 128} {
				f := a.figure
				f.Bench, f.Variant = "actor", fmt.Sprintf("%s, %d actors", map[string]string{"Nothing": "turn", "Add": "turn, state"}[method], actors)
				if err := a.out.Encode(load.Run(f, conc, a.d, func(ctx context.Context, worker, i int) error {
					_, err := a.call(ctx, method, fmt.Sprint((worker*7919+i)%actors), "1")
					return err
				})); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (a *actorBench) call(ctx context.Context, method, id, argument string) (string, error) {
	r, err := a.client.InvokeActor(ctx, &client.InvokeActorRequest{ActorType: tallyType, ActorID: id, Method: method, Data: []byte(argument)})
	if err != nil {
		return "", err
	}
	return string(r.Data), nil
}

// ready waits until actors are called: the sidecar has to have found the application, and placement the sidecar.
func (a *actorBench) ready() error {
	for end := time.Now().Add(actorsReady); ; time.Sleep(100 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), callMax)
		_, err := a.call(ctx, "Nothing", "0", "1")
		cancel()
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// counted tells whether turns of one actor are one after another: none of a crowd may see what another has seen.
func (a *actorBench) counted() error {
	const crowd = 100
	ctx, cancel := context.WithTimeout(context.Background(), callMax)
	defer cancel()
	seen, errs := map[string]bool{}, make([]error, crowd)
	var all sync.WaitGroup
	for i := range crowd {
		all.Go(func() {
			var got string
			got, errs[i] = a.call(ctx, "Add", "crowd", "1")
			a.mu.Lock()
			defer a.mu.Unlock()
			seen[got] = true
		})
	}
	all.Wait()
	err := errors.Join(errs...)
	if err == nil && len(seen) != crowd {
		err = fmt.Errorf("%d turns of one actor saw %d states", crowd, len(seen))
	}
	return err
}

// reminders measures how fast reminders are set that are due once, all at the same time, and how late each comes then. The rate of those
// that come is from the time that they are due until the last has come.
func (a *actorBench) reminders() error {
	for _, conc := range []int{1, 32, 128} {
		set, due := a.set(conc)
		if err := a.out.Encode(set); err != nil {
			return err
		}
		if set.Errors > 0 {
			return fmt.Errorf("%d reminders were not set: %s", set.Errors, set.Err)
		}
		come, err := a.come(due)
		come.Conc = conc
		if err = errors.Join(a.out.Encode(come), err); err != nil {
			return err
		}
	}
	return nil
}

// set sets reminders for a while, with a name of its own for each.
func (a *actorBench) set(conc int) (f load.Figure, due time.Time) {
	due = time.Now().Add(a.d + a.d/5 + reminderDelay).Truncate(time.Second).Add(time.Second) // times in requests are whole seconds
	a.mu.Lock()
	a.due, a.pending, a.late, a.settled, a.done = due, map[string]bool{}, nil, false, make(chan struct{})
	a.mu.Unlock()
	f = a.figure
	f.Bench, f.Variant = "reminder", "set"
	f = load.Run(f, conc, a.d, func(ctx context.Context, worker, i int) error {
		name := fmt.Sprintf("%d-%d-%d", conc, worker, i)
		a.mu.Lock()
		a.pending[name] = true
		a.mu.Unlock()
		return a.client.RegisterActorReminder(ctx, &client.RegisterActorReminderRequest{ActorType: tallyType, ActorID: fmt.Sprint((worker*7919 + i) % manyActors),
			Name: name, DueTime: due.Format(time.RFC3339)})
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settled = true
	a.tellDone()
	return f, due
}

func (a *actorBench) tellDone() {
	if a.settled && len(a.pending) == 0 {
		close(a.done)
	}
}

// reminded is told that a reminder came.
func (a *actorBench) reminded(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.pending[name] {
		return // it comes at least once
	}
	delete(a.pending, name)
	a.late = append(a.late, max(0, time.Since(a.due)))
	a.tellDone()
}

// come waits until all that were set have come.
func (a *actorBench) come(due time.Time) (f load.Figure, err error) {
	select {
	case <-a.done:
	case <-time.After(time.Until(due) + comeMax):
		err = fmt.Errorf("reminders have not come within %s", comeMax)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	f = a.figure
	f.Bench, f.Variant = "reminder", "come, late by"
	if n := len(a.pending); err != nil {
		f.Errors, f.Err = int64(n), err.Error()
	}
	return f.Summed(a.late, slices.Max(append(a.late, 0))), err
}
