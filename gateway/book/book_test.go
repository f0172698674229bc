package book_test

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
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
	log    quipu.Log
	opt    book.Options
	addr   string
	door   *book.Door
	server *grpc.Server
	served chan error
}

// behind finds the node of a client, for restarts.
var behind sync.Map // *sdk.Log -> *node

// serve opens a door. At the end of the test it is closed.
func serve(t *testing.T, log quipu.Log, change ...func(*book.Options)) *node {
	t.Helper()
	n := &node{t: t, log: log, addr: "127.0.0.1:0"}
	n.opt = book.Options{Log: func(string) (quipu.Log, error) { return n.log, nil }, Logger: slog.New(slog.DiscardHandler)}
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
	if err := <-n.served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
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
	behind.Store(l, n)
	n.t.Cleanup(func() {
		behind.Delete(l)
		_ = l.Close() // some tests did so
	})
	return l
}

// restart is one behind the back of a client, which stays the same. do changes the log while no door is open.
func restart(name string, do func(n *node)) xtest.Restart {
	return xtest.Restart{Name: name, Do: func(t *testing.T, l quipu.Log) quipu.Log {
		found, _ := behind.Load(l)
		n := found.(*node)
		n.down()
		do(n)
		n.up()
		n.awaken(l)
		return l
	}}
}

// awaken waits until a client has noticed that its node is back.
func (n *node) awaken(l quipu.Log) {
	n.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		_, err := l.Books(n.t.Context())
		if err == nil {
			return
		}
		if quipu.CodeOf(err) != quipu.CodeNoNode || time.Now().After(deadline) {
			n.t.Fatal(err)
		}
	}
}

// What the contract promises holds for a program on the other side of a connection, also one that broke meanwhile.
func TestTheRemoteLogKeepsThePromisesOverAModel(t *testing.T) {
	open := func(t *testing.T) quipu.Log {
		return serve(t, xtest.NewModel(xtest.NewClock(time.Unix(1e9, 0)))).client()
	}
	xtest.Log(t, open, restart("a break of the connection", func(*node) {}), restart("a crash of the node", func(n *node) { n.log.(*xtest.Model).Crash() }))
}

func TestTheRemoteLogKeepsThePromisesOverALogOnDisk(t *testing.T) {
	dirs := sync.Map{}
	open := func(t *testing.T) quipu.Log {
		dir := t.TempDir()
		n := serve(t, openDisk(t, dir))
		dirs.Store(n, dir)
		return n.client()
	}
	xtest.Log(t, open, restart("a restart of the node", func(n *node) {
		if err := n.log.Close(); err != nil {
			n.t.Error(err)
		}
		dir, _ := dirs.Load(n)
		n.log = openDisk(n.t, dir.(string))
	}))
}

func openDisk(t *testing.T, dir string) quipu.Log {
	t.Helper()
	l, err := locallog.Open(locallog.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // closing again answers the same
	return l
}

// Whatever is done, one after the other, is answered over a connection as in-process: seqs, codes, winners, records.
func TestARemoteHistoryIsAnsweredAsALocalOne(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	clock := xtest.NewClock(time.Unix(1e9, 0))
	model := xtest.NewModel(clock)
	n := serve(t, model)
	l := n.client()
	xtest.History(t, seed, 1500, clock, l, func(rng *rand.Rand) (quipu.Log, bool) {
		unclean := rng.IntN(2) == 0
		n.down()
		if unclean {
			model.Crash()
		}
		n.up()
		n.awaken(l)
		return l, unclean
	})
}
