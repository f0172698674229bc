package actor

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	kit "github.com/dapr/kit/time"
	"github.com/quipu-run/quipu"
)

// timerPeriodMin bounds how often a timer fires: one of a nanosecond would have a processor for itself.
const timerPeriodMin = time.Millisecond

// timer fires while its actor is active. Its next time is known when the turn of the one before has ended.
type timer struct {
	quipu.ActorTimer
	at      time.Time
	expires time.Time // zero for never
	period  period
	item    *item
}

// period is the time between two firings, and how many are left.
type period struct {
	years, months, days int
	rest                time.Duration
	left                int // -1 without end
}

// SetTimer has an actor called, in place of another timer of the same name. CodeAlarm: it cannot be understood; CodeTooMany.
func (e *Engine) SetTimer(t quipu.ActorTimer) error {
	if err := check(t.ActorKey); err != nil {
		return err
	}
	made, err := newTimer(t, e.o.Clock.Now())
	if err != nil {
		return err
	}
	made.item = &item{due: func() { e.tasks.Go(func() { e.fire(made) }) }}
	e.mu.Lock()
	defer e.mu.Unlock()
	old := e.timers[t.ActorKey][t.Name]
	switch {
	case e.closed:
		return &quipu.Error{Code: quipu.CodeStopping, Op: "timer.set"}
	case old != nil:
		e.agenda.drop(old.item)
	case e.ticks >= quipu.ActorTimersMax:
		return &quipu.Error{Code: quipu.CodeTooMany, Op: "timer.set", Text: fmt.Sprintf("there are %d timers of actors, which is the most", quipu.ActorTimersMax)}
	default:
		e.noteTimers(t.Type, 1)
	}
	if e.timers[t.ActorKey] == nil {
		e.timers[t.ActorKey] = map[string]*timer{}
	}
	e.timers[t.ActorKey][t.Name] = made
	e.agenda.set(made.item, made.at)
	return nil
}

// CancelTimer removes a timer, if it is there. A turn that it began goes on.
func (e *Engine) CancelTimer(k quipu.ActorKey, name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if t := e.timers[k][name]; t != nil {
		e.dropTimer(t)
	}
}

// dropTimer forgets a timer. The caller holds mu.
func (e *Engine) dropTimer(t *timer) {
	e.agenda.drop(t.item)
	delete(e.timers[t.ActorKey], t.Name)
	if len(e.timers[t.ActorKey]) == 0 {
		delete(e.timers, t.ActorKey)
	}
	e.noteTimers(t.Type, -1)
}

// dropTimers forgets those of an actor. The caller holds mu.
func (e *Engine) dropTimers(k quipu.ActorKey) {
	for _, t := range e.timers[k] {
		e.dropTimer(t)
	}
}

// noteTimers counts. The caller holds mu.
func (e *Engine) noteTimers(actorType string, n int) {
	e.ticks += n
	c := e.counts[actorType]
	c.Timers += n
	e.counts[actorType] = c
}

func newTimer(t quipu.ActorTimer, now time.Time) (*timer, error) {
	made := &timer{ActorTimer: t, at: now, period: period{left: 1}}
	refuse := func(what string, err error) (*timer, error) {
		return nil, &quipu.Error{Code: quipu.CodeAlarm, Op: "timer.set", Text: fmt.Sprintf("%s of timer %s of actor %s: %v", what, t.Name, t.ActorKey, err)}
	}
	var err error
	if t.DueTime != "" {
		if made.at, err = kit.ParseTime(t.DueTime, &now); err != nil {
			return refuse("the dueTime", err)
		}
	}
	if t.Period != "" {
		if made.period, err = parsePeriod(t.Period); err != nil {
			return refuse("the period", err)
		}
	}
	if t.TTL == "" {
		return made, nil
	}
	if made.expires, err = kit.ParseTime(t.TTL, &made.at); err != nil {
		return refuse("the ttl", err)
	}
	if now.After(made.expires) || made.at.After(made.expires) {
		return refuse("the ttl", fmt.Errorf("it has expired before the timer is due"))
	}
	return made, nil
}

func parsePeriod(text string) (p period, err error) {
	p.years, p.months, p.days, p.rest, p.left, err = kit.ParseDuration(text)
	switch {
	case err != nil:
		return p, err
	case p.left == 0:
		return p, fmt.Errorf("%q has zero repetitions", text)
	case p.years < 0 || p.months < 0 || p.days < 0 || p.rest < 0:
		return p, fmt.Errorf("%q goes back in time", text)
	}
	if p.years+p.months+p.days == 0 {
		if p.rest == 0 {
			p.left = 1 // as in Dapr, nothing follows
			return p, nil
		}
		p.rest = max(p.rest, timerPeriodMin)
	}
	return p, nil
}

// after is the next time, which is not before now: what was missed is not made up for.
func (p period) after(t, now time.Time) time.Time {
	t = t.AddDate(p.years, p.months, p.days).Add(p.rest)
	if t.Before(now) {
		return now
	}
	return t
}

// fire makes the turn of a timer, and sets its next time. A failure counts as a firing, as in Dapr.
func (e *Engine) fire(t *timer) {
	if !e.stands(t) {
		return
	}
	reply, err := e.Turn(e.ctx, t.call(), e.o.Invoke)
	ok := err == nil && Succeeded(reply)
	cancelled := ok && Cancels(reply)
	e.count(t.Type, func(c *Count) {
		c.TurnsOfTimers++
		if !ok {
			c.FailedTimers++
		}
	})
	if err != nil && e.ctx.Err() == nil {
		e.o.Logger.Warn("a timer of an actor failed", "actor", t.ActorKey.String(), "timer", t.Name, "err", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.timers[t.ActorKey][t.Name] != t {
		return // cancelled, replaced, or gone with its actor
	}
	if t.period.left > 0 {
		t.period.left--
	}
	now := e.o.Clock.Now()
	t.at = t.period.after(t.at, now)
	if cancelled || t.period.left == 0 || !t.expires.IsZero() && !t.at.Before(t.expires) {
		e.dropTimer(t)
		return
	}
	e.agenda.set(t.item, t.at)
}

func (e *Engine) stands(t *timer) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.timers[t.ActorKey][t.Name] == t
}

// Cancels tells whether an application wants a timer or a reminder no more.
func Cancels(reply *quipu.CallReply) bool { return isTrue(reply.Header.Get(CancelHeader)) }

// isTrue is any of Dapr's words for yes.
func isTrue(text string) bool {
	return slices.Contains([]string{"y", "yes", "true", "t", "on", "1"}, strings.ToLower(strings.TrimSpace(text)))
}

// call is what the application gets.
func (t *timer) call() quipu.ActorCall {
	body := struct {
		Callback string          `json:"callback"`
		Data     json.RawMessage `json:"data,omitempty"`
		DueTime  string          `json:"dueTime"`
		Period   string          `json:"period"`
	}{t.Callback, t.Data, t.DueTime, t.Period}
	return turnCall(t.ActorKey, "timer/"+url.PathEscape(t.Name), "timer/"+t.Name, t.DataType, body)
}

// TypeHeader names the type of the data of a timer or a reminder that is a google.protobuf.Any, for hosts that know such.
const TypeHeader = "Quipu-Data-Type"

func turnCall(k quipu.ActorKey, method, trigger, dataType string, body any) quipu.ActorCall {
	text, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("actor: marshal %T: %v", body, err)) // its data was checked
	}
	h := http.Header{"Content-Type": {"application/json"}}
	if dataType != "" {
		h.Set(TypeHeader, dataType)
	}
	return quipu.ActorCall{ActorKey: k, Method: method, CallRequest: quipu.CallRequest{Trigger: "actor/" + trigger, Header: h, Body: strings.NewReader(string(text))}}
}

// Remind has an actor make the turn of a reminder that is due.
func (e *Engine) Remind(ctx context.Context, a quipu.Alarm, do Do) (*quipu.CallReply, error) {
	body := struct {
		Data    json.RawMessage `json:"data,omitempty"`
		DueTime string          `json:"dueTime"`
		Period  string          `json:"period"`
	}{a.Data, a.DueTime, a.Schedule}
	return e.Turn(ctx, turnCall(quipu.ActorKey{Type: a.ActorType, ID: a.ActorID}, "remind/"+url.PathEscape(a.Name), "reminder/"+a.Name, a.DataType, body), do)
}
