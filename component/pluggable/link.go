package pluggable

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Limits of a connection.
const (
	messageBytesMax = 64 << 20
	backWait        = 5 * time.Second  // for a program that is gone to come back, of one call
	connectWait     = 30 * time.Second // for a program to be initialized
	retryWaitMin    = 100 * time.Millisecond
	retryWaitMax    = 5 * time.Second
)

// instanceHeader tells components of one program apart.
const instanceHeader = "x-component-instance"

// link is the connection of one component to its program. Whenever a connection was made, the program is told the
// component's metadata, by a connection of its own, before the first one is used: so nothing is asked of a program
// that was restarted and does not know it yet.
type link struct {
	spec   component.Spec
	conn   *grpc.ClientConn
	clock  quipu.Clock
	logger *slog.Logger
	socket string
	init   initialize

	mu     sync.Mutex // guards the field below
	failed error      // the last attempt to connect
}

// initialize tells a program the metadata of a component.
type initialize func(context.Context, grpc.ClientConnInterface) error

// dial prepares a connection; nothing is sent yet.
func dial(dialer func(context.Context) (net.Conn, error), more ...grpc.DialOption) (*grpc.ClientConn, error) {
	retry := grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}, MinConnectTimeout: connectWait}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(retry), grpc.WithIdleTimeout(0), grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageBytesMax), grpc.MaxCallSendMsgSize(messageBytesMax)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dialer(ctx) }),
	}
	return grpc.NewClient("passthrough:///component", append(options, more...)...)
}

// toSocket dials a socket.
func toSocket(socket string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, "unix", socket) }
}

// open connects a component, so that its program is initialized.
func open(ctx context.Context, socket string, h component.Host, s component.Spec, init initialize) (*link, error) {
	l := &link{spec: s, clock: h.Clock, logger: h.Logger, socket: socket, init: init}
	if l.logger == nil {
		l.logger = slog.New(slog.DiscardHandler)
	}
	var err error
	if l.conn, err = dial(l.connect, grpc.WithUnaryInterceptor(l.unary), grpc.WithStreamInterceptor(l.stream)); err != nil {
		return nil, err
	}
	if err := l.ready(ctx, true); err != nil {
		return nil, errors.Join(err, l.conn.Close())
	}
	return l, nil
}

// Close ends all calls.
func (l *link) Close() error { return l.conn.Close() }

// connect makes a connection and initializes the program.
func (l *link) connect(ctx context.Context) (c net.Conn, err error) {
	c, err = toSocket(l.socket)(ctx)
	if err == nil {
		if err = l.introduce(ctx); err != nil {
			err = errors.Join(fmt.Errorf("initialize: %w", err), c.Close())
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = err
	return c, err
}

func (l *link) introduce(ctx context.Context) error {
	conn, err := dial(toSocket(l.socket))
	if err != nil {
		return err
	}
	return errors.Join(l.init(l.named(ctx), conn), conn.Close())
}

// named says which component asks.
func (l *link) named(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, instanceHeader, l.spec.Name)
}

func (l *link) unary(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
	if err := l.ready(ctx, false); err != nil {
		return err
	}
	return invoke(l.named(ctx), method, request, reply, conn, o...)
}

func (l *link) stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
	if err := l.ready(ctx, false); err != nil {
		return nil, err
	}
	return open(l.named(ctx), desc, conn, method, o...)
}

// ready waits a while for a program that is gone, but once only tries it.
func (l *link) ready(ctx context.Context, once bool) error {
	state := l.conn.GetState()
	if state == connectivity.Ready {
		return nil
	}
	if !once {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, backWait)
		defer cancel()
	}
	for ; state != connectivity.Ready; state = l.conn.GetState() {
		if state == connectivity.Shutdown {
			return status.Error(codes.Canceled, "the component is closed")
		}
		if once && state == connectivity.TransientFailure {
			return l.gone()
		}
		l.conn.Connect()
		if !l.conn.WaitForStateChange(ctx, state) {
			return l.gone()
		}
	}
	return nil
}

// gone says that there is nobody, and why.
func (l *link) gone() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	why := "it does not answer"
	if l.failed != nil {
		why = l.failed.Error()
	}
	return status.Errorf(codes.Unavailable, "the program of component %s (%s) is not there: %s", l.spec.Name, l.spec.Type, why)
}

// again runs a stream until ctx ends, and once more whenever it breaks. What the program does not have is an error at once.
func (l *link) again(ctx context.Context, run func(context.Context) error) error {
	wait := retryWaitMin
	for {
		began := l.clock.Now()
		err := run(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if status.Code(err) == codes.Unimplemented || l.conn.GetState() == connectivity.Shutdown {
			return err
		}
		if l.clock.Now().Sub(began) > retryWaitMax {
			wait = retryWaitMin
		}
		l.logger.Warn("the stream of a component broke and is opened again", "component", l.spec.Name, "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.clock.After(wait):
			wait = min(2*wait, retryWaitMax)
		}
	}
}
