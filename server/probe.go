package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/call"
)

// Probe is told what the instances of a node do while they do it, and may kill them there: the place where a test of functions
// looks in. It is called concurrently and must not wait for the node.
type Probe func(ProbeEvent) (kill bool)

// ProbeEvent is one thing that happened.
type ProbeEvent struct {
	Kind     ProbeKind
	Function string
	Instance string
	Text     string // of an operation, in words: PUT shared/stock-7
}

// ProbeKind is what happened.
type ProbeKind int

// Kinds of events. Only after ProbeOperation and ProbeReply an instance can be killed.
const (
	ProbeStarting  ProbeKind = iota // an instance starts
	ProbeStarted                    // it may be called, or has failed
	ProbeCall                       // a call is sent to an instance
	ProbeOperation                  // an operation of an instance took effect, which does not know of it yet
	ProbeReply                      // the head of its reply is there, which nobody knows of yet
	ProbeEnd                        // the call is over for the instance
)

// errProbed is what is seen of an instance that was killed by a probe.
var errProbed = errors.New("the instance was killed by the probe of the node")

// probed is told to the probe of the node; an error if the instance is dead now.
func (ns *namespace) probed(e ProbeEvent) error {
	if !ns.node.cfg.Probe(e) {
		return nil
	}
	ns.runtime.kill(e.Instance)
	return errProbed
}

// probedLease tells of the call that it is for.
type probedLease struct {
	call.Lease
	ns       *namespace
	function string
}

// Do sends a request to the function.
func (l probedLease) Do(r *http.Request) (*http.Response, error) {
	e := ProbeEvent{Kind: ProbeCall, Function: l.function, Instance: l.ID()}
	l.ns.node.cfg.Probe(e)
	resp, err := l.Lease.Do(r)
	if err != nil {
		return nil, err
	}
	e.Kind = ProbeReply
	if err := l.ns.probed(e); err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	return resp, nil
}

// Release gives the place back.
func (l probedLease) Release() {
	l.Lease.Release()
	l.ns.node.cfg.Probe(ProbeEvent{Kind: ProbeEnd, Function: l.function, Instance: l.ID()})
}

// Kill ends the instance.
func (l probedLease) Kill() {
	l.Lease.Kill()
	l.ns.node.cfg.Probe(ProbeEvent{Kind: ProbeEnd, Function: l.function, Instance: l.ID()})
}

// probedSession tells of each operation that took effect.
type probedSession struct {
	quipu.Session
	ns       *namespace
	instance string
}

// did is told to the probe, unless the operation failed.
func (s probedSession) did(err error, format string, args ...any) error {
	if err != nil {
		return err
	}
	return s.ns.probed(ProbeEvent{Kind: ProbeOperation, Function: s.Function(), Instance: s.instance, Text: fmt.Sprintf(format, args...)})
}

func (s probedSession) Get(ctx context.Context, store string, keys ...string) ([]quipu.Item, error) {
	items, err := s.Session.Get(ctx, store, keys...)
	return items, s.did(err, "GET %s/%s", store, strings.Join(keys, ","))
}

func (s probedSession) List(ctx context.Context, store string, r quipu.ListRequest) (quipu.Page, error) {
	page, err := s.Session.List(ctx, store, r)
	return page, s.did(err, "LIST %s/%s", store, r.Prefix)
}

func (s probedSession) Apply(ctx context.Context, store string, changes []quipu.Change) error {
	words := make([]string, len(changes))
	for i, c := range changes {
		words[i] = "PUT " + store + "/" + c.Key
		if c.Delete {
			words[i] = "DELETE " + store + "/" + c.Key
		}
	}
	return s.did(s.Session.Apply(ctx, store, changes), "%s", strings.Join(words, ", "))
}

func (s probedSession) Publish(ctx context.Context, ms []quipu.Message) error {
	words := make([]string, len(ms))
	for i, m := range ms {
		words[i] = "PUBLISH " + m.Topic
	}
	return s.did(s.Session.Publish(ctx, ms), "%s", strings.Join(words, ", "))
}

func (s probedSession) Together(ctx context.Context, do func(quipu.Group) error) error {
	return s.did(s.Session.Together(ctx, do), "TOGETHER")
}

func (s probedSession) Cancel(ctx context.Context, topic, id string) error {
	return s.did(s.Session.Cancel(ctx, topic, id), "CANCEL %s %s", topic, id)
}

func (s probedSession) Invoke(ctx context.Context, r quipu.CallRequest) (*quipu.CallReply, error) {
	reply, err := s.Session.Invoke(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := s.did(nil, "INVOKE %s%s", r.Function, r.Path); err != nil {
		return nil, errors.Join(err, reply.Body.Close())
	}
	return reply, nil
}

func (s probedSession) InvokeAsync(ctx context.Context, r quipu.CallRequest) (quipu.CallInfo, error) {
	info, err := s.Session.InvokeAsync(ctx, r)
	return info, s.did(err, "INVOKE %s%s, not waiting", r.Function, r.Path)
}
