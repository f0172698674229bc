package call

import (
	"context"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// group is a transaction as quipu.Group.
type group struct {
	c        *Caller
	tx       *view.Tx
	function string
}

func (g group) Get(_ context.Context, store string, keys ...string) ([]quipu.Item, error) {
	return g.c.o.States.Get(g.tx, g.function, store, keys)
}

func (g group) List(_ context.Context, store string, r quipu.ListRequest) (quipu.Page, error) {
	return g.c.o.States.List(g.tx, g.function, store, r)
}

func (g group) Apply(_ context.Context, store string, changes []quipu.Change) error {
	return g.c.o.States.Change(g.tx, g.function, store, changes)
}

func (g group) Publish(_ context.Context, ms []quipu.Message) error {
	return g.c.o.Topics.Publish(g.tx, ms)
}

func (g group) Cancel(_ context.Context, topic, id string) error {
	return g.c.o.Topics.Cancel(g.tx, topic, id)
}

// Holds reads the lease, so that the commit loses to whoever takes it meanwhile.
func (g group) Holds(l quipu.Lease) error { return g.c.holds(g.tx, l) }

func (g group) SetAlarm(_ context.Context, a quipu.Alarm) error {
	return g.c.o.Alarms.SetAlarm(g.tx, a)
}

func (g group) CancelAlarm(_ context.Context, k quipu.AlarmKey) error {
	return g.c.o.Alarms.CancelAlarm(g.tx, k)
}

func (g group) CancelAlarms(_ context.Context, k quipu.AlarmKey) (int, error) {
	return g.c.o.Alarms.CancelAlarms(g.tx, k)
}

func (g group) Alarm(_ context.Context, k quipu.AlarmKey) (quipu.Alarm, error) {
	return g.c.o.Alarms.Alarm(g.tx, k)
}

func (g group) ListAlarms(_ context.Context, k quipu.AlarmKey, after string, limit int) ([]quipu.Alarm, string, error) {
	return g.c.o.Alarms.ListAlarms(g.tx, k, after, limit)
}

// Together is a record of its own, with all that do does.
func (s *outside) Together(ctx context.Context, do func(quipu.Group) error) error {
	effects := false
	_, err := s.c.o.Book.Change(ctx, func(tx *view.Tx) error {
		err := do(group{c: s.c, tx: tx, function: s.function})
		_, ops := tx.Size()
		effects = ops > 0
		return err
	})
	if !effects {
		return err
	}
	return s.c.appended(s.payer, err)
}
