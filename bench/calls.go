package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// withNode runs a bench against a node with the application of this folder.
func (r *runner) withNode(do func(ctx context.Context, n *node) error) (err error) {
	if r.program == "" {
		if r.program, err = build(r.dir); err != nil {
			return err
		}
	}
	n, _, err := startNode(r.program, filepath.Join(r.dir, fmt.Sprintf("data-%d", time.Now().UnixNano())))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.stop(), os.RemoveAll(n.data)) }()
	if err := n.deploy(context.Background()); err != nil {
		return err
	}
	return do(context.Background(), n)
}

var connections = []int{1, 16, 64}

const valueBytes = 110 // as in the figures of Dapr's sidecar

// benchState sets and gets keys through Dapr's HTTP API.
func benchState(r *runner) error {
	return r.withNode(func(_ context.Context, n *node) error {
		url, c := "http://"+n.info.DaprHTTP+"/v1.0/state/shared", caller()
		value := strings.Repeat("v", valueBytes)
		for _, conc := range connections {
			r.print(measured(figure{Peer: "quipu", Bench: "state_set", Variant: "Dapr HTTP, 110 B", Durable: "on disk"}, conc, r.d,
				func(ctx context.Context, w, i int) error {
					return call(ctx, c, "POST", url, fmt.Sprintf(`[{"key":"k%d","value":%q}]`, (w*7919+i)%1000, value))
				}))
		}
		for _, conc := range connections {
			r.print(measured(figure{Peer: "quipu", Bench: "state_get", Variant: "Dapr HTTP, 110 B", Durable: "a read"}, conc, r.d,
				func(ctx context.Context, w, i int) error {
					return call(ctx, c, "GET", fmt.Sprintf("%s/k%d", url, (w*7919+i)%1000), "")
				}))
		}
		return nil
	})
}

// benchInvoke calls the function hello directly, through the gateway, and through Dapr's API.
func benchInvoke(r *runner) error {
	direct, stop, err := r.directHello()
	if err != nil {
		return err
	}
	defer stop()
	return r.withNode(func(_ context.Context, n *node) error {
		for _, conc := range connections {
			var base figure
			for _, v := range []struct{ peer, variant, url string }{
				{"raw", "direct", direct},
				{"quipu", "gateway", "http://" + n.info.HTTP + "/hello"},
				{"quipu", "Dapr HTTP", "http://" + n.info.DaprHTTP + "/v1.0/invoke/hello/method/x"},
			} {
				c := caller()
				f := measured(figure{Peer: v.peer, Bench: "invoke", Variant: v.variant, Durable: "no effects"}, conc, r.d,
					func(ctx context.Context, _, _ int) error { return call(ctx, c, "GET", v.url, "") })
				r.print(f)
				if v.variant == "direct" {
					base = f
				} else {
					r.note("at %d: adds %.0f µs p50 to the direct call", conc, f.P50-base.P50)
				}
			}
		}
		return nil
	})
}

// buildHello compiles the function hello as deploying it does, into a folder of its own.
func (r *runner) buildHello() (string, error) {
	program := filepath.Join(r.dir, "bare", "hello")
	cmd := exec.Command("go", "build", "-trimpath", "-o", program, "./"+filepath.Join(folder(), "app", "hello"))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build hello: %w\n%s", err, out)
	}
	return program, nil
}

// directHello runs the function hello without a platform.
func (r *runner) directHello() (url string, stop func(), err error) {
	program, err := r.buildHello()
	if err != nil {
		return "", nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	hello := exec.Command(program)
	hello.Env = append(os.Environ(), "PORT="+port)
	if err := hello.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		hello.Process.Kill()
		hello.Wait()
	}
	url = "http://127.0.0.1:" + port + "/"
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		resp, err := http.Get(url)
		if err == nil {
			resp.Body.Close()
			return url, stop, nil
		}
		if time.Since(start) > readyMax {
			stop()
			return "", nil, err
		}
	}
}

// benchCounter adds one to counters in an atomic function: read, write, one durable record.
func benchCounter(r *runner) error {
	return r.withNode(func(ctx context.Context, n *node) error {
		if err := n.deployFn(ctx, r.dir); err != nil {
			return err
		}
		for _, v := range []struct {
			function, path string
			keys           int
		}{{"counter", "count", 1000}, {"counters", "counts", 1000}, {"fncounter", "fncount", 1000}, {"fncounters", "fncounts", 1000},
			{"counter", "count", 1}, {"counters", "counts", 1}, {"fncounter", "fncount", 1}, {"fncounters", "fncounts", 1}} {
			for _, conc := range []int{1, 128} {
				if err := r.counter(ctx, n, v.function, v.path, v.keys, conc); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// counter measures one of the two functions: counter takes one call at a time, counters many.
func (r *runner) counter(ctx context.Context, n *node, function, path string, keys, conc int) error {
	c := caller()
	r.print(measured(figure{Peer: "quipu", Bench: function, Variant: fmt.Sprintf("atomic, %d keys", keys), Durable: "on disk"}, conc, r.d,
		func(ctx context.Context, w, i int) error {
			return call(ctx, c, "POST", fmt.Sprintf("http://%s/%s/%d", n.info.HTTP, path, (w*7919+i)%keys), "")
		}))
	calls, err := n.client.Calls(ctx, function, 1000)
	if err != nil {
		return err
	}
	runs := 0
	for _, call := range calls {
		runs += call.Runs
	}
	r.note("%.2f runs per commit in the last %d calls", float64(runs)/float64(max(1, len(calls))), len(calls))
	return nil
}
