package taskhub

import (
	"context"

	"github.com/dapr/durabletask-go/api/protos"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
)

// start makes an instance that begins with an event, and returns when that is durable. If a worker is there its first turn
// runs in the meantime: code of workflows has no effects but those that are committed after the start.
func (h *Hub) start(ctx context.Context, k quipu.WorkflowKey, e *protos.HistoryEvent) error {
	s := startOf(k.App, e)
	l, err := h.speculate(k, s)
	if err != nil {
		return err
	}
	defer h.tasks.Done()
	err = h.o.Store.Commit(context.WithoutCancel(ctx), []flow.Change{{WorkflowKey: k, Start: s}})
	if l == nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	l.starting, l.start.err = false, err
	if err != nil {
		h.drop(l, err)
	}
	close(l.start.done)
	return err
}

// speculate begins with an instance that is not durable yet; nil if there is nobody to do it, or it has to
// begin later. tasks.Done is to be called.
func (h *Hub) speculate(k quipu.WorkflowKey, s *flow.Start) (*live, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.enter() {
		return nil, errStopping
	}
	if len(h.app(k.App).streams) == 0 || h.live[k] != nil || h.loading[k] != nil || h.active >= activeMax || !s.At.IsZero() {
		return nil, nil
	}
	h.rev = max(h.rev+1, uint64(h.o.Clock.Now().UnixNano()))
	s.Rev = h.rev
	l := &live{key: k, rev: s.Rev, status: quipu.WorkflowPending, memory: newMemory(), inbox: []message{{s.Messages[0]}}, next: 1, starting: true,
		start: &starting{done: make(chan struct{})}}
	h.live[k] = l
	h.active++
	h.kick(l)
	return l, nil
}
