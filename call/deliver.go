package call

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/oklog/ulid/v2"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// Delivery is a call that a trigger makes.
type Delivery struct {
	quipu.CallRequest
	// Accept tells from the reply of an atomic function whether its effects count.
	Accept func(f quipu.Function, status int, body []byte) bool
	// Settle adds the acknowledgement to the transaction of an atomic function whose reply was accepted: both commit,
	// or neither. Its error ends the call without a commit.
	Settle func(tx *view.Tx) error
}

// Delivered is what came of a delivery.
type Delivered struct {
	Function quipu.Function // at the revision that answered
	Status   int
	Header   http.Header
	Body     []byte
	// Lost is how often the call lost to other commits before it was over.
	Lost int
	// Settled: the effects and the acknowledgement are durable, in one record.
	Settled bool
}

// Deliver calls a function for a trigger. The errors are those of Invoke.
func (c *Caller) Deliver(ctx context.Context, d Delivery) (out Delivered, err error) {
	id := ulid.Make().String()
	f, err := c.o.Find(d.CallRequest, id)
	if err == nil {
		err = c.o.Meter.Allow(f.Name)
	}
	if err != nil {
		return out, err
	}
	out.Function = f
	q := c.newRequest(d.CallRequest, f, id, 1)
	q.delivery = &d
	reply, err := c.run(ctx, q)
	out.Lost = max(0, q.info.Runs-1)
	if err != nil {
		return out, err
	}
	defer reply.Body.Close()
	out.Status, out.Header, out.Settled = reply.Status, reply.Header, q.settled
	if out.Body, err = io.ReadAll(io.LimitReader(reply.Body, quipu.AtomicBodyMax)); err != nil {
		return out, &quipu.Error{Code: quipu.CodeCrashed, Op: "call",
			Text: fmt.Sprintf("function %s broke off in its reply", f.Name), Hint: fmt.Sprintf("quipu logs %s shows its output", f.Name), Err: err}
	}
	return out, nil
}

// accepts tells whether the effects of a call with this reply count.
func (q *request) accepts(h *held) bool {
	if q.Turn != nil {
		return acceptsTurn(h)
	}
	if q.delivery != nil {
		return q.delivery.Accept(q.f, h.status, h.body)
	}
	if failed := http.Header(h.tail).Get("Grpc-Status"); failed != "" && failed != "0" {
		return false // gRPC has one status of HTTP for everything
	}
	return h.status < http.StatusBadRequest
}

// settle acknowledges what a trigger delivers.
func (q *request) settle(tx *view.Tx) error {
	if q.delivery == nil {
		return nil
	}
	return q.delivery.Settle(tx)
}
