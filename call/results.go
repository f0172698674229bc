package call

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// Name is the name of the view of results.
const Name = "call"

// Keys of the view.
const (
	byID       = "c/" // call id: the result
	byKey      = "i/" // function, NUL, idempotency key: the call id
	byTime     = "t/" // time, newest first: the call id
	byFunction = "f/" // function, NUL, time, newest first: the call id
)

// Blobs keeps large replies. What was Put is held until Release, by when a record refers to it, or none ever will.
type Blobs interface {
	Put(data []byte) (quipu.BlobRef, error)
	Release(ref quipu.BlobRef)
	Get(ref quipu.BlobRef) ([]byte, error)
}

// Results is the view: what calls answered, and the calls that wait to be made.
type Results struct {
	blobs Blobs

	mu   sync.Mutex
	news []func(*queue)   // what the record being applied does to the queue
	ends []quipu.CallInfo // the calls that nobody waits for which it ends
}

// NewResults makes a view whose large replies go to blobs.
func NewResults(blobs Blobs) *Results { return &Results{blobs: blobs} }

// Name is the constant Name.
func (s *Results) Name() string { return Name }

// result is what is kept of a call. Its byte form is the length of the JSON as varint, the JSON, and the
// body of the reply, then the start of the request's body. In the view the seq of the record, 8 bytes
// little-endian, comes before that.
type result struct {
	Info   quipu.CallInfo      `json:"info"`
	Header map[string][]string `json:"header,omitempty"`
	Blob   *quipu.BlobRef      `json:"blob,omitempty"` // of the body, if it is large
	Key    string              `json:"key,omitempty"`  // idempotency key
	Hash   string              `json:"hash,omitempty"` // of the request that came with it
	Query  string              `json:"query,omitempty"`
	Sent   int                 `json:"sent,omitempty"`  // bytes of the request's body
	Kept   int                 `json:"kept,omitempty"`  // of them here, up to CallBodyKept
	Asked  map[string][]string `json:"asked,omitempty"` // headers of the request that say what its body is
	body   []byte
	input  []byte
}

var errResult = errors.New("malformed result of a call")

func (r *result) encode(buf []byte) ([]byte, error) {
	head, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	buf = binary.AppendUvarint(buf, uint64(len(head)))
	buf = append(append(buf, head...), r.body...)
	return append(buf, r.input...), nil
}

func decodeResult(b []byte) (*result, error) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, errResult
	}
	r, rest := &result{}, b[n+int(size):]
	if err := json.Unmarshal(b[n:n+int(size)], r); err != nil {
		return nil, errors.Join(errResult, err)
	}
	if r.Kept < 0 || r.Kept > len(rest) {
		return nil, errResult
	}
	r.body, r.input = rest[:len(rest)-r.Kept], rest[len(rest)-r.Kept:]
	return r, nil
}

// Operations: a byte that tells which, then
//
//	keep    a result of a call that nobody waited for, which it ends
//	answer  the call's id, function and idempotency key, each with its length as varint, then the result of a call whose caller waited:
//	        these are most, and applying one does not read its JSON
//	forget  JSON: the list of results to forget, without headers and bodies
//	queue   a call that waits
//	park    JSON: what came of its attempts
//	begin   JSON: the execution that goes on with it
const (
	opKeep byte = iota + 1
	opForget
	opQueue
	opPark
	opAnswer
	opBegin
)

// record adds the result of q to its transaction.
func (s *Results) record(tx *view.Tx, q *request, h *held) error {
	r := &result{Info: q.info, Header: h.header, Key: q.IdempotencyKey, Hash: q.hash, body: h.body, Query: q.RawQuery}
	r.sent(q.body, q.Header)
	return s.keep(tx, r)
}

// sent keeps the start of the request's body, and the headers that say what it is. No others: they may be secret.
func (r *result) sent(body []byte, header http.Header) {
	r.Sent, r.Kept = len(body), min(len(body), quipu.CallBodyKept)
	r.input = body[:r.Kept]
	for name, values := range header {
		if !saysWhatTheBodyIs(name) {
			continue
		}
		if r.Asked == nil {
			r.Asked = map[string][]string{}
		}
		r.Asked[name] = values
	}
}

func saysWhatTheBodyIs(name string) bool {
	switch name {
	case "Content-Type", "Content-Encoding", "Accept":
		return true
	}
	return strings.HasPrefix(name, "Ce-")
}

// keep adds a result to a transaction.
func (s *Results) keep(tx *view.Tx, r *result) error {
	if len(r.body) > quipu.InlineBytesMax {
		ref, err := s.blobs.Put(r.body)
		if err != nil {
			return fmt.Errorf("keep reply: %w", err)
		}
		tx.OnClose(func() { s.blobs.Release(ref) })
		r.Blob, r.body = &ref, nil
	}
	op := []byte{opKeep}
	if r.Info.State == "" {
		op = appendTexts([]byte{opAnswer}, r.Info.ID, r.Info.Function, r.Key)
	}
	body, err := r.encode(op)
	if err != nil {
		return err
	}
	if r.Key != "" {
		tx.Put(Name, keyName(r.Info.Function, r.Key), []byte(r.Info.ID))
	}
	return tx.Do(quipu.Op{View: Name, Body: body})
}

// recorded finds the reply of an earlier request with the key of q; nil if there is none. That it looked is
// part of the transaction, so of two calls with one key only one can commit.
func (s *Results) recorded(tx *view.Tx, q *request) (*quipu.CallReply, error) {
	if q.IdempotencyKey == "" {
		return nil, nil
	}
	id, ok, err := tx.Get(Name, keyName(q.f.Name, q.IdempotencyKey))
	if err != nil || !ok {
		return nil, err
	}
	p, err := s.waiting(tx, string(id))
	if err != nil {
		return nil, err
	}
	if p != nil {
		return nil, errors.Join(sameRequest(q.IdempotencyKey, p.Hash, q.hash), notEnded(string(id)))
	}
	r, _, err := s.load(tx, string(id))
	if err != nil {
		return nil, err
	}
	if err := sameRequest(q.IdempotencyKey, r.Hash, q.hash); err != nil {
		return nil, err
	}
	return s.reply(r)
}

// sameRequest refuses another request with the key of an earlier one. CodeIdempotency.
func sameRequest(key, first, second string) error {
	if first == second {
		return nil
	}
	return &quipu.Error{Code: quipu.CodeIdempotency, Op: "call",
		Text: fmt.Sprintf("the %s %q came before with another request", quipu.HeaderIdempotency, key),
		Hint: quipu.Codes[quipu.CodeIdempotency].Next}
}

func notEnded(id string) error {
	return &quipu.Error{Code: quipu.CodeCallPending, Op: "call.result", Text: fmt.Sprintf("call %s has not ended", id),
		Hint: fmt.Sprintf("ask again later; quipu calls get %s shows how far it is", id)}
}

// reply is what a call was answered with, or the error that it ended with.
func (s *Results) reply(r *result) (_ *quipu.CallReply, err error) {
	switch {
	case r.Info.State == quipu.CallCancelled:
		return nil, &quipu.Error{Code: quipu.CodeCallCancelled, Op: "call.result", Text: fmt.Sprintf("call %s was cancelled", r.Info.ID)}
	case r.Info.State == quipu.CallExpired:
		return nil, &quipu.Error{Code: quipu.CodeCallExpired, Op: "call.result",
			Text: fmt.Sprintf("call %s did not succeed until %s", r.Info.ID, r.Info.Expires.UTC().Format(time.RFC3339))}
	case r.Info.Error != "":
		return nil, &quipu.Error{Code: r.Info.Error, Op: "call.result", Text: r.Info.Cause}
	}
	h := &held{status: r.Info.Status, header: r.Header, body: r.body}
	if r.Blob != nil {
		if h.body, err = s.blobs.Get(*r.Blob); err != nil {
			return nil, fmt.Errorf("recorded reply: %w", err)
		}
	}
	return h.reply(r.Info, r.Info.Seq), nil
}

// load reads a result. CodeNotFound.
func (s *Results) load(tx *view.Tx, id string) (*result, quipu.Seq, error) {
	value, ok, err := tx.Get(Name, byID+id)
	if err != nil {
		return nil, 0, err
	}
	if !ok || len(value) < 8 {
		return nil, 0, &quipu.Error{Code: quipu.CodeNotFound, Op: "call.get",
			Text: fmt.Sprintf("no call %s is known", id),
			Hint: "calls with effects are kept 24 hours, others for a while in the memory of the node that ran them"}
	}
	seq := quipu.Seq(binary.LittleEndian.Uint64(value))
	r, err := decodeResult(value[8:])
	if err != nil {
		return nil, 0, fmt.Errorf("call %s: %w", id, err)
	}
	r.Info.Seq = seq
	return r, seq, nil
}

// Blobs visits the blobs that results and waiting calls refer to.
func (s *Results) Blobs(tx *view.Tx, visit func(quipu.BlobRef)) error {
	var bad error
	err := tx.Peek(Name, byID, byID+"\xff", func(id string, value []byte) bool {
		if len(value) < 8 {
			bad = fmt.Errorf("blobs of call %q: %w", id, errResult)
			return false
		}
		r, err := decodeResult(value[8:])
		if err != nil {
			bad = fmt.Errorf("blobs of call %q: %w", id, err)
			return false
		}
		if r.Blob != nil {
			visit(*r.Blob)
		}
		return true
	})
	if err = errors.Join(err, bad); err != nil {
		return err
	}
	return s.eachWaiting(tx, func(p *pending) error {
		if p.Blob != nil {
			visit(*p.Blob)
		}
		return nil
	})
}

func keyName(function, key string) string { return byKey + function + "\x00" + key }

// timeName orders calls by their id, newest first: an id starts with a ULID, and that with its time, so its
// bits are inverted. What follows the ULID, for a call made from another, stays as it is. at, if it is not 0, takes the
// place of the time, in Unix milliseconds: a call that nobody waits for is kept from its last attempt on.
func timeName(id string, at uint64) (string, error) {
	if len(id) < ulid.EncodedSize {
		return "", fmt.Errorf("call id %q: %w", id, ulid.ErrDataSize)
	}
	u, err := ulid.ParseStrict(id[:ulid.EncodedSize])
	if err != nil {
		return "", fmt.Errorf("call id %q: %w", id, err)
	}
	if at > 0 {
		if err := u.SetTime(at); err != nil {
			return "", fmt.Errorf("call id %q at %d: %w", id, at, err)
		}
	}
	for i := range u {
		u[i] = ^u[i]
	}
	return hex.EncodeToString(u[:]) + id[ulid.EncodedSize:], nil
}

// Apply writes what one operation does.
func (s *Results) Apply(b *view.Batch, op []byte, at view.At) error {
	if len(op) == 0 {
		return errResult
	}
	switch op[0] {
	case opKeep:
		return s.applyKeep(b, op[1:], at)
	case opAnswer:
		return applyAnswer(b, op[1:], at)
	case opForget:
		return applyForget(b, op[1:])
	case opQueue:
		return s.applyQueue(b, op[1:])
	case opPark:
		return s.applyPark(b, op[1:])
	case opBegin:
		return s.applyBegin(b, op[1:])
	}
	return errResult
}

func (s *Results) applyKeep(b *view.Batch, body []byte, at view.At) error {
	r, err := decodeResult(body)
	if err != nil {
		return err
	}
	if r.Info.State != "" {
		if err := s.applyEnd(b, r.Info); err != nil {
			return err
		}
	}
	return applyResult(b, [3]string{r.Info.ID, r.Info.Function, r.Key}, r.at(), body, at)
}

func applyAnswer(b *view.Batch, body []byte, at view.At) error {
	var names [3]string
	for i := range names {
		size, n := binary.Uvarint(body)
		if n <= 0 || size > uint64(len(body)-n) {
			return errResult
		}
		names[i], body = string(body[n:n+int(size)]), body[n+int(size):]
	}
	return applyResult(b, names, 0, body, at)
}

// applyResult keeps a result under the id, function and idempotency key that names are.
func applyResult(b *view.Batch, names [3]string, moment uint64, body []byte, at view.At) error {
	id, function, key := names[0], names[1], names[2]
	when, err := timeName(id, moment)
	if err != nil {
		return err
	}
	name := []byte(id)
	if key != "" {
		if err := b.Set(Name, keyName(function, key), name); err != nil {
			return err
		}
	}
	value := append(binary.LittleEndian.AppendUint64(make([]byte, 0, 8+len(body)), uint64(at.Seq)), body...)
	return errors.Join(b.Set(Name, byID+id, value), b.Set(Name, byTime+when, name), b.Set(Name, byFunction+function+"\x00"+when, name))
}

func appendTexts(buf []byte, texts ...string) []byte {
	for _, text := range texts {
		buf = append(binary.AppendUvarint(buf, uint64(len(text))), text...)
	}
	return buf
}

// at is what timeName wants to know besides the id.
func (r *result) at() uint64 {
	if r.Info.State == "" {
		return 0
	}
	return uint64(max(1, r.Info.Start.UnixMilli()))
}

// forgotten is one element of a forget operation.
type forgotten struct {
	ID, Function, Key string
	At                uint64 `json:",omitempty"`
}

func applyForget(b *view.Batch, body []byte) error {
	var list []forgotten
	if err := json.Unmarshal(body, &list); err != nil {
		return err
	}
	for _, f := range list {
		when, err := timeName(f.ID, f.At)
		if err != nil {
			return err
		}
		if f.Key != "" {
			if err := b.Delete(Name, keyName(f.Function, f.Key)); err != nil {
				return err
			}
		}
		err = errors.Join(b.Delete(Name, byID+f.ID), b.Delete(Name, byTime+when),
			b.Delete(Name, byFunction+f.Function+"\x00"+when))
		if err != nil {
			return err
		}
	}
	return nil
}

const sweepMax = 1000

// Sweep forgets results older than quipu.ResultKept, up to sweepMax in one record, and answers how many; fewer
// than sweepMax means that nothing is left for now.
func (c *Caller) Sweep(ctx context.Context) (swept int, err error) {
	oldest := c.o.Clock.Now().Add(-quipu.ResultKept)
	if oldest.UnixMilli() < 0 {
		return 0, nil
	}
	var limit ulid.ULID
	if err := limit.SetTime(uint64(oldest.UnixMilli())); err != nil {
		return 0, err
	}
	from, err := timeName(limit.String(), 0)
	if err != nil {
		return 0, err
	}
	_, err = c.o.Book.Change(ctx, func(tx *view.Tx) error {
		swept, err = c.o.Results.forget(tx, byTime+from)
		return err
	})
	return swept, err
}

// forget adds the operation that forgets results from the given place in time and older.
func (s *Results) forget(tx *view.Tx, from string) (int, error) {
	var ids []string
	err := tx.Scan(Name, from, byTime+"\xff", func(_ string, id []byte) bool {
		ids = append(ids, string(id))
		return len(ids) < sweepMax
	})
	if err != nil || len(ids) == 0 {
		return 0, err
	}
	list := make([]forgotten, len(ids))
	for i, id := range ids {
		r, _, err := s.load(tx, id)
		if err != nil {
			return 0, err
		}
		list[i] = forgotten{ID: id, Function: r.Info.Function, Key: r.Key, At: r.at()}
		if r.Key != "" {
			tx.Put(Name, keyName(r.Info.Function, r.Key), nil)
		}
	}
	body, err := json.Marshal(list)
	if err != nil {
		return 0, err
	}
	return len(ids), tx.Do(quipu.Op{View: Name, Body: append([]byte{opForget}, body...)})
}
