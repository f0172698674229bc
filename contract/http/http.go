// Package http is how we talk to an app that serves plain HTTP/1.1 where its instance listens.
//
// net/http's transport repeats a request that looks idempotent when a kept-alive connection breaks before
// an answer. For a plain function that is as the HTTP standard has it. An atomic call that ran half would run
// again on top of itself, so a client made with AtMostOnce sends nothing twice, unless not a byte of it went
// out: that is what an app which closed an idle connection looks like.
//
// CodeCrashed: the connection broke before the answer. CodeReply: what came is not HTTP. A request whose
// context ended answers the context's error.
package http

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
)

// Limits of an instance's connections.
const (
	headerBytesMax = 64 << 10
	bufferBytes    = 8 << 10
	// idleMax is shorter than what apps keep idle connections for; Node.js has five seconds.
	idleMax = 2 * time.Second
)

// Options of a Client.
type Options struct {
	Dial       func(ctx context.Context) (net.Conn, error) // required
	Conns      int                                         // idle connections kept; 0 means 16
	AtMostOnce bool                                        // a request reaches the app once or not at all
}

// Client talks to one instance. Its methods may be called concurrently.
type Client struct {
	transport  *http.Transport
	atMostOnce bool
}

// NewClient makes a client without connections; they are opened as requests need them.
func NewClient(o Options) *Client {
	if o.Conns == 0 {
		o.Conns = 16
	}
	return &Client{atMostOnce: o.AtMostOnce, transport: &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return o.Dial(ctx) },
		DisableCompression:     true, // what the app answers is what the caller gets
		MaxIdleConns:           o.Conns,
		MaxIdleConnsPerHost:    o.Conns,
		IdleConnTimeout:        idleMax,
		MaxResponseHeaderBytes: headerBytesMax,
		WriteBufferSize:        bufferBytes,
		ReadBufferSize:         bufferBytes,
	}}
}

// Do sends r, whose URL names no real host, and answers the app's reply; the caller closes its body.
func (c *Client) Do(r *http.Request) (*http.Response, error) {
	if c.atMostOnce {
		r = unrepeatable(r)
	}
	resp, err := c.transport.RoundTrip(r)
	if err == nil {
		return resp, nil
	}
	if ctxErr := r.Context().Err(); ctxErr != nil {
		return nil, ctxErr
	}
	return nil, failure(err)
}

// Close drops idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// unrepeatable is r in a form that the transport does not take for idempotent: a method such as GET must
// have a body that cannot be had again, and the header Idempotency-Key must not be found, so it is written
// in small letters, which are the same to the app.
func unrepeatable(r *http.Request) *http.Request {
	if key := r.Header.Values(quipu.HeaderIdempotency); key != nil {
		r.Header = r.Header.Clone()
		r.Header.Del(quipu.HeaderIdempotency)
		r.Header[strings.ToLower(quipu.HeaderIdempotency)] = key
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		if r.Body == nil || r.Body == http.NoBody {
			r.Body = io.NopCloser(empty{})
		}
		r.GetBody = nil
	}
	return r
}

// empty is a body of no bytes that is not known as such.
type empty struct{}

func (empty) Read([]byte) (int, error) { return 0, io.EOF }

// failure gives the transport's error a code.
func failure(err error) error {
	code, text := quipu.CodeCrashed, "the instance broke the connection before it answered"
	var netErr net.Error
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.As(err, &netErr) && isParse(err) {
		code, text = quipu.CodeReply, "the instance answered with something that is not HTTP"
	}
	return &quipu.Error{Code: code, Op: "instance.request", Text: text, Err: err, Hint: quipu.Codes[code].Next}
}

// isParse tells whether the transport complains of what it read. It has no types for that.
func isParse(err error) bool {
	text := err.Error()
	return strings.Contains(text, "malformed") || strings.Contains(text, "invalid") || strings.Contains(text, "exceeded")
}
