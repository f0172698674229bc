package grpcwire

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func TestMessagesComeBackOneByOne(t *testing.T) {
	var wire []byte
	for _, m := range []string{"one", "", strings.Repeat("x", 300)} {
		wire = Append(wire, []byte(m))
	}
	r := bytes.NewReader(wire)
	for _, want := range []string{"one", "", strings.Repeat("x", 300)} {
		if got, err := Read(r, 300); err != nil || string(got) != want {
			t.Fatalf("%q %v", got, err)
		}
	}
	if _, err := Read(r, 300); err != io.EOF {
		t.Errorf("after the last: %v", err)
	}
}

func TestABrokenMessageIsAnErrorAndNeverAllocatesWhatItClaims(t *testing.T) {
	for wire, want := range map[string]error{"\x00\x00\x00": io.ErrUnexpectedEOF, "\x00\x00\x00\x00\x05ab": io.ErrUnexpectedEOF,
		"\x01\x00\x00\x00\x01a": errCompressed, "\x00\xff\xff\xff\xff": errTooLarge} {
		if _, err := Read(strings.NewReader(wire), 100); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", wire, err, want)
		}
	}
}

func TestAStatusSurvivesTheTrailers(t *testing.T) {
	rich, err := status.New(codes.NotFound, "100 % – schön\n").WithDetails(&errdetails.ErrorInfo{Reason: "R", Domain: "d"})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*status.Status{status.New(codes.OK, ""), status.New(codes.Aborted, "100 % – schön\n"), rich} {
		h := http.Header{}
		SetStatus(h, s)
		if got := Status(h); !proto.Equal(got.Proto(), s.Proto()) {
			t.Errorf("%v became %v through %v", s, got, h)
		}
		for _, v := range h {
			if strings.ContainsAny(v[0], "\n–") {
				t.Errorf("%q cannot be a header", v)
			}
		}
	}
	for _, h := range []http.Header{{}, {HeaderStatus: {"x"}}} {
		if got := Status(h); got.Code() != codes.Internal {
			t.Errorf("%v: %v", h, got)
		}
	}
	if got := Status(http.Header{HeaderStatus: {"5"}, HeaderMessage: {"a%zz%2"}, headerDetails: {"!"}}); got.Message() != "a%zz%2" {
		t.Errorf("%v", got)
	}
}

func TestMetadataSurvivesTheHeaders(t *testing.T) {
	md := metadata.MD{"a": {"1", "2"}, "b-bin": {"\x00\xff"}, "dapr-app-id": {"x"}}
	if got := Metadata(Headers(md)); strings.Join(got["a"], ",") != "1,2" || got["b-bin"][0] != "\x00\xff" || len(got) != 3 {
		t.Errorf("%v", got)
	}
	if got := Metadata(http.Header{"Content-Type": {ContentType}, "Grpc-Status": {"0"}, "Te": {"trailers"}, "Keep-Alive": {"timeout=5"}}); len(got) != 0 {
		t.Errorf("%v", got)
	}
	got := HTTPMetadata(http.Header{"Content-Type": {"text/plain"}, "Keep-Alive": {"timeout=5"}, "Te": {"trailers"}, "X-Own": {"1"}, "Grpc-Status": {"0"}, "Y-Bin": {"AP8="}})
	if got.Get("dapr-content-type")[0] != "text/plain" || got.Get("dapr-keep-alive")[0] != "timeout=5" || got.Get("x-own")[0] != "1" || got.Get("y-bin")[0] != "\x00\xff" || len(got) != 4 {
		t.Errorf("%v", got)
	}
	if got := Headers(metadata.MD{":authority": {"x"}}); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestContentTypesOfGRPC(t *testing.T) {
	for contentType, want := range map[string]bool{"application/grpc": true, "application/grpc+proto": true, "application/grpc; x": true, "application/grpc-web": false, "": false} {
		if Is(contentType) != want {
			t.Errorf("%q: %v", contentType, !want)
		}
	}
}
