package peers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/grpcwire"
)

// HeaderForwarded marks an invocation that came from a peer: it is not sent on again, so that two nodes that each take the other
// for an application's home make no circle.
const HeaderForwarded = "Quipu-Forwarded"

// Limits of connections between nodes.
const (
	dialMax        = time.Second
	idleMax        = time.Minute
	headerBytesMax = 64 << 10
)

// Forwarder sends invocations to the nodes that host their applications.
type Forwarder struct {
	folder    *Folder
	transport *http.Transport
}

// NewForwarder makes one. It speaks HTTP/2 alone, which never repeats what the other side may have looked at. Close drops its
// connections.
func NewForwarder(f *Folder) *Forwarder {
	h2 := new(http.Protocols)
	h2.SetUnencryptedHTTP2(true)
	return &Forwarder{folder: f, transport: &http.Transport{Protocols: h2, DialContext: (&net.Dialer{Timeout: dialMax}).DialContext,
		DisableCompression: true, IdleConnTimeout: idleMax, MaxResponseHeaderBytes: headerBytesMax}}
}

// Close drops connections that are idle, now and once they are.
func (f *Forwarder) Close() { f.transport.CloseIdleConnections() }

// Invoke calls an application on another node; its reply streams. A call of gRPC goes through as it is. It happens at most once: only
// a node that cannot be connected to is passed over. CodeNoFunction: no node has the application; CodeCrashed: its node broke off.
func (f *Forwarder) Invoke(ctx context.Context, c quipu.CallRequest) (*quipu.CallReply, error) {
	all, err := f.folder.Find(c.Function)
	if err != nil {
		return nil, fmt.Errorf("look for a node with %s: %w", c.Function, err)
	}
	for _, p := range all {
		reply, err := f.ask(ctx, p, c)
		var unreached *net.OpError
		if errors.As(err, &unreached) && unreached.Op == "dial" {
			f.folder.Forget()
			continue
		}
		if err != nil && ctx.Err() == nil {
			err = &quipu.Error{Code: quipu.CodeCrashed, Op: "peer.invoke", Err: err,
				Text: fmt.Sprintf("the node of application %s broke off before it answered", c.Function), Hint: "look at the output of its sidecar"}
		}
		return reply, err
	}
	return nil, &quipu.Error{Code: quipu.CodeNoFunction, Op: "peer.find", Text: fmt.Sprintf("no application %q runs on this machine", c.Function)}
}

// ask makes of an invocation one at the peer's door.
func (f *Forwarder) ask(ctx context.Context, p Peer, c quipu.CallRequest) (*quipu.CallReply, error) {
	isGRPC := grpcwire.Is(c.Header.Get("Content-Type"))
	to, path := p.HTTP, "/v1.0/invoke/"+url.PathEscape(c.Function)+"/method/"+strings.TrimPrefix(c.Path, "/")
	if isGRPC {
		to, path = p.GRPC, c.Path
	}
	address := "http://" + to + path
	if c.RawQuery != "" {
		address += "?" + c.RawQuery
	}
	r, err := http.NewRequestWithContext(ctx, c.Method, address, c.Body)
	if err != nil {
		return nil, err
	}
	r.Header, r.ContentLength = c.Header.Clone(), c.ContentLength
	if c.Body == nil || r.ContentLength == 0 {
		r.Body, r.ContentLength = nil, 0
	}
	r.Header.Del("dapr-app-id")
	if isGRPC {
		r.Header.Set("dapr-app-id", c.Function)
	}
	r.Header.Set("dapr-api-token", p.Token)
	r.Header.Set(HeaderForwarded, "1")
	resp, err := f.transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	return replyOf(resp, isGRPC), nil
}

// replyOf leaves out what the peer says of the call in its own log. A reply of gRPC without a body has its status among the headers;
// here it is always in the same place.
func replyOf(resp *http.Response, isGRPC bool) *quipu.CallReply {
	for _, name := range []string{quipu.HeaderSession, quipu.HeaderCallID, quipu.HeaderRevision} {
		resp.Header.Del(name)
	}
	if resp.Trailer == nil {
		resp.Trailer = http.Header{} // what comes later goes in here
	}
	for name, values := range resp.Header {
		if isGRPC && (strings.HasPrefix(name, grpcwire.HeaderStatus) || name == grpcwire.HeaderMessage) {
			resp.Trailer[name] = values
			delete(resp.Header, name)
		}
	}
	return &quipu.CallReply{Status: resp.StatusCode, Header: resp.Header, Body: resp.Body, Trailer: resp.Trailer}
}
