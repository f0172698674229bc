// Package line is how we talk to an app that was written with sdk/fn: over a connection that the app opens to a door of its instance, and
// that carries calls one way and the app's own requests the other way (internal/line).
//
// It is a shorter way to what the instance has in any case. An app that has not opened one, or that is asked for something that streams,
// is talked to as any other.
package line

import (
	"crypto/subtle"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/line"
)

// Door accepts the lines of one instance.
type Door struct {
	token   string
	handler http.Handler
	newest  atomic.Pointer[line.Conn]
	running sync.WaitGroup
	mu      sync.Mutex // guards the fields below
	open    map[*line.Conn]struct{}
	closed  bool
	l       net.Listener
}

// connsMax bounds the connections of one instance, which has use for one.
const connsMax = 16

// New makes a door for an instance that knows token. What it asks goes to handler, with the token.
func New(token string, handler http.Handler) *Door {
	return &Door{token: token, open: map[*line.Conn]struct{}{}, handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header["Dapr-Api-Token"] = []string{token}
		handler.ServeHTTP(w, r)
	})}
}

// Serve accepts lines until Close.
func (d *Door) Serve(l net.Listener) error {
	d.mu.Lock()
	d.l = l
	closed := d.closed
	d.mu.Unlock()
	if closed {
		return errors.Join(http.ErrServerClosed, l.Close())
	}
	waiting := make(chan struct{}, connsMax)
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		waiting <- struct{}{}
		d.running.Go(func() {
			defer func() { <-waiting }()
			d.serve(conn)
		})
	}
}

// serve takes a line up if who opened it knows the token.
func (d *Door) serve(conn net.Conn) {
	token, err := line.Welcome(conn)
	if err != nil || subtle.ConstantTimeCompare([]byte(token), []byte(d.token)) != 1 {
		_ = conn.Close() // it hears no reason: it is nobody we know
		return
	}
	c := line.New(conn, d.handler)
	if !d.enter(c) {
		c.Close()
		return
	}
	d.newest.Store(c)
	_ = c.Run() // why it ended is told to whose requests were under way
	d.newest.CompareAndSwap(c, nil)
	d.mu.Lock()
	delete(d.open, c)
	d.mu.Unlock()
}

func (d *Door) enter(c *line.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.open[c] = struct{}{}
	}
	return !d.closed
}

// Close ends all lines and waits until nothing of them is under way.
func (d *Door) Close() {
	d.mu.Lock()
	d.closed = true
	if d.l != nil {
		_ = d.l.Close() // nobody is left to accept
	}
	for c := range d.open {
		c.Close()
	}
	d.mu.Unlock()
	d.running.Wait()
}

// App is an application as other contracts reach it.
type App interface {
	Do(r *http.Request) (*http.Response, error)
	Close()
}

// Client sends requests with bodies of known length on the line, if there is one, and all others to App.
type Client struct {
	App
	Door *Door
}

// Do sends a request at most once.
func (c Client) Do(r *http.Request) (*http.Response, error) {
	conn := c.Door.newest.Load()
	if conn == nil || r.ContentLength < 0 {
		return c.App.Do(r)
	}
	resp, err := conn.Do(r)
	switch {
	case err == nil:
		return resp, nil
	case r.Context().Err() != nil:
		return nil, r.Context().Err()
	case errors.Is(err, line.ErrTooLarge):
		return c.App.Do(r)
	}
	return nil, &quipu.Error{Code: quipu.CodeCrashed, Op: "instance.request", Text: "the instance broke its line before it answered",
		Err: err, Hint: quipu.Codes[quipu.CodeCrashed].Next}
}
