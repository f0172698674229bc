package server

import (
	"context"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/peers"
)

// roaming is a session whose invocations leave the node for what the node does not have.
type roaming struct {
	quipu.Session
	elsewhere func(context.Context, quipu.CallRequest) (*quipu.CallReply, error)
}

// roam lets a session invoke what is elsewhere, if the node knows of such a place.
func (n *Node) roam(s quipu.Session, err error) (quipu.Session, error) {
	if n.cfg.Elsewhere == nil || err != nil {
		return s, err
	}
	return roaming{s, n.cfg.Elsewhere}, nil
}

// Invoke calls a function here, or elsewhere: that acts at once, also in an atomic call. What was sent here from elsewhere ends here.
func (s roaming) Invoke(ctx context.Context, r quipu.CallRequest) (*quipu.CallReply, error) {
	sent := r.Header.Get(peers.HeaderForwarded) != ""
	r.Header.Del(peers.HeaderForwarded)
	reply, err := s.Session.Invoke(ctx, r) // which reads nothing of the body if there is no such function
	if sent || quipu.CodeOf(err) != quipu.CodeNoFunction {
		return reply, err
	}
	return s.elsewhere(ctx, r)
}
