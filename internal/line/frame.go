// Package line carries requests and replies of HTTP between a node and one of its instances, many at a time in both directions, over one
// connection: what a function that is written for it (sdk/fn) gets its calls by, and asks the node by.
//
// HTTP/1.1 takes a connection for each request under way and a system call at each end for each message; net/http adds two
// goroutines. Here a message is one frame, whoever writes takes along the frames of others, and one goroutine reads. Bodies are held, so it is not for
// streams. docs/reference/line.md has the bytes.
//
// Nothing is sent twice. When the connection breaks, requests under way end with ErrBroken: nobody knows what became of them.
package line

import (
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/url"
)

// Limits of a line.
const (
	frameBytesMax = 8 << 20 // a message with its head
	headersMax    = 200
	headBytes     = 9 // length, kind, id
)

// Kinds of frames.
const (
	kindHello byte = iota + 1
	kindRequest
	kindReply
	kindCancel
)

var (
	// ErrBroken ends requests that were under way when the connection ended.
	ErrBroken = errors.New("line: the connection broke")
	// ErrTooLarge refuses a message; nothing of it was sent.
	ErrTooLarge = errors.New("line: a message has more than 8 MiB")
	errFrame    = errors.New("line: malformed frame")
)

// begin adds the head of a frame to buf; end fills in its length.
func begin(buf []byte, kind byte, id uint32) []byte {
	buf = append(buf, 0, 0, 0, 0, kind)
	return binary.LittleEndian.AppendUint32(buf, id)
}

func end(buf []byte, start int) { binary.LittleEndian.PutUint32(buf[start:], uint32(len(buf)-start-4)) }

func appendText(buf []byte, s string) []byte {
	return append(binary.AppendUvarint(buf, uint64(len(s))), s...)
}

func appendHeader(buf []byte, h http.Header) []byte {
	n := 0
	for _, values := range h {
		n += len(values)
	}
	buf = binary.AppendUvarint(buf, uint64(n))
	for name, values := range h {
		for _, v := range values {
			buf = appendText(appendText(buf, name), v)
		}
	}
	return buf
}

// appendRequest is a request's frame; body is all of its body.
func appendRequest(buf []byte, id uint32, r *http.Request, body []byte) []byte {
	start := len(buf)
	buf = begin(buf, kindRequest, id)
	buf = appendText(buf, r.Method)
	buf = appendText(buf, r.URL.EscapedPath())
	buf = appendText(buf, r.URL.RawQuery)
	buf = append(appendHeader(buf, r.Header), body...)
	end(buf, start)
	return buf
}

func appendReply(buf []byte, id uint32, status int, h http.Header, body []byte) []byte {
	start := len(buf)
	buf = begin(buf, kindReply, id)
	buf = binary.AppendUvarint(buf, uint64(status))
	buf = append(appendHeader(buf, h), body...)
	end(buf, start)
	return buf
}

// frame is one message as it was read; its body is its own.
type frame struct {
	kind byte
	id   uint32
	body []byte
}

func readFrame(r io.Reader) (f frame, err error) {
	var head [headBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return f, err
	}
	size := binary.LittleEndian.Uint32(head[:])
	if size < headBytes-4 || size > frameBytesMax {
		return f, errFrame
	}
	f = frame{kind: head[4], id: binary.LittleEndian.Uint32(head[5:]), body: make([]byte, size-(headBytes-4))}
	_, err = io.ReadFull(r, f.body)
	return f, err
}

// reader takes a body apart; ok stays true as long as everything was there.
type reader struct {
	b  []byte
	ok bool
}

func (r *reader) number(most uint64) int {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > most {
		r.ok = false
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}

func (r *reader) text() string {
	n := r.number(frameBytesMax)
	if n > len(r.b) {
		r.ok = false
	}
	if !r.ok {
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *reader) header() http.Header {
	n := r.number(headersMax)
	h := make(http.Header, n)
	for range n {
		name, value := r.text(), r.text()
		if !r.ok {
			return h
		}
		name = http.CanonicalHeaderKey(name)
		h[name] = append(h[name], value)
	}
	return h
}

// request makes of a frame what a handler gets, but for its context.
func (f frame) request() (*http.Request, error) {
	r := reader{f.body, true}
	method, path, query, header := r.text(), r.text(), r.text(), r.header()
	if !r.ok {
		return nil, errFrame
	}
	u := &url.URL{Path: path, RawQuery: query}
	if unescaped, err := url.PathUnescape(path); err != nil {
		return nil, errFrame
	} else if unescaped != path {
		u.Path, u.RawPath = unescaped, path
	}
	target := path
	if query != "" {
		target += "?" + query
	}
	return &http.Request{Method: method, URL: u, RequestURI: target, Header: header, Host: "quipu", Body: newBody(r.b), ContentLength: int64(len(r.b)),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}, nil
}

func (f frame) reply(r *http.Request) (*http.Response, error) {
	in := reader{f.body, true}
	status, header := in.number(999), in.header()
	if !in.ok || status < 200 {
		return nil, errFrame
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: header, Body: newBody(in.b), ContentLength: int64(len(in.b)),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r}, nil
}
