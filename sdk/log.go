package sdk

import (
	"context"
	"fmt"
	"net"
	"time"

	logv1 "github.com/quipu-run/quipu/api/log/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/quipu-run/quipu"
)

// LogOptions are checked by OpenLog; a zero field gets the default it names.
type LogOptions struct {
	Address   string // of the node's gRPC door, host and port: dapr_grpc in node.json. Required
	Token     string // "" for none
	Namespace string // "" means NamespaceDefault
	// ReconnectMax is how long a subscription that was cut off tries to go on; 0 means a minute.
	ReconnectMax time.Duration
	// Dial are more options of the connection, such as credentials; without any it is not encrypted.
	Dial []grpc.DialOption
}

const reconnectMaxDefault = time.Minute

// Windows of flow control: what a node may send before it is read. They are fixed, since finding them out takes a ping for
// each message while there is one at a time.
const (
	streamWindow     = 1 << 20
	connectionWindow = 4 << 20
)

// Log is a node's log over gRPC: quipu.Log, with what a connection adds.
//
// It connects by itself, again after each break. CodeNoNode says that nobody answered, and nothing was changed; CodeUnknown
// that the connection broke, or the caller's context ended, when a change was on its way: then it may have happened.
// Nothing is repeated, with one exception: a subscription that was cut off, by a break or a node that stops, goes on after
// the last record that it yielded, for up to LogOptions.ReconnectMax without an answer.
//
// Appends of up to 256 KiB of all callers share one stream, many in a message while others are on their way; at most 4096
// wait for answers, more callers wait for a place. Data is not looked at any more once a method has returned.
// Close ends the connection and not the node's log.
type Log struct {
	opt     LogOptions
	conn    *grpc.ClientConn
	rpc     logv1.LogServiceClient
	header  metadata.MD
	appends *appender
	closing context.Context // ends with Close
	close   context.CancelFunc
}

var _ quipu.Log = (*Log)(nil)

// OpenLog does not wait for a connection. CodeUsage if the options cannot be.
func OpenLog(opt LogOptions) (*Log, error) {
	if opt.ReconnectMax == 0 {
		opt.ReconnectMax = reconnectMaxDefault
	}
	l := &Log{opt: opt, header: metadata.MD{}}
	if opt.Token != "" {
		l.header.Set(HeaderToken, opt.Token)
	}
	if opt.Namespace != "" {
		l.header.Set(HeaderNamespace, opt.Namespace)
	}
	dial := append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: 5 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(logv1.MessageBytesMax), grpc.MaxCallSendMsgSize(logv1.MessageBytesMax)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(connectionWindow),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(),
	}, opt.Dial...)
	var err error
	if l.conn, err = grpc.NewClient("passthrough:///"+opt.Address, dial...); err != nil || opt.Address == "" {
		return nil, &quipu.Error{Code: quipu.CodeUsage, Op: "log.open", Err: err,
			Text: fmt.Sprintf("%q is not the address of a node's gRPC door", opt.Address), Hint: "write it like 127.0.0.1:50001"}
	}
	l.rpc = logv1.NewLogServiceClient(l.conn)
	l.closing, l.close = context.WithCancel(context.Background())
	l.appends = newAppender(l)
	return l, nil
}

// reconnect is how long a connection waits before it is tried again.
var reconnect = backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: time.Second}

// Log is the log of the client's node, namespace and token, whose gRPC door the node tells.
func (c *Client) Log(ctx context.Context) (*Log, error) {
	node, err := c.Node(ctx)
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(node.DaprGRPC)
	if err != nil {
		return nil, &quipu.Error{Code: quipu.CodeNoNode, Err: err, Text: "the node at " + c.Address() + " has no gRPC door"}
	}
	// The host is the one that the client knows: a node may listen on all of its addresses.
	return OpenLog(LogOptions{Address: net.JoinHostPort(c.base.Hostname(), port), Token: c.token, Namespace: c.namespace})
}

// Close ends the connection. Appends without an answer get CodeUnknown, everything after it CodeLogStopped.
func (l *Log) Close() error {
	l.close()
	err := l.conn.Close()
	l.appends.wait()
	return err
}

// call is the context of a request, with who asks.
func (l *Log) call(ctx context.Context) context.Context {
	if own, has := metadata.FromOutgoingContext(ctx); has {
		return metadata.NewOutgoingContext(ctx, metadata.Join(own, l.header))
	}
	return metadata.NewOutgoingContext(ctx, l.header)
}

// CreateBook implements quipu.Log.
func (l *Log) CreateBook(ctx context.Context, name string, o quipu.BookOptions) (quipu.Book, error) {
	if !quipu.ValidBookName(name) { // which a message could not carry
		return 0, &quipu.Error{Code: quipu.CodeUsage, Op: "log.create",
			Text: fmt.Sprintf("a book's name has 1 to %d bytes of UTF-8 without control characters", quipu.BookNameMax)}
	}
	m, err := change(ctx, l, l.rpc.CreateBook, &logv1.CreateBookRequest{Name: name, Options: logv1.NewOptions(o)})
	return quipu.Book(m.GetBook()), err
}

// SetBook implements quipu.Log.
func (l *Log) SetBook(ctx context.Context, book quipu.Book, o quipu.BookOptions) error {
	_, err := change(ctx, l, l.rpc.SetBook, &logv1.SetBookRequest{Book: uint64(book), Options: logv1.NewOptions(o)})
	return err
}

// DeleteBook implements quipu.Log.
func (l *Log) DeleteBook(ctx context.Context, book quipu.Book) error {
	_, err := change(ctx, l, l.rpc.DeleteBook, &logv1.DeleteBookRequest{Book: uint64(book)})
	return err
}

// OpenBook implements quipu.Log.
func (l *Log) OpenBook(ctx context.Context, name string) (quipu.Book, error) {
	if !quipu.ValidBookName(name) {
		return 0, &quipu.Error{Code: quipu.CodeNoBook, Op: "log.open", Text: fmt.Sprintf("there is no book %.300q", name)}
	}
	m, err := ask(ctx, l, l.rpc.OpenBook, &logv1.OpenBookRequest{Name: name})
	return quipu.Book(m.GetBook()), err
}

// Books implements quipu.Log.
func (l *Log) Books(ctx context.Context) ([]quipu.BookInfo, error) {
	ctx, cancel := context.WithCancel(l.call(ctx))
	defer cancel()
	books := []quipu.BookInfo{}
	stream, err := l.rpc.ListBooks(ctx, &logv1.ListBooksRequest{})
	if err != nil {
		return nil, l.problem(ctx, err)
	}
	for {
		m, err := stream.Recv()
		if ended(err) {
			return books, nil
		}
		if err != nil {
			return nil, l.problem(ctx, err)
		}
		for _, b := range m.GetBooks() {
			books = append(books, b.Plain())
		}
	}
}

// Trim implements quipu.Log.
func (l *Log) Trim(ctx context.Context, book quipu.Book, tag string, upto quipu.Seq) error {
	_, err := change(ctx, l, l.rpc.Trim, &logv1.TrimRequest{Book: uint64(book), Tag: []byte(tag), Upto: uint64(upto)})
	return err
}

// SetAux implements quipu.Log. A hint may have 1 MiB.
func (l *Log) SetAux(ctx context.Context, book quipu.Book, seq quipu.Seq, aux []byte) error {
	_, err := ask(ctx, l, l.rpc.SetAux, &logv1.SetAuxRequest{Book: uint64(book), Seq: uint64(seq), Aux: aux})
	return err
}

// Aux implements quipu.Log.
func (l *Log) Aux(ctx context.Context, book quipu.Book, seq quipu.Seq) ([]byte, error) {
	m, err := ask(ctx, l, l.rpc.GetAux, &logv1.GetAuxRequest{Book: uint64(book), Seq: uint64(seq)})
	return m.GetAux(), err
}

// Producer implements quipu.Log.
func (l *Log) Producer(ctx context.Context, book quipu.Book, id uint64) (quipu.Producer, error) {
	m, err := ask(ctx, l, l.rpc.LastProducer, &logv1.LastProducerRequest{Book: uint64(book), Id: id})
	return m.GetProducer().Plain(), err
}

// method is a method of the protocol that has one answer.
type method[Q, A any] func(context.Context, *Q, ...grpc.CallOption) (*A, error)

// ask does what changes nothing that counts.
func ask[Q, A any](ctx context.Context, l *Log, do method[Q, A], q *Q) (*A, error) {
	m, err := do(l.call(ctx), q)
	if err != nil {
		return nil, l.problem(ctx, err)
	}
	return m, nil
}

// change does what must not be said to have failed when it may have happened.
func change[Q, A any](ctx context.Context, l *Log, do method[Q, A], q *Q) (*A, error) {
	var to peer.Peer // set if the request got as far as a connection
	m, err := do(l.call(ctx), q, grpc.Peer(&to))
	if err != nil {
		return nil, l.problemOfChange(ctx, err, to.Addr != nil)
	}
	return m, nil
}
