package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/actor"
	"github.com/quipu-run/quipu/internal/resiliency"
)

// askActor has an actor make a turn, as often as the policies of who asks say.
func (ns *namespace) askActor(ctx context.Context, c quipu.ActorCall, p *resiliency.Policies, via quipu.Invoker) (*quipu.CallReply, error) {
	policy := p.For(resiliency.Actor(c.Type, c.ID))
	if policy == nil {
		return ns.actors.Turn(ctx, c, via.Invoke)
	}
	body, err := actor.Whole(c.Body)
	if err != nil {
		return nil, err
	}
	var reply *quipu.CallReply
	err = policy.Do(ctx, func(ctx context.Context) (err error) {
		c.Body = bytes.NewReader(body)
		if reply, err = ns.actors.Turn(ctx, c, via.Invoke); err != nil {
			return lastingTurn(err)
		}
		return failure(reply)
	})
	if reply != nil { // an answer, good or bad
		return reply, nil
	}
	return nil, unwrapStatus(err)
}

// lastingTurn marks what will not be otherwise another time. An actor without a host may have one then.
func lastingTurn(err error) error {
	switch quipu.CodeOf(err) {
	case quipu.CodeActorDepth, quipu.CodeDepth:
		return resiliency.Final(err)
	}
	return lasting(err)
}

// failure is what a reply is to a policy; nil if the method succeeded. A method that is not there will not be there another time.
func failure(reply *quipu.CallReply) error {
	switch {
	case actor.Succeeded(reply):
		return nil
	case reply.Status == http.StatusOK: // it says so in a header
		return errors.New("the method failed")
	}
	err := &resiliency.StatusError{Code: reply.Status, Err: fmt.Errorf("the method answered with status %d", reply.Status)}
	if reply.Status == http.StatusNotFound {
		return resiliency.Final(err)
	}
	return err
}

// withinPolicies runs a turn for as long as the policies of the actor's host allow.
func (ns *namespace) withinPolicies(ctx context.Context, f quipu.Function, instance, actorType string, turn func(context.Context) error) error {
	return unwrapStatus(ns.resiliencyAt(f, instance).For(resiliency.Turn(actorType)).Do(ctx, turn))
}

// resiliencyAt is the policies of an instance.
func (ns *namespace) resiliencyAt(f quipu.Function, instance string) *resiliency.Policies {
	if u, ok := ns.using.Load(instance); ok {
		return u.(*uses).resiliency
	}
	if one := ns.attached.byID(f.Name, instance); one != nil {
		return one.uses.Load().resiliency
	}
	return nil
}
