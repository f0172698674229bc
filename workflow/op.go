package workflow

import (
	"encoding/binary"
	"fmt"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/view"
)

// Operations: a byte that tells which, then the fields of step or purge in the order of their declarations. A step carries
// what is new and no history, so its size does not grow with the instance.
const (
	opStep byte = iota + 1
	opPurge
)

// step is what a Change does to an instance: the new head, and what belongs to it.
type step struct {
	name  string
	head  head
	prior prior

	static   []byte // in JSON, of a start
	input    []byte
	setInput bool
	part     uint32 // number of the part of the history that is added
	events   [][]byte
	wipe     uint32 // parts of the generation before that go
	first    uint64 // of the messages that go
	took     uint64
	number   uint64 // of the first message that is added
	messages [][]byte
	custom   []byte
	result   []byte
	timers   []string // that were set
	gone     []string // timers that went
}

// prior is what the indexes had of the instance: whether it was there, and how.
type prior struct {
	there   bool
	busy    bool
	status  quipu.WorkflowStatus
	version string
	ended   int64
}

const (
	stepStatic uint64 = 1 << iota
	stepInput
	stepEvents
	stepWipe
	stepTook
	stepMessages
	stepCustom
	stepResult
	stepTimers
	stepThere
	stepBusy
	stepVersion
)

func (s *step) flags() uint64 {
	return flag(s.static != nil, stepStatic) | flag(s.setInput, stepInput) | flag(len(s.events) > 0, stepEvents) | flag(s.wipe > 0, stepWipe) |
		flag(s.took > 0, stepTook) | flag(len(s.messages) > 0, stepMessages) | flag(s.custom != nil, stepCustom) | flag(s.result != nil, stepResult) |
		flag(len(s.timers)+len(s.gone) > 0, stepTimers) | flag(s.prior.there, stepThere) | flag(s.prior.busy, stepBusy) | flag(s.reversioned(), stepVersion)
}

// reversioned tells whether the instance has another version now.
func (s *step) reversioned() bool { return s.prior.there && s.prior.version != s.head.version }

func (s *step) size() int {
	n := len(s.name) + len(s.static) + len(s.input) + len(s.custom) + len(s.result) + 128
	for _, list := range [...][][]byte{s.events, s.messages} {
		for _, b := range list {
			n += len(b) + binary.MaxVarintLen32
		}
	}
	return n
}

func (s *step) encode() []byte {
	b := append(make([]byte, 0, s.size()), opStep)
	b = binary.AppendUvarint(b, s.flags())
	b = appendBytes(b, s.name)
	b = appendBytes(b, s.head.encode(make([]byte, 0, 128)))
	if s.prior.there {
		b = binary.AppendUvarint(b, statusCode(s.prior.status))
		b = binary.AppendUvarint(b, uint64(s.prior.ended))
	}
	if s.reversioned() {
		b = appendBytes(b, s.prior.version)
	}
	if s.static != nil {
		b = appendBytes(b, s.static)
	}
	if s.setInput {
		b = appendBytes(b, s.input)
	}
	if len(s.events) > 0 {
		b = appendList(binary.AppendUvarint(b, uint64(s.part)), s.events)
	}
	if s.wipe > 0 {
		b = binary.AppendUvarint(b, uint64(s.wipe))
	}
	if s.took > 0 {
		b = binary.AppendUvarint(binary.AppendUvarint(b, s.first), s.took)
	}
	if len(s.messages) > 0 {
		b = appendList(binary.AppendUvarint(b, s.number), s.messages)
	}
	if s.custom != nil {
		b = appendBytes(b, s.custom)
	}
	if s.result != nil {
		b = appendBytes(b, s.result)
	}
	if len(s.timers)+len(s.gone) > 0 {
		b = appendList(appendList(b, s.timers), s.gone)
	}
	return b
}

func decodeStep(body []byte) (s step, err error) {
	r := reader{rest: body}
	flags := r.uvarint()
	has := func(bit uint64) bool { return flags&bit != 0 }
	s.name = r.str()
	if s.head, err = decodeHead(r.bytes()); err != nil {
		return step{}, err
	}
	if s.prior.there = has(stepThere); s.prior.there {
		var known bool
		if s.prior.status, known = statusOf(r.uvarint()); !known {
			return step{}, errForm
		}
		s.prior.ended, s.prior.busy, s.prior.version = int64(r.uvarint()), has(stepBusy), s.head.version
	}
	if has(stepVersion) {
		s.prior.version = r.str()
	}
	if has(stepStatic) {
		s.static = r.bytes()
	}
	if s.setInput = has(stepInput); s.setInput {
		s.input = r.bytes()
	}
	if has(stepEvents) {
		s.part, s.events = uint32(r.uvarint()), r.list()
	}
	if has(stepWipe) {
		s.wipe = uint32(r.uvarint())
	}
	if has(stepTook) {
		s.first, s.took = r.uvarint(), r.uvarint()
	}
	if has(stepMessages) {
		s.number, s.messages = r.uvarint(), r.list()
	}
	if has(stepCustom) {
		s.custom = r.bytes()
	}
	if has(stepResult) {
		s.result = r.bytes()
	}
	if has(stepTimers) {
		s.timers, s.gone = r.strs(), r.strs()
	}
	return s, r.done()
}

// purge forgets an instance: its last head says what there is of it.
type purge struct {
	name   string
	head   head
	timers []string
}

func (p *purge) encode() []byte {
	b := appendBytes([]byte{opPurge}, p.name)
	return appendList(appendBytes(b, p.head.encode(nil)), p.timers)
}

func decodePurge(body []byte) (p purge, err error) {
	r := reader{rest: body}
	p.name = r.str()
	if p.head, err = decodeHead(r.bytes()); err != nil {
		return purge{}, err
	}
	p.timers = r.strs()
	return p, r.done()
}

// Apply implements view.Machine.
func (v *View) Apply(b *view.Batch, op []byte, at view.At) error {
	if len(op) == 0 {
		return errForm
	}
	switch op[0] {
	case opStep:
		s, err := decodeStep(op[1:])
		if err != nil {
			return err
		}
		return v.applyStep(&edits{b: b}, &s)
	case opPurge:
		p, err := decodePurge(op[1:])
		if err != nil {
			return err
		}
		return v.applyPurge(&edits{b: b}, &p)
	}
	return fmt.Errorf("%w: operation %d", errForm, op[0])
}

// edits is a batch that remembers its first error.
type edits struct {
	b   *view.Batch
	err error
}

func (e *edits) set(key string, value []byte) {
	if e.err == nil {
		e.err = e.b.Set(Name, key, value)
	}
}

func (e *edits) delete(key string) {
	if e.err == nil {
		e.err = e.b.Delete(Name, key)
	}
}

// rangesFrom is how many keys go one by one at most: a deletion of a range costs later readers more than some deletions.
const rangesFrom = 64

func (e *edits) deleteParts(name string, generation, parts uint32) {
	if parts > rangesFrom {
		if e.err == nil {
			e.err = e.b.DeleteRange(Name, partKey(name, generation, 0), partKey(name, generation, parts))
		}
		return
	}
	for n := range parts {
		e.delete(partKey(name, generation, n))
	}
}

func (e *edits) deleteMessages(name string, first, count uint64) {
	if count > rangesFrom {
		if e.err == nil {
			e.err = e.b.DeleteRange(Name, messageKey(name, first), messageKey(name, first+count))
		}
		return
	}
	for n := range count {
		e.delete(messageKey(name, first+n))
	}
}

func (v *View) applyStep(e *edits, s *step) error {
	e.set(byHead+s.name, s.head.encode(nil))
	if s.static != nil {
		e.set(byStatic+s.name, s.static)
	}
	if s.setInput {
		e.set(byInput+s.name, s.input)
	}
	if s.wipe > 0 {
		e.deleteParts(s.name, s.head.generation-1, s.wipe)
	}
	if len(s.events) > 0 {
		e.set(partKey(s.name, s.head.generation, s.part), appendList(nil, s.events))
	}
	if s.took > 0 {
		e.deleteMessages(s.name, s.first, s.took)
	}
	for i, m := range s.messages {
		e.set(messageKey(s.name, s.number+uint64(i)), m)
	}
	if s.custom != nil {
		e.set(byCustom+s.name, s.custom)
	}
	if s.result != nil {
		e.set(byResult+s.name, s.result)
	}
	for _, id := range s.gone {
		e.delete(byTimer + s.name + "\x00" + id)
	}
	for _, id := range s.timers {
		e.set(byTimer+s.name+"\x00"+id, nil)
	}
	v.index(e, s)
	return e.err
}

// index keeps what finds instances by how they are.
func (v *View) index(e *edits, s *step) {
	k, ok := parseName(s.name)
	if !ok {
		e.err = errForm
		return
	}
	if busy := s.head.busy(); busy != s.prior.busy {
		v.setBusy(e, s.head.kind, s.name, busy)
	}
	if s.head.status.Ended() && !s.prior.status.Ended() {
		e.set(endKey(s.head.ended, s.name), nil)
	}
	if !s.prior.there {
		v.count(e, k.App, s.head.status, 1)
	} else if s.prior.status != s.head.status {
		v.count(e, k.App, s.prior.status, -1)
		v.count(e, k.App, s.head.status, 1)
	}
	before := ""
	if s.prior.there {
		before = pin(k.App, s.head.kind, s.prior.version, s.prior.status)
	}
	v.repin(e, before, pin(k.App, s.head.kind, s.head.version, s.head.status))
	started := s.static != nil || s.released()
	if s.head.held {
		return
	}
	v.watch.note(s.head.kind, s.prior.status != s.head.status || started,
		flow.Arrival{WorkflowKey: k, Started: started, First: s.number, Messages: s.messages})
}

// released tells whether the instance's time to begin has come.
func (s *step) released() bool {
	for _, id := range s.gone {
		if id == startTimer {
			return true
		}
	}
	return false
}

func (v *View) applyPurge(e *edits, p *purge) error {
	k, ok := parseName(p.name)
	if !ok {
		return errForm
	}
	h := p.head
	for _, prefix := range []string{byHead, byStatic, byInput, byResult} {
		e.delete(prefix + p.name)
	}
	if h.custom {
		e.delete(byCustom + p.name)
	}
	for _, id := range p.timers {
		e.delete(byTimer + p.name + "\x00" + id)
	}
	e.deleteParts(p.name, h.generation, h.parts)
	e.deleteMessages(p.name, h.first, h.next-h.first)
	if h.busy() {
		v.setBusy(e, h.kind, p.name, false)
	}
	if h.status.Ended() {
		e.delete(endKey(h.ended, p.name))
	}
	v.count(e, k.App, h.status, -1)
	v.repin(e, pin(k.App, h.kind, h.version, h.status), "")
	v.watch.note(h.kind, true, flow.Arrival{WorkflowKey: k, Purged: true})
	return e.err
}
