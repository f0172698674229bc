package call

import (
	"context"
	"errors"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// Workflows is the part of the workflow view that works inside a transaction.
type Workflows interface {
	Start(tx *view.Tx, s quipu.WorkflowStart) (string, error)
	Raise(tx *view.Tx, k quipu.WorkflowKey, event string, data []byte) error
}

// Alarms is the part of the view of jobs and reminders that works inside a transaction; see quipu.Alarms.
type Alarms interface {
	SetAlarm(tx *view.Tx, a quipu.Alarm) error
	CancelAlarm(tx *view.Tx, k quipu.AlarmKey) error
	CancelAlarms(tx *view.Tx, k quipu.AlarmKey) (int, error)
	// CancelInPages does it in transactions of a page each, which change makes.
	CancelInPages(ctx context.Context, k quipu.AlarmKey, change func(page func(*view.Tx) error) error) (int, error)
	Alarm(tx *view.Tx, k quipu.AlarmKey) (quipu.Alarm, error)
	ListAlarms(tx *view.Tx, k quipu.AlarmKey, after string, limit int) (list []quipu.Alarm, next string, err error)
}

// StartWorkflow is part of the call's transaction.
func (s *inCall) StartWorkflow(_ context.Context, w quipu.WorkflowStart) (id string, err error) {
	err = s.o.during(func() error {
		id, err = s.c.o.Workflows.Start(s.o.tx, w)
		return err
	})
	return id, err
}

// RaiseWorkflow is part of the call's transaction.
func (s *inCall) RaiseWorkflow(_ context.Context, k quipu.WorkflowKey, event string, data []byte) error {
	return s.o.during(func() error { return s.c.o.Workflows.Raise(s.o.tx, k, event, data) })
}

// SetAlarm is part of the call's transaction.
func (s *inCall) SetAlarm(_ context.Context, a quipu.Alarm) error {
	return s.o.during(func() error { return s.c.o.Alarms.SetAlarm(s.o.tx, a) })
}

// CancelAlarm is part of the call's transaction.
func (s *inCall) CancelAlarm(_ context.Context, k quipu.AlarmKey) error {
	return s.o.during(func() error { return s.c.o.Alarms.CancelAlarm(s.o.tx, k) })
}

// CancelAlarms is part of the call's transaction.
func (s *inCall) CancelAlarms(_ context.Context, k quipu.AlarmKey) (n int, err error) {
	err = s.o.during(func() error {
		n, err = s.c.o.Alarms.CancelAlarms(s.o.tx, k)
		return err
	})
	return n, err
}

func (s *inCall) Alarm(_ context.Context, k quipu.AlarmKey) (a quipu.Alarm, err error) {
	err = s.o.during(func() error {
		a, err = s.c.o.Alarms.Alarm(s.o.tx, k)
		return err
	})
	return a, err
}

func (s *inCall) ListAlarms(_ context.Context, k quipu.AlarmKey, after string, limit int) (list []quipu.Alarm, next string, err error) {
	err = s.o.during(func() error {
		list, next, err = s.c.o.Alarms.ListAlarms(s.o.tx, k, after, limit)
		return err
	})
	return list, next, err
}

// StartWorkflow is a record of its own.
func (s *outside) StartWorkflow(ctx context.Context, w quipu.WorkflowStart) (string, error) {
	id, err := s.c.o.Starter.StartWorkflow(ctx, w)
	return id, s.c.appended(s.payer, err)
}

// RaiseWorkflow is a record of its own.
func (s *outside) RaiseWorkflow(ctx context.Context, k quipu.WorkflowKey, event string, data []byte) error {
	return s.c.appended(s.payer, s.c.o.Starter.RaiseWorkflow(ctx, k, event, data))
}

// SetAlarm is a record of its own.
func (s *outside) SetAlarm(ctx context.Context, a quipu.Alarm) error {
	return s.change(ctx, func(tx *view.Tx) error { return s.c.o.Alarms.SetAlarm(tx, a) })
}

// CancelAlarm is a record of its own.
func (s *outside) CancelAlarm(ctx context.Context, k quipu.AlarmKey) error {
	return s.change(ctx, func(tx *view.Tx) error { return s.c.o.Alarms.CancelAlarm(tx, k) })
}

// CancelAlarms is a record for each page.
func (s *outside) CancelAlarms(ctx context.Context, k quipu.AlarmKey) (int, error) {
	return s.c.o.Alarms.CancelInPages(ctx, k, func(page func(*view.Tx) error) error { return s.change(ctx, page) })
}

func (s *outside) Alarm(ctx context.Context, k quipu.AlarmKey) (a quipu.Alarm, err error) {
	err = s.look(ctx, func(tx *view.Tx) error {
		a, err = s.c.o.Alarms.Alarm(tx, k)
		return err
	})
	return a, err
}

func (s *outside) ListAlarms(ctx context.Context, k quipu.AlarmKey, after string, limit int) (list []quipu.Alarm, next string, err error) {
	err = s.look(ctx, func(tx *view.Tx) error {
		list, next, err = s.c.o.Alarms.ListAlarms(tx, k, after, limit)
		return err
	})
	return list, next, err
}

// change is a record of its own, if there is anything to change.
func (s *outside) change(ctx context.Context, do func(*view.Tx) error) error {
	seq, err := s.c.o.Book.Change(ctx, do)
	if seq == 0 {
		return err
	}
	return s.c.appended(s.payer, err)
}

// look reads at one snapshot.
func (s *outside) look(ctx context.Context, do func(*view.Tx) error) error {
	tx := s.c.o.Book.LookUntil(ctx)
	return errors.Join(do(tx), tx.Close())
}
