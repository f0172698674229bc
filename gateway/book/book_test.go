package book_test

import (
	"log/slog"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/gateway/book"
	"github.com/quipu-run/quipu/locallog"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/xtest"
)

// node is a door on loopback in front of a log.
type node struct {
	t      *testing.T
	opt    book.Options
	addr   string
	door   *book.Door
	server *grpc.Server
	served chan error
}

// serve opens a door. At the end of the test it is closed.
func serve(t *testing.T, log quipu.Log, change ...func(*book.Options)) *node {
	t.Helper()
	n := &node{t: t, addr: "127.0.0.1:0", opt: book.Options{Log: func(string) (quipu.Log, error) { return log, nil },
		Logger: slog.New(slog.DiscardHandler)}}
	for _, c := range change {
		c(&n.opt)
	}
	n.up()
	t.Cleanup(n.down)
	return n
}

// up listens, at the same address as before.
func (n *node) up() {
	n.t.Helper()
	l, err := net.Listen("tcp", n.addr)
	if err != nil {
		n.t.Fatal(err)
	}
	n.addr = l.Addr().String()
	n.door = book.New(n.opt)
	n.server = grpc.NewServer(book.ServerOptions()...)
	n.door.Register(n.server)
	n.served = make(chan error, 1)
	go func(s *grpc.Server) { n.served <- s.Serve(l) }(n.server)
}

// down cuts everything off, as the end of a process does.
func (n *node) down() {
	n.door.Close()
	n.server.Stop()
	if err := <-n.served; err != nil {
		n.t.Errorf("serve: %v", err)
	}
	n.served <- nil
}

// client is a remote log.
func (n *node) client(change ...func(*sdk.LogOptions)) *sdk.Log {
	n.t.Helper()
	opt := sdk.LogOptions{Address: n.addr}
	for _, c := range change {
		c(&opt)
	}
	l, err := sdk.OpenLog(opt)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := l.Close(); err != nil && quipu.CodeOf(err) == quipu.CodeUsage {
			n.t.Error(err)
		}
	})
	return l
}

// What the contract promises holds for a program on the other side of a connection.
func TestTheRemoteLogKeepsThePromisesOverAModel(t *testing.T) {
	start := time.Unix(1e9, 0)
	models := map[*sdk.Log]*node{}
	logs := map[*node]*xtest.Model{}
	_ = start
	_ = models
	_ = logs
	xtest.Log(t, func(t *testing.T) quipu.Log {
		m := xtest.NewModel(xtest.NewClock(start))
		return serve(t, m).client()
	})
}

func TestTheRemoteLogKeepsThePromisesOverALogOnDisk(t *testing.T) {
	xtest.Log(t, func(t *testing.T) quipu.Log {
		l, err := locallog.Open(locallog.Options{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return serve(t, l).client()
	})
}
