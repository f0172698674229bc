package server

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/access"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/internal/grpcwire"
	"github.com/quipu-run/quipu/internal/resiliency"
	"github.com/quipu-run/quipu/internal/resource"
)

// policies are what Configuration and Resiliency resources say for an application. The zero value says nothing.
type policies struct {
	config     resource.ConfigurationSpec
	resiliency *resiliency.Policies
	resilient  []string // names of the Resiliency resources
	api        *access.API
	secrets    *access.Secrets
	denied     *access.Components
	access     *access.List // who may call the application
}

// policiesOf reads what is for an app, which speaks gRPC or HTTP. CodeManifest: there are several Configurations for it, or one that cannot be used.
func (ns *namespace) policiesOf(app string, grpc bool, set resource.Set) (p policies, warnings []string, err error) {
	config, err := configurationOf(app, set)
	if err != nil {
		return p, nil, err
	}
	var mine []resource.Resiliency
	for _, r := range set.Resiliencies {
		if r.For(app) {
			mine = append(mine, r)
			p.resilient = append(p.resilient, r.Name)
		}
	}
	if len(mine) > 0 {
		if p.resiliency, err = resiliency.New(mine, resiliency.Options{Clock: ns.node.clock}); err != nil {
			return p, nil, &quipu.Error{Code: quipu.CodeManifest, Op: "app.read", Err: err,
				Text: fmt.Sprintf("%s:%d: %s", mine[0].File, mine[0].Line, err), Hint: quipu.Codes[quipu.CodeManifest].Next}
		}
	}
	p.config, p.access = config, access.NewList(config.AccessControl, grpc)
	p.api, p.secrets, p.denied = access.NewAPI(config.API), access.NewSecrets(config.Secrets), access.NewComponents(config.Components.Deny)
	return p, p.resiliency.Warnings(), nil
}

// admits tells whether the application may use a part of Dapr's API. Over gRPC, a part has no version, and a method for a path.
func (p *policies) admits(version, path string) bool {
	if version == "" {
		return p.api.GRPC(path)
	}
	return p.api.HTTP(version, path)
}

// blocks are the building blocks by what types of components start with.
var blocks = map[string]resiliency.Block{"state": resiliency.StateStore, "pubsub": resiliency.PubSub, "bindings": resiliency.Binding,
	"secretstores": resiliency.SecretStore, "configuration": resiliency.Configuration, "lock": resiliency.Lock, "crypto": resiliency.Crypto,
	"conversation": resiliency.Conversation}

// guardOf is what a component's operations run within; nil if no resource says anything.
func (p policies) guardOf(s component.Spec) component.Guard {
	kind, _, _ := strings.Cut(s.Type, ".")
	target := resiliency.Outbound(blocks[kind], s.Name)
	if p.resiliency.For(target) == nil {
		return nil
	}
	return func(ctx context.Context, op func(context.Context) error) error {
		return unwrapStatus(p.resiliency.For(target).Do(ctx, func(ctx context.Context) error { return lasting(op(ctx)) }))
	}
}

// lasting marks what will not be otherwise another time: mistakes of who asks.
func lasting(err error) error {
	if err == nil {
		return nil
	}
	if status := quipu.Codes[quipu.CodeOf(err)].Status; status >= 400 && status < 500 && status != http.StatusTooManyRequests {
		return resiliency.Final(err)
	}
	return err
}

// configurationOf finds the one Configuration of an app; the zero one if there is none.
func configurationOf(app string, set resource.Set) (spec resource.ConfigurationSpec, err error) {
	var found *resource.Configuration
	for i, c := range set.Configurations {
		if !c.For(app) {
			continue
		}
		if found != nil {
			return spec, &quipu.Error{Code: quipu.CodeManifest, Op: "app.read", Hint: "keep one, or name the applications of each in scopes",
				Text: fmt.Sprintf("%s:%d: Configuration %q is the second for application %s, after %s:%d", c.File, c.Line, c.Name, app, found.File, found.Line)}
		}
		found = &set.Configurations[i]
	}
	if found == nil {
		return spec, nil
	}
	if err := found.Validate(); err != nil {
		return spec, &quipu.Error{Code: quipu.CodeManifest, Op: "app.read", Err: err, Hint: quipu.Codes[quipu.CodeManifest].Next,
			Text: fmt.Sprintf("%s:%d: Configuration %q: %s", found.File, found.Line, found.Name, err)}
	}
	return found.Spec, nil
}

// policed is a session whose calls keep to the policies of who makes them, and of who is called.
type policed struct {
	quipu.Session
	ns *namespace
	by access.App // the zero App is a client from outside
	p  *resiliency.Policies
}

// repliesMax bounds a reply that is held, and requestsMax a request that is kept for another attempt.
const (
	repliesMax  = 64 << 20
	requestsMax = 4 << 20
)

// Invoke refuses what the called function does not allow (CodeDenied), and tries as often as the caller's policies say. A reply is held
// until it is whole if there is a policy; a request of unknown or great length is sent once.
func (s *policed) Invoke(ctx context.Context, r quipu.CallRequest) (*quipu.CallReply, error) {
	if r.Turn != nil { // of an actor, which is no service
		return s.Session.Invoke(ctx, r)
	}
	if err := s.allowed(ctx, &r); err != nil {
		return nil, err
	}
	policy := s.p.For(resiliency.App(r.Function, r.Path))
	if policy == nil {
		return s.Session.Invoke(ctx, r)
	}
	again, err := keepBody(&r, policy.Retries())
	if err != nil {
		return nil, err
	}
	var reply *quipu.CallReply
	err = policy.Do(ctx, func(ctx context.Context) error {
		var err error
		if reply, err = s.once(ctx, r); err != nil && again == nil {
			return resiliency.Final(err)
		} else if again != nil {
			r.Body = again()
		}
		return err
	})
	if reply != nil { // an answer, good or bad
		return reply, nil
	}
	return nil, unwrapStatus(err)
}

// unwrapStatus gives a policy's own errors their codes; others stay.
func unwrapStatus(err error) error {
	if open := (*resiliency.OpenError)(nil); errors.As(err, &open) {
		return &quipu.Error{Code: quipu.CodeBreakerOpen, Op: "call", Text: open.Error(), Err: err, Hint: quipu.Codes[quipu.CodeBreakerOpen].Next}
	}
	if late := (*resiliency.TimeoutError)(nil); errors.As(err, &late) {
		return &quipu.Error{Code: quipu.CodeTimeout, Op: "call", Text: late.Error(), Err: err, Hint: quipu.Codes[quipu.CodeTimeout].Next}
	}
	return err
}

// once is one attempt: an answer that is none of success is an error to the policy.
func (s *policed) once(ctx context.Context, r quipu.CallRequest) (*quipu.CallReply, error) {
	reply, err := s.Session.Invoke(ctx, r)
	if err != nil {
		return nil, &resiliency.StatusError{Code: cmp.Or(quipu.Codes[quipu.CodeOf(err)].Status, http.StatusInternalServerError), Err: err}
	}
	body, err := io.ReadAll(io.LimitReader(reply.Body, repliesMax+1))
	if err = errors.Join(err, reply.Body.Close()); err == nil && len(body) > repliesMax {
		err = &quipu.Error{Code: quipu.CodeReplySize, Op: "call", Text: fmt.Sprintf("function %s answered with more than %d MiB, which a policy does not hold", r.Function, repliesMax>>20)}
	}
	if err != nil {
		return nil, err
	}
	reply.Body = io.NopCloser(bytes.NewReader(body))
	if status := grpcwire.Status(reply.Trailer); grpcwire.Is(reply.Header.Get("Content-Type")) && status.Err() != nil {
		return reply, &resiliency.StatusError{Code: int(status.Code()), GRPC: true, Err: status.Err()}
	}
	if reply.Status < 200 || reply.Status > 399 {
		return reply, &resiliency.StatusError{Code: reply.Status, Err: fmt.Errorf("function %s answered with status %d", r.Function, reply.Status)}
	}
	return reply, nil
}

// keepBody reads a request that may be sent again, and answers how to; nil if it is sent once.
func keepBody(r *quipu.CallRequest, retries bool) (again func() io.Reader, err error) {
	switch {
	case !retries || r.ContentLength > requestsMax || r.ContentLength < 0:
		return nil, nil
	case r.Body == nil:
		return func() io.Reader { return nil }, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, r.ContentLength))
	if err != nil {
		return nil, &quipu.Error{Code: quipu.CodeUsage, Op: "call", Text: "the request broke off", Err: err}
	}
	again = func() io.Reader { return bytes.NewReader(body) }
	r.Body = again()
	return again, nil
}

// allowed refuses what the called function's access control does not allow. What is asked for is what is then called.
func (s *policed) allowed(ctx context.Context, r *quipu.CallRequest) error {
	list, err := s.ns.accessOf(ctx, r.Function)
	if err != nil || list == nil {
		return err
	}
	decoded, err := url.PathUnescape(r.Path)
	operation := ""
	if err == nil {
		operation, err = access.Normalize(decoded)
	}
	if err != nil {
		return &quipu.Error{Code: quipu.CodeUsage, Op: "call", Text: fmt.Sprintf("%.80q cannot be called", r.Path), Err: err}
	}
	verb := r.Method
	if grpcwire.Is(r.Header.Get("Content-Type")) {
		verb = ""
	}
	if ok, why := list.Allowed(s.by, operation, verb); !ok {
		return &quipu.Error{Code: quipu.CodeDenied, Op: "call", Hint: quipu.Codes[quipu.CodeDenied].Next,
			Text: fmt.Sprintf("access control policy has denied access to id: %s operation: %s verb: %s: %s", r.Function, operation, r.Method, why)}
	}
	r.Path = (&url.URL{Path: path.Join("/", operation)}).EscapedPath()
	return nil
}

// accessLists are who may call the functions of a namespace, by function and revision.
type accessLists struct{ of sync.Map }

func (a *accessLists) forget() { a.of.Clear() }

// accessOf is who may call a function; nil is everybody. One that is not there is found out by its call.
func (ns *namespace) accessOf(ctx context.Context, function string) (*access.List, error) {
	if one := ns.attached.first(function); one != nil {
		return one.uses.Load().access, nil
	}
	f, err := ns.View.Function(function)
	if err != nil {
		return nil, nil
	}
	key := f.Name + "\x00" + f.Revision
	if known, ok := ns.access.of.Load(key); ok {
		return known.(*access.List), nil
	}
	set, err := ns.resourcesOf(ctx, f)
	if err != nil {
		return nil, err
	}
	config, err := configurationOf(f.Name, set)
	if err != nil {
		return nil, err
	}
	list := access.NewList(config.AccessControl, f.Spec.Protocol == quipu.ProtocolGRPC)
	ns.access.of.Store(key, list)
	return list, nil
}
