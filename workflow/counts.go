package workflow

import (
	"encoding/binary"
	"errors"
	"maps"
	"strings"
	"sync"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/view"
)

// counts is how many instances there are: what lies under byCount and byPin, by key.
type counts struct {
	mu   sync.Mutex // guards below
	of   map[string]int64
	busy map[busyAt]int64 // that a runner has something to do for
}

type busyAt struct{ kind, app string }

// Load implements view.Loader.
func (v *View) Load(r view.Reader) error {
	take := func(key string, value []byte) error {
		n, size := binary.Varint(value)
		if size <= 0 {
			return errForm
		}
		v.counts.of[key] = n
		return nil
	}
	busy := func(key string, _ []byte) error {
		kind, name, _ := strings.Cut(strings.TrimPrefix(key, byBusy), "\x00")
		k, _ := parseName(name)
		v.counts.busy[busyAt{kind, k.App}]++
		return nil
	}
	return errors.Join(r.Scan(Name, byCount, take), r.Scan(Name, byPin, take), r.Scan(Name, byBusy, busy))
}

// setBusy notes whether a runner has something to do for an instance, which is different from before.
func (v *View) setBusy(e *edits, kind, name string, busy bool) {
	by := int64(1)
	if busy {
		e.set(busyKey(kind, name), nil)
	} else {
		e.delete(busyKey(kind, name))
		by = -1
	}
	k, _ := parseName(name)
	at := busyAt{kind, k.App}
	v.counts.mu.Lock()
	defer v.counts.mu.Unlock()
	if v.counts.busy[at] += by; v.counts.busy[at] == 0 {
		delete(v.counts.busy, at)
	}
}

// CountBusy is how many instances of a kind and application a runner has something to do for.
func (v *View) CountBusy(kind, app string) int64 {
	v.counts.mu.Lock()
	defer v.counts.mu.Unlock()
	return v.counts.busy[busyAt{kind, app}]
}

// count keeps the number of an application's instances of a status.
func (v *View) count(e *edits, app string, status quipu.WorkflowStatus, by int64) {
	v.add(e, byCount+app+"\x00"+string(status), by)
}

func (v *View) add(e *edits, key string, by int64) {
	v.counts.mu.Lock()
	n := max(0, v.counts.of[key]+by)
	v.counts.of[key] = n
	if n == 0 {
		delete(v.counts.of, key)
	}
	v.counts.mu.Unlock()
	if n == 0 {
		e.delete(key)
		return
	}
	e.set(key, binary.AppendVarint(nil, n))
}

// pin is where the instances are counted that have not ended and are pinned to the same revision as one; "" if it is pinned to
// none. Versions of other kinds are names that workers make up.
func pin(app, kind, version string, status quipu.WorkflowStatus) string {
	if kind != flow.KindStep || version == "" || status.Ended() {
		return ""
	}
	return byPin + app + "\x00" + version
}

// repin moves an instance from one pin to another.
func (v *View) repin(e *edits, from, to string) {
	if from == to {
		return
	}
	if from != "" {
		v.add(e, from, -1)
	}
	if to != "" {
		v.add(e, to, 1)
	}
}

// Pinned tells whether executions of a function that have not ended are pinned to a revision. That it looked is part of the
// transaction: if one begins meanwhile, only one of both commits.
func (v *View) Pinned(tx *view.Tx, app, revision string) (bool, error) {
	_, some, err := tx.Get(Name, pin(app, flow.KindStep, revision, quipu.WorkflowRunning))
	return some, err
}

func (v *View) countOf(app string, status quipu.WorkflowStatus) int64 {
	v.counts.mu.Lock()
	defer v.counts.mu.Unlock()
	return v.counts.of[byCount+app+"\x00"+string(status)]
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
		if rest, is := strings.CutPrefix(key, byCount); is {
			app, status, _ := strings.Cut(rest, "\x00")
			list = append(list, Count{app, quipu.WorkflowStatus(status), n})
		}
	}
	return list
}
