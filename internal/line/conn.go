package line

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// More limits of a line.
const (
	handledMax    = 10_000  // requests of the other end that are handled at once; more are refused, since who reads may not wait
	pendingMax    = 1000    // requests to the other end that wait for their replies; more wait here
	outBytesMax   = 4 << 20 // frames that wait for the connection; who has more waits
	readBytes     = 64 << 10
	keptBytes     = 1 << 20 // buffers larger than this are not kept
	helloWaitMax  = 5 * time.Second
	helloBytesMax = 1 << 10
)

// Conn is one end of a line. Its methods may be called concurrently.
type Conn struct {
	conn    net.Conn
	handler http.Handler
	ctx     context.Context // of what is handled; ends with the connection
	cancel  context.CancelFunc

	mu      sync.Mutex // guards the fields below
	room    sync.Cond  // out has room again
	out     []byte     // frames to be written
	spare   []byte     // what out was, to be used again
	writing bool       // somebody writes what was in out
	broken  bool

	last    atomic.Uint32
	waiting sync.Map // id of a request -> chan *frame of capacity 1
	pending chan struct{}
	handled chan struct{}
	work    chan *request // to who has just handled one: goroutines whose stacks have grown already
	under   sync.Map      // id of a request of the other end -> cancel
	running sync.WaitGroup
}

// New makes an end of a line on conn whose other end asks handler. Run has it work.
func New(conn net.Conn, handler http.Handler) *Conn {
	c := &Conn{conn: conn, handler: handler, pending: make(chan struct{}, pendingMax), handled: make(chan struct{}, handledMax), work: make(chan *request)}
	c.room.L = &c.mu
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Hello tells the other end who this is; it goes before all else.
func Hello(conn net.Conn, token string) error {
	buf := append(begin(nil, kindHello, 0), token...)
	end(buf, 0)
	_, err := conn.Write(buf)
	return err
}

// Welcome reads what the other end says with Hello. It reads nothing of what follows.
func Welcome(conn net.Conn) (token string, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(helloWaitMax)); err != nil {
		return "", err
	}
	f, err := readFrame(io.LimitReader(conn, helloBytesMax))
	if err == nil && f.kind != kindHello {
		err = errFrame
	}
	if err != nil {
		return "", err
	}
	return string(f.body), conn.SetReadDeadline(time.Time{})
}

// Run reads until the connection ends, and answers why it did. Nothing of the line is under way any more when it returns.
func (c *Conn) Run() error {
	in := bufio.NewReaderSize(c.conn, readBytes)
	var err error
	for err == nil {
		var f frame
		if f, err = readFrame(in); err == nil {
			err = c.take(f)
		}
	}
	c.shut()
	c.waiting.Range(func(id, ch any) bool {
		c.answer(id.(uint32), nil)
		return true
	})
	c.running.Wait()
	return err
}

// Close ends the connection.
func (c *Conn) Close() { c.shut() }

func (c *Conn) shut() {
	c.cancel()
	_ = c.conn.Close() // nothing is lost that was not lost before
	c.mu.Lock()
	c.broken = true
	c.room.Broadcast()
	c.mu.Unlock()
}

func (c *Conn) take(f frame) error {
	switch f.kind {
	case kindRequest:
		r, err := f.request()
		if err != nil {
			return err
		}
		select {
		case c.handled <- struct{}{}:
			c.assign(&request{f.id, r})
		default:
			c.running.Go(func() { c.reply(f.id, &reply{status: http.StatusServiceUnavailable, header: http.Header{}}) })
		}
	case kindReply:
		c.answer(f.id, &f)
	case kindCancel:
		if cancel, ok := c.under.Load(f.id); ok {
			cancel.(context.CancelFunc)()
		}
	default:
		return errFrame
	}
	return nil
}

// answer hands a reply to who waits for it; nil says that there will be none.
func (c *Conn) answer(id uint32, f *frame) {
	if ch, ok := c.waiting.LoadAndDelete(id); ok {
		ch.(chan *frame) <- f
	}
}

// request is one of the other end.
type request struct {
	id uint32
	r  *http.Request
}

// idleMax is how long a goroutine waits for another request.
const idleMax = 2 * time.Second

// assign gives a request to an idle goroutine, or to a new one.
func (c *Conn) assign(r *request) {
	select {
	case c.work <- r:
	default:
		c.running.Go(func() { c.worker(r) })
	}
}

// worker handles requests as long as there are enough of them.
func (c *Conn) worker(r *request) {
	idle := time.NewTimer(idleMax)
	defer idle.Stop()
	for {
		c.handle(r.id, r.r)
		idle.Reset(idleMax)
		select {
		case r = <-c.work:
		case <-idle.C:
			return
		case <-c.ctx.Done():
			return
		}
	}
}

// handle answers one request of the other end.
func (c *Conn) handle(id uint32, r *http.Request) {
	defer func() { <-c.handled }()
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	c.under.Store(id, cancel)
	defer c.under.Delete(id)
	w := &reply{header: http.Header{}}
	c.serve(w, r.WithContext(ctx))
	if ctx.Err() == nil {
		c.reply(id, w)
	}
}

func (c *Conn) reply(id uint32, w *reply) {
	_ = c.send(func(buf []byte) []byte { return appendReply(buf, id, w.code(), w.header, w.body.Bytes()) }) // who asked learns of a broken line by itself
}

// serve has the handler answer. One that panics has answered 500, as in net/http it would have broken its connection.
func (c *Conn) serve(w *reply, r *http.Request) {
	defer func() {
		if p := recover(); p != nil {
			*w = reply{header: http.Header{}, status: http.StatusInternalServerError}
			fmt.Fprintf(&w.body, "the handler panicked: %v", p)
		}
	}()
	c.handler.ServeHTTP(w, r)
}

// Do sends a request with all of its body and waits for the reply. It is http.RoundTripper's RoundTrip by another name: only the path and
// the query of the URL are sent. ErrBroken, ErrTooLarge; the context's error when that ends first: the other end is told.
func (c *Conn) Do(r *http.Request) (*http.Response, error) {
	body, err := wholeBody(r)
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	select {
	case c.pending <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-c.pending }()
	id, ch := c.last.Add(1), make(chan *frame, 1)
	c.waiting.Store(id, ch)
	if err := c.send(func(buf []byte) []byte { return appendRequest(buf, id, r, body) }); err != nil {
		c.waiting.Delete(id)
		return nil, err
	}
	select {
	case f := <-ch:
		if f == nil {
			return nil, ErrBroken
		}
		return f.reply(r)
	case <-ctx.Done():
		c.waiting.Delete(id)
		_ = c.send(func(buf []byte) []byte { // if it is broken, nobody is there to be told
			start := len(buf)
			buf = begin(buf, kindCancel, id)
			end(buf, start)
			return buf
		})
		return nil, ctx.Err()
	}
}

func wholeBody(r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	defer r.Body.Close()
	body, err := io.ReadAll(io.LimitReader(r.Body, frameBytesMax+1))
	if len(body) > frameBytesMax {
		err = ErrTooLarge
	}
	return body, err
}

// send adds a frame to what goes out. Who finds nobody writing writes, also what others add meanwhile.
func (c *Conn) send(add func([]byte) []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > outBytesMax && !c.broken {
		c.room.Wait()
	}
	if c.broken {
		return ErrBroken
	}
	start := len(c.out)
	c.out = add(c.out)
	if len(c.out)-start > frameBytesMax {
		c.out = c.out[:start]
		return ErrTooLarge
	}
	if c.writing {
		return nil
	}
	c.writing = true
	err := c.flush()
	c.writing = false
	return err
}

// flush writes until nothing waits. mu is held, but not while it writes.
func (c *Conn) flush() error {
	for len(c.out) > 0 {
		buf := c.out
		c.out, c.spare = c.spare[:0], nil
		c.room.Broadcast()
		c.mu.Unlock()
		_, err := c.conn.Write(buf)
		c.mu.Lock()
		if err != nil {
			c.broken = true
			c.room.Broadcast()
			_ = c.conn.Close() // has Run end
			return ErrBroken
		}
		if cap(buf) <= keptBytes {
			c.spare = buf
		}
	}
	return nil
}

// reply is an http.ResponseWriter that holds what is written.
type reply struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func (w *reply) Header() http.Header { return w.header }

func (w *reply) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
}

func (w *reply) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.body.Len()+len(p) > frameBytesMax/8*7 { // the rest is for the head
		return 0, ErrTooLarge
	}
	return w.body.Write(p)
}

// Flush does nothing: a reply goes as a whole, and handlers that stream what they pass on must not fail for it.
func (w *reply) Flush() {}

func (w *reply) code() int { return max(w.status, http.StatusOK) }

// body is a message's body.
type body struct{ bytes.Reader }

func newBody(b []byte) *body {
	r := &body{}
	r.Reset(b)
	return r
}

func (*body) Close() error { return nil }
