package alarm

import (
	"context"
	"errors"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// Outside is the view for those who are in no transaction; it is quipu.Alarms.
type Outside struct {
	View *View
	Book *view.Book
}

var _ quipu.Alarms = Outside{}

// SetAlarm is a record of its own.
func (o Outside) SetAlarm(ctx context.Context, a quipu.Alarm) error {
	_, err := o.Book.Change(ctx, func(tx *view.Tx) error { return o.View.SetAlarm(tx, a) })
	return err
}

// CancelAlarm is a record of its own.
func (o Outside) CancelAlarm(ctx context.Context, k quipu.AlarmKey) error {
	_, err := o.Book.Change(ctx, func(tx *view.Tx) error { return o.View.CancelAlarm(tx, k) })
	return err
}

// CancelAlarms is a record for each page.
func (o Outside) CancelAlarms(ctx context.Context, k quipu.AlarmKey) (int, error) {
	return o.View.CancelInPages(ctx, k, func(page func(*view.Tx) error) error {
		_, err := o.Book.Change(ctx, page)
		return err
	})
}

// Alarm reads one.
func (o Outside) Alarm(_ context.Context, k quipu.AlarmKey) (quipu.Alarm, error) {
	tx := o.Book.Look()
	a, err := o.View.Alarm(tx, k)
	return a, errors.Join(err, tx.Close())
}

// ListAlarms reads a page.
func (o Outside) ListAlarms(_ context.Context, k quipu.AlarmKey, after string, limit int) (list []quipu.Alarm, next string, err error) {
	tx := o.Book.Look()
	list, next, err = o.View.ListAlarms(tx, k, after, limit)
	return list, next, errors.Join(err, tx.Close())
}
