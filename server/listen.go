package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/quipu-run/quipu"
	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
)

// door is one of the node's listeners.
type door struct {
	name string
	flag string // that changes its port
}

var (
	mainDoor = door{"HTTP", "--port"}
	daprDoor = door{"Dapr HTTP", "--dapr-http-port"}
	grpcDoor = door{"Dapr gRPC", "--dapr-grpc-port"}
	// insideDoor is where instances find the routes of functions when they look for them at the main door.
	insideDoor = door{"instances", ""}
)

// doorConnections is how many connections a door has at once. Who comes later waits until one ends: idle ones are cut by their servers.
const doorConnections = 10_000

// listeners are the node's open doors.
type listeners struct {
	open map[door]net.Listener

	mu      sync.Mutex // guards servers
	servers []server
	running sync.WaitGroup
}

// server is an http.Server, or what does as it does.
type server interface {
	Serve(l net.Listener) error // ends with http.ErrServerClosed
	Shutdown(ctx context.Context) error
	Close() error
}

// grpcServer is a grpc.Server that ends as an http.Server does.
type grpcServer struct {
	*grpc.Server
	doors []closer
}

// closer is a door that ends its streams when it is told to.
type closer interface{ Close() }

func (s grpcServer) Serve(l net.Listener) error {
	if err := s.Server.Serve(l); err != nil {
		return err
	}
	return http.ErrServerClosed
}

// Shutdown ends streams, and waits for other calls until ctx ends.
func (s grpcServer) Shutdown(ctx context.Context) error {
	s.closeDoors()
	done := make(chan struct{})
	go func() {
		s.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close cuts calls off.
func (s grpcServer) Close() error {
	s.closeDoors()
	s.Stop()
	return nil
}

func (s grpcServer) closeDoors() {
	for _, d := range s.doors {
		d.Close()
	}
}

// listen opens all doors, so that a taken port is known before anything else happens.
func listen(cfg Config) (*listeners, error) {
	host := cfg.Listen
	if host == "" {
		host = "127.0.0.1"
	}
	if cfg.Token == "" && !isLoopback(host) {
		return nil, &quipu.Error{Code: quipu.CodeOpenListen, Op: "node.listen",
			Text: fmt.Sprintf("listening on %s without a token would open the node to everybody", host),
			Hint: quipu.Codes[quipu.CodeOpenListen].Next}
	}
	l := &listeners{open: map[door]net.Listener{}}
	type at struct {
		door
		port int
	}
	wanted := []at{{mainDoor, cfg.Port}, {daprDoor, cfg.DaprHTTPPort}, {grpcDoor, cfg.DaprGRPCPort}}
	// Ports that were named come first: a door that takes any free one could take another's.
	slices.SortStableFunc(wanted, func(a, b at) int { return cmp.Compare(b.port, a.port) })
	for _, w := range wanted {
		if err := l.listen(w.door, host, w.port, cfg.FreePorts); err != nil {
			return nil, errors.Join(err, l.close(context.Background()))
		}
	}
	inside, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for instances: %w", err), l.close(context.Background()))
	}
	l.open[insideDoor] = netutil.LimitListener(inside, doorConnections)
	return l, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (l *listeners) listen(d door, host string, port int, free bool) error {
	ln, err := bind(net.JoinHostPort(host, strconv.Itoa(port)), !free)
	if errors.Is(err, syscall.EADDRINUSE) {
		if free && port != 0 {
			return l.listen(d, host, 0, false)
		}
		return &quipu.Error{Code: quipu.CodePortTaken, Op: "node.listen",
			Text: fmt.Sprintf("port %d for %s is taken by another program", port, d.name),
			Hint: fmt.Sprintf("choose another with %s N; %s 0 takes any free one", d.flag, d.flag)}
	}
	if err != nil {
		return &quipu.Error{Code: quipu.CodeUsage, Op: "node.listen",
			Text: fmt.Sprintf("cannot listen on %s port %d for %s", host, port, d.name), Err: err,
			Hint: "--listen HOST and " + d.flag + " N choose the address"}
	}
	l.open[d] = netutil.LimitListener(ln, doorConnections)
	return nil
}

// A node that was killed a moment ago may leave its port taken until a child that it was forking has let go.
const (
	bindTries = 20
	bindEvery = 25 * time.Millisecond
)

// bind listens, patiently if it is to be that address and no other.
func bind(address string, patient bool) (ln net.Listener, err error) {
	for range bindTries {
		ln, err = net.Listen("tcp", address)
		if !patient || !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
		time.Sleep(bindEvery)
	}
	return ln, err
}

func (l *listeners) address(d door) string { return l.open[d].Addr().String() }

// addresses are those of some doors.
func (l *listeners) addresses(doors ...door) (all []netip.AddrPort) {
	for _, d := range doors {
		all = append(all, l.open[d].Addr().(*net.TCPAddr).AddrPort()) // all doors are of TCP
	}
	return all
}

// serve answers at a door until close. A door that breaks is told to failed.
func (l *listeners) serve(d door, s server, failed func(error)) {
	l.mu.Lock()
	l.servers = append(l.servers, s)
	l.mu.Unlock()
	l.running.Go(func() {
		if err := s.Serve(l.open[d]); !errors.Is(err, http.ErrServerClosed) {
			failed(fmt.Errorf("%s listener: %w", d.name, err))
		}
	})
}

// close lets requests under way finish until ctx ends, then cuts them off.
func (l *listeners) close(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	for _, s := range l.servers {
		if stopErr := s.Shutdown(ctx); stopErr != nil {
			err = errors.Join(err, s.Close())
		}
	}
	l.running.Wait()
	for _, ln := range l.open {
		if closeErr := ln.Close(); !errors.Is(closeErr, net.ErrClosed) {
			err = errors.Join(err, closeErr)
		}
	}
	return err
}
