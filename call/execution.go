package call

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/delivery"
	"github.com/quipu-run/quipu/view"
)

// A call of a durable function that nobody waits for is over when its execution is, which may take weeks. From the record that says
// that the execution has begun, the call is not in the queue any more, and takes no memory: the view has it, and where the
// execution finds it. The record in which the execution ends, ends the call.

// byExecution finds the calls that end with an execution: function, NUL, id of the execution, NUL, call id: nothing.
const byExecution = "x/"

// Executions are those of durable functions, as far as calls need them. Both are part of a transaction.
type Executions interface {
	// AwaitEnd has Caller.ExecutionEnded called in the record in which an execution ends, or answers how it has ended.
	AwaitEnd(tx *view.Tx, function, execution string) (*ExecutionEnd, error)
	// Terminate ends an execution, unless it has ended.
	Terminate(tx *view.Tx, function, execution string) error
}

// ExecutionEnd is how an execution ended: with an answer, or with Err.
type ExecutionEnd struct {
	Revision string
	Status   int
	Header   http.Header
	Body     []byte
	Err      error
}

// begun is that an execution goes on with a call.
type begun struct {
	Function string `json:"function"`
	tried
}

func executionPrefix(function, execution string) string {
	return byExecution + function + "\x00" + execution + "\x00"
}

// handOver has a call wait for the end of its execution, or end with it if that was before. Of a call that was cancelled
// meanwhile nothing goes on.
func (c *Caller) handOver(tx *view.Tx, q *request, now time.Time) error {
	p, err := c.o.Results.waiting(tx, q.id)
	if err != nil {
		return err
	}
	if p == nil {
		return c.o.Executions.Terminate(tx, q.f.Name, q.execution)
	}
	end, err := c.o.Executions.AwaitEnd(tx, q.f.Name, q.execution)
	if err != nil {
		return err
	}
	t := p.tried
	t.ID, t.Attempts, t.Execution, t.Begun = q.id, p.Attempts+1, q.execution, now
	t.Due, t.Error, t.Status, t.Cause = time.Time{}, "", 0, ""
	if end != nil {
		p.tried = t
		return c.endWith(tx, p, *end, now)
	}
	body, err := json.Marshal(begun{q.f.Name, t})
	if err != nil {
		return err
	}
	tx.Put(Name, byTried+q.id, body)
	tx.Put(Name, executionPrefix(q.f.Name, q.execution)+q.id, []byte{})
	return tx.Do(quipu.Op{View: Name, Body: append([]byte{opBegin}, body...)})
}

func (s *Results) applyBegin(b *view.Batch, body []byte) error {
	var one begun
	if err := json.Unmarshal(body, &one); err != nil {
		return err
	}
	s.note(func(q *queue) { q.remove(one.ID) })
	return errors.Join(b.Set(Name, byTried+one.ID, body), b.Set(Name, executionPrefix(one.Function, one.Execution)+one.ID, nil))
}

// ExecutionEnded ends the calls that wait for the end of an execution, as a part of its record.
func (c *Caller) ExecutionEnded(tx *view.Tx, function, execution string, end ExecutionEnd) error {
	prefix := executionPrefix(function, execution)
	var ids []string
	err := tx.Scan(Name, prefix, view.After(prefix), func(key string, _ []byte) bool {
		ids = append(ids, strings.TrimPrefix(key, prefix))
		return true
	})
	now := c.o.Clock.Now()
	for _, id := range ids {
		p, loadErr := c.o.Results.waiting(tx, id)
		if err = errors.Join(err, loadErr); err != nil {
			return err
		}
		if p == nil {
			continue // it was cancelled
		}
		if err := c.endWith(tx, p, end, now); err != nil {
			return err
		}
	}
	return err
}

// endWith adds the end of a call that its execution ended with. The function has made its attempts: there is no other.
func (c *Caller) endWith(tx *view.Tx, p *pending, end ExecutionEnd, now time.Time) error {
	if err := c.o.Results.fill(p); err != nil {
		return err
	}
	e := p.ended(quipu.CallSucceeded, now)
	i := &e.info
	i.Revision, i.Status, i.Runs, i.Micros = cmp.Or(end.Revision, i.Revision), end.Status, 1, now.Sub(p.Begun).Microseconds()
	switch {
	case end.Err != nil:
		failure := quipu.AsError(end.Err)
		i.State, i.Error, i.Status, i.Cause = quipu.CallFailed, failure.Code, quipu.Codes[failure.Code].Status, failure.Text
		return c.end(tx, p, e)
	case end.Status >= http.StatusBadRequest:
		i.State = quipu.CallFailed
		i.Cause = fmt.Sprintf("status %d: %s", end.Status, bytes.TrimSpace(end.Body[:min(len(end.Body), delivery.CauseBytesMax)]))
	}
	e.header, e.body = end.Header, end.Body
	return c.end(tx, p, e)
}

// inExecution lists calls whose executions have not ended, of one function unless it is "", the newest first.
func (s *Results) inExecution(tx *view.Tx, function string, limit int) (ids []string, err error) {
	prefix := byExecution
	if function != "" {
		prefix += function + "\x00"
	}
	newest := func(a, b string) int { return cmp.Compare(b, a) } // ids begin with their time
	err = tx.Peek(Name, prefix, view.After(prefix), func(key string, _ []byte) bool {
		if ids = append(ids, key[strings.LastIndexByte(key, 0)+1:]); len(ids) >= 2*limit {
			slices.SortFunc(ids, newest)
			ids = ids[:limit]
		}
		return true
	})
	slices.SortFunc(ids, newest)
	return ids[:min(limit, len(ids))], err
}
