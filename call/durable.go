package call

import (
	"bytes"
	"context"
	"io"
	"net/http"

	"github.com/quipu-run/quipu"
)

// Execution asks for an execution of a durable function, which is more than one call: package step has its life.
type Execution struct {
	quipu.CallRequest
	Function quipu.Function
	ID       string
	Named    bool   // the id says which execution it is; there may be one
	Hash     string // of the request, if the id is its idempotency key
	Call     string // id of the call
	Bytes    []byte // the body
	Async    bool   // nobody waits for its end
}

// durable has an execution of a durable function made, or waits for the one that is there.
func (c *Caller) durable(ctx context.Context, q *request) (*quipu.CallReply, error) {
	x := Execution{CallRequest: q.CallRequest, Function: q.f, ID: q.id, Call: q.id, Bytes: q.body, Async: q.delivery != nil || q.deferred != nil}
	switch {
	case q.IdempotencyKey != "":
		x.ID, x.Named, x.Hash = q.IdempotencyKey, true, q.fingerprint()
	case q.deferred != nil:
		x.Named = true
		if q.deferred.Key != "" {
			x.ID = q.deferred.Key
		}
	case q.Cause != "":
		x.ID, x.Named = q.Cause, true
	}
	reply, err := c.o.Durable(ctx, x)
	if err != nil {
		return nil, err
	}
	if q.deferred != nil {
		q.execution = x.ID
	}
	q.info.Status, q.info.Runs = reply.Status, 1
	reply.Call = q.id
	c.ended(q)
	return reply, nil
}

// Attempt is one run of a durable function.
type Attempt struct {
	quipu.CallRequest
	Call  string // id
	Bytes []byte // the body
}

// Attempt makes one run, whose reply is in memory. It ends with ctx.
func (c *Caller) Attempt(ctx context.Context, f quipu.Function, a Attempt) (status int, header http.Header, body []byte, err error) {
	if err := c.o.Meter.Allow(f.Name); err != nil {
		return 0, nil, nil, err
	}
	q := c.newRequest(a.CallRequest, f, a.Call, 1)
	q.body, q.attempt = a.Bytes, true
	q.ContentLength = int64(len(a.Bytes))
	reply, err := c.run(ctx, q)
	if err != nil {
		return 0, nil, nil, err
	}
	body, err = io.ReadAll(reply.Body) // which is in memory
	return reply.Status, reply.Header, body, err
}

// Recorded is the reply of an execution.
func Recorded(revision string, status int, header http.Header, body []byte) *quipu.CallReply {
	return &quipu.CallReply{Revision: revision, Status: status, Header: header, Body: io.NopCloser(bytes.NewReader(body))}
}
