package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// benchWorkflow measures durable execution beside Restate, Temporal's server and PostgreSQL, if they are on the PATH: workflows of one and of ten steps
// through the Dapr Go SDK and as a function with step(), a counter as an object or a row, and one hot counter. Each peer runs alone.
func benchWorkflow(r *runner) error {
	flows, err := buildFlows(r.dir)
	if err != nil {
		return err
	}
	for _, run := range []func(string) error{r.ownWorkflows, r.restate, r.temporal, r.postgres} {
		if err := run(flows); err != nil {
			return err
		}
	}
	return nil
}

// buildFlows compiles what runs workflows of the SDKs, once.
func buildFlows(dir string) (program string, err error) {
	program = filepath.Join(dir, "flows")
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	cmd := exec.Command("go", "build", "-o", program, ".")
	cmd.Dir = filepath.Join(folder(), "flows")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build bench/flows: %w\n%s", err, out)
	}
	return program, nil
}

// inFlight is how many workflows, or calls, are under way at once.
var inFlight = []int{1, 32, 128}

func (r *runner) ownWorkflows(flows string) error {
	return r.withNode(func(ctx context.Context, n *node) error {
		for _, steps := range []int{1, 10} {
			for _, conc := range inFlight {
				err := r.figuresOf(flows, "dapr", "-grpc", n.info.DaprGRPC, "-steps", fmt.Sprint(steps), "-conc", fmt.Sprint(conc), "-d", r.d.String())
				if err != nil {
					return err
				}
			}
		}
		if err := n.deployFn(ctx, r.dir); err != nil {
			return err
		}
		c := caller()
		for _, steps := range []int{1, 10} {
			for _, conc := range inFlight {
				r.print(measured(figure{Peer: "quipu", Bench: "workflow", Variant: fmt.Sprintf("%d steps, step()", steps), Durable: "on disk"}, conc, r.d,
					func(ctx context.Context, _, _ int) error {
						return call(ctx, c, "POST", "http://"+n.info.HTTP+"/steps", fmt.Sprint(steps))
					}))
			}
		}
		for _, keys := range []int{1000, 1} {
			for _, conc := range inFlight {
				r.print(measured(figure{Peer: "quipu", Bench: "counter", Variant: fmt.Sprintf("%d keys, sdk/fn", keys), Durable: "on disk"}, conc, r.d,
					func(ctx context.Context, w, i int) error {
						return call(ctx, c, "POST", fmt.Sprintf("http://%s/fncounts/%d", n.info.HTTP, (w*7919+i)%keys), "")
					}))
			}
		}
		return nil
	})
}

// restate starts its server and the service that it calls. Its journal is fsynced, as it is by default.
func (r *runner) restate(flows string) (err error) {
	server, err := exec.LookPath("restate-server")
	if err != nil {
		r.note("restate is not measured: restate-server is not on the PATH")
		return nil
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	stopService, err := r.background(flows, nil, "restate", "-listen", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopService()) }()
	stop, err := r.background(server, []string{"RESTATE_LOG_FILTER=error", "DO_NOT_TRACK=1"}, "--no-logo", "--listen-mode", "tcp", "--bind-ip", "127.0.0.1",
		"--node-name", "n1", "--base-dir", filepath.Join(r.dir, "restate"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	c := caller()
	if err := within(readyMax, func(ctx context.Context) error {
		return call(ctx, c, "POST", "http://127.0.0.1:9070/deployments", `{"uri":"http://127.0.0.1:`+port+`"}`)
	}); err != nil {
		return fmt.Errorf("restate: %w", err)
	}
	const durable = "fsynced log (default)"
	for _, steps := range []int{1, 10} {
		for _, conc := range inFlight {
			r.print(measured(figure{Peer: "restate", Bench: "workflow", Variant: fmt.Sprintf("%d steps", steps), Durable: durable}, conc, r.d,
				func(ctx context.Context, _, _ int) error {
					return call(ctx, c, "POST", "http://127.0.0.1:8080/Flow/Steps", fmt.Sprint(steps))
				}))
		}
	}
	for _, keys := range []int{1000, 1} {
		for _, conc := range inFlight {
			r.print(measured(figure{Peer: "restate", Bench: "counter", Variant: fmt.Sprintf("%d keys, object", keys), Durable: durable}, conc, r.d,
				func(ctx context.Context, w, i int) error {
					return call(ctx, c, "POST", fmt.Sprintf("http://127.0.0.1:8080/Counter/%d/Add", (w*7919+i)%keys), "")
				}))
		}
	}
	return nil
}

// temporalLeast is the time of a figure of Temporal, whose longer workflows take seconds when many are in flight: only those that end are counted.
const temporalLeast = 10 * time.Second

// temporal runs its server on SQLite, as it comes and with its limit on polls raised; temporalsrv and temporalload are its server and SDK in small programs.
func (r *runner) temporal(string) error {
	server, err := exec.LookPath("temporalsrv")
	load, err2 := exec.LookPath("temporalload")
	if errors.Join(err, err2) != nil {
		r.note("temporal is not measured: temporalsrv and temporalload are not on the PATH")
		return nil
	}
	for _, mode := range []struct{ name, durable, polls string }{
		{"temporal", "SQLite WAL, fsynced", ""}, {"temporal-polls", "SQLite WAL, fsynced; more than 20 polls a second", "10000"}} {
		port, err := freePort()
		if err != nil {
			return err
		}
		args := []string{"-port", port, "-db", filepath.Join(r.dir, mode.name+".db"), "-journal", "wal", "-sync", "full"}
		if mode.polls != "" {
			args = append(args, "-pollrps", mode.polls)
		}
		stop, err := r.background(server, nil, args...)
		if err != nil {
			return err
		}
		err = reachable(port)
		if err == nil {
			time.Sleep(3 * time.Second) // it listens before it serves
			err = r.temporalLoad(load, "-addr", "127.0.0.1:"+port, "-peer", mode.name, "-durable", mode.durable, "-dur", max(r.d, temporalLeast).String(), "-conc", "1,32,128")
		}
		if err = errors.Join(err, stop()); err != nil {
			return fmt.Errorf("%s: %w", mode.name, err)
		}
	}
	return nil
}

// postgres has pgbench add one to a row, of a thousand and always the same.
func (r *runner) postgres(string) error { return r.withPostgres(r.pgbench) }

// temporalLoad measures with activities, and, in longer workflows, with those that the worker does itself.
func (r *runner) temporalLoad(load string, args ...string) error {
	for _, more := range [][]string{nil, {"-local", "-steps", "10"}} {
		all, err := figuresOf(load, append(args[:len(args):len(args)], more...)...)
		if err != nil {
			return err
		}
		for _, f := range all {
			steps := strings.TrimSuffix(strings.TrimPrefix(f.Bench, "workflow_"), "_steps")
			f.Bench, f.Variant = "workflow", steps+" steps, "+f.Variant
			r.print(f)
		}
	}
	return nil
}

// withPostgres runs a server of its own, if there is one on the PATH. It does not run as root, so then the user postgres has to be there.
func (r *runner) withPostgres(do func(dir, port string) error) (err error) {
	bin, err := exec.Command("pg_config", "--bindir").Output()
	if err != nil {
		r.note("postgresql is not measured: pg_config is not on the PATH")
		return nil
	}
	dir, err := os.MkdirTemp("", "quipu-bench-pg-") // whose user must get there
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var as []string
	if os.Getuid() == 0 {
		as = []string{"setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"}
		if out, err := exec.Command("chown", "postgres", dir).CombinedOutput(); err != nil {
			r.note("postgresql is not measured: %s", strings.TrimSpace(string(out)))
			return nil
		}
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	at := func(name string) string { return filepath.Join(strings.TrimSpace(string(bin)), name) }
	initdb := append(as[:len(as):len(as)], at("initdb"), "-D", filepath.Join(dir, "d"), "-A", "trust", "-U", "postgres")
	cmd := exec.Command(initdb[0], initdb[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	serve := append(as[:len(as):len(as)], at("postgres"), "-D", filepath.Join(dir, "d"), "-p", port, "-h", "127.0.0.1", "-k", dir, "-c", "max_connections=200")
	stop, err := r.background(serve[0], nil, serve[1:]...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := within(readyMax, func(context.Context) error { return psql(port, "select 1") }); err != nil {
		return err
	}
	return do(dir, port)
}

func toPostgres(port string, args ...string) []string {
	return append([]string{"-h", "127.0.0.1", "-p", port, "-U", "postgres"}, args...)
}

func psql(port, statement string) error {
	if out, err := exec.Command("psql", toPostgres(port, "-q", "-c", statement)...).CombinedOutput(); err != nil {
		return fmt.Errorf("psql: %w\n%s", err, out)
	}
	return nil
}

func (r *runner) pgbench(dir, port string) error {
	if err := psql(port, "create table kv(k int primary key, n bigint); insert into kv select i, 0 from generate_series(0,999) i"); err != nil {
		return err
	}
	for _, keys := range []int{1000, 1} {
		script := filepath.Join(dir, fmt.Sprintf("update-%d.sql", keys))
		if err := os.WriteFile(script, fmt.Appendf(nil, "\\set k random(0,%d)\nupdate kv set n=n+1 where k=:k;\n", keys-1), 0o644); err != nil {
			return err
		}
		for _, conc := range inFlight {
			seconds := max(1, int(r.d.Seconds()))
			log := filepath.Join(dir, fmt.Sprintf("log-%d-%d", keys, conc))
			cmd := exec.Command("pgbench", toPostgres(port, "-n", "-M", "prepared", "-f", script, "-c", fmt.Sprint(conc), "-j", "1", "-T", fmt.Sprint(seconds), "-l", "--log-prefix", log, "postgres")...)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("pgbench: %w\n%s", err, out)
			}
			f, err := pgFigure(log, seconds)
			if err != nil {
				return err
			}
			f.Peer, f.Bench, f.Variant, f.Durable, f.Conc = "postgres", "counter", fmt.Sprintf("%d keys, update n=n+1", keys), "WAL flushed", conc
			r.print(f)
		}
	}
	return nil
}

// figuresOf runs a program that prints figures, and prints them.
func (r *runner) figuresOf(name string, args ...string) error {
	all, err := figuresOf(name, args...)
	for _, f := range all {
		r.print(f)
	}
	return err
}

// figuresOf runs a program that prints figures.
func figuresOf(name string, args ...string) (all []figure, err error) {
	cmd := exec.Command(name, args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, said.Bytes())
	}
	for line := range bytes.Lines(out) {
		var f figure
		if err := json.Unmarshal(line, &f); err != nil {
			return all, fmt.Errorf("%s said %q: %w", filepath.Base(name), line, err)
		}
		all = append(all, f)
	}
	return all, nil
}

// background starts a program that runs until stop.
func (r *runner) background(name string, env []string, args ...string) (stop func() error, err error) {
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Dir = append(os.Environ(), env...), r.dir
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() error {
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			return err
		}
		late := time.AfterFunc(readyMax, func() { _ = cmd.Process.Kill() })
		defer late.Stop()
		_ = cmd.Wait() // some end with a status for being asked to
		return nil
	}, nil
}

// within repeats what fails until it does not, for a while.
func within(most time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	for {
		err := do(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}
