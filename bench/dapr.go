package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

const (
	daprRounds = 3
	daprKeys   = 1000
)

// side is one who serves two applications through Dapr's API. The load speaks as the first.
type side struct {
	peer    string
	durable string
	http    string // address of the first application's API
	grpc    string
	token   string
	pids    func() []int // of who works for a call, but the applications and the load
}

// benchDapr measures the upstream sidecar of Dapr with Redis, as it is by default and with an fsync before each answer, and a node whose
// applications came with the same component files. All speak to the same applications and are asked by the same client, in turn.
func benchDapr(r *runner) (err error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		r.note("daprd is not measured: redis-server is not on the PATH")
		return nil
	}
	daprd, err := buildDaprd(r.tell)
	if err != nil {
		return err
	}
	if r.program == "" {
		if r.program, err = build(r.dir); err != nil {
			return err
		}
	}
	apps, err := startEchoes(memoryApps)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, apps.stop()) }()
	d := &daprBench{runner: r, daprd: daprd, ports: apps.ports}
	if err := d.speed(); err != nil {
		return err
	}
	if err := d.memory(); err != nil {
		return err
	}
	d.goals()
	return nil
}

// daprBench is one run of the bench.
type daprBench struct {
	*runner
	daprd  string // the program
	ports  []int  // of applications
	rounds rounds
	costs  costs
	weight map[weighed]memory
}

// Who is measured. Redis by default answers before anything is on disk.
const (
	daprDefault = "daprd"
	daprFsync   = "daprd-fsync"
	ours        = "quipu"
)

// speed has all sides up at once, so that each round of one comes right after that of the others.
func (d *daprBench) speed() (err error) {
	plain, err := startGroup(d.daprd, filepath.Join(d.dir, "daprd-default"), d.ports[:2])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plain.stop()) }()
	always, err := startGroup(d.daprd, filepath.Join(d.dir, "daprd-fsync"), d.ports[:2], "--appendonly", "yes", "--appendfsync", "always", "--save", "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, always.stop()) }()
	n, err := d.attachedNode("dapr-node", d.ports[:2])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	sides := []side{n.side(), plain.side(daprDefault, "in memory"), always.side(daprFsync, "fsync before ack")}
	for _, s := range sides {
		if err := s.fill(); err != nil {
			return fmt.Errorf("%s: %w", s.peer, err)
		}
	}
	for _, op := range daprOps {
		for _, conc := range connections {
			if err := d.inTurn(op, conc, sides); err != nil {
				return err
			}
		}
	}
	return nil
}

// inTurn measures one operation of all sides. Another of them begins each round.
func (d *daprBench) inTurn(op daprOp, conc int, sides []side) error {
	for round := range daprRounds {
		for i := range sides {
			s := sides[(i+round)%len(sides)]
			if op.noStore && s.peer == daprFsync {
				continue // it is what daprd is anyway
			}
			before := cpuOf(s.pids())
			got, err := op.measure(d, s, conc)
			if err != nil {
				return fmt.Errorf("%s of %s: %w", op.name, s.peer, err)
			}
			d.costs.add(keyOf(got), cpuOf(s.pids())-before, got)
			d.rounds.add(got)
		}
	}
	for _, s := range sides {
		if k := (figureKey{op.name, s.peer, op.variant, conc}); len(d.rounds.of[k]) > 0 {
			d.print(d.rounds.all(k))
		}
	}
	return nil
}

func (g *group) side(peer, durable string) side {
	return side{peer: peer, durable: durable, http: g.sidecars[0].http, grpc: g.sidecars[0].grpc, pids: g.pids}
}

func (a *attached) side() side {
	return side{peer: ours, durable: "on disk", http: "127.0.0.1:" + a.apps[0].DaprHTTP, grpc: "127.0.0.1:" + a.apps[0].DaprGRPC, token: a.apps[0].Token,
		pids: func() []int { return []int{a.cmd.Process.Pid} }}
}

// daprOp is one kind of call.
type daprOp struct {
	name, variant string
	noStore       bool // it does not touch the store
	measure       func(*daprBench, side, int) (figure, error)
}

var daprValue = strings.Repeat("v", valueBytes)

// daprOps in the order in which they are measured. Nobody subscribes to what is published.
var daprOps = []daprOp{
	overWire("dapr_set", http.StatusNoContent, func(s side, ask []byte, n int) []byte { return s.set(ask, n) }),
	overWire("dapr_get", http.StatusOK, func(s side, ask []byte, n int) []byte {
		return s.request(ask, "GET", fmt.Sprintf("/v1.0/state/statestore/k%d", n%daprKeys), "")
	}),
	overWire("dapr_publish", http.StatusNoContent, func(s side, ask []byte, n int) []byte {
		return s.request(ask, "POST", "/v1.0/publish/pubsub/bench", `{"v":"`+daprValue+`"}`)
	}),
	invoke("dapr_invoke_self", appName(0)),
	invoke("dapr_invoke", appName(1)),
	overGRPC("dapr_set", func(ctx context.Context, c runtimev1.DaprClient, n int) error {
		_, err := c.SaveState(ctx, &runtimev1.SaveStateRequest{StoreName: "statestore",
			States: []*commonv1.StateItem{{Key: fmt.Sprintf("k%d", n%daprKeys), Value: []byte(`"` + daprValue + `"`)}}})
		return err
	}),
	overGRPC("dapr_get", func(ctx context.Context, c runtimev1.DaprClient, n int) error {
		got, err := c.GetState(ctx, &runtimev1.GetStateRequest{StoreName: "statestore", Key: fmt.Sprintf("k%d", n%daprKeys)})
		if err == nil && len(got.Data) == 0 {
			err = errors.New("there is no such key")
		}
		return err
	}),
}

func invoke(name, app string) daprOp {
	op := overWire(name, http.StatusOK, func(s side, ask []byte, _ int) []byte {
		return s.request(ask, "POST", "/v1.0/invoke/"+app+"/method/echo", `{"v":"`+daprValue+`"}`)
	})
	op.noStore = true
	return op
}

// request writes one of HTTP behind ask.
func (s side) request(ask []byte, method, path, body string) []byte {
	ask = fmt.Appendf(ask, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, s.http)
	if s.token != "" {
		ask = fmt.Appendf(ask, "dapr-api-token: %s\r\n", s.token)
	}
	if body != "" {
		ask = fmt.Appendf(ask, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	return append(append(ask, "\r\n"...), body...)
}

func (s side) set(ask []byte, n int) []byte {
	return s.request(ask, "POST", "/v1.0/state/statestore", fmt.Sprintf(`[{"key":"k%d","value":%q}]`, n%daprKeys, daprValue))
}

// fill sets all keys, so that each is there when it is read, and tells early what does not work.
func (s side) fill() error {
	w := newWires(s.http, 1)
	defer w.close()
	for n := range daprKeys {
		if err := w.do(0, func(ask []byte) []byte { return s.set(ask, n) }, http.StatusNoContent); err != nil {
			return err
		}
	}
	return nil
}

// overWire is an operation of the HTTP API.
func overWire(name string, want int, request func(s side, ask []byte, n int) []byte) daprOp {
	return daprOp{name: name, variant: "HTTP", measure: func(d *daprBench, s side, conc int) (figure, error) {
		w := newWires(s.http, conc)
		defer w.close()
		f := measured(figure{Peer: s.peer, Bench: name, Variant: "HTTP", Durable: s.durable}, conc, d.d, func(_ context.Context, worker, i int) error {
			return w.do(worker, func(ask []byte) []byte { return request(s, ask, worker*7919+i) }, want)
		})
		return f, failed(f)
	}}
}

// overGRPC is an operation of the gRPC API, all callers on one connection, as in an application.
func overGRPC(name string, do func(ctx context.Context, c runtimev1.DaprClient, n int) error) daprOp {
	return daprOp{name: name, variant: "gRPC", measure: func(d *daprBench, s side, conc int) (f figure, err error) {
		conn, err := grpc.NewClient(s.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return f, err
		}
		defer func() { err = errors.Join(err, conn.Close()) }()
		c := runtimev1.NewDaprClient(conn)
		f = measured(figure{Peer: s.peer, Bench: name, Variant: "gRPC", Durable: s.durable}, conc, d.d, func(ctx context.Context, worker, i int) error {
			if s.token != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "dapr-api-token", s.token)
			}
			return do(ctx, c, worker*7919+i)
		})
		return f, failed(f)
	}}
}

// failed refuses a figure that was made by errors: they may be faster than answers.
func failed(f figure) error {
	if f.Errors > 0 {
		return fmt.Errorf("%d of %d calls failed: %s", f.Errors, f.N, f.Err)
	}
	return nil
}
