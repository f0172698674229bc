// Package book is the door to the log over gRPC: quipu.log.v1.LogService, for programs that use books of their own at
// the speed of the log. The protocol is api/log/v1/log.proto.
//
// The door keeps nothing but which ids of books a namespace may use; after a crash there is nothing of it to recover,
// and an answer promises what quipu.Log promises. A stream of appends ends in one of two ways: with a code,
// and then what has no answer was not added; or broken, and then that is unknown.
//
// Everything is bounded: appends of a stream on their way by number and bytes, those of all streams by bytes, a message
// of records by bytes. A client that is ahead of the log, or behind it, is waited for by not reading from it, or not
// writing to it, and holds up nobody else. What is not bounded here is the number of connections.
//
// Who may use it: with a token, who knows it. Without one, only requests addressed to loopback and from no web page.
// Books of the platform can be read and not written. Instances have no such door.
package book

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"

	logv1 "github.com/quipu-run/quipu/api/log/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/gateway"
	"github.com/quipu-run/quipu/sdk"
)

// Options are checked by New; a zero field gets the default it names.
type Options struct {
	// Log answers the books that a namespace may use; it is asked once for each. Required. CodeNotFound.
	Log   func(namespace string) (quipu.Log, error)
	Token string // "" means none: only loopback may use the door
	// FlightBytesMax bounds the data of appends on their way in all streams; 0 means 256 MiB. One that is alone may
	// be larger.
	FlightBytesMax int64
	Logger         *slog.Logger // nil means slog.Default
}

const flightBytesMaxDefault = 256 << 20

// Door serves the log.
type Door struct {
	opt     Options
	flight  *flight         // of all streams
	closing context.Context // ends with Close
	close   context.CancelFunc

	mu      sync.Mutex // guards below
	shelves map[string]*shelf
}

// New panics without Log.
func New(opt Options) *Door {
	if opt.Log == nil {
		panic("book: Log is required")
	}
	if opt.FlightBytesMax == 0 {
		opt.FlightBytesMax = flightBytesMaxDefault
	}
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	d := &Door{opt: opt, flight: newFlight(opt.FlightBytesMax, 0), shelves: map[string]*shelf{}}
	d.closing, d.close = context.WithCancel(context.Background())
	return d
}

// Register adds the service to a server, whose options should have MessageBytesMax of package logv1.
func (d *Door) Register(s grpc.ServiceRegistrar) { logv1.RegisterLogServiceServer(s, &service{d: d}) }

// Close ends streams, now and later: appends that were taken are answered first. Their clients are told to come back.
func (d *Door) Close() { d.close() }

// service are the methods of the protocol.
type service struct {
	logv1.UnimplementedLogServiceServer
	d *Door
}

// shelf admits a request, and answers the books of the namespace that it names. CodeToken, CodeOrigin, CodeNotFound.
func (d *Door) shelf(ctx context.Context) (*shelf, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if err := d.admit(md); err != nil {
		return nil, err
	}
	name := first(md, sdk.HeaderNamespace)
	if name == "" {
		name = sdk.NamespaceDefault
	}
	d.mu.Lock()
	s := d.shelves[name]
	d.mu.Unlock()
	if s != nil {
		return s, nil
	}
	log, err := d.opt.Log(name)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shelves[name] == nil {
		d.shelves[name] = newShelf(log)
	}
	return d.shelves[name], nil
}

func (d *Door) admit(md metadata.MD) error {
	if d.opt.Token == "" {
		return gateway.CheckLocal(&http.Request{Host: first(md, ":authority"), Header: http.Header{"Origin": md.Get("origin")}})
	}
	if !gateway.TokenEqual(tokenOf(md), d.opt.Token) {
		return &quipu.Error{Code: quipu.CodeToken, Hint: quipu.Codes[quipu.CodeToken].Next}
	}
	return nil
}

func tokenOf(md metadata.MD) string {
	if t := first(md, sdk.HeaderToken); t != "" {
		return t
	}
	if scheme, t, _ := strings.Cut(first(md, "authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(t)
	}
	return ""
}

func first(md metadata.MD, name string) string {
	if values := md.Get(name); len(values) > 0 {
		return values[0]
	}
	return ""
}

// requestOf is a call of gRPC as the request that the log of errors names.
func requestOf(ctx context.Context) *http.Request {
	method, _ := grpc.Method(ctx)
	r := &http.Request{Method: http.MethodPost, URL: &url.URL{Path: method}}
	return r.WithContext(ctx)
}
