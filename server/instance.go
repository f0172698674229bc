package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/netutil"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/contract/line"
	"github.com/quipu-run/quipu/gateway"
	"github.com/quipu-run/quipu/gateway/dapr"
	"github.com/quipu-run/quipu/internal/access"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/internal/linelog"
	"github.com/quipu-run/quipu/internal/resiliency"
)

// prepare makes everything an instance needs before it starts: its built source, a Dapr listener of its
// own with a token, and a place for its output.
func (ns *namespace) prepare(ctx context.Context, f quipu.Function, instance string) (quipu.InstanceSpec, func(), error) {
	dir, err := ns.built(ctx, f)
	if err != nil {
		return quipu.InstanceSpec{}, nil, err
	}
	using, give, err := ns.takeUses(ctx, f, ns.Folder(f))
	if err != nil {
		return quipu.InstanceSpec{}, nil, err
	}
	ns.using.Store(instance, using)
	ns.flows.wakers.arrive(instance)
	own := ns.newDoor(f, instance, newToken(), func() *uses { return using }, func() []quipu.TopicTrigger { return ns.topicsOf(f) })
	lines := line.New(own.token, own.handler)
	ns.doors.Store(instance, lines)
	release := func() {
		defer give()
		ns.actors.Gone(instance)
		ns.flows.wakers.gone(instance)
		ns.using.Delete(instance)
		if app, ok := ns.apps.LoadAndDelete(instance); ok {
			app.(interface{ Close() }).Close()
		}
		ns.doors.Delete(instance)
		lines.Close()
		own.close()
	}
	env := []string{
		"DAPR_API_TOKEN=" + own.token,
		"APP_ID=" + f.Name,
		"APP_PROTOCOL=" + f.Spec.Protocol,
		"K_SERVICE=" + f.Name,
		"K_REVISION=" + f.Revision,
		"QUIPU_FUNCTION=" + f.Name,
		"QUIPU_INSTANCE=" + instance,
		"QUIPU_NAMESPACE=" + ns.name,
	}
	if f.Spec.Concurrency == 1 {
		// Idle threads of many Go schedulers take the processors from each other: docs/decisions/one-call-one-processor.md.
		env = append(env, "GOMAXPROCS=1")
	}
	for name, value := range f.Spec.Env {
		env = append(env, name+"="+value)
	}
	return quipu.InstanceSpec{ID: instance, Function: f.Name, Revision: f.Revision, Dir: dir, Root: ns.Folder(f),
		Command: f.Spec.Command, Env: env, Doors: append(own.doors(), lineDoor(own, lines)), Sandbox: ns.walls(f), Memory: f.Spec.Memory, CPU: f.Spec.CPU,
		Output: ns.output(f, instance)}, release, nil
}

// built answers the folder of a function. Its sources stay meanwhile, also if another revision takes its place.
func (ns *namespace) built(ctx context.Context, f quipu.Function) (dir string, err error) {
	pinned, done := ns.node.blobs.Reading()
	defer done()
	pinned()
	return ns.Prepare(ctx, f)
}

// ownDoor is the pair of Dapr doors of one instance, so that its operations are known to be its own.
type ownDoor struct {
	token      string
	handler    http.Handler
	http, grpc server
	running    sync.WaitGroup
}

func (ns *namespace) newDoor(f quipu.Function, instance, token string, using func() *uses, subscriptions func() []quipu.TopicTrigger, change ...func(*dapr.Options)) *ownDoor {
	opt := dapr.Options{
		Token: token, Version: ns.node.cfg.Version, RequireToken: ns.node.cfg.InstanceToken, Logger: ns.node.cfg.Logger, Clock: ns.node.clock,
		Session: func(r *http.Request) (quipu.Session, error) {
			session, err := ns.Door(r.Header, f, instance)
			if err == nil && ns.node.cfg.Probe != nil {
				session = probedSession{session, ns, instance}
			}
			if session, err = ns.node.roam(session, err); err != nil {
				return nil, err
			}
			return &policed{session, ns, access.App{ID: f.Name, Namespace: ns.name}, using().resiliency}, nil
		},
		AppID:         func(*http.Request) string { return f.Name },
		Workflows:     func(*http.Request) (quipu.Workflows, error) { return ns.flows.store, nil },
		Services:      ns.services(f, instance),
		Components:    func(*http.Request) (*component.Set, error) { return using().Set, nil },
		SecretAllowed: func(_ *http.Request, store, name string) bool { return using().secrets.Allowed(store, name) },
		Admit:         func(_ *http.Request, version, path string) bool { return using().admits(version, path) },
		Endpoint:      func(_ *http.Request, name string) (dapr.Endpoint, bool) { return using().endpoint(name) },
		About:         func(*http.Request) dapr.About { return using().about(f) },
		Tell: func(r *http.Request, method, path string, body []byte) error {
			return ns.tell(r.Context(), f.Name, method, path, body)
		},
		Actors: func(*http.Request) dapr.Actors {
			return actorDoor{ns, f, instance, func() *resiliency.Policies { return using().resiliency }}
		},
		Subscriptions: func(*http.Request) []quipu.TopicTrigger { return subscriptions() },
		Subscribe: func(r *http.Request, s quipu.SubscribeRequest, deliver func(context.Context, quipu.Event) quipu.Outcome) error {
			return ns.Subscribe(r.Context(), s, deliver)
		},
	}
	for _, c := range change {
		c(&opt)
	}
	d := dapr.New(opt)
	handler := ns.journals(f, opt.Token, opt.RequireToken, piped(d, using))
	return &ownDoor{token: token, handler: handler, http: gateway.NewServer(handler, ns.node.cfg.Logger), grpc: grpcServer{d.GRPC(), []closer{d}}}
}

// Ports of Dapr, which an instance with a network of its own finds its doors at.
const (
	daprHTTPPort = 3500
	daprGRPCPort = 50001
	linePort     = 3502
)

// lineDoor is where an application that was written with sdk/fn opens its line.
func lineDoor(o *ownDoor, d *line.Door) quipu.Door {
	return quipu.Door{Port: linePort, Env: func(port int) []string { return []string{fmt.Sprintf("QUIPU_LINE=127.0.0.1:%d", port)} },
		Serve: func(l net.Listener) { o.running.Go(func() { _ = d.Serve(l) }) }} // ends with Close
}

// doors are what an application finds its doors by.
func (o *ownDoor) doors() []quipu.Door {
	return []quipu.Door{
		{Port: daprHTTPPort, Serve: o.serve(o.http), Env: func(port int) []string {
			return []string{fmt.Sprintf("DAPR_HTTP_PORT=%d", port), fmt.Sprintf("DAPR_HTTP_ENDPOINT=http://127.0.0.1:%d", port)}
		}},
		{Port: daprGRPCPort, Serve: o.serve(o.grpc), Env: func(port int) []string {
			return []string{fmt.Sprintf("DAPR_GRPC_PORT=%d", port), fmt.Sprintf("DAPR_GRPC_ENDPOINT=http://127.0.0.1:%d", port)}
		}},
	}
}

func (o *ownDoor) serve(s server) func(net.Listener) {
	return func(l net.Listener) {
		o.running.Go(func() {
			_ = s.Serve(netutil.LimitListener(l, doorConnections)) // ends with close; before that, only if the listener breaks, which its instance will see
		})
	}
}

// open serves on hosts, at any free port if port is 0, and answers which it is.
func (o *ownDoor) open(s server, hosts []string, port int) (string, error) {
	taken := strconv.Itoa(port)
	for _, host := range hosts {
		l, err := net.Listen("tcp", net.JoinHostPort(host, taken))
		if err != nil {
			return "", err
		}
		o.serve(s)(l)
		taken = strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	}
	return taken, nil
}

// openSocket serves on a Unix socket, in place of one that nobody listens on any more.
func (o *ownDoor) openSocket(s server, path string) (string, error) {
	l, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) {
		if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
			return "", errors.Join(fmt.Errorf("%s: another program listens there", path), conn.Close())
		}
		if err := os.Remove(path); err != nil {
			return "", err
		}
		l, err = net.Listen("unix", path)
	}
	if err != nil {
		return "", err
	}
	o.serve(s)(l)
	return path, nil
}

// end lets requests under way finish for a moment, then cuts everybody off.
func (o *ownDoor) end() {
	ctx, cancel := context.WithTimeout(context.Background(), ownDoorEnd)
	defer cancel()
	for _, s := range []server{o.http, o.grpc} {
		_ = s.Shutdown(ctx) // what is not done by then, close cuts off
	}
	o.close()
}

// ownDoorEnd is how long the last requests of an attached application may take, like the one that it is ended by.
const ownDoorEnd = 2 * time.Second

// close cuts everybody off: the instance is gone.
func (o *ownDoor) close() {
	for _, s := range []server{o.http, o.grpc} {
		_ = s.Close() // nobody is left to hear
	}
	o.running.Wait()
}

func newToken() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// output writes what an instance prints, with the call it is handling.
func (ns *namespace) output(f quipu.Function, instance string) func(string, []byte) {
	return func(stream string, line []byte) {
		ns.keep(linelog.Line{Time: ns.node.clock.Now(), Function: f.Name, Instance: instance,
			Call: ns.Current(instance), Stream: stream, Text: string(line)})
	}
}
