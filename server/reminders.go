package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/actor"
	"github.com/quipu-run/quipu/alarm"
	"github.com/quipu-run/quipu/call"
	"github.com/quipu-run/quipu/internal/delivery"
)

// deliverReminder has the actor of a reminder make a turn. If its application is an atomic function, what the turn does and that the
// reminder was delivered are one record.
func (ns *namespace) deliverReminder(ctx context.Context, a quipu.Alarm, settle alarm.Settle) alarm.Outcome {
	settled := false
	reply, err := ns.actors.Remind(ctx, a, func(ctx context.Context, r quipu.CallRequest) (*quipu.CallReply, error) {
		r.Attempt, r.Cause = a.Attempts+1, fmt.Sprintf("%s/%d/%d", r.Path, a.Created.UnixNano(), a.Fired)
		out, err := ns.Deliver(ctx, call.Delivery{CallRequest: r, Settle: settle})
		settled = out.Settled
		return &quipu.CallReply{Status: out.Status, Header: out.Header, Body: io.NopCloser(bytes.NewReader(out.Body))}, err
	})
	switch code := quipu.CodeOf(err); {
	case code == quipu.CodeNoAlarm: // it was cancelled or replaced meanwhile
		return alarm.Outcome{Fate: alarm.Delivered}
	case code == quipu.CodeNoActorHost || code == quipu.CodeUnhealthy || delivery.Missed(err):
		return alarm.Outcome{Fate: alarm.Missed, Cause: quipu.AsError(err).Text}
	case err != nil:
		return alarm.Outcome{Fate: alarm.Failed, Cause: quipu.AsError(err).Text}
	case actor.Succeeded(reply) && actor.Cancels(reply):
		return ns.endReminder(ctx, a, settled)
	case settled:
		return alarm.Outcome{Fate: alarm.Settled}
	case actor.Succeeded(reply):
		return alarm.Outcome{Fate: alarm.Delivered}
	}
	body, _ := io.ReadAll(io.LimitReader(reply.Body, delivery.CauseBytesMax)) // it is whole
	return alarm.Outcome{Fate: alarm.Failed, Cause: "status " + strconv.Itoa(reply.Status) + ": " + string(bytes.TrimSpace(body))}
}

// endReminder is for an application that wants a reminder no more. If the turn has committed, its next time is set already.
func (ns *namespace) endReminder(ctx context.Context, a quipu.Alarm, settled bool) alarm.Outcome {
	if !settled {
		return alarm.Outcome{Fate: alarm.Over}
	}
	if err := ns.Jobs().CancelAlarm(ctx, a.AlarmKey); err != nil && quipu.CodeOf(err) != quipu.CodeNoAlarm {
		ns.node.cfg.Logger.Warn("a reminder that its actor has cancelled was not removed", "actor", a.ActorType+"/"+a.ActorID, "reminder", a.Name, "err", err)
	}
	return alarm.Outcome{Fate: alarm.Settled}
}

// hastenReminders has those tried at once that wait for a host of a type.
func (ns *namespace) hastenReminders(types []quipu.ActorType) {
	if ns.later.runner == nil {
		return
	}
	for _, t := range types {
		ns.later.runner.Hasten(string(quipu.AlarmReminder), t.Type)
	}
}
