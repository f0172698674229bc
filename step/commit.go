package step

import (
	"context"
	"sync"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
)

// committer makes one record of what several executions have to commit: with many at a time that is most of the work saved.
// An execution is in one commit at a time, so its turns follow each other.
type committer struct {
	store   flow.Store
	observe func(Observation)

	mu      sync.Mutex // guards below
	ready   []*execution
	flights int
}

// Bounds of one record, and of how many are on their way.
const (
	flightsMax       = 2
	commitChangesMax = 64
	commitBytesMax   = 8 << 20
)

// flight is one commit.
type flight struct {
	x       *execution
	changes []flow.Change
	events  int
	seen    Observation
	done    []chan error
}

// submit has the execution committed that has something ready; its mutex is held.
func (c *committer) submit(x *execution) (lead bool) {
	if x.turn.queued || !x.ready() {
		return false
	}
	x.turn.queued = true
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ready = append(c.ready, x)
	if c.flights >= flightsMax {
		return false
	}
	c.flights++
	return true
}

// lead makes commits until nothing is ready, or, after the first, leaves the rest to another goroutine. Without a
// goroutine of its own the first commit of a single caller costs no switch.
func (c *committer) lead() {
	if c.once() {
		go func() {
			for c.once() {
			}
		}()
	}
}

// once makes one commit, and answers whether more is ready; then the caller goes on.
func (c *committer) once() (more bool) {
	if all := c.collect(); len(all) > 0 {
		c.fly(all)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if more = len(c.ready) > 0; !more {
		c.flights--
	}
	return more
}

func (c *committer) collect() (all []flight) {
	for n, size := 0, 0; n < commitChangesMax && size < commitBytesMax; {
		c.mu.Lock()
		if len(c.ready) == 0 {
			c.mu.Unlock()
			break
		}
		x := c.ready[0]
		c.ready = c.ready[1:]
		c.mu.Unlock()
		x.mu.Lock()
		if !x.ready() {
			x.turn.queued = false
			x.mu.Unlock()
			continue
		}
		f, bytes := x.cutTurn()
		x.mu.Unlock()
		n, size = n+len(f.changes), size+bytes
		all = append(all, f)
	}
	return all
}

// fly commits all in one record. If that is refused each is tried by itself, so that nobody suffers for another.
func (c *committer) fly(all []flight) {
	changes := make([]flow.Change, 0, len(all)+1)
	for _, f := range all {
		changes = append(changes, f.changes...)
	}
	err := c.store.Commit(context.Background(), changes)
	if err == nil || len(all) == 1 || quipu.CodeOf(err) == quipu.CodeUnknown {
		for _, f := range all {
			c.land(f, err)
		}
		return
	}
	for _, f := range all {
		c.land(f, c.store.Commit(context.Background(), f.changes))
	}
}

// land tells what came of a commit.
func (c *committer) land(f flight, err error) {
	x := f.x
	x.mu.Lock()
	x.turn.queued = false
	if err != nil {
		x.breakOff(err)
	} else {
		x.durable += f.events
		if f.changes[0].Turn != nil {
			x.rev++
		}
		x.tell()
	}
	lead := c.submit(x)
	x.mu.Unlock()
	if err == nil {
		c.observe(f.seen)
	}
	for _, ch := range f.done {
		ch <- err
	}
	if lead {
		go c.lead()
	}
}

// flush returns when all that the execution has is durable. mu is held before, and not after.
func (c *committer) flush(x *execution) error {
	if x.broken != nil {
		err := x.broken
		x.mu.Unlock()
		return err
	}
	if !x.turn.queued && !x.ready() {
		x.mu.Unlock()
		return nil
	}
	done := make(chan error, 1)
	x.turn.done = append(x.turn.done, done)
	lead := c.submit(x)
	x.mu.Unlock()
	if lead {
		c.lead()
	}
	return <-done
}
