package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/quipu-run/quipu/sdk"
)

const actorApp = "actors"

// benchActor measures calls of actors and their reminders: an application of the Dapr Go SDK hosts them, and calls them through its own sidecar. That is a
// node, and upstream's sidecar with placement and scheduler, whose state store is PostgreSQL, or memory. Each has the machine alone.
func benchActor(r *runner) (err error) {
	b := &actorBench{runner: r}
	if b.flows, err = buildFlows(r.dir); err != nil {
		return err
	}
	if b.dapr, err = buildControlPlane(r.tell); err != nil {
		return err
	}
	if r.program == "" {
		if r.program, err = build(r.dir); err != nil {
			return err
		}
	}
	if err := b.own(); err != nil {
		return err
	}
	if err := r.withPostgres(func(_, port string) error {
		return b.upstream("daprd-postgres", "WAL flushed", fmt.Sprintf(actorPostgres, port))
	}); err != nil {
		return err
	}
	return b.upstream(daprDefault, "in memory", actorMemory)
}

type actorBench struct {
	*runner
	flows string
	dapr  controlPlane
}

// own has the application attached to a node.
func (b *actorBench) own() (err error) {
	n, _, err := startNode(b.program, filepath.Join(b.dir, "actors-node"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.stop(), os.RemoveAll(n.data)) }()
	app, err := b.application(ours, "on disk", "on disk")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var attached sync.WaitGroup
	defer attached.Wait()
	defer cancel()
	open, ended := make(chan sdk.Attached, 1), make(chan error, 1)
	attached.Go(func() {
		for now, err := range n.client.Attach(ctx, actorApp, sdk.Attachment{Port: app.port, Protocol: "http"}) {
			if err != nil {
				ended <- fmt.Errorf("attach: %w", err)
				return
			}
			if now.State == sdk.AttachedOpen { // once
				open <- now
			}
		}
	})
	select {
	case now := <-open:
		return app.measure(now.DaprGRPC, now.Token, nil)
	case err := <-ended:
		return err
	}
}

// upstream runs the application beside upstream's sidecar, which has placement and scheduler to itself.
func (b *actorBench) upstream(peer, durable, component string) (err error) {
	dir := filepath.Join(b.dir, peer)
	if err := os.MkdirAll(filepath.Join(dir, "resources"), 0o700); err != nil {
		return err
	}
	config := filepath.Join(dir, "config.yaml")
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "resources", "statestore.yaml"), []byte(component), 0o600),
		os.WriteFile(config, fmt.Appendf(nil, daprdConfig, filepath.Join(dir, "names.db")), 0o600)); err != nil {
		return err
	}
	placement, scheduler, stop, err := b.startControlPlane(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop(), os.RemoveAll(dir)) }()
	app, err := b.application(peer, durable, "etcd, fsynced")
	if err != nil {
		return err
	}
	s, err := newSidecar(b.dapr.sidecar, actorApp, app.port, "--resources-path", filepath.Join(dir, "resources"), "--config", config,
		"--placement-host-address", placement, "--scheduler-host-address", scheduler)
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(s.grpc)
	if err != nil {
		return err
	}
	return app.measure(port, "", func() (stop func(), err error) { return func() { end(s.cmd) }, s.start() })
}

// The state stores of actors that upstream's sidecar has.
const (
	actorPostgres = `apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: statestore}
spec:
  type: state.postgresql
  version: v2
  metadata:
    - {name: connectionString, value: "host=127.0.0.1 user=postgres dbname=postgres sslmode=disable pool_max_conns=50 port=%s"}
    - {name: actorStateStore, value: "true"}
`
	actorMemory = `apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: statestore}
spec:
  type: state.in-memory
  version: v1
  metadata:
    - {name: actorStateStore, value: "true"}
`
)

// startControlPlane starts placement and a scheduler with etcd in it, and answers their addresses. Their ports of health are on all interfaces: upstream does
// not do what that flag says.
func (b *actorBench) startControlPlane(dir string) (placement, scheduler string, stop func() error, err error) {
	ports := make([]string, 9)
	for i := range ports {
		if ports[i], err = freePort(); err != nil {
			return "", "", nil, err
		}
	}
	const here = "127.0.0.1"
	common := func(ports []string) []string {
		return []string{"--port", ports[0], "--listen-address", here, "--healthz-port", ports[1], "--healthz-listen-address", here,
			"--metrics-port", ports[2], "--metrics-listen-address", here, "--log-level", "error"}
	}
	stopPlacement, err := b.background(b.dapr.placement, nil, append(common(ports), "--initial-cluster", "dapr-placement-0="+here+":"+ports[3])...)
	if err != nil {
		return "", "", nil, err
	}
	stopScheduler, err := b.background(b.dapr.scheduler, nil, append(common(ports[4:]), "--etcd-data-dir", filepath.Join(dir, "etcd"),
		"--etcd-client-port", ports[7], "--etcd-client-listen-address", here, "--etcd-initial-cluster", "dapr-scheduler-server-0=http://"+here+":"+ports[8],
		"--override-broadcast-host-port", here+":"+ports[4])...)
	if err != nil {
		return "", "", nil, errors.Join(err, stopPlacement())
	}
	stop = func() error { return errors.Join(stopScheduler(), stopPlacement()) }
	if err := cmp.Or(reachable(ports[0]), reachable(ports[4])); err != nil {
		return "", "", nil, errors.Join(err, stop())
	}
	return here + ":" + ports[0], here + ":" + ports[4], stop, nil
}

// actorApplication hosts actors and calls them.
type actorApplication struct {
	*actorBench
	port int // that it listens on
	args []string
}

func (b *actorBench) application(peer, durable, reminders string) (*actorApplication, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(port)
	return &actorApplication{b, number, []string{"actors", "-listen", "127.0.0.1:" + port, "-peer", peer, "-durable", durable, "-durable-reminders", reminders, "-d", b.d.String()}}, err
}

// measure runs the application, whose sidecar has that port, and prints what it says. The sidecar is started when it runs; nil: it does already.
func (a *actorApplication) measure(grpc, token string, sidecar func() (stop func(), err error)) (err error) {
	cmd := exec.Command(a.flows, a.args...)
	var said bytes.Buffer
	cmd.Env, cmd.Stderr = append(os.Environ(), "DAPR_GRPC_PORT="+grpc, "DAPR_API_TOKEN="+token), &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if sidecar != nil {
		stop, err := sidecar()
		if err != nil {
			end(cmd)
			return fmt.Errorf("sidecar: %w", err)
		}
		defer stop()
	}
	for lines := json.NewDecoder(out); err == nil; {
		var f figure
		if err = lines.Decode(&f); err == nil {
			a.print(f)
		}
	}
	if !errors.Is(err, io.EOF) {
		end(cmd)
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("the application: %w\n%s", err, said.Bytes())
	}
	return nil
}
