package server

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/linelog"
	"github.com/quipu-run/quipu/sdk"
)

// streamPlatform is the stream of what the node says of an instance, or of a call in it.
const streamPlatform = "platform"

// LogsFound refuses functions that are not deployed and left no output, and places that are none.
func (ns *namespace) LogsFound(r sdk.LogsRequest) error {
	for _, name := range r.Functions {
		if _, err := ns.Function(name); err != nil && r.After == nil && !ns.lines.Known(name) {
			return err
		}
	}
	for _, place := range r.After {
		if err := linelog.CheckPlace(place); err != nil {
			return err
		}
	}
	return nil
}

// Logs yields what instances of functions printed.
func (ns *namespace) Logs(ctx context.Context, r sdk.LogsRequest) iter.Seq2[sdk.LogLine, error] {
	return func(yield func(sdk.LogLine, error) bool) {
		wanted := linelog.Request{Functions: r.Functions, Tail: r.Tail, Follow: r.Follow, After: r.After, Since: r.Since}
		for line, err := range ns.lines.ReadAll(ctx, wanted) {
			if !yield(sdk.LogLine{Time: line.Time, Function: line.Function, Instance: line.Instance, Stream: line.Stream, Call: line.Call, Text: line.Text, Place: line.Place}, err) {
				return
			}
		}
	}
}

// ownFaults are the ends of calls that a function's own log tells of, too: what its author looks for there.
var ownFaults = map[quipu.Code]bool{quipu.CodeStart: true, quipu.CodeTimeout: true, quipu.CodeCrashed: true, quipu.CodeReply: true,
	quipu.CodeReplySize: true, quipu.CodeStreaming: true}

// observed is told of each call that has ended.
func (ns *namespace) observed(measure func(quipu.CallInfo)) func(quipu.CallInfo) {
	return func(i quipu.CallInfo) {
		measure(i)
		if i.Error == "" || !ownFaults[i.Error] {
			return
		}
		ns.keep(linelog.Line{Time: ns.node.clock.Now(), Function: i.Function, Call: i.ID, Stream: streamPlatform,
			Text: fmt.Sprintf("call %s %s failed after %s: %s [%s]", i.Method, i.Path, time.Duration(i.Micros)*time.Microsecond, quipu.Codes[i.Error].Title, i.Error)})
	}
}

// keep writes a line. The function goes on if that fails; its output goes where an operator sees it.
func (ns *namespace) keep(line linelog.Line) {
	if err := ns.lines.Write(line); err != nil {
		ns.node.cfg.Logger.Error("output of an instance cannot be kept", "fn", line.Function, "line", line.Text, "err", err)
	}
}

// watched is a runtime whose instances leave, in their own output, how they ended, unless they were asked to.
type watched struct {
	quipu.Runtime
	probe  Probe // nil for none
	ending sync.WaitGroup
	live   sync.Map // id -> *watchedInstance
}

// Start starts an instance and watches its end.
func (w *watched) Start(ctx context.Context, spec quipu.InstanceSpec) (quipu.Instance, error) {
	starting := ProbeEvent{Kind: ProbeStarting, Function: spec.Function, Instance: spec.ID}
	if w.probe != nil {
		w.probe(starting)
	}
	inst, err := w.Runtime.Start(ctx, spec)
	one := &watchedInstance{Instance: inst, ready: func() {
		if starting.Kind = ProbeStarted; w.probe != nil {
			w.probe(starting)
		}
	}}
	if err != nil {
		one.ready()
		return nil, err
	}
	w.live.Store(spec.ID, one)
	w.ending.Go(func() {
		<-inst.Done()
		w.live.Delete(spec.ID)
		if text := one.obituary(); text != "" {
			spec.Output(streamPlatform, []byte(text))
		}
	})
	return one, nil
}

// kill ends an instance at once, and returns when it is gone.
func (w *watched) kill(instance string) {
	if one, ok := w.live.Load(instance); ok {
		one.(*watchedInstance).Stop(0)
	}
}

// wait returns when all ends are told; no instance may be left.
func (w *watched) wait() { w.ending.Wait() }

type watchedInstance struct {
	quipu.Instance
	asked, killed atomic.Bool
	ready         func() // told of the end of Ready
}

// Ready is Instance's.
func (i *watchedInstance) Ready(ctx context.Context) error {
	defer i.ready()
	return i.Instance.Ready(ctx)
}

// Stop is Instance's.
func (i *watchedInstance) Stop(grace time.Duration) {
	if grace > 0 {
		i.asked.Store(true)
	} else {
		i.killed.Store(true)
	}
	i.Instance.Stop(grace)
}

// obituary is what is said of the end, "" for one that was asked for.
func (i *watchedInstance) obituary() string {
	switch { // what broke a call may have ended before it was killed for that
	case i.killed.Load() && strings.HasPrefix(i.Exit(), "signal: "):
		return "the instance was killed: what ran in it was over its time, or had broken"
	case i.asked.Load():
		return ""
	}
	return "the instance ended by itself: " + i.Exit()
}
