package trigger

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/cloudevent"
	"github.com/quipu-run/quipu/view"
)

// Name is the name of the view of schedules: how far each has ticked.
const Name = "schedule"

// Ticker is that view, and what makes the ticks. A tick is an event of a platform topic, published by the record that
// says that it was: so there is exactly one for each time, whatever is restarted, and its call is a delivery like any
// other.
//
// Ticks of a time when no node ran are missed, and a jump of the clock counts as such a time; a trigger says what
// becomes of them. When the clock is set back nothing ticks until it is where it was.
type Ticker struct {
	o    TickerOptions
	kick chan struct{}
}

// TickerOptions are all required.
type TickerOptions struct {
	Clock     quipu.Clock
	Logger    *slog.Logger
	Functions func() []quipu.Function
	Put       func(tx *view.Tx, m quipu.Message) error
}

// NewTicker makes the machine of the view.
func NewTicker(o TickerOptions) *Ticker { return &Ticker{o: o, kick: make(chan struct{}, 1)} }

// Name is the constant Name.
func (t *Ticker) Name() string { return Name }

// mark is how far a schedule has ticked; also the operation of the view, with its key.
type mark struct {
	Schedule string    `json:"schedule"`
	Until    time.Time `json:"until"` // all ticks up to then were made or are not to be; zero forgets the schedule
}

// Apply writes what one operation does.
func (t *Ticker) Apply(b *view.Batch, op []byte, _ view.At) error {
	var m mark
	if err := json.Unmarshal(op, &m); err != nil {
		return err
	}
	if m.Until.IsZero() {
		return b.Delete(Name, m.Schedule)
	}
	return b.Set(Name, m.Schedule, op)
}

// Sync has the ticker look again at what functions there are. It does not wait.
func (t *Ticker) Sync() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// Times of the ticker.
const (
	lookEvery  = 30 * time.Second // at the clock, which may be set
	jumpMin    = 2 * lookEvery    // between two looks: then no node ran, or the clock was set
	ticksMax   = 1000             // of one schedule in one record
	catchUpMax = 10_000           // missed ticks that are made up for; older ones are not
)

// Run makes ticks until ctx ends.
func (t *Ticker) Run(ctx context.Context, book *view.Book) {
	var looked time.Time
	for ctx.Err() == nil {
		now := t.o.Clock.Now()
		next, err := t.tick(ctx, book, now, looked.IsZero() || now.Sub(looked) > jumpMin)
		wait := min(lookEvery, next.Sub(now))
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			t.o.Logger.Error("schedules cannot tick", "err", err)
			wait = retryAfter
		} else {
			looked = now
		}
		select {
		case <-t.o.Clock.After(max(time.Millisecond, wait)):
		case <-t.kick:
		case <-ctx.Done():
		}
	}
}

// tick makes what is due of all schedules and answers when the next is. missed says that no node ran before.
func (t *Ticker) tick(ctx context.Context, book *view.Book, now time.Time, missed bool) (next time.Time, err error) {
	next = now.Add(lookEvery)
	wanted := map[string]bool{}
	for _, f := range t.o.Functions() {
		for _, schedule := range f.Schedules() {
			wanted[ScheduleTopic(f.Name, schedule)] = true
			at, err := t.tickOne(ctx, book, f.Name, schedule, now, missed)
			if err != nil {
				return next, fmt.Errorf("function %s: %w", f.Name, err)
			}
			if !at.IsZero() && at.Before(next) {
				next = at
			}
		}
	}
	return next, t.forget(ctx, book, wanted)
}

// tickOne makes the ticks of one schedule that are due, in one record with how far it has come.
func (t *Ticker) tickOne(ctx context.Context, book *view.Book, function string, s quipu.ScheduleTrigger, now time.Time, missed bool) (next time.Time, err error) {
	plan, err := parseSchedule(s.Cron, s.Timezone)
	if err != nil {
		return next, err
	}
	name := ScheduleTopic(function, s)
	_, err = book.Change(ctx, func(tx *view.Tx) error {
		value, there, err := tx.Get(Name, name)
		if err != nil {
			return err
		}
		m := mark{Schedule: name, Until: now}
		if !there { // it begins now
			next = plan.next(now)
			return setMark(tx, m)
		}
		if err := json.Unmarshal(value, &m); err != nil {
			return err
		}
		if next = plan.next(m.Until); next.IsZero() || next.After(now) {
			return nil
		}
		due := plan.due(m.Until, now, missed, s.Missed)
		m.Until, next = now, plan.next(now)
		for _, at := range due {
			if err := t.publish(tx, name, function, s, at); err != nil {
				return err
			}
		}
		return setMark(tx, m)
	})
	return next, err
}

// due lists the ticks in (from, now], as far as they are to be made.
func (s schedule) due(from, now time.Time, missed bool, rule string) (due []time.Time) {
	most := ticksMax
	switch {
	case !missed:
	case rule == quipu.MissedNone:
		return nil
	case rule == quipu.MissedAll:
		most = catchUpMax
	default:
		most = 1
	}
	for at := s.next(from); !at.IsZero() && !at.After(now); at = s.next(at) {
		due = append(due, at)
		if len(due) > most {
			due = due[1:]
		}
	}
	return due
}

func setMark(tx *view.Tx, m mark) error {
	value, err := json.Marshal(m)
	if err != nil {
		return err
	}
	pending := value
	if m.Until.IsZero() {
		pending = nil
	}
	tx.Put(Name, m.Schedule, pending)
	return tx.Do(quipu.Op{View: Name, Body: value})
}

// publish makes one tick.
func (t *Ticker) publish(tx *view.Tx, topic, function string, s quipu.ScheduleTrigger, at time.Time) error {
	data, err := json.Marshal(map[string]string{"schedule": s.Cron, "timezone": s.Timezone, "time": at.UTC().Format(time.RFC3339)})
	if err != nil {
		return err
	}
	id, event, err := cloudevent.Wrap(cloudevent.Attributes{ID: tickID(topic, function, at),
		Source: "/schedule/" + function, Type: cloudevent.TypeTick, Time: at, DataContentType: "application/json"}, data)
	if err != nil {
		return err
	}
	return t.o.Put(tx, quipu.Message{Topic: topic, ID: id, ContentType: quipu.MediaCloudEvent, Data: event})
}

// tickID is the same whoever makes the tick; what tells schedules of one function apart comes last.
func tickID(topic, function string, at time.Time) string {
	sum := sha256.Sum256([]byte(topic))
	return fmt.Sprintf("%s-%s-%x", function, at.UTC().Format("20060102T150405Z"), sum[:3])
}

// forget removes what is known of schedules that no function has any more: when one comes back, it is new.
func (t *Ticker) forget(ctx context.Context, book *view.Book, wanted map[string]bool) error {
	var gone []string
	tx := book.Look()
	err := tx.Scan(Name, "", "", func(name string, _ []byte) bool {
		if !wanted[name] {
			gone = append(gone, name)
		}
		return true
	})
	if err = errors.Join(err, tx.Close()); err != nil || len(gone) == 0 {
		return err
	}
	_, err = book.Change(ctx, func(tx *view.Tx) error {
		for _, name := range gone {
			if err := setMark(tx, mark{Schedule: name}); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}
