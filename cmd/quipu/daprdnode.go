package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/mapping"
	"github.com/quipu-run/quipu/internal/peers"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/server"
)

// openNode finds the node that was named, or starts one of our own, whose data go with us.
func (d *daprd) openNode(ctx context.Context, end context.CancelCauseFunc) (stop func() error, err error) {
	stop = func() error { return nil }
	if d.c.node == "" {
		if stop, err = d.startNode(ctx, end); err != nil {
			return nil, err
		}
	}
	if d.c.token == "" {
		d.c.token = os.Getenv("QUIPU_TOKEN")
	}
	if d.client, err = d.c.client(); err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// startNode starts a node that others on this machine find by a file in the user's folder.
func (d *daprd) startNode(ctx context.Context, end context.CancelCauseFunc) (stop func() error, err error) {
	components, err := mapping.ParsePolicy(os.Getenv("QUIPU_COMPONENTS"))
	if err != nil {
		return nil, err
	}
	folder, err := peers.Open(peers.UserDir())
	if err == nil {
		d.member, err = folder.Join()
	}
	if err != nil {
		return nil, fmt.Errorf("join the sidecars on this machine: %w", err)
	}
	via := peers.NewForwarder(folder)
	traces, err := observeFlags{TraceRatio: -1}.traces()
	if err == nil {
		traces, err = d.configured(traces)
	}
	if err != nil {
		return nil, errors.Join(err, d.member.Leave())
	}
	d.c.token = rand.Text()
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ready, ended := make(chan sdk.Node, 1), make(chan error, 1)
	go func() {
		err := server.Run(running, server.Config{Data: d.member.Data(), Version: version, Sync: "os", // it does not outlive us: why wait for the disk
			Token: d.c.token, Unconfined: true, Elsewhere: via.Invoke, DrainMax: time.Duration(max(1, d.f.graceSec)) * time.Second,
			Components: components, Trace: traces, Logger: d.log.With("scope", "quipu"), Ready: func(n sdk.Node) { ready <- n }})
		ended <- err
		end(err)
	}()
	go paceCollector(running.Done())
	stop = func() error {
		cancel()
		err := errors.Join(<-ended, d.member.Leave())
		via.Close()
		return err
	}
	select {
	case d.node = <-ready:
		d.c.node = d.node.HTTP
		return stop, nil
	case err := <-ended:
		ended <- nil
		return nil, errors.Join(err, stop())
	}
}

// doors are listeners beside the node's.
type doors struct{ open []*http.Server }

// listen serves a handler. Servers end with close.
func (d *doors) listen(address string, h http.Handler) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10}
	d.open = append(d.open, s)
	go func() { _ = s.Serve(l) }() // close ends it
	return nil
}

func (d *doors) close() {
	for _, s := range d.open {
		_ = s.Close() // nobody is left to hear
	}
}

// openDoors opens the ports for metrics, and for health and metadata alone.
func (d *daprd) openDoors(now sdk.Attached) error {
	f := d.f
	if f.publicPort != "" {
		if f.Socket != "" {
			return errors.New("dapr-public-port and unix-domain-socket cannot be had together")
		}
		if err := d.doors.listen(net.JoinHostPort(hostOr(f.publicAddress), f.publicPort), publicDoor(now)); err != nil {
			return fmt.Errorf("dapr-public-port: %w", err)
		}
	}
	if !f.metrics {
		return nil
	}
	address := net.JoinHostPort(hostOr(f.metricsHost), f.metricsPort)
	err := d.doors.listen(address, metricsDoor(d.c.node, d.c.token))
	switch {
	case err == nil:
		d.info("metrics server started on %s/", address)
	case d.strict:
		return fmt.Errorf("failed to listen on %s: %w", address, err)
	default: // sidecars that were not told otherwise all have the same
		d.log.Warn("metrics are not served: " + err.Error())
	}
	return nil
}

func hostOr(host string) string {
	if host == "" {
		return "127.0.0.1"
	}
	return strings.Trim(host, "[]")
}

// publicDoor shows what needs no token upstream.
func publicDoor(at sdk.Attached) http.Handler {
	proxy := proxyTo("http://127.0.0.1:"+at.DaprHTTP, func(r *http.Request) { r.Header.Set("dapr-api-token", at.Token) })
	mux := http.NewServeMux()
	for _, path := range []string{"/v1.0/healthz", "/v1.0/healthz/outbound", "/v1.0/metadata"} {
		mux.Handle("GET "+path, proxy)
	}
	return mux
}

// metricsDoor shows the metrics of the node.
func metricsDoor(node, token string) http.Handler {
	if !strings.Contains(node, "://") {
		node = "http://" + node
	}
	proxy := proxyTo(node, func(r *http.Request) {
		r.URL.Path = "/-/metrics"
		if token != "" {
			r.Header.Set(sdk.HeaderToken, token)
		}
	})
	mux := http.NewServeMux()
	mux.Handle("GET /", proxy)
	return mux
}

func proxyTo(base string, change func(*http.Request)) http.Handler {
	to, err := url.Parse(base)
	if err != nil {
		panic("daprd: the address of a node: " + err.Error()) // which was used before
	}
	return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = to.Host
		change(r.Out)
	}}
}

// reason is an error for a line of the log: what happened, with its code.
func reason(err error) string {
	var e *quipu.Error
	if !errors.As(err, &e) || e.Text == "" {
		return err.Error()
	}
	return fmt.Sprintf("%s [%s]", e.Text, e.Code)
}
