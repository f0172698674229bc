package workflow

import (
	"encoding/binary"
	"errors"

	"github.com/quipu-run/quipu"
)

// errForm is what malformed bytes of the view get.
var errForm = errors.New("malformed workflow")

// reader takes bytes apart. What it answers shares memory with them.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) bytes() []byte {
	size := r.uvarint()
	if size > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return nil
	}
	b := r.rest[:size:size]
	r.rest = r.rest[size:]
	return b
}

func (r *reader) str() string { return string(r.bytes()) }

func (r *reader) list() [][]byte {
	n := r.uvarint()
	if n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return nil
	}
	list := make([][]byte, n)
	for i := range list {
		list[i] = r.bytes()
	}
	return list
}

func (r *reader) strs() []string {
	list := r.list()
	out := make([]string, len(list))
	for i, b := range list {
		out[i] = string(b)
	}
	return out
}

// done tells whether all was read, and was well formed.
func (r *reader) done() error {
	if r.bad || len(r.rest) > 0 {
		return errForm
	}
	return nil
}

func appendBytes[T string | []byte](b []byte, v T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

func appendList[T string | []byte](b []byte, list []T) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, v := range list {
		b = appendBytes(b, v)
	}
	return b
}

func flag(on bool, bit uint64) uint64 {
	if on {
		return bit
	}
	return 0
}

// Statuses in bytes. Their numbers are in the log.
var statuses = []quipu.WorkflowStatus{quipu.WorkflowPending, quipu.WorkflowRunning, quipu.WorkflowSuspended, quipu.WorkflowStalled,
	quipu.WorkflowCompleted, quipu.WorkflowFailed, quipu.WorkflowTerminated}

func statusCode(s quipu.WorkflowStatus) uint64 {
	for i, one := range statuses {
		if one == s {
			return uint64(i)
		}
	}
	return 0
}

func statusOf(code uint64) (quipu.WorkflowStatus, bool) {
	if code >= uint64(len(statuses)) {
		return "", false
	}
	return statuses[code], true
}
