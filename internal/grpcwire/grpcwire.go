// Package grpcwire reads and writes gRPC as it is on HTTP/2: messages with a prefix of five bytes, and a status in
// the trailers. The platform carries calls of gRPC through its own calls, whose requests and replies are HTTP, so
// it needs messages without their meaning; where it knows the methods it uses google.golang.org/grpc.
//
//	compressed  1 byte    0, since nobody is told that compression is understood
//	length      4 bytes   big endian
//	message     length bytes
package grpcwire

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// ContentType of requests and replies.
const ContentType = "application/grpc"

// Names of the trailers of a status.
const (
	HeaderStatus  = "Grpc-Status"
	HeaderMessage = "Grpc-Message"
	headerDetails = "Grpc-Status-Details-Bin"
	binarySuffix  = "-bin"
	prefixBytes   = 5
)

var (
	errCompressed = errors.New("a message is compressed, although nothing said it could be")
	errTooLarge   = errors.New("a message is too large")
)

// Is tells whether a content type is one of gRPC.
func Is(contentType string) bool {
	return contentType == ContentType || strings.HasPrefix(contentType, ContentType+"+") || strings.HasPrefix(contentType, ContentType+";")
}

// Read answers the next message, io.EOF after the last.
func Read(r io.Reader, bytesMax int) ([]byte, error) {
	var prefix [prefixBytes]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(prefix[1:])
	switch {
	case prefix[0] != 0:
		return nil, errCompressed
	case int64(n) > int64(bytesMax):
		return nil, fmt.Errorf("%w: it has %d bytes, the most is %d", errTooLarge, n, bytesMax)
	}
	message := make([]byte, n)
	if _, err := io.ReadFull(r, message); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	return message, nil
}

// Append adds a message with its prefix.
func Append(to, message []byte) []byte {
	to = append(to, 0)
	to = binary.BigEndian.AppendUint32(to, uint32(len(message)))
	return append(to, message...)
}

// Status is what a reply's trailers, or its headers if it has no body, say became of a call.
func Status(from http.Header) *status.Status {
	text := from.Get(HeaderStatus)
	if text == "" {
		return status.New(codes.Internal, "the application's reply has no gRPC status")
	}
	code, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return status.New(codes.Internal, "the application's reply has a malformed gRPC status")
	}
	if s := withDetails(from.Get(headerDetails), codes.Code(code)); s != nil {
		return s
	}
	return status.New(codes.Code(code), unescape(from.Get(HeaderMessage)))
}

// withDetails is nil unless there are details of the same code.
func withDetails(encoded string, code codes.Code) *status.Status {
	raw, err := decodeBinary(encoded)
	var s spb.Status
	if encoded == "" || err != nil || proto.Unmarshal(raw, &s) != nil || codes.Code(s.GetCode()) != code {
		return nil
	}
	return status.FromProto(&s)
}

// SetStatus writes a status as headers or trailers.
func SetStatus(to http.Header, s *status.Status) {
	to.Set(HeaderStatus, strconv.Itoa(int(s.Code())))
	if s.Message() != "" {
		to.Set(HeaderMessage, escape(s.Message()))
	}
	if p := s.Proto(); len(p.GetDetails()) > 0 {
		if raw, err := proto.Marshal(p); err == nil {
			to.Set(headerDetails, base64.RawStdEncoding.EncodeToString(raw))
		}
	}
}

// Headers are metadata as headers: names in their HTTP form, bytes in base64.
func Headers(md metadata.MD) http.Header {
	h := make(http.Header, len(md))
	for name, values := range md {
		if strings.HasPrefix(name, ":") {
			continue
		}
		for _, v := range values {
			if strings.HasSuffix(name, binarySuffix) {
				v = base64.RawStdEncoding.EncodeToString([]byte(v))
			}
			h.Add(name, v)
		}
	}
	return h
}

// Metadata are headers as metadata, without what is of HTTP/2 or gRPC itself.
func Metadata(h http.Header) metadata.MD {
	md := make(metadata.MD, len(h))
	for name, values := range h {
		name = strings.ToLower(name)
		if strings.HasPrefix(name, ":") || strings.HasPrefix(name, "grpc-") || reserved[name] {
			continue
		}
		add(md, name, values)
	}
	return md
}

// add takes values of a binary name out of their base64.
func add(md metadata.MD, name string, values []string) {
	for _, v := range values {
		if raw, err := decodeBinary(v); strings.HasSuffix(name, binarySuffix) && err == nil {
			v = string(raw)
		}
		md.Append(name, v)
	}
}

// reserved are headers that a transport sets by itself, or that belong to one connection, where HTTP/2 has no place
// for them.
var reserved = set("content-type content-length te trailer user-agent date host " +
	"connection keep-alive proxy-connection proxy-authenticate proxy-authorization transfer-encoding upgrade http2-settings")

// HTTPMetadata are headers of plain HTTP as Dapr tells them to who speaks gRPC: those that are registered for HTTP
// itself get the prefix dapr-, so that they do not get in the way of gRPC's own.
func HTTPMetadata(h http.Header) metadata.MD {
	md := make(metadata.MD, len(h))
	for name, values := range h {
		name = strings.ToLower(name)
		switch {
		case permanent[name]:
			name = "dapr-" + name
		case reserved[name], strings.HasPrefix(name, "grpc-"), strings.HasPrefix(name, ":"):
			continue
		}
		add(md, name, values)
	}
	return md
}

// permanent is Dapr's list of them.
var permanent = set("accept accept-charset accept-language accept-ranges connection keep-alive proxy-connection transfer-encoding upgrade " +
	"cache-control content-type content-length cookie date expect from host if-match if-modified-since if-none-match if-schedule-tag-match " +
	"if-unmodified-since max-forwards origin pragma referer via warning")

func set(names string) map[string]bool {
	out := map[string]bool{}
	for name := range strings.FieldsSeq(names) {
		out[name] = true
	}
	return out
}

// decodeBinary takes base64 with or without padding.
func decodeBinary(s string) ([]byte, error) {
	return base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
}

// escape is the percent encoding of grpc-message: what is not printable ASCII, and %.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return strings.ToValidUTF8(b.String(), string(utf8.RuneError))
}
