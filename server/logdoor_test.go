package server

import (
	"fmt"
	"hash/maphash"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/quipu-run/quipu"
	logv1 "github.com/quipu-run/quipu/api/log/v1"
	"github.com/quipu-run/quipu/sdk"
)

const (
	doorClients = 6
	doorBooks   = 2
	doorKills   = 12
	lockTag     = "lock"
)

// Clients append to books over gRPC, with conditions, with numbers and without, repeat numbers whose outcome they were not
// told, and read, while the node is killed and started again at random. What they saw is a linearizable history of
// each book.
func TestALogOverGRPCIsLinearizableWhileItsNodeIsKilled(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	k := spawn(t, t.TempDir(), "serve")
	w := &doorWorld{t: t, start: time.Now(), over: make(chan struct{})}
	for range 1 + doorClients/2 { // two clients share a connection
		l, err := sdk.OpenLog(sdk.LogOptions{Address: k.info.DaprGRPC})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		w.logs = append(w.logs, l)
	}
	for i := range doorBooks {
		id, err := w.logs[0].CreateBook(t.Context(), fmt.Sprint("book", i), quipu.BookOptions{})
		if err != nil {
			t.Fatal(err)
		}
		w.books = append(w.books, id)
		w.history = append(w.history, nil)
	}
	var wg sync.WaitGroup
	for c := range doorClients {
		wg.Go(func() { w.client(c, rand.New(rand.NewPCG(seed, uint64(c)))) })
	}
	rng := rand.New(rand.NewPCG(seed, 1000))
	for range doorKills {
		<-time.After(time.Duration(20+rng.IntN(200)) * time.Millisecond) // the random point
		k.kill()
		k.up()
	}
	close(w.over)
	wg.Wait()
	for i := range w.books {
		w.check(i)
	}
}

// doorWorld is what the clients share.
type doorWorld struct {
	t     *testing.T
	start time.Time
	over  chan struct{}
	logs  []*sdk.Log
	books []quipu.Book

	mu      sync.Mutex // guards below
	history [][]porcupine.Operation
	unknown int
	repeats int
}

// doorAsk is an operation on one book.
type doorAsk struct {
	kind     byte // a: append, t: tail, r: read
	value    string
	cond     bool      // only if the newest record of lockTag is last
	last     quipu.Seq // of cond
	producer int       // the client's, from 1; 0 for none
	n        uint64
	from     quipu.Seq // of a read
}

// doorAnswer is what came of it.
type doorAnswer struct {
	unknown bool
	lost    bool      // the condition
	seq     quipu.Seq // of the record, the winner or the tail
	read    []doorRecord
}

type doorRecord struct {
	seq   quipu.Seq
	value string
	lock  bool
}

// client does operations until the end. Each client has a producer in each book.
func (w *doorWorld) client(c int, rng *rand.Rand) {
	var n [doorBooks]uint64
	var lock, seen [doorBooks]quipu.Seq
	for i := 0; ; i++ {
		select {
		case <-w.over:
			return
		default:
		}
		b := rng.IntN(doorBooks)
		ask := doorAsk{kind: 'a', value: fmt.Sprintf("%d.%d", c, i)}
		switch rng.IntN(8) {
		case 0:
			ask = doorAsk{kind: 't'}
		case 1, 2:
			ask = doorAsk{kind: 'r', from: seen[b]}
		case 3, 4:
			ask.cond, ask.last = true, lock[b]
		case 5, 6:
			n[b]++
			ask.producer, ask.n = c+1, n[b]
		}
		answer, ok := w.do(c, b, ask)
		for ask.producer > 0 && (!ok || answer.unknown) { // a number is repeated until its outcome is known
			select {
			case <-w.over:
				return
			case <-time.After(time.Millisecond): // not as fast as a node that is not there says so
			}
			w.mu.Lock()
			w.repeats++
			w.mu.Unlock()
			answer, ok = w.do(c, b, ask)
		}
		if ok && !answer.unknown {
			learn(ask, answer, &lock[b], &seen[b])
		}
	}
}

// learn keeps what a client knows of a book: the newest record of lockTag, and where it reads from next.
func learn(ask doorAsk, answer doorAnswer, lock, seen *quipu.Seq) {
	if ask.cond {
		*lock = answer.seq
	}
	for _, r := range answer.read {
		if r.lock {
			*lock = max(*lock, r.seq)
		}
	}
	if len(answer.read) > 20 {
		*seen = answer.read[len(answer.read)-10].seq
	}
}

// do is one operation, and part of the history unless it certainly did not happen.
func (w *doorWorld) do(c, b int, ask doorAsk) (doorAnswer, bool) {
	called := time.Since(w.start)
	answer, err := w.ask(w.logs[c/2], w.books[b], ask)
	returned := int64(time.Since(w.start))
	switch code := quipu.CodeOf(err); code {
	case "":
	case quipu.CodeConflict:
		answer = doorAnswer{lost: true, seq: quipu.AsError(err).Seq}
	case quipu.CodeUnknown:
		answer, returned = doorAnswer{unknown: true}, math.MaxInt64
	case quipu.CodeNoNode, quipu.CodeStopping, quipu.CodeLogStopped:
		return answer, false // nothing happened
	default:
		w.t.Errorf("%+v: %v", ask, err)
		return answer, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if answer.unknown {
		w.unknown++
	}
	w.history[b] = append(w.history[b], porcupine.Operation{ClientId: c, Input: ask, Output: answer, Call: int64(called), Return: returned})
	return answer, true
}

func (w *doorWorld) ask(l *sdk.Log, book quipu.Book, ask doorAsk) (a doorAnswer, err error) {
	ctx := w.t.Context()
	switch ask.kind {
	case 't':
		a.seq, err = l.Tail(ctx, book, quipu.Linearizable)
	case 'r':
		for r, e := range l.Range(ctx, book, quipu.TagAll, ask.from, quipu.SeqMax) {
			if e != nil {
				return a, e
			}
			a.read = append(a.read, doorRecord{r.Seq, string(r.Data), len(r.Tags) > 0})
		}
	default:
		d := quipu.Draft{Data: []byte(ask.value)}
		if ask.cond {
			d.Tags, d.Cond = []string{lockTag}, &quipu.Cond{Tag: lockTag, Last: ask.last}
		}
		if ask.producer > 0 {
			d.Producer = quipu.Producer{ID: uint64(ask.producer), Epoch: 1, N: ask.n}
		}
		a.seq, err = l.Append(ctx, book, d)
	}
	return a, err
}

// check reads a book as it is in the end. Nothing is ever trimmed, so that tells which of the appends without an answer
// happened, and where; those that did not are no part of the history.
func (w *doorWorld) check(b int) {
	w.t.Helper()
	var end doorAnswer
	if !poll(func() bool {
		var ok bool
		end, ok = w.do(0, b, doorAsk{kind: 'r'})
		return ok
	}) {
		w.t.Fatal("the node did not come back")
	}
	seqs := map[string]quipu.Seq{}
	for _, r := range end.read {
		if _, twice := seqs[r.value]; twice {
			w.t.Errorf("book %d has %s twice", b, r.value)
		}
		seqs[r.value] = r.seq
	}
	history := slices.DeleteFunc(w.history[b], func(o porcupine.Operation) bool {
		return o.Output.(doorAnswer).unknown && seqs[o.Input.(doorAsk).value] == 0
	})
	for i, o := range history {
		if o.Output.(doorAnswer).unknown {
			history[i].Output = doorAnswer{seq: seqs[o.Input.(doorAsk).value]}
		}
	}
	if result := porcupine.CheckOperationsTimeout(bookModel, history, 20*time.Second); result != porcupine.Ok {
		w.t.Errorf("book %d, a history of %d operations: %v", b, len(history), result)
	}
	w.t.Logf("book %d: %d operations, %d records; in all %d outcomes were not known, %d numbers repeated", b, len(history), len(end.read), w.unknown, w.repeats)
}

// bookState is a book as its history makes it.
type bookState struct {
	records *bookNode // the newest; nil for none
	tail    quipu.Seq // at least that
	lock    quipu.Seq // the newest record of lockTag
	numbers [doorClients + 1]struct {
		n   uint64
		seq quipu.Seq
	}
}

// bookNode is a record and all before it.
type bookNode struct {
	doorRecord
	before *bookNode
	hash   uint64 // of all
}

var bookSeed = maphash.MakeSeed()

func (s bookState) with(r doorRecord) bookState {
	before := uint64(0)
	if s.records != nil {
		before = s.records.hash
	}
	s.records = &bookNode{r, s.records, maphash.Comparable(bookSeed, [3]any{before, r.seq, r.value})}
	s.tail = r.seq
	if r.lock {
		s.lock = r.seq
	}
	return s
}

// since are the records from a seq on.
func (s bookState) since(from quipu.Seq) (all []doorRecord) {
	for n := s.records; n != nil && n.seq >= from; n = n.before {
		all = append(all, n.doorRecord)
	}
	slices.Reverse(all)
	return all
}

var bookModel = porcupine.Model{
	Init: func() any { return bookState{} },
	Step: func(state, input, output any) (bool, any) {
		return bookStep(state.(bookState), input.(doorAsk), output.(doorAnswer))
	},
	Equal: func(a, b any) bool {
		s, u := a.(bookState), b.(bookState)
		same := s.records == u.records || s.records != nil && u.records != nil && s.records.hash == u.records.hash
		s.records, u.records = nil, nil
		return same && s == u
	},
}

func bookStep(s bookState, ask doorAsk, a doorAnswer) (bool, any) {
	switch {
	case ask.kind == 't':
		ok := a.seq >= s.tail
		s.tail = max(s.tail, a.seq)
		return ok, s
	case ask.kind == 'r':
		return slices.Equal(a.read, s.since(ask.from)), s
	case a.lost: // it takes a place that nobody sees
		return ask.cond && s.lock != ask.last && a.seq == s.lock, s
	case ask.producer > 0 && s.numbers[ask.producer].n >= ask.n: // again
		return s.numbers[ask.producer].n == ask.n && s.numbers[ask.producer].seq == a.seq, s
	case ask.cond && s.lock != ask.last, a.seq <= s.tail:
		return false, s
	}
	if p := ask.producer; p > 0 {
		if ask.n != s.numbers[p].n+1 {
			return false, s
		}
		s.numbers[p].n, s.numbers[p].seq = ask.n, a.seq
	}
	return true, s.with(doorRecord{a.seq, ask.value, ask.cond})
}

// The checker finds what it is there for: an answer that no order explains.
func TestTheCheckerOfTheLogFindsALostRecordAndAStaleTail(t *testing.T) {
	op := func(call, ret int64, in doorAsk, out doorAnswer) porcupine.Operation {
		return porcupine.Operation{Input: in, Output: out, Call: call, Return: ret}
	}
	appended := op(1, 2, doorAsk{kind: 'a', value: "x"}, doorAnswer{seq: 5})
	for name, second := range map[string]porcupine.Operation{
		"lost":        op(3, 4, doorAsk{kind: 'r'}, doorAnswer{}),
		"stale tail":  op(3, 4, doorAsk{kind: 't'}, doorAnswer{seq: 4}),
		"same seq":    op(3, 4, doorAsk{kind: 'a', value: "y"}, doorAnswer{seq: 5}),
		"two winners": op(3, 4, doorAsk{kind: 'a', value: "z", cond: true, last: 3}, doorAnswer{seq: 6}),
	} {
		if porcupine.CheckOperations(bookModel, []porcupine.Operation{appended, second}) {
			t.Errorf("%s was not found", name)
		}
	}
	if !porcupine.CheckOperations(bookModel, []porcupine.Operation{appended, op(1, 4, doorAsk{kind: 'r'}, doorAnswer{})}) {
		t.Error("a read at the same time may come first")
	}
}

// One listener serves Dapr and the log, each with its own guard.
func TestTheDoorOfTheLogAsksForTheTokenAndKeepsNamespacesApart(t *testing.T) {
	n := start(t, func(c *Config) { c.Token = "secret" })
	ctx := t.Context()
	theirs := clientOf(t, n.info.HTTP, "secret", "team")
	if _, err := theirs.Deploy(ctx, "app", files{"main.py": versioned(1), "quipu.yaml": function("f", ".", "python")}.pack(t)); err != nil {
		t.Fatal(err)
	}
	mine, err := n.client.Log(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	book, err := mine.CreateBook(ctx, "orders", quipu.BookOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mine.Append(ctx, book, quipu.Draft{Data: []byte("paid")}); err != nil {
		t.Fatal(err)
	}
	own, err := mine.OpenBook(ctx, "quipu/default")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		token, namespace string
		code             quipu.Code // of an append to the book of the default namespace
	}{
		"without a token": {"", "", quipu.CodeToken}, "by another namespace": {"secret", "team", quipu.CodeNoBook},
		"by one that is not there": {"secret", "nowhere", quipu.CodeNotFound}, "as it should be": {"secret", "default", ""},
	} {
		l, err := sdk.OpenLog(sdk.LogOptions{Address: n.info.DaprGRPC, Token: c.token, Namespace: c.namespace})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Append(ctx, book, quipu.Draft{}); quipu.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := l.Append(ctx, own, quipu.Draft{}); err == nil {
			t.Errorf("%s: a book of the platform was written", name)
		}
		if _, err := l.CreateBook(ctx, "new", quipu.BookOptions{}); (err == nil) != (c.code == "" || c.code == quipu.CodeNoBook) { // a namespace has books of its own
			t.Errorf("%s: create: %v", name, err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A node that is asked to stop does not wait for streams that have no end of their own.
func TestANodeStopsWhileItsBooksAreFollowed(t *testing.T) {
	n := start(t)
	l, err := sdk.OpenLog(sdk.LogOptions{Address: n.info.DaprGRPC, ReconnectMax: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	book, err := l.CreateBook(t.Context(), "orders", quipu.BookOptions{})
	if err == nil {
		_, err = l.Append(t.Context(), book, quipu.Draft{}) // and a stream of appends stays open
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range l.Subscribe(t.Context(), book, quipu.TagAll, 0) {
		if err == nil {
			began := time.Now()
			if err := n.stop(); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > drainMax/2 {
				t.Errorf("the node took %s to stop", took)
			}
		} else if code := quipu.CodeOf(err); code != quipu.CodeStopping && code != quipu.CodeNoNode {
			t.Errorf("the subscription ended with %v", err)
		}
	}
}

// A method that the log does not have is not let past Dapr's guard because of its name.
func TestAMethodThatTheLogDoesNotHaveIsGuardedAsAnyOther(t *testing.T) {
	n := start(t, func(c *Config) { c.Token = "secret" })
	conn, err := grpc.NewClient(n.info.DaprGRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	err = conn.Invoke(t.Context(), "/quipu.log.v1.LogService/Nothing", &logv1.TailRequest{}, &logv1.TailResponse{})
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a token: %v", err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "dapr-api-token", "secret")
	if err := conn.Invoke(ctx, "/quipu.log.v1.LogService/Nothing", &logv1.TailRequest{}, &logv1.TailResponse{}); err == nil {
		t.Error("with the token it was answered")
	}
	if _, err := n.client.Books(t.Context()); err != nil {
		t.Errorf("the node does not go on: %v", err)
	}
}
