package fake

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/quipu-run/quipu"
)

// Alarms keeps jobs and reminders, and delivers none. It checks little. The zero Alarms is ready.
type Alarms struct {
	mu  sync.Mutex
	all map[quipu.AlarmKey]quipu.Alarm
}

func none(k quipu.AlarmKey) error {
	return &quipu.Error{Code: quipu.CodeNoAlarm, Op: "alarm", Text: "there is no " + string(k.Kind) + " " + k.Name}
}

// SetAlarm refuses what has neither a due time nor a schedule.
func (f *Alarms) SetAlarm(_ context.Context, a quipu.Alarm) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, there := f.all[a.AlarmKey]
	switch {
	case a.Schedule == "" && a.DueTime == "":
		return &quipu.Error{Code: quipu.CodeAlarm, Op: "alarm.set", Text: "it has neither a due time nor a schedule"}
	case there && a.Keep:
		return &quipu.Error{Code: quipu.CodeAlarmExists, Op: "alarm.set", Text: a.Name + " is there already"}
	case f.all == nil:
		f.all = map[quipu.AlarmKey]quipu.Alarm{}
	}
	a.Keep, a.Created, a.Next = false, Epoch, Epoch
	f.all[a.AlarmKey] = a
	return nil
}

// CancelAlarm removes one.
func (f *Alarms) CancelAlarm(_ context.Context, k quipu.AlarmKey) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.all[k]; !ok {
		return none(k)
	}
	delete(f.all, k)
	return nil
}

// CancelAlarms removes those that ListAlarms lists.
func (f *Alarms) CancelAlarms(ctx context.Context, k quipu.AlarmKey) (int, error) {
	list, _, err := f.ListAlarms(ctx, k, "", 0)
	for _, a := range list {
		err = cmp.Or(err, f.CancelAlarm(ctx, a.AlarmKey))
	}
	return len(list), err
}

// Alarm reads one.
func (f *Alarms) Alarm(_ context.Context, k quipu.AlarmKey) (quipu.Alarm, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, ok := f.all[k]
	if !ok {
		return a, none(k)
	}
	return a, nil
}

// ListAlarms answers all at once.
func (f *Alarms) ListAlarms(_ context.Context, k quipu.AlarmKey, after string, _ int) (list []quipu.Alarm, next string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, a := range f.all {
		same := key.Kind == k.Kind && (k.App == "" || key.App == k.App) && (k.ActorType == "" || key.ActorType == k.ActorType) && (k.ActorID == "" || key.ActorID == k.ActorID)
		if same && strings.HasPrefix(a.Name, k.Name) && a.Name > after {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, func(a, b quipu.Alarm) int { return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Name, b.Name)) })
	return list, "", nil
}
