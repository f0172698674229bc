package workflow

import (
	"encoding/binary"
	"maps"
	"strings"
	"sync"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// counts is how many instances there are: what lies under byCount, by the rest of the key.
type counts struct {
	mu sync.Mutex // guards of
	of map[string]int64
}

// Load implements view.Loader.
func (v *View) Load(r view.Reader) error {
	return r.Scan(Name, byCount, func(key string, value []byte) error {
		n, size := binary.Varint(value)
		if size <= 0 {
			return errForm
		}
		v.counts.of[strings.TrimPrefix(key, byCount)] = n
		return nil
	})
}

// count keeps the number of an application's instances of a status.
func (v *View) count(e *edits, app string, status quipu.WorkflowStatus, by int64) {
	key := app + "\x00" + string(status)
	v.counts.mu.Lock()
	n := v.counts.of[key] + by
	v.counts.of[key] = n
	if n == 0 {
		delete(v.counts.of, key)
	}
	v.counts.mu.Unlock()
	if n == 0 {
		e.delete(byCount + key)
		return
	}
	e.set(byCount+key, binary.AppendVarint(nil, n))
}

// Count is the instances of an application in a status.
type Count struct {
	App    string
	Status quipu.WorkflowStatus
	N      int64
}

// Counts is how many instances there are, without those of which there are none.
func (v *View) Counts() []Count {
	v.counts.mu.Lock()
	of := maps.Clone(v.counts.of)
	v.counts.mu.Unlock()
	list := make([]Count, 0, len(of))
	for key, n := range of {
		app, status, _ := strings.Cut(key, "\x00")
		list = append(list, Count{app, quipu.WorkflowStatus(status), n})
	}
	return list
}
