// Package alarm is the view of jobs and reminders: what an application, or an actor, wants to happen at a time, or again and again. It
// keeps what they are; their times are timers, which package timer keeps; Courier is the handler of those.
//
// What an alarm is lies in the log once, however often it happens: a delivery appends how often it was delivered and when it is due
// next. For an atomic function that is part of the record of what it did, so each time takes effect exactly once; for anything else
// it is a record after the delivery, which may so be made twice if the node is killed in between. What fails is tried again as the alarm says;
// what does not reach its application waits until it does.
//
// When no node ran, or deliveries took longer than the time between them, the times that were missed are made up for by one delivery.
package alarm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/timers"
	"github.com/quipu-run/quipu/view"
)

// Name is the name of the view.
const Name = "alarm"

// waitsMax bounds the alarms of which is known why they wait.
const waitsMax = 10_000

// Timers is the view of timers.
type Timers interface {
	Set(tx *view.Tx, t timers.Timer) error
	Get(tx *view.Tx, k timers.Key) (timers.Timer, bool, error)
	Stands(tx *view.Tx, t timers.Timer) (stands, changed bool, err error)
	Cancel(tx *view.Tx, k timers.Key) (bool, error)
	Count(kind string) int64
}

// View is the view of alarms. Its methods work inside a transaction.
type View struct {
	timers Timers

	mu    sync.Mutex // guards waits
	waits map[timers.Key]string
}

// New makes the view.
func New(t Timers) *View { return &View{timers: t, waits: map[timers.Key]string{}} }

// Name is the constant Name.
func (v *View) Name() string { return Name }

// keyOf is the timer of an alarm. CodeAlarm if there can be none of its name.
func keyOf(k quipu.AlarmKey) (timers.Key, error) {
	err := checkName(k.Name)
	if err == nil {
		err = checkOwner(k)
	}
	if err != nil {
		return timers.Key{}, bad(k, err)
	}
	return timers.Key{Kind: string(k.Kind), Owner: ownerOf(k), ID: idStart(k) + k.Name}, nil
}

func checkOwner(k quipu.AlarmKey) error {
	switch {
	case k.Kind == quipu.AlarmJob:
		return checkOwnerPart("application", k.App)
	case k.Kind == quipu.AlarmReminder:
		return errors.Join(checkOwnerPart("actor type", k.ActorType), checkOwnerPart("actor id", k.ActorID))
	}
	return fmt.Errorf("%.40q is no kind of them", k.Kind)
}

func checkOwnerPart(what, s string) error {
	if s == "" || len(s) > quipu.AlarmNameMax || strings.Contains(s, "\x00") {
		return fmt.Errorf("%.80q cannot be its %s", s, what)
	}
	return nil
}

// ownerOf is who an alarm belongs to, as its timer has it.
func ownerOf(k quipu.AlarmKey) string {
	if k.Kind == quipu.AlarmReminder {
		return k.ActorType
	}
	return k.App
}

// idStart is what the id of the timer has before the alarm's name.
func idStart(k quipu.AlarmKey) string {
	if k.Kind == quipu.AlarmReminder {
		return k.ActorID + "\x00"
	}
	return ""
}

// alarmKey is the reverse of keyOf.
func alarmKey(k timers.Key) quipu.AlarmKey {
	kind := quipu.AlarmKind(k.Kind)
	if kind == quipu.AlarmReminder {
		actor, name, _ := strings.Cut(k.ID, "\x00")
		return quipu.AlarmKey{Kind: kind, ActorType: k.Owner, ActorID: actor, Name: name}
	}
	return quipu.AlarmKey{Kind: kind, App: k.Owner, Name: k.ID}
}

func bad(k quipu.AlarmKey, err error) error {
	return &quipu.Error{Code: quipu.CodeAlarm, Op: "alarm", Text: fmt.Sprintf("%s %.80q: %s", cmp.Or(k.Kind, "alarm"), k.Name, err),
		Hint: quipu.Codes[quipu.CodeAlarm].Next, Err: err}
}

func none(k quipu.AlarmKey) error {
	return &quipu.Error{Code: quipu.CodeNoAlarm, Op: "alarm", Text: fmt.Sprintf("there is no %s %.80q", k.Kind, k.Name),
		Hint: quipu.Codes[quipu.CodeNoAlarm].Next}
}

// SetAlarm adds an alarm, in place of one of its name. One that would go before it is due is not kept. CodeAlarm, CodeAlarmExists,
// CodeTooMany.
func (v *View) SetAlarm(tx *view.Tx, a quipu.Alarm) error {
	k, err := keyOf(a.AlarmKey)
	if err != nil {
		return err
	}
	now := time.Unix(0, tx.Now())
	t, err := v.check(a, now)
	if err != nil {
		return bad(a.AlarmKey, err)
	}
	_, there, err := v.timers.Get(tx, k)
	switch {
	case err != nil:
		return err
	case there && a.Keep:
		return &quipu.Error{Code: quipu.CodeAlarmExists, Op: "alarm.set", Text: fmt.Sprintf("%s %q is there already", a.Kind, a.Name),
			Hint: quipu.Codes[quipu.CodeAlarmExists].Next}
	case !there && v.timers.Count(k.Kind) >= quipu.AlarmsMax:
		return &quipu.Error{Code: quipu.CodeTooMany, Op: "alarm.set", Text: fmt.Sprintf("there are %d of kind %s, which is the most", quipu.AlarmsMax, a.Kind),
			Hint: quipu.Codes[quipu.CodeTooMany].Next}
	case !t.expires.IsZero() && t.first.After(t.expires):
		return v.remove(tx, k)
	}
	if err := v.define(tx, k, definition{Alarm: a, Created: now, Expires: t.expires}); err != nil {
		return err
	}
	return v.timers.Set(tx, timers.Timer{Key: k, Due: t.first, Body: state{Tick: t.first}.encode()})
}

// check refuses what cannot be kept or done.
func (v *View) check(a quipu.Alarm, now time.Time) (timing, error) {
	switch r := a.Retry; {
	case len(a.Data) > quipu.AlarmDataMax:
		return timing{}, fmt.Errorf("its data has %d bytes, the most is %d", len(a.Data), quipu.AlarmDataMax)
	case len(a.DataType) > quipu.AlarmNameMax:
		return timing{}, fmt.Errorf("the type of its data has %d bytes, the most is %d", len(a.DataType), quipu.AlarmNameMax)
	case len(a.Schedule)+len(a.DueTime)+len(a.TTL) > quipu.AlarmNameMax:
		return timing{}, errors.New("its schedule is too long")
	case r.Interval < 0 || r.Max != nil && *r.Max < 0:
		return timing{}, errors.New("its failure policy has a negative number")
	}
	return parseTiming(a, now)
}

// CancelAlarm removes an alarm. CodeNoAlarm.
func (v *View) CancelAlarm(tx *view.Tx, k quipu.AlarmKey) error {
	key, err := keyOf(k)
	if err != nil {
		return err
	}
	_, ok, err := v.timers.Get(tx, key)
	if err == nil && !ok {
		err = none(k)
	}
	if err != nil {
		return err
	}
	return v.remove(tx, key)
}

// remove removes an alarm, if there is one.
func (v *View) remove(tx *view.Tx, k timers.Key) error {
	ok, err := v.timers.Cancel(tx, k)
	if err != nil || !ok {
		return err
	}
	return v.undefine(tx, k)
}

// CancelAlarms removes alarms of an application, or an actor, whose names start with k.Name; all of an actor type if no
// actor is named. It answers how many. CodeTxSize if there are more than one transaction takes.
func (v *View) CancelAlarms(tx *view.Tx, k quipu.AlarmKey) (int, error) {
	return v.CancelInPages(context.Background(), k, func(page func(*view.Tx) error) error { return page(tx) })
}

// CancelInPages does what CancelAlarms does in transactions of a page each, which change makes: however many there are, none of them is
// large. It ends with ctx, and with the first that fails; those before have been made.
func (v *View) CancelInPages(ctx context.Context, k quipu.AlarmKey, change func(page func(*view.Tx) error) error) (n int, err error) {
	if ownerOf(k) == "" {
		return 0, bad(k, errors.New("no owner is named"))
	}
	for after := ""; n < quipu.AlarmsMax; { // who sets them as fast as they go does not keep us
		if err := ctx.Err(); err != nil {
			return n, err
		}
		var keys []timers.Key
		if err := change(func(tx *view.Tx) (err error) {
			keys, err = v.removePage(tx, k, after)
			return err
		}); err != nil {
			return n, err
		}
		if n += len(keys); len(keys) < quipu.AlarmsList {
			break
		}
		after = placeIn(k, keys[len(keys)-1])
	}
	return n, nil
}

// removePage removes those that follow after, and answers which they were.
func (v *View) removePage(tx *view.Tx, k quipu.AlarmKey, after string) ([]timers.Key, error) {
	keys, err := v.keys(tx, k, after, quipu.AlarmsList)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		if err := v.remove(tx, key); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// Alarm reads an alarm. CodeNoAlarm.
func (v *View) Alarm(tx *view.Tx, k quipu.AlarmKey) (quipu.Alarm, error) {
	key, err := keyOf(k)
	if err != nil {
		return quipu.Alarm{}, err
	}
	a, ok, err := v.read(tx, key)
	if err == nil && !ok {
		err = none(k)
	}
	return a, err
}

// ListAlarms lists alarms whose names start with k.Name: of an application, an actor, or an actor type if no actor is named; all of the
// kind if there is no owner. next, if not "", is the after of the following page. limit 0 means quipu.AlarmsList, which is also the most.
func (v *View) ListAlarms(tx *view.Tx, k quipu.AlarmKey, after string, limit int) (list []quipu.Alarm, next string, err error) {
	if limit <= 0 || limit > quipu.AlarmsList {
		limit = quipu.AlarmsList
	}
	keys, err := v.keys(tx, k, after, limit+1)
	if err != nil {
		return nil, "", err
	}
	for i, key := range keys {
		if i == limit {
			return list, placeIn(k, keys[i-1]), nil
		}
		a, ok, err := v.read(tx, key)
		if err != nil {
			return nil, "", err
		}
		if ok {
			list = append(list, a)
		}
	}
	return list, "", nil
}

// read puts together what an alarm is and how far it is.
func (v *View) read(tx *view.Tx, k timers.Key) (a quipu.Alarm, ok bool, err error) {
	t, ok, err := v.timers.Get(tx, k)
	if err != nil || !ok {
		return a, false, err
	}
	d, ok, err := v.definition(tx, k)
	if err != nil || !ok {
		return a, false, err
	}
	s, err := decodeState(t.Body)
	if err != nil {
		return a, false, fmt.Errorf("%s %q: %w", k.Kind, k.ID, err)
	}
	a = d.Alarm
	a.AlarmKey, a.Created, a.Expires = alarmKey(k), d.Created, d.Expires
	a.Next, a.Fired, a.Attempts, a.Cause = t.Due, s.Fired, s.Attempts, s.Cause
	if why := v.waiting(k); why != "" {
		a.Cause = why
	}
	return a, true, nil
}

// wait remembers why an alarm that is due waits, or with "" that it does not.
func (v *View) wait(k timers.Key, why string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case why == "":
		delete(v.waits, k)
	case len(v.waits) < waitsMax:
		v.waits[k] = why
	}
}

func (v *View) waiting(k timers.Key) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.waits[k]
}
