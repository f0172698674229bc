package call

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/delivery"
	"github.com/quipu-run/quipu/view"
)

// Keys of the view for calls that have not ended. The first is what a transaction reads and writes that ends one, tries it
// again or cancels it: of two such only one commits.
const (
	byPending = "p/" // call id: the request
	byTried   = "a/" // call id: what came of its attempts so far; none before the first has failed
)

// pending is a call that was accepted and has not ended. Its byte form is that of a result: JSON with its length before
// it, then the body.
type pending struct {
	Info   quipu.CallInfo      `json:"info"` // as it was accepted
	Query  string              `json:"query,omitempty"`
	Header map[string][]string `json:"header,omitempty"` // of the request
	// Revision is the one that was named; "" leaves each attempt to the split, which its id decides.
	Revision string          `json:"revision,omitempty"`
	Key      string          `json:"key,omitempty"` // idempotency key
	Hash     string          `json:"hash,omitempty"`
	Blob     *quipu.BlobRef  `json:"blob,omitempty"` // of the body, if it is large
	Rules    quipu.AsyncSpec `json:"rules"`
	Hops     int             `json:"hops,omitempty"` // destinations on the way to this call
	body     []byte
	tried
}

// tried is what came of the attempts of a call.
type tried struct {
	ID       string     `json:"id,omitempty"`
	Attempts int        `json:"attempts,omitempty"`
	Due      time.Time  `json:"due,omitzero"` // of the next
	Error    quipu.Code `json:"error,omitempty"`
	Status   int        `json:"status,omitempty"`
	Cause    string     `json:"cause,omitempty"`
	// Usage is of the attempts that have a record.
	Usage quipu.Usage `json:"usage,omitzero"`
	// Execution goes on with the call, since Begun: there is no other attempt.
	Execution string    `json:"execution,omitempty"`
	Begun     time.Time `json:"begun,omitzero"`
}

var errPending = errors.New("malformed call that waits")

func (p *pending) encode(buf []byte) ([]byte, error) {
	stored := *p
	stored.tried = tried{}
	head, err := json.Marshal(&stored)
	if err != nil {
		return nil, err
	}
	buf = append(binary.AppendUvarint(buf, uint64(len(head))), head...)
	if p.Blob != nil {
		return buf, nil
	}
	return append(buf, p.body...), nil
}

func decodePending(b []byte) (*pending, error) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, errPending
	}
	p := &pending{}
	if err := json.Unmarshal(b[n:n+int(size)], p); err != nil {
		return nil, errors.Join(errPending, err)
	}
	p.body = b[n+int(size):]
	return p, nil
}

// due is when the next attempt may come. Fresh calls come in their turn among those that are tried again.
func (p *pending) due() time.Time {
	if p.Due.IsZero() {
		return p.Info.Queued
	}
	return p.Due
}

// info is the call as it stands now.
func (p *pending) info(running bool) quipu.CallInfo {
	i := p.Info
	i.State, i.Attempts, i.Next = quipu.CallQueued, p.Attempts, p.Due
	i.Error, i.Status, i.Cause, i.Usage = p.Error, p.Status, p.Cause, p.Usage
	i.Execution = p.Execution
	switch {
	case running || p.Execution != "":
		i.State, i.Next = quipu.CallRunning, time.Time{}
	case p.Attempts > 0:
		i.State = quipu.CallWaiting
	}
	return i
}

// queue adds a call that waits to a transaction.
func (s *Results) queue(tx *view.Tx, p *pending) error {
	if len(p.body) > quipu.InlineBytesMax {
		ref, err := s.blobs.Put(p.body)
		if err != nil {
			return fmt.Errorf("keep request: %w", err)
		}
		tx.OnClose(func() { s.blobs.Release(ref) })
		p.Blob = &ref
	}
	body, err := p.encode([]byte{opQueue})
	if err != nil {
		return err
	}
	if p.Key != "" {
		tx.Put(Name, keyName(p.Info.Function, p.Key), []byte(p.Info.ID))
	}
	tx.Put(Name, byPending+p.Info.ID, body[1:])
	return tx.Do(quipu.Op{View: Name, Body: body})
}

// waiting reads a call that has not ended, without a large body; nil if there is none. That it looked is part of the
// transaction.
func (s *Results) waiting(tx *view.Tx, id string) (*pending, error) {
	value, ok, err := tx.Get(Name, byPending+id)
	if err != nil || !ok {
		return nil, err
	}
	p, err := decodePending(value)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", id, err)
	}
	value, ok, err = tx.Get(Name, byTried+id)
	if err == nil && ok {
		err = json.Unmarshal(value, &p.tried)
	}
	if err != nil {
		return nil, fmt.Errorf("attempts of call %s: %w", id, err)
	}
	return p, nil
}

// fill reads a large body.
func (s *Results) fill(p *pending) (err error) {
	if p.Blob == nil {
		return nil
	}
	if p.body, err = s.blobs.Get(*p.Blob); err != nil {
		return fmt.Errorf("request of call %s: %w", p.Info.ID, err)
	}
	return nil
}

// park adds to a transaction that a call waits for another attempt.
func (s *Results) park(tx *view.Tx, t tried) error {
	t.Cause = delivery.Cause(t.Cause)
	body, err := json.Marshal(t)
	if err != nil {
		return err
	}
	tx.Put(Name, byTried+t.ID, body)
	return tx.Do(quipu.Op{View: Name, Body: append([]byte{opPark}, body...)})
}

// eachWaiting visits the calls that have not ended, without large bodies and in the order of their ids.
func (s *Results) eachWaiting(tx *view.Tx, visit func(*pending) error) error {
	var bad error
	attempts := map[string]tried{}
	err := tx.Peek(Name, byTried, byTried+"\xff", func(_ string, value []byte) bool {
		var t tried
		if bad = json.Unmarshal(value, &t); bad == nil {
			attempts[t.ID] = t
		}
		return bad == nil
	})
	if err = errors.Join(err, bad); err != nil {
		return err
	}
	err = tx.Peek(Name, byPending, byPending+"\xff", func(_ string, value []byte) bool {
		var p *pending
		if p, bad = decodePending(value); bad == nil {
			p.tried = attempts[p.Info.ID]
			bad = visit(p)
		}
		return bad == nil
	})
	return errors.Join(err, bad)
}

func (s *Results) applyQueue(b *view.Batch, body []byte) error {
	p, err := decodePending(body)
	if err != nil {
		return err
	}
	if p.Key != "" {
		if err := b.Set(Name, keyName(p.Info.Function, p.Key), []byte(p.Info.ID)); err != nil {
			return err
		}
	}
	w := newWaiting(p)
	s.note(func(q *queue) { q.add(w) })
	return b.Set(Name, byPending+p.Info.ID, body)
}

func (s *Results) applyPark(b *view.Batch, body []byte) error {
	var t tried
	if err := json.Unmarshal(body, &t); err != nil {
		return err
	}
	s.note(func(q *queue) { q.park(t) })
	return b.Set(Name, byTried+t.ID, body)
}

// applyEnd takes a call that has a result now off those that wait.
func (s *Results) applyEnd(b *view.Batch, info quipu.CallInfo) error {
	s.note(func(q *queue) { q.remove(info.ID) })
	s.mu.Lock()
	s.ends = append(s.ends, info)
	s.mu.Unlock()
	err := errors.Join(b.Delete(Name, byPending+info.ID), b.Delete(Name, byTried+info.ID))
	if info.Execution != "" {
		err = errors.Join(err, b.Delete(Name, executionPrefix(info.Function, info.Execution)+info.ID))
	}
	return err
}

// note remembers what the record being applied does to the queue, for when readers can see it.
func (s *Results) note(news func(*queue)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.news = append(s.news, news)
}

// takeNews is what was noted since it was last called.
func (s *Results) takeNews() (news []func(*queue), ends []quipu.CallInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	news, ends = s.news, s.ends
	s.news, s.ends = nil, nil
	return news, ends
}
