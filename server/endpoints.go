package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/gateway/dapr"
	"github.com/quipu-run/quipu/internal/resource"
)

// endpoint finds a target of invocations outside: one that a resource names, or any URL.
func (u *uses) endpoint(name string) (dapr.Endpoint, bool) {
	if e, ok := u.endpoints[name]; ok {
		return e, true
	}
	if strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://") {
		return dapr.Endpoint{BaseURL: name}, true
	}
	return dapr.Endpoint{}, false
}

// endpointsOf makes the clients of what resources name. CodeManifest: keys that cannot be used.
func endpointsOf(all map[string]resource.Endpoint) (map[string]dapr.Endpoint, error) {
	out := make(map[string]dapr.Endpoint, len(all))
	for name, e := range all {
		client, err := endpointClient(e.TLS)
		if err != nil {
			return nil, &quipu.Error{Code: quipu.CodeManifest, Op: "app.read", Text: fmt.Sprintf("HTTPEndpoint %q: %s", name, err), Hint: quipu.Codes[quipu.CodeManifest].Next}
		}
		out[name] = dapr.Endpoint{BaseURL: e.BaseURL, Header: e.Header, Client: client}
	}
	return out, nil
}

// endpointClient is nil if there is nothing to present or to trust.
func endpointClient(keys resource.EndpointKeys) (*http.Client, error) {
	if len(keys.RootCA)+len(keys.Certificate)+len(keys.PrivateKey) == 0 {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	switch keys.Renegotiation {
	case "RenegotiateOnceAsClient":
		config.Renegotiation = tls.RenegotiateOnceAsClient
	case "RenegotiateFreelyAsClient":
		config.Renegotiation = tls.RenegotiateFreelyAsClient
	}
	if len(keys.RootCA) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(keys.RootCA) {
			return nil, errors.New("clientTLS.rootCA has no certificate in PEM")
		}
	}
	if len(keys.Certificate) > 0 {
		pair, err := tls.X509KeyPair(keys.Certificate, keys.PrivateKey)
		if err != nil {
			return nil, errors.New("clientTLS.certificate and privateKey are no pair in PEM")
		}
		config.Certificates = []tls.Certificate{pair}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = config
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

// about is what metadata shows of an application.
func (u *uses) about(f quipu.Function) dapr.About {
	port, _ := strconv.Atoi(f.Spec.Env["APP_PORT"]) // 0 for a function, which has a socket
	return dapr.About{HTTPEndpoints: slices.Sorted(maps.Keys(u.endpoints)), Resiliencies: u.resilient,
		App: dapr.AppConnection{Port: int32(port), Protocol: f.Spec.Protocol, ChannelAddress: "127.0.0.1", MaxConcurrency: int32(f.Spec.Concurrency)}}
}

// tell sends a request of the platform's own to an application, and wants a 2xx.
func (ns *namespace) tell(ctx context.Context, app, method, path string, body []byte) error {
	reply, err := ns.Invoke(ctx, quipu.CallRequest{Function: app, Method: method, Path: path, Trigger: "dapr", ContentLength: int64(len(body)),
		Header: http.Header{"Content-Type": {"application/json"}}, Body: bytes.NewReader(body)})
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(reply.Body, repliesMax))
	if err == nil && (reply.Status < 200 || reply.Status > 299) {
		err = fmt.Errorf("%s answers %s %s with status %d", app, method, path, reply.Status)
	}
	return err
}
