package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// wire is a client of HTTP/1.1 with one connection and one request at a time. It writes requests as they are and reads answers with
// net/http, without that package's goroutines for each connection: what it takes of the two cores is missing to who is measured.
type wire struct {
	conn   net.Conn
	answer *bufio.Reader
	ask    []byte // of the last request, to be written over
}

const wireTimeout = 30 * time.Second

func dialWire(address string) (*wire, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &wire{conn: conn, answer: bufio.NewReader(conn)}, nil
}

// do sends a request and throws the body of its answer away. Any status but the wanted one is an error.
func (w *wire) do(request []byte, want int) error {
	if err := w.conn.SetDeadline(time.Now().Add(wireTimeout)); err != nil {
		return err
	}
	if _, err := w.conn.Write(request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(w.answer, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 200)) // it says what is wrong, if anything does
		return fmt.Errorf("%s, not %d: %s", resp.Status, want, text)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// wires are connections to one server, one of each worker, opened when it is first used.
type wires struct {
	address string
	of      []*wire
}

func newWires(address string, workers int) *wires {
	return &wires{address: address, of: make([]*wire, workers)}
}

// do is one request of a worker. One that failed has broken its connection.
func (s *wires) do(worker int, request func(ask []byte) []byte, want int) (err error) {
	w := s.of[worker]
	if w == nil {
		if w, err = dialWire(s.address); err != nil {
			return err
		}
		s.of[worker] = w
	}
	w.ask = request(w.ask[:0])
	if err = w.do(w.ask, want); err != nil {
		s.of[worker] = nil
		_ = w.conn.Close() // the first error says more
	}
	return err
}

func (s *wires) close() {
	for _, w := range s.of {
		if w != nil {
			_ = w.conn.Close() // nothing is under way
		}
	}
}
