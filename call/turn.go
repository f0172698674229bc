package call

import (
	"context"
	"net/http"
	"net/textproto"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// actorErrorHeader is how an application says that a method of an actor failed, in a reply of status 200.
var actorErrorHeader = textproto.CanonicalMIMEHeaderKey("X-DaprErrorResponseHeader")

// placeFor is how a call gets its place: a turn of an actor needs one in a certain instance.
func (c *Caller) placeFor(q *request, any func(context.Context, quipu.Function) (Lease, error)) func(context.Context, quipu.Function) (Lease, error) {
	if q.Turn == nil {
		return any
	}
	return func(ctx context.Context, f quipu.Function) (Lease, error) {
		return c.o.AcquireAt(ctx, f, q.Turn.Instance, q.depth > 1)
	}
}

// acceptsTurn tells whether what a turn did counts: 200 is the only status of success, as in Dapr.
func acceptsTurn(h *held) bool {
	_, failed := h.header[actorErrorHeader]
	return h.status == http.StatusOK && !failed
}

// again says that a run did not count.
func (q *request) again(ctx context.Context) {
	if q.Turn != nil && q.Turn.Again != nil {
		q.Turn.Again(ctx)
	}
}

// joins lets a turn go on until the transaction that its call takes part in has ended.
func (q *request) joins(tx *view.Tx) {
	if q.Turn != nil && q.Turn.Joins != nil {
		tx.OnEnd(q.Turn.Joins())
	}
}

// guard has the effects of a turn count only while the actor is its instance's.
func (c *Caller) guard(tx *view.Tx, q *request) error {
	if q.Turn == nil {
		return nil
	}
	if _, ops := tx.Size(); ops == 0 {
		return nil
	}
	return c.holds(tx, q.Turn.Lease)
}

func (c *Caller) holds(tx *view.Tx, l quipu.Lease) error {
	if c.o.Holds == nil || l.Name == "" {
		return nil
	}
	return c.o.Holds(tx, l)
}
