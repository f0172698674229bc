package workflow

import (
	"encoding/binary"
	"encoding/json"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
)

// Keys of the view start with what they are; app is followed by NUL and the id, which ends with NUL if something follows.
// Numbers are big-endian.
const (
	byHead    = "i/" // app, id: what changes with each turn; it is all that a transaction reads and writes of an instance
	byStatic  = "s/" // app, id: what stays
	byInput   = "p/" // app, id: of this generation
	byHistory = "h/" // app, id, NUL, 4 bytes generation, 4 bytes part: the events that one turn added
	byInbox   = "m/" // app, id, NUL, 8 bytes number: a message
	byCustom  = "c/" // app, id: custom status
	byResult  = "o/" // app, id: output or failure
	byTimer   = "t/" // app, id, NUL, id of the timer: nothing
	byBusy    = "b/" // kind, NUL, app, id: nothing; a runner has something to do
	byEnd     = "e/" // 8 bytes time of the end, app, id: nothing
	byCount   = "n/" // app, NUL, status: how many
	byPin     = "v/" // app, NUL, revision: how many executions that have not ended are pinned to it
)

func name(k quipu.WorkflowKey) string { return k.App + "\x00" + k.ID }

func parseName(s string) (quipu.WorkflowKey, bool) {
	app, id, ok := strings.Cut(s, "\x00")
	return quipu.WorkflowKey{App: app, ID: id}, ok
}

func partKey(k string, generation, part uint32) string {
	b := append(append(append(make([]byte, 0, len(k)+11), byHistory...), k...), 0)
	return string(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, generation), part))
}

func messageKey(k string, n uint64) string {
	b := append(append(append(make([]byte, 0, len(k)+11), byInbox...), k...), 0)
	return string(binary.BigEndian.AppendUint64(b, n))
}

func endKey(ended int64, k string) string {
	return byEnd + string(binary.BigEndian.AppendUint64(nil, uint64(ended))) + k
}

func busyKey(kind, k string) string { return byBusy + kind + "\x00" + k }

// head is what changes with each turn. Its byte form is varints in the order of the fields, with the flags first.
type head struct {
	kind, version string
	status        quipu.WorkflowStatus
	rev           uint64
	generation    uint32
	parts         uint32 // of this generation's history
	events        uint32
	timers        uint32 // that stand
	first, next   uint64
	updated       int64 // Unix nanoseconds
	ended         int64
	open, custom  bool
	held          bool // until the time of its start: nobody has anything to do for it
	awaited       bool // Options.Ended is to be told of its end
}

const (
	headOpen uint64 = 1 << iota
	headCustom
	headHeld
	headAwaited
)

func (h head) busy() bool { return !h.held && !h.status.Ended() && (h.open || h.first < h.next) }

func (h head) encode(b []byte) []byte {
	b = binary.AppendUvarint(b, flag(h.open, headOpen)|flag(h.custom, headCustom)|flag(h.held, headHeld)|flag(h.awaited, headAwaited))
	b = appendBytes(appendBytes(b, h.kind), h.version)
	for _, v := range [...]uint64{statusCode(h.status), h.rev, uint64(h.generation), uint64(h.parts), uint64(h.events), uint64(h.timers),
		h.first, h.next, uint64(h.updated), uint64(h.ended)} {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func decodeHead(b []byte) (head, error) {
	r := reader{rest: b}
	flags := r.uvarint()
	h := head{open: flags&headOpen != 0, custom: flags&headCustom != 0, held: flags&headHeld != 0, awaited: flags&headAwaited != 0, kind: r.str(), version: r.str()}
	status, known := statusOf(r.uvarint())
	h.status = status
	h.rev = r.uvarint()
	h.generation, h.parts, h.events, h.timers = uint32(r.uvarint()), uint32(r.uvarint()), uint32(r.uvarint()), uint32(r.uvarint())
	h.first, h.next = r.uvarint(), r.uvarint()
	h.updated, h.ended = int64(r.uvarint()), int64(r.uvarint())
	if !known {
		return head{}, errForm
	}
	return h, r.done()
}

// static is what stays as it was at the start.
type static struct {
	Name    string             `json:"name,omitempty"`
	Created int64              `json:"created"`
	Start   int64              `json:"start,omitempty"`
	Parent  *quipu.WorkflowKey `json:"parent,omitempty"`
}

// result is how an instance ended: 1 byte, then the output, or the failure in JSON.
const (
	resultOutput byte = iota + 1
	resultFailure
)

func encodeResult(output []byte, f *quipu.WorkflowFailure) ([]byte, error) {
	if f == nil {
		if output == nil {
			return nil, nil
		}
		return append([]byte{resultOutput}, output...), nil
	}
	text, err := json.Marshal(struct {
		*quipu.WorkflowFailure
		Output []byte `json:"output,omitempty"`
	}{f, output})
	return append([]byte{resultFailure}, text...), err
}

func decodeResult(b []byte) (output []byte, f *quipu.WorkflowFailure, err error) {
	switch {
	case len(b) == 0:
		return nil, nil, nil
	case b[0] == resultOutput:
		return b[1:], nil, nil
	case b[0] != resultFailure:
		return nil, nil, errForm
	}
	var both struct {
		quipu.WorkflowFailure
		Output []byte `json:"output"`
	}
	err = json.Unmarshal(b[1:], &both)
	return both.Output, &both.WorkflowFailure, err
}

func instant(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
