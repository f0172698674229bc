package alarm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/delivery"
	"github.com/quipu-run/quipu/internal/timers"
	"github.com/quipu-run/quipu/view"
)

// Fate is what came of a delivery.
type Fate string

// Fates.
const (
	Delivered Fate = "delivered"
	Settled   Fate = "settled" // delivered, and its settle has committed with its effects
	Failed    Fate = "failed"  // the application could not, and it counts as an attempt
	Missed    Fate = "missed"  // it did not reach the application: no attempt
	Over      Fate = "over"    // delivered, and the alarm is to be no more
	GivenUp   Fate = "given up"
)

// Outcome is what came of a delivery, with the cause if it did not succeed.
type Outcome struct {
	Fate  Fate
	Cause string
}

// Settle adds to a transaction that an alarm was delivered. CodeNoAlarm if somebody else settled or replaced it: then nothing is to be
// committed.
type Settle = func(tx *view.Tx) error

// Deliver brings an alarm to its application. settle is for who commits effects of the delivery, all or nothing.
type Deliver func(ctx context.Context, a quipu.Alarm, settle Settle) Outcome

// CourierOptions are all required but Observe.
type CourierOptions struct {
	View    *View
	Book    *view.Book
	Clock   quipu.Clock
	Logger  *slog.Logger
	Deliver map[quipu.AlarmKind]Deliver
	// Observe, if set, is told what came of deliveries.
	Observe func(k quipu.AlarmKey, f Fate)
}

// Courier delivers alarms that are due. Its Handle is the handler of the timers of all kinds of alarms.
type Courier struct{ o CourierOptions }

// NewCourier makes a courier.
func NewCourier(o CourierOptions) *Courier {
	if o.Observe == nil {
		o.Observe = func(quipu.AlarmKey, Fate) {}
	}
	return &Courier{o}
}

// Handle delivers the alarm of a timer that is due, and sets or cancels the timer.
func (c *Courier) Handle(ctx context.Context, t timers.Timer) {
	tx := c.o.Book.Look()
	a, ok, err := c.o.View.read(tx, t.Key)
	if err = errors.Join(err, tx.Close()); err != nil || !ok {
		if err != nil {
			c.o.Logger.Error("an alarm cannot be read; it is tried again", "kind", t.Kind, "owner", t.Owner, "err", err)
		}
		return // with no alarm, the timer was cancelled meanwhile
	}
	out := c.o.Deliver[a.Kind](ctx, a, func(tx *view.Tx) error { return c.settle(tx, t, Outcome{Fate: Delivered}) })
	if ctx.Err() != nil && out.Fate != Settled && out.Fate != Delivered {
		return // the node ended it
	}
	why := ""
	if out.Fate == Missed {
		why = delivery.Cause(out.Cause)
	}
	c.o.View.wait(t.Key, why)
	c.o.Observe(a.AlarmKey, out.Fate)
	if out.Fate == Missed || out.Fate == Settled {
		return
	}
	_, err = c.o.Book.Change(context.WithoutCancel(ctx), func(tx *view.Tx) error { return c.settle(tx, t, out) })
	if err != nil && quipu.CodeOf(err) != quipu.CodeNoAlarm {
		c.o.Logger.Error("what came of an alarm cannot be recorded; it is delivered again", "kind", t.Kind, "owner", t.Owner, "err", err)
	}
}

// settle adds what came of a delivery to a transaction. An alarm that this transaction has set or cancelled itself stays as it did that.
// CodeNoAlarm if it does not stand as t any more.
func (c *Courier) settle(tx *view.Tx, t timers.Timer, out Outcome) error {
	v := c.o.View
	stands, changed, err := v.timers.Stands(tx, t)
	if err != nil {
		return err
	}
	if !stands {
		return none(alarmKey(t.Key))
	}
	if changed {
		return nil
	}
	d, ok, err := v.definition(tx, t.Key)
	if err != nil {
		return err
	}
	if !ok || out.Fate == Over {
		return v.remove(tx, t.Key)
	}
	s, err := decodeState(t.Body)
	if err != nil {
		return err
	}
	next, due, err := d.step(s, out, c.o.Clock.Now())
	if err != nil {
		return fmt.Errorf("%s %q: %w", t.Kind, t.ID, err)
	}
	if due.IsZero() {
		return v.remove(tx, t.Key)
	}
	return v.timers.Set(tx, timers.Timer{Key: t.Key, Due: due, Body: next.encode()})
}

// Retries of an alarm that says nothing about them: those of Dapr's scheduler.
const (
	retryInterval = time.Second
	retriesMax    = 3
)

// step is what follows an outcome at now: the next state and when it is due; zero if there is nothing more.
func (d definition) step(s state, out Outcome, now time.Time) (next state, due time.Time, err error) {
	next = s
	if out.Fate == Failed {
		next.Attempts++
		next.Cause = delivery.Cause(out.Cause)
		if again, wait := d.retry(next.Attempts); again {
			if due = now.Add(wait); d.isOver(due) {
				due = time.Time{}
			}
			return next, due, nil
		}
	} else {
		next.Cause = ""
	}
	next.Attempts = 0
	next.Fired++
	t, err := d.timing()
	if err != nil || !t.again || t.total > 0 && next.Fired >= t.total {
		return next, time.Time{}, err
	}
	if due = t.next(s.Tick, now); due.IsZero() || d.isOver(due) {
		return next, time.Time{}, nil
	}
	next.Tick = due
	return next, due, nil
}

// timing is how the alarm goes on after its first time.
func (d definition) timing() (t timing, err error) {
	if t.again = d.Schedule != ""; !t.again {
		return t, nil
	}
	if t.rhythm, err = parseRhythm(d.Schedule); err != nil {
		return t, err
	}
	if t.total = d.Repeats; t.total == 0 {
		t.total = t.repeats
	}
	return t, nil
}

func (d definition) isOver(at time.Time) bool {
	return at.After(latest) || !d.Expires.IsZero() && at.After(d.Expires)
}

// retry tells whether there is another attempt after so many, and how long that waits.
func (d definition) retry(attempts int) (again bool, wait time.Duration) {
	r := d.Retry
	switch {
	case r.Drop:
		return false, 0
	case r.Interval == 0 && r.Max == nil:
		return attempts <= retriesMax, retryInterval
	}
	return r.Max == nil || attempts <= *r.Max, time.Duration(r.Interval)
}
