package http

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// BenchmarkReplyInTwoParts has a server that writes the head of a reply and its body apart, with Nagle's algorithm as
// sockets have it by default: without acknowledge each call takes 40 ms on Linux.
func BenchmarkReplyInTwoParts(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go inTwoParts(l)
	c := NewClient(Options{Conns: 1, Dial: func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
	}})
	defer c.Close()
	for b.Loop() {
		resp, err := c.Do(httptest.NewRequestWithContext(b.Context(), "POST", "http://f/", strings.NewReader("x")))
		if err != nil {
			b.Fatal(err)
		}
		if text, err := io.ReadAll(resp.Body); string(text) != "body" || err != nil {
			b.Fatalf("%q, %v", text, err)
		}
		resp.Body.Close()
	}
}

// inTwoParts serves one connection.
func inTwoParts(l net.Listener) {
	c, err := l.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	_ = c.(*net.TCPConn).SetNoDelay(false)
	for in := bufio.NewReader(c); ; {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
		fmt.Fprint(c, "body")
	}
}
