package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/gateway"
	"github.com/quipu-run/quipu/gateway/dapr"
	"github.com/quipu-run/quipu/internal/linelog"
)

// prepare makes everything an instance needs before it starts: its built source, a Dapr listener of its
// own with a token, and a place for its output.
func (ns *namespace) prepare(ctx context.Context, f quipu.Function, instance string) (quipu.InstanceSpec, func(), error) {
	dir, err := ns.Prepare(ctx, f)
	if err != nil {
		return quipu.InstanceSpec{}, nil, err
	}
	token := newToken()
	port, release, err := ns.openDoor(f, instance, token)
	if err != nil {
		return quipu.InstanceSpec{}, nil, err
	}
	env := []string{
		"DAPR_HTTP_PORT=" + port,
		"DAPR_HTTP_ENDPOINT=http://127.0.0.1:" + port,
		"DAPR_API_TOKEN=" + token,
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
	return quipu.InstanceSpec{ID: instance, Function: f.Name, Revision: f.Revision, Dir: dir, Command: f.Spec.Command,
		Env: env, Memory: f.Spec.Memory, Output: ns.output(f, instance)}, release, nil
}

// openDoor listens for one instance, so that its operations are known to be its own.
func (ns *namespace) openDoor(f quipu.Function, instance, token string) (port string, release func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("listen for instance %s: %w", instance, err)
	}
	s := gateway.NewServer(dapr.Handler(dapr.Options{
		Token: token, Version: ns.node.cfg.Version, RequireToken: ns.node.cfg.InstanceToken, Logger: ns.node.cfg.Logger,
		Session: func(r *http.Request) (quipu.Session, error) {
			return ns.Session(f, instance, r.Header.Get(quipu.HeaderCallID))
		},
		AppID:         func(*http.Request) string { return f.Name },
		Secrets:       func(*http.Request) (map[string]string, error) { return ns.secretsOf(f.Name) },
		Subscriptions: func(*http.Request) []quipu.TopicTrigger { return f.Topics() },
		Subscribe: func(_ *http.Request, ctx context.Context, s quipu.SubscribeRequest, deliver func(context.Context, quipu.Event) quipu.Outcome) error {
			return ns.Subscribe(ctx, s, deliver)
		},
	}), ns.node.cfg.Logger)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l) // ends with release; before that, only if the listener breaks, which its instance will see
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port, func() {
		if app, ok := ns.apps.LoadAndDelete(instance); ok {
			app.(interface{ Close() }).Close()
		}
		_ = s.Close() // the instance is gone: nobody is left to hear
		<-done
	}, nil
}

func newToken() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// output writes what an instance prints, with the call it is handling.
func (ns *namespace) output(f quipu.Function, instance string) func(string, []byte) {
	return func(stream string, line []byte) {
		err := ns.lines.Write(linelog.Line{Time: ns.node.clock.Now(), Function: f.Name, Instance: instance,
			Call: ns.Current(instance), Stream: stream, Text: string(line)})
		if err != nil { // the function goes on; its output goes where an operator sees it
			ns.node.cfg.Logger.Error("output of an instance cannot be kept", "fn", f.Name, "line", string(line), "err", err)
		}
	}
}
