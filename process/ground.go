package process

import (
	"sync"
	"time"

	"github.com/quipu-run/quipu/process/lifeline"
)

// ground is a helper with what the walls of all instances have in common, made before anybody knows what is to run behind them.
type ground struct {
	*helper
	number int // by which ids and groups are told apart
	group  group
}

// grounds keeps one ground spare, so that an instance need not wait for it.
type grounds struct {
	builder *builder

	mu     sync.Mutex // guards the fields below
	count  int
	spare  *ground
	timer  *time.Timer // until the next spare is made
	making sync.WaitGroup
	closed bool
}

// spareAfter leaves the processors to the instance that has just been started.
const spareAfter = 30 * time.Millisecond

// take answers the spare one, or makes one if it has died since.
func (g *grounds) take() (*ground, error) {
	g.mu.Lock()
	spare := g.spare
	g.spare = nil
	g.refillAfter(spareAfter)
	g.mu.Unlock()
	if spare != nil && spare.line.quiet() {
		return spare, nil
	}
	if spare != nil {
		spare.discard()
	}
	return g.lay()
}

func (g *grounds) lay() (*ground, error) {
	g.mu.Lock()
	g.count++
	n := g.count
	g.mu.Unlock()
	h, err := startHelper(g.builder.attributes(n))
	if err != nil {
		return nil, err
	}
	made := &ground{helper: h, number: n}
	if made.group, err = g.builder.newGroup(n, h.process.Pid); err == nil {
		if common := g.builder.common(); common.Up {
			err = h.line.send(lifeline.Request{Walls: common}.Encode())
		}
	}
	if err != nil {
		made.discard()
		return nil, err
	}
	return made, nil
}

// discard ends a ground on which nothing runs.
func (g *ground) discard() {
	g.helper.discard()
	g.group.remove()
}

// refillAfter makes a spare one in a while; the caller holds mu.
func (g *grounds) refillAfter(wait time.Duration) {
	if g.closed || g.timer != nil {
		return
	}
	g.making.Add(1)
	g.timer = time.AfterFunc(wait, func() {
		defer g.making.Done()
		made, err := g.lay()
		g.mu.Lock()
		defer g.mu.Unlock()
		g.timer = nil
		if err != nil {
			return // whoever starts an instance next meets the error, and can tell somebody
		}
		if g.closed || g.spare != nil {
			made.discard()
			return
		}
		g.spare = made
	})
}

// close ends what is spare.
func (g *grounds) close() error {
	g.mu.Lock()
	g.closed = true
	if g.timer != nil && g.timer.Stop() {
		g.making.Done()
	}
	g.mu.Unlock()
	g.making.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.spare != nil {
		g.spare.discard()
		g.spare = nil
	}
	return g.builder.close()
}
