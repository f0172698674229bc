package http

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
)

// app serves connections on a Unix socket by hand and counts the requests it got.
type app struct {
	client   *Client
	requests atomic.Int32
}

// newApp answers each request with what answer says, given the number of the request; "" closes the connection.
func newApp(t *testing.T, answer func(n int32) string) *app {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	a := &app{}
	a.client = NewClient(Options{Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}})
	t.Cleanup(func() {
		a.client.Close()
		l.Close()
	})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go a.serve(conn, answer)
		}
	}()
	return a
}

func (a *app) serve(conn net.Conn, answer func(n int32) string) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		io.Copy(io.Discard, r.Body)
		text := answer(a.requests.Add(1))
		if text == "" {
			return
		}
		io.WriteString(conn, text)
	}
}

func (a *app) do(t *testing.T, method, body string) (string, error) {
	t.Helper()
	r, err := http.NewRequest(method, "http://function/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body == "" {
		r.Body, r.ContentLength = nil, 0
	}
	r.Header.Set(quipu.HeaderIdempotency, "k")
	resp, err := a.client.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// The second request on a kept-alive connection is read, and then the connection breaks: exactly when
// net/http would send an idempotent one again.
func TestBrokenRequestIsNotSentTwice(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"} {
		a := newApp(t, func(n int32) string {
			if n == 2 {
				return ""
			}
			return ok
		})
		if _, err := a.do(t, "POST", "x"); err != nil {
			t.Fatal(err)
		}
		if _, err := a.do(t, method, ""); quipu.CodeOf(err) != quipu.CodeCrashed || a.requests.Load() != 2 {
			t.Errorf("%s: %v after %d requests", method, err, a.requests.Load())
		}
	}
}

func TestWhatAppsAnswerWrongHasACode(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		want   quipu.Code
	}{
		"nothing":      {"", quipu.CodeCrashed},
		"garbage":      {"220 smtp ready\r\n\r\n", quipu.CodeReply},
		"bad header":   {"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", quipu.CodeReply},
		"huge headers": {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", quipu.CodeReply},
	} {
		a := newApp(t, func(int32) string { return c.answer })
		if _, err := a.do(t, "POST", "x"); quipu.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func TestRequestArrivesAsItIs(t *testing.T) {
	got := make(chan *http.Request, 1)
	bodies := make(chan string, 1)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies <- string(body)
		got <- r
	})}
	go s.Serve(l)
	defer s.Close()
	c := NewClient(Options{Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}})
	defer c.Close()
	for _, method := range []string{"GET", "POST"} {
		for _, body := range []string{"", "hello"} {
			r, _ := http.NewRequest(method, "http://function/a%2Fb?q=1", nil)
			if body != "" {
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
			}
			r.Header.Set(quipu.HeaderIdempotency, "k")
			resp, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			in := <-got
			if b := <-bodies; b != body || in.RequestURI != "/a%2Fb?q=1" || in.Header.Get(quipu.HeaderIdempotency) != "k" || len(in.TransferEncoding) > 0 {
				t.Errorf("%s %q: %s, body %q, %v, %v", method, body, in.RequestURI, b, in.Header, in.TransferEncoding)
			}
		}
	}
}

func TestDeadlineIsTheContexts(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	a := newApp(t, func(int32) string { <-hang; return "" })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, "POST", "http://function/", strings.NewReader("x"))
	if _, err := a.client.Do(r); err != context.DeadlineExceeded {
		t.Error(err)
	}
}

func BenchmarkWarmRequest(b *testing.B) {
	for _, network := range []string{"unix", "tcp"} {
		b.Run(network, func(b *testing.B) {
			address := map[string]string{"unix": filepath.Join(b.TempDir(), "s"), "tcp": "127.0.0.1:0"}[network]
			l, err := net.Listen(network, address)
			if err != nil {
				b.Fatal(err)
			}
			s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })}
			go s.Serve(l)
			defer s.Close()
			c := NewClient(Options{Dial: func(ctx context.Context) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, l.Addr().String())
			}})
			defer c.Close()
			for b.Loop() {
				r, _ := http.NewRequest("GET", "http://function/", nil)
				resp, err := c.Do(r)
				if err != nil {
					b.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
}

// An app that closed an idle connection has seen nothing of the next request, which goes to a new one, whole.
func TestRequestOnAStaleConnectionIsMovedWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	closed := make(chan struct{}, 10)
	var bodies []string
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			r, err := http.ReadRequest(bufio.NewReader(conn))
			if err != nil {
				t.Error(err)
				return
			}
			body, _ := io.ReadAll(r.Body)
			bodies = append(bodies, string(body))
			io.WriteString(conn, ok) // keep-alive, it says
			conn.Close()
			closed <- struct{}{}
		}
	}()
	c := NewClient(Options{Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}})
	defer c.Close()
	for i := range 5 {
		r, _ := http.NewRequest("POST", "http://function/", strings.NewReader(fmt.Sprint("body ", i)))
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(i, err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		<-closed
		if bodies[i] != fmt.Sprint("body ", i) {
			t.Errorf("the app got %q", bodies)
		}
	}
}

// The app has shut its side down in the middle of a reply and still reads: what is written next would get no answer.
func TestAConnectionWhoseReplyBrokeOffIsNotUsedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for n := 0; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
				t.Error(err)
				return
			}
			if n > 0 {
				io.WriteString(conn, ok)
				continue
			}
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
			conn.(*net.UnixConn).CloseWrite()
		}
	}()
	a := &app{client: NewClient(Options{Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}})}
	defer a.client.Close()
	if text, err := a.do(t, "GET", ""); text != "half" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("got %q, %v", text, err)
	}
	if text, err := a.do(t, "GET", ""); text != "ok" || err != nil {
		t.Fatalf("got %q, %v on the next call", text, err)
	}
}

// An app may answer before it has read a large body, and may never read it.
func TestEarlyReplyToALargeBody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(413) })}
	go s.Serve(l)
	defer s.Close()
	c := NewClient(Options{Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}})
	defer c.Close()
	for range 3 {
		r, _ := http.NewRequest("POST", "http://function/", strings.NewReader(strings.Repeat("x", 8<<20)))
		resp, err := c.Do(r)
		if err != nil || resp.StatusCode != 413 {
			t.Fatal(resp, err)
		}
		resp.Body.Close()
	}
}
