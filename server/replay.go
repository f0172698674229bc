package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/call"
	"github.com/quipu-run/quipu/sdk"
)

// Replay makes a call again in a scratch namespace, which is as the call saw it, and compares. It reaches no network, unless
// that is asked for. Nothing of it stays.
// CodeNotFound, CodeTrimmed, CodeCallPending, CodeNoRevision, CodeSandbox, and CodeUsage for what cannot be made again.
func (n *Node) Replay(ctx context.Context, namespace, id string, o sdk.ReplayOptions) (out quipu.CallReplay, err error) {
	ns, err := n.namespace(namespace)
	if err != nil {
		return out, err
	}
	if err := n.mayReplay(o); err != nil {
		return out, err
	}
	was, err := ns.Recording(ctx, id)
	if err != nil {
		return out, err
	}
	packed, err := ns.bundleFor(was.Info, o.Revision)
	if err != nil {
		return out, err
	}
	scratch, err := n.fork(ctx, namespace, "replay-"+strings.ToLower(rand.Text()), origin{From: namespace, At: was.At, Scratch: true, Outside: o.Outside})
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, n.RemoveNamespace(ctx, scratch.name)) }()
	if packed != nil {
		if _, err := scratch.Deploy(ctx, packed.app, packed.bundle, quipu.DeployOptions{}); err != nil {
			return out, fmt.Errorf("deploy revision %s for the replay: %w", o.Revision, err)
		}
	}
	is, err := scratch.Replay(ctx, was)
	if err != nil {
		return out, err
	}
	return call.Compare(was, is), nil
}

// mayReplay refuses where the network cannot be kept away.
func (n *Node) mayReplay(o sdk.ReplayOptions) error {
	if o.Outside {
		return nil
	}
	if err := n.runtime.Check(quipu.Sandbox{Require: []string{quipu.LayerNetwork}, Network: quipu.NetworkNone}); err != nil {
		return &quipu.Error{Code: quipu.CodeSandbox, Op: "call.replay", Err: err,
			Text: "a replay reaches no network, but this node cannot keep it away", Hint: "if it may be reached, add --outside"}
	}
	return nil
}

// packed is an application to deploy.
type packed struct {
	app    string
	bundle []byte
}

// bundleFor is the application of another revision than the one that made the call; nil if none is asked for.
func (ns *namespace) bundleFor(i quipu.CallInfo, revision string) (*packed, error) {
	if revision == "" {
		return nil, nil
	}
	f, err := ns.View.Choose(i.Function, revision, i.ID, false)
	if err != nil {
		return nil, err
	}
	pinned, done := ns.node.blobs.Reading()
	defer done()
	pinned()
	bundle, err := ns.node.blobs.Get(f.Bundle)
	if err != nil {
		return nil, fmt.Errorf("sources of revision %s: %w", revision, err)
	}
	return &packed{f.App, bundle}, nil
}

// walls are those of the function, without a way out in the namespace of a replay.
func (ns *namespace) walls(f quipu.Function) quipu.Sandbox {
	walls := f.Spec.Sandbox
	if o := ns.origin; o != nil && o.Scratch && !o.Outside {
		walls.Network, walls.Allow = quipu.NetworkNone, nil
	}
	return walls
}
