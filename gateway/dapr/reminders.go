package dapr

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	kit "github.com/dapr/kit/time"
	"github.com/quipu-run/quipu"
	"google.golang.org/grpc/codes"
)

// Tags and prefixes of errors of reminders.
const (
	tagReminderSet    = "ERR_ACTOR_REMINDER_CREATE"
	tagReminderGet    = "ERR_ACTOR_REMINDER_GET"
	tagReminderDelete = "ERR_ACTOR_REMINDER_DELETE"

	textReminderSet    = "error creating actor reminder: "
	textReminderGet    = "error getting actor reminder: "
	textReminderDelete = "error deleting actor reminder: "
)

// remindersMax bounds a listing.
const remindersMax = 10_000

// reminder is one as a client asks for it.
type reminder struct {
	quipu.AlarmKey
	due, period, ttl string
	data             []byte // JSON
	keep             bool
	retry            quipu.AlarmRetry
}

// mayRemind refuses reminders of types that the application does not host.
func (d *Door) mayRemind(r *http.Request, actorType string) error {
	if err := notReserved(actorType); err != nil {
		return err
	}
	if !d.actorsOf(r).Hosts(actorType) {
		return &problem{status: http.StatusForbidden, tag: "ERR_ACTOR_REMINDER_NON_HOSTED", message: "operations on actor reminders are only possible on hosted actor types"}
	}
	return nil
}

// setReminder is durable on return, or a part of the call's transaction. What is set in a turn of the actor counts only while the actor
// lives in the instance that asks.
func (d *Door) setReminder(r *http.Request, in reminder) error {
	if err := notReserved(in.ActorType); err != nil {
		return err
	}
	if in.Name == "" {
		return badRequest("reminder name cannot be empty")
	}
	if err := checkName(in.Name); err != nil {
		return badRequest("%v", err)
	}
	if err := d.mayRemind(r, in.ActorType); err != nil {
		return err
	}
	a, err := in.alarm()
	if err != nil {
		return &problem{status: http.StatusInternalServerError, tag: tagReminderSet, message: textReminderSet + err.Error()}
	}
	err = d.changeReminders(r, in.AlarmKey, func(all quipu.Alarms) error { return all.SetAlarm(r.Context(), a) })
	if quipu.CodeOf(err) == quipu.CodeAlarmExists {
		return &problem{status: http.StatusConflict, code: codes.AlreadyExists, tag: "ERR_ACTOR_REMINDER_ALREADY_EXISTS", message: "actor reminder already exists: " + in.Name}
	}
	return d.reminderProblem(r, tagReminderSet, textReminderSet, err)
}

// alarm is the reminder in our words: a period of years, months or days is refused, as Dapr's scheduler does.
func (in reminder) alarm() (a quipu.Alarm, err error) {
	a = quipu.Alarm{AlarmKey: in.AlarmKey, DueTime: in.due, TTL: in.ttl, Data: in.data, Keep: in.keep, Retry: in.retry}
	if in.period == "" {
		if a.DueTime == "" {
			a.DueTime = "0s"
		}
		return a, nil
	}
	years, months, days, every, repeats, err := kit.ParseDuration(in.period)
	if err != nil || years > 0 || months > 0 || days > 0 {
		return a, fmt.Errorf("unsupported period format: %s", in.period)
	}
	a.Schedule, a.Repeats = "@every "+every.String(), max(0, repeats)
	return a, nil
}

// changeReminders does it under the lease of the actor, if that lives in the instance that asks.
func (d *Door) changeReminders(r *http.Request, k quipu.AlarmKey, do func(quipu.Alarms) error) error {
	session, err := d.opt.Session(r)
	if err != nil {
		return err
	}
	lease, err := d.actorsOf(r).Lease(quipu.ActorKey{Type: k.ActorType, ID: k.ActorID})
	if err != nil { // anybody of the application may set reminders
		return do(session)
	}
	return session.Together(r.Context(), func(g quipu.Group) error {
		return errors.Join(g.Holds(lease), do(g))
	})
}

// reminderProblem says 500 of what the client did wrong, as Dapr does.
func (d *Door) reminderProblem(r *http.Request, tag, prefix string, err error) error {
	if err == nil {
		return nil
	}
	p := d.problem(r, tag, prefix, err)
	p.reason = ""
	if quipu.CodeOf(err) == quipu.CodeAlarm {
		p.status = http.StatusInternalServerError
	}
	return p
}

// dropReminder is no error for one that is not there.
func (d *Door) dropReminder(r *http.Request, k quipu.AlarmKey) error {
	if err := d.mayRemind(r, k.ActorType); err != nil {
		return err
	}
	err := d.changeReminders(r, k, func(all quipu.Alarms) error { return all.CancelAlarm(r.Context(), k) })
	if quipu.CodeOf(err) == quipu.CodeNoAlarm {
		return nil
	}
	return d.reminderProblem(r, tagReminderDelete, textReminderDelete, err)
}

// dropReminders removes those of an actor, or of all of a type.
func (d *Door) dropReminders(r *http.Request, k quipu.AlarmKey) error {
	if err := d.mayRemind(r, k.ActorType); err != nil {
		return err
	}
	session, err := d.opt.Session(r)
	if err == nil {
		_, err = session.CancelAlarms(r.Context(), k)
	}
	return d.reminderProblem(r, tagReminderDelete, textReminderDelete, err)
}

func (d *Door) reminder(r *http.Request, k quipu.AlarmKey) (a quipu.Alarm, err error) {
	if err := d.mayRemind(r, k.ActorType); err != nil {
		return a, err
	}
	session, err := d.opt.Session(r)
	if err == nil {
		a, err = session.Alarm(r.Context(), k)
	}
	if quipu.CodeOf(err) == quipu.CodeNoAlarm {
		return a, &problem{status: http.StatusNotFound, tag: "ERR_ACTOR_REMINDER_NOT_FOUND", message: "actor reminder not found: " + k.Name}
	}
	return a, d.reminderProblem(r, tagReminderGet, textReminderGet, err)
}

// reminders lists those of an actor, or of all of a type.
func (d *Door) reminders(r *http.Request, k quipu.AlarmKey) (all []quipu.Alarm, err error) {
	if err := d.mayRemind(r, k.ActorType); err != nil {
		return nil, err
	}
	session, err := d.opt.Session(r)
	for after := ""; err == nil; {
		var some []quipu.Alarm
		if some, after, err = session.ListAlarms(r.Context(), k, after, quipu.AlarmsList); err != nil {
			break
		}
		if all = append(all, some...); after == "" {
			return all, nil
		}
		if len(all) >= remindersMax {
			return nil, &problem{status: http.StatusInternalServerError, code: codes.ResourceExhausted, tag: tagReminderGet, message: fmt.Sprintf("there are more than %d reminders", remindersMax)}
		}
	}
	return nil, d.reminderProblem(r, tagReminderGet, textReminderGet, err)
}

// expiryOfAlarm is its time to live as Dapr tells it; "" for ever.
func expiryOfAlarm(a quipu.Alarm) string {
	if a.Expires.IsZero() {
		return ""
	}
	return a.Expires.Format(time.RFC3339Nano)
}
