package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	contractdapr "github.com/quipu-run/quipu/contract/dapr"
	"github.com/quipu-run/quipu/internal/apphealth"
	"github.com/quipu-run/quipu/sdk"
)

// protocolH2C is HTTP/2 without TLS; with an s at its end, a protocol has TLS.
const protocolH2C = "h2c"

var attachedProtocols = []string{quipu.ProtocolHTTP, quipu.ProtocolGRPC, "https", "grpcs", protocolH2C}

// plainProtocol is what an application speaks, whatever it is carried by.
func plainProtocol(p string) string {
	if strings.HasPrefix(p, quipu.ProtocolGRPC) {
		return quipu.ProtocolGRPC
	}
	return quipu.ProtocolHTTP
}

// newAttachedApp is the client of an application that runs by itself.
func newAttachedApp(f quipu.Function, a sdk.Attachment, using func() *uses) app {
	at := reachable{a}
	switch {
	case a.Protocol == protocolH2C:
		return pipedApp{contractdapr.HTTP{App: newH2C(at.Dial), Token: a.AppToken}, using}
	case plainProtocol(a.Protocol) == quipu.ProtocolGRPC:
		return newApp(f, at.Dial)
	}
	return pipedApp{newApp(f, at.Dial), using}
}

// reachable is an application on a port, as far as newApp needs one.
type reachable struct{ sdk.Attachment }

func (r reachable) address() string {
	return net.JoinHostPort(cmp.Or(r.Address, "127.0.0.1"), strconv.Itoa(r.Port))
}

// Dial connects. Like daprd it takes any certificate: it was told where the application is, and applications beside a sidecar have
// certificates that they signed themselves.
func (r reachable) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.address())
	if err != nil || !strings.HasSuffix(r.Protocol, "s") {
		return conn, err
	}
	next := "http/1.1"
	if plainProtocol(r.Protocol) == quipu.ProtocolGRPC {
		next = "h2"
	}
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{next}, MinVersion: tls.VersionTLS12})
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // the handshake says why
		return nil, err
	}
	return secure, nil
}

// h2c is an application that speaks HTTP/2 without TLS. A request is repeated only if the application says that it has not looked at it.
type h2c struct{ transport *http.Transport }

func newH2C(dial func(context.Context) (net.Conn, error)) h2c {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return h2c{&http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		Protocols: protocols, DisableCompression: true, MaxResponseHeaderBytes: appHeaderMax, IdleConnTimeout: appIdleMax}}
}

// Limits of a connection to such an application.
const (
	appHeaderMax = 64 << 10
	appIdleMax   = time.Minute
)

// Do sends a request, and answers the application's reply. CodeCrashed: the connection broke before.
func (h h2c) Do(r *http.Request) (*http.Response, error) {
	r.URL.Scheme, r.URL.Host, r.RequestURI = "http", "app", ""
	resp, err := h.transport.RoundTrip(r)
	switch {
	case err == nil:
		return resp, nil
	case r.Context().Err() != nil:
		return nil, r.Context().Err()
	}
	return nil, &quipu.Error{Code: quipu.CodeCrashed, Op: "app.request", Text: "the application broke the connection before it answered", Err: err}
}

// Close drops idle connections.
func (h h2c) Close() { h.transport.CloseIdleConnections() }

func (one *attachment) host() string { return cmp.Or(one.a.Address, "127.0.0.1") }

// listens waits until the application accepts connections.
func (one *attachment) listens(ctx context.Context) error {
	tick := time.NewTicker(dialEvery)
	defer tick.Stop()
	for {
		conn, err := reachable{one.a}.Dial(ctx)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// healthOptions are how the application is asked whether it is well, with defaults.
func (one *attachment) healthOptions() apphealth.Options {
	h := one.a.Health
	return apphealth.Options{Interval: cmp.Or(time.Duration(h.IntervalMillis)*time.Millisecond, 5*time.Second),
		Timeout: cmp.Or(time.Duration(h.TimeoutMillis)*time.Millisecond, 500*time.Millisecond), Threshold: cmp.Or(h.Threshold, 3)}
}

// newHealth is nil for one that nobody is to ask. CodeUsage.
func (one *attachment) newHealth(clock quipu.Clock) (*apphealth.Health, error) {
	if one.a.Health == nil || one.a.Port == 0 {
		return nil, nil
	}
	o := one.healthOptions()
	o.Clock = clock
	path := "/" + strings.TrimPrefix(cmp.Or(one.a.Health.Path, contractdapr.HealthPath), "/")
	o.Probe = func(ctx context.Context) error { return contractdapr.Probe(ctx, one.app, path) }
	o.Changed = func(error) { signal(one.changed) }
	h, err := apphealth.New(o)
	if err != nil {
		return nil, refusal("the health check of the application: %v", err)
	}
	return h, nil
}
