package actor

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/quipu-run/quipu"
)

// errClosed says that the actor does not live here any more: look again where it does.
var errClosed = errors.New("the actor leaves its instance")

// lock lets the turns of one actor be made one after another, in order of their arrival. Calls that come back to the actor, by their
// reentrancy id, are part of the turn that they come from.
type lock struct {
	depthMax int

	mu     sync.Mutex
	line   []*flight     // the first has the turn
	closed chan struct{} // no further turn begins
	idle   chan struct{} // closed when the last turn has ended after close
	over   bool
}

// flight is a turn: one call, and those that come back to the actor from it.
type flight struct {
	id    string // "" for one that nothing can come back to
	depth int
	begin chan struct{} // closed when it is its turn
}

func newLock(depthMax int) *lock {
	return &lock{depthMax: depthMax, closed: make(chan struct{}), idle: make(chan struct{})}
}

// enter waits for a turn, or joins the one of the same id. errClosed, CodeActorDepth, CodeBusy, and ctx's error.
func (l *lock) enter(ctx context.Context, id string) (leave func(), err error) {
	f, err := l.stand(id)
	if err != nil {
		return nil, err
	}
	leave = sync.OnceFunc(func() { l.leave(f) })
	select {
	case <-f.begin: // whoever has the turn goes on, though the actor is to leave
		return leave, nil
	default:
	}
	select {
	case <-f.begin:
		return leave, nil
	case <-l.closed:
		err = errClosed
	case <-ctx.Done():
		err = ctx.Err()
	}
	leave()
	return nil, err
}

func (l *lock) stand(id string) (*flight, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.line {
		if id == "" || f.id != id {
			continue
		}
		if f.depth >= l.depthMax {
			return nil, &quipu.Error{Code: quipu.CodeActorDepth, Op: "actor.call", Text: "maximum stack depth exceeded", Hint: quipu.Codes[quipu.CodeActorDepth].Next}
		}
		f.depth++
		return f, nil
	}
	switch {
	case l.over:
		return nil, errClosed
	case len(l.line) > quipu.ActorTurnsMax:
		return nil, &quipu.Error{Code: quipu.CodeBusy, Op: "actor.call", Text: fmt.Sprintf("%d calls wait for the actor already", quipu.ActorTurnsMax)}
	}
	f := &flight{id: id, depth: 1, begin: make(chan struct{})}
	if l.line = append(l.line, f); len(l.line) == 1 {
		close(f.begin)
	}
	return f, nil
}

// leave ends a call of a turn; the turn ends with the last.
func (l *lock) leave(f *flight) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.depth--; f.depth > 0 {
		return
	}
	for i, other := range l.line {
		if other != f {
			continue
		}
		l.line = append(l.line[:i], l.line[i+1:]...)
		if i == 0 && len(l.line) > 0 && !l.over {
			close(l.line[0].begin)
		}
		break
	}
	l.settle()
}

// close lets no further turn begin. The one under way goes on; idle is closed when it has ended.
func (l *lock) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	l.over = true
	close(l.closed)
	l.settle()
}

// settle closes idle once nobody has the turn. The caller holds mu.
func (l *lock) settle() {
	if !l.over || len(l.line) > 0 && isClosed(l.line[0].begin) {
		return
	}
	if !isClosed(l.idle) {
		close(l.idle)
	}
}

// state is whether a turn is under way, and how many calls wait for one.
func (l *lock) state() (busy bool, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.line) > 0, max(0, len(l.line)-1)
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
