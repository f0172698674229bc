// Package http is how we talk to an app that serves plain HTTP/1.1 where its instance listens.
//
// A request reaches the app at most once. net/http's transport repeats what looks idempotent when a kept-alive
// connection breaks before an answer, and an atomic call that ran half would run again on top of itself. So this
// client has connections of its own and uses only net/http's reading and writing of messages. A request moves
// to a new connection only if not a byte of it went out: that is what an app which closed an idle connection
// looks like. It also runs on the goroutine of its caller, where the transport hands each request to two others.
//
// CodeCrashed: the connection broke before the answer. CodeReply: what came is not HTTP. A request whose
// context ended answers the context's error.
package http

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quipu-run/quipu"
)

// Limits of an instance's connections.
const (
	headerBytesMax = 64 << 10
	bufferBytes    = 8 << 10
	connsDefault   = 16
	inlineBytesMax = 16 << 10 // of a body that is written before the reply is read
	informalMax    = 8        // replies of 1xx before the final one
	// idleMax is shorter than what apps keep idle connections for; Node.js has five seconds.
	idleMax = 2 * time.Second
)

// Options of a Client.
type Options struct {
	Dial  func(ctx context.Context) (net.Conn, error) // required
	Conns int                                         // idle connections kept; 0 means 16
}

// Client talks to one instance. Its methods may be called concurrently.
type Client struct {
	o Options

	mu     sync.Mutex // guards the fields below
	idle   []*conn    // the newest last
	closed bool
}

// NewClient makes a client without connections; they are opened as requests need them.
func NewClient(o Options) *Client {
	if o.Conns == 0 {
		o.Conns = connsDefault
	}
	return &Client{o: o}
}

// Do sends r, whose URL names no real host, and answers the app's reply; the caller closes its body.
func (c *Client) Do(r *http.Request) (*http.Response, error) {
	for {
		n, err := c.get(r.Context())
		if err != nil {
			return nil, failure(r.Context(), err)
		}
		resp, err := n.do(r)
		if err == nil {
			return resp, nil
		}
		stale := n.requests > 1 && n.sent.Load() == 0
		n.close()
		if !stale || !rewind(r) {
			return nil, failure(r.Context(), err)
		}
		// The app had closed the idle connection: nothing of the request has left. Each turn uses up an idle one.
	}
}

// rewind makes the body as it was; false if it cannot be had again.
func rewind(r *http.Request) bool {
	if r.Body == nil || r.Body == http.NoBody {
		return true
	}
	if r.GetBody == nil {
		return false
	}
	var err error
	r.Body, err = r.GetBody()
	return err == nil
}

// get takes an idle connection, or opens one.
func (c *Client) get(ctx context.Context) (*conn, error) {
	c.mu.Lock()
	oldest := time.Now().Add(-idleMax)
	for len(c.idle) > 0 {
		n := c.idle[len(c.idle)-1]
		c.idle = c.idle[:len(c.idle)-1]
		if n.since.After(oldest) {
			c.mu.Unlock()
			n.requests++
			n.sent.Store(0)
			return n, nil
		}
		n.close()
	}
	c.mu.Unlock()
	raw, err := c.o.Dial(ctx)
	if err != nil {
		return nil, err
	}
	n := &conn{Conn: raw, client: c, requests: 1}
	n.limit.R = raw
	n.in, n.out = bufio.NewReaderSize(&n.limit, bufferBytes), bufio.NewWriterSize(n, bufferBytes)
	return n, nil
}

// put keeps a connection whose last reply was read to its end.
func (c *Client) put(n *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.idle) >= c.o.Conns {
		n.close()
		return
	}
	n.since = time.Now()
	c.idle = append(c.idle, n)
}

// Close drops idle connections, now and later.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, n := range c.idle {
		n.close()
	}
	c.idle = nil
}

// conn is one connection, used by one request at a time.
type conn struct {
	net.Conn
	client   *Client
	limit    io.LimitedReader // bounds the head of a reply
	in       *bufio.Reader
	out      *bufio.Writer
	requests int
	sent     atomic.Int64 // bytes of the current request
	since    time.Time
}

// Write counts what went out.
func (n *conn) Write(p []byte) (int, error) {
	k, err := n.Conn.Write(p)
	n.sent.Add(int64(k))
	return k, err
}

func (n *conn) close() { _ = n.Conn.Close() } // nothing is lost that was not lost before

// do sends r and reads the head of its reply. The end of the context breaks the connection.
func (n *conn) do(r *http.Request) (*http.Response, error) {
	stop := context.AfterFunc(r.Context(), func() { _ = n.SetDeadline(time.Unix(1, 0)) })
	wrote, err := n.send(r)
	if err == nil {
		var resp *http.Response
		if resp, err = n.reply(r); err == nil {
			if resp.ContentLength != 0 && n.in.Buffered() == 0 {
				acknowledge(n.Conn) // the body is on its way apart
			}
			resp.Body = &body{ReadCloser: resp.Body, conn: n, wrote: wrote, stop: stop, keep: !resp.Close && !r.Close}
			return resp, nil
		}
	}
	stop()
	return nil, err
}

// send writes r. A body that may not fit into the socket's buffer is written while the reply is read, since the
// app may answer before it has read all; wrote then tells how that went.
func (n *conn) send(r *http.Request) (wrote chan error, err error) {
	if r.ContentLength >= 0 && r.ContentLength <= inlineBytesMax {
		return nil, n.write(r)
	}
	n.sent.Add(1) // from here on nobody knows
	wrote = make(chan error, 1)
	go func() { wrote <- n.write(r) }()
	return wrote, nil
}

func (n *conn) write(r *http.Request) error {
	if err := r.Write(n.out); err != nil {
		return err
	}
	return n.out.Flush()
}

// reply reads the head of the final reply.
func (n *conn) reply(r *http.Request) (*http.Response, error) {
	for range informalMax {
		n.limit.N = headerBytesMax
		resp, err := http.ReadResponse(n.in, r)
		if err != nil {
			if n.limit.N == 0 {
				err = errors.New("the head of the reply is too large")
			}
			return nil, err
		}
		n.limit.N = 1 << 62
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
	}
	return nil, errors.New("too many informational replies")
}

// body gives the connection back when the reply was read to its end.
type body struct {
	io.ReadCloser
	conn  *conn
	wrote chan error
	stop  func() bool
	keep  bool
	ended bool
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == io.EOF:
		b.ended = true
	case err != nil:
		b.keep = false // the next Read may well answer io.EOF, as net/http's body does
	}
	return n, err
}

func (b *body) Close() error {
	if b.conn == nil {
		return nil
	}
	n := b.conn
	b.conn = nil
	inTime := b.stop()
	if b.keep && inTime && b.drained() && b.written() && n.in.Buffered() == 0 {
		n.client.put(n)
	} else {
		n.close()
	}
	return nil
}

// drained reads what little may be left, so that the connection can be used again.
func (b *body) drained() bool {
	if !b.ended {
		_, err := io.CopyN(io.Discard, b, bufferBytes)
		b.ended = b.ended || err == io.EOF
	}
	return b.ended
}

func (b *body) written() bool {
	if b.wrote == nil {
		return true
	}
	select {
	case err := <-b.wrote:
		return err == nil
	default:
		return false
	}
}

// failure gives an error its code.
func failure(ctx context.Context, err error) error {
	if ctxErr := ctx.Err(); ctxErr != nil {
		return ctxErr
	}
	code, text := quipu.CodeReply, "the instance answered with something that is not HTTP"
	var netErr net.Error
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &netErr) || errors.Is(err, net.ErrClosed) {
		code, text = quipu.CodeCrashed, "the instance broke the connection before it answered"
	}
	return &quipu.Error{Code: code, Op: "instance.request", Text: text, Err: err, Hint: quipu.Codes[code].Next}
}
