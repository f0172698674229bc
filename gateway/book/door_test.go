package book_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/quipu-run/quipu"
	logv1 "github.com/quipu-run/quipu/api/log/v1"
	"github.com/quipu-run/quipu/gateway/book"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/xtest"
)

func model() *xtest.Model { return xtest.NewModel(xtest.NewClock(time.Unix(1e9, 0))) }

// rpc is a client of the protocol itself.
func (n *node) rpc() logv1.LogServiceClient {
	n.t.Helper()
	conn, err := grpc.NewClient(n.addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(logv1.MessageBytesMax)))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = conn.Close() })
	return logv1.NewLogServiceClient(conn)
}

// codeOf is what the detail of a status says.
func codeOf(err error) quipu.Code {
	for _, d := range status.Convert(err).Details() {
		if e, is := d.(*logv1.Error); is {
			return quipu.Code(e.GetCode())
		}
	}
	return ""
}

func create(t *testing.T, l quipu.Log) quipu.Book {
	t.Helper()
	b, err := l.CreateBook(t.Context(), "mine", quipu.BookOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func read(t *testing.T, l quipu.Log, b quipu.Book) (all []string) {
	t.Helper()
	for r, err := range l.Range(t.Context(), b, quipu.TagAll, 0, quipu.SeqMax) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(r.Data))
	}
	return all
}

func want[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func draft(data string, tags ...string) *logv1.Draft {
	return logv1.NewDraft(&quipu.Draft{Data: []byte(data), Tags: tags})
}

func TestABadAppendInAStreamFailsAloneAndTheStreamGoesOn(t *testing.T) {
	m := model()
	b := create(t, m)
	first, err := m.Append(t.Context(), b, quipu.Draft{Data: []byte("0"), Tags: []string{"t"}})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := serve(t, m).rpc().AppendStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lost := draft("lost", "t")
	lost.Cond = &logv1.Cond{Tag: []byte("t")}
	asks := []*logv1.AppendRequest{
		{Id: 1, Book: uint64(b), Drafts: []*logv1.Draft{draft("1")}},
		{Id: 2, Book: uint64(b), Drafts: []*logv1.Draft{draft("bad", "")}},
		{Id: 3, Book: 77, Drafts: []*logv1.Draft{draft("nowhere")}},
		{Id: 4, Book: uint64(b), Drafts: []*logv1.Draft{lost}},
		{Id: 5, Book: uint64(b), Drafts: []*logv1.Draft{draft("5a"), draft("5b")}},
		{Id: 6, Book: uint64(b)},
		{Id: 7, Book: uint64(b), Drafts: []*logv1.Draft{{Kind: 300}}},
		{Id: 8, Book: uint64(b), Drafts: []*logv1.Draft{draft("8")}},
	}
	if err := stream.Send(&logv1.AppendStreamRequest{Appends: asks}); err != nil {
		t.Fatal(err)
	}
	results := answers(t, stream, len(asks))
	for id, code := range map[uint64]quipu.Code{2: quipu.CodeRecord, 3: quipu.CodeNoBook, 4: quipu.CodeConflict, 6: quipu.CodeRecord, 7: quipu.CodeRecord} {
		want(t, fmt.Sprint("append ", id), quipu.Code(results[id].GetError().GetCode()), code)
	}
	want(t, "the winner", quipu.Seq(results[4].GetError().GetSeq()), first)
	for id, n := range map[uint64]int{1: 1, 5: 2, 8: 1} {
		want(t, fmt.Sprint("seqs of append ", id), len(results[id].GetSeqs()), n)
	}
	want(t, "the book", fmt.Sprint(read(t, m, b)), "[0 1 5a 5b 8]")
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ended with %v", err)
	}
}

type appends = grpc.BidiStreamingClient[logv1.AppendStreamRequest, logv1.AppendStreamResponse]

func answers(t *testing.T, stream appends, n int) map[uint64]*logv1.AppendResult {
	t.Helper()
	results := map[uint64]*logv1.AppendResult{}
	for len(results) < n {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range m.GetResults() {
			results[r.GetId()] = r
		}
	}
	return results
}

func TestPlainAndNumberedAppendsOfAStreamTakeEffectInTheOrderInWhichTheyWereSent(t *testing.T) {
	const each = 300
	m := model()
	b := create(t, m)
	stream, err := serve(t, m).rpc().AppendStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(each) {
		numbered := draft(fmt.Sprintf("n%03d", i), "numbered")
		numbered.Producer = &logv1.Producer{Id: 7, N: i + 1}
		err := stream.Send(&logv1.AppendStreamRequest{Appends: []*logv1.AppendRequest{
			{Id: 2 * i, Book: uint64(b), Drafts: []*logv1.Draft{draft(fmt.Sprintf("p%03d", i), "plain")}},
			{Id: 2*i + 1, Book: uint64(b), Drafts: []*logv1.Draft{numbered}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	for id, r := range answers(t, stream, 2*each) {
		if r.GetError() != nil {
			t.Fatalf("append %d: %v", id, r.GetError())
		}
	}
	for _, tag := range []string{"plain", "numbered"} {
		var got []string
		for r, err := range m.Range(t.Context(), b, tag, 0, quipu.SeqMax) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(r.Data))
		}
		if len(got) != each || !slices.IsSorted(got) {
			t.Errorf("%s: %d records, in order: %t", tag, len(got), slices.IsSorted(got))
		}
	}
}

// held is a log whose appends wait until they are let go.
type held struct {
	*xtest.Model
	begun chan struct{} // gets a value for each append that begins to wait
	let   chan struct{} // closed when they may go on
}

func hold() *held { return &held{model(), make(chan struct{}, 1000), make(chan struct{})} }

func (h *held) wait(ctx context.Context) error {
	h.begun <- struct{}{}
	select {
	case <-h.let:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *held) Append(ctx context.Context, b quipu.Book, d quipu.Draft) (quipu.Seq, error) {
	if err := h.wait(ctx); err != nil {
		return 0, err
	}
	return h.Model.Append(ctx, b, d)
}

func (h *held) AppendBatch(ctx context.Context, b quipu.Book, ds []quipu.Draft) ([]quipu.Seq, error) {
	if err := h.wait(ctx); err != nil {
		return nil, err
	}
	return h.Model.AppendBatch(ctx, b, ds)
}

// A stream that ends with a code has answered all that it took.
func TestADoorThatClosesAnswersWhatItTookAndSaysWhyItEnds(t *testing.T) {
	h := hold()
	b := create(t, h)
	n := serve(t, h)
	stream, err := n.rpc().AppendStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&logv1.AppendStreamRequest{Appends: []*logv1.AppendRequest{{Id: 1, Book: uint64(b), Drafts: []*logv1.Draft{draft("taken")}}}}); err != nil {
		t.Fatal(err)
	}
	follow, err := n.rpc().Read(t.Context(), &logv1.ReadRequest{Book: uint64(b), Follow: true})
	if err == nil {
		_, err = follow.Header()
	}
	if err != nil {
		t.Fatal(err)
	}
	<-h.begun
	n.door.Close()
	_, err = follow.Recv()
	want(t, "a subscription", codeOf(err), quipu.CodeStopping)
	close(h.let)
	if r := answers(t, stream, 1)[1]; len(r.GetSeqs()) != 1 {
		t.Errorf("what was taken got %v", r)
	}
	_, err = stream.Recv()
	want(t, "the stream", codeOf(err), quipu.CodeStopping)
	want(t, "the book", fmt.Sprint(read(t, h, b)), "[taken]")
}

// A client that sends without end while the log is slow, and never looks at an answer, has to wait: what is not read from
// it stays with it. Others go on.
func TestAClientThatIsAheadOfTheLogIsNotReadFrom(t *testing.T) {
	const bytes, tooMuch = 16 << 10, 256 << 20
	h := hold()
	b := create(t, h)
	n := serve(t, h)
	stream, err := n.rpc().AppendStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var sent atomic.Int64
	progress := make(chan struct{}, 1)
	go func() {
		data := make([]byte, bytes)
		for id := uint64(1); sent.Load() < tooMuch; id++ {
			ask := &logv1.AppendRequest{Id: id, Book: uint64(b), Drafts: []*logv1.Draft{{Data: data}}}
			if stream.Send(&logv1.AppendStreamRequest{Appends: []*logv1.AppendRequest{ask}}) != nil {
				return // the test is over
			}
			sent.Add(bytes)
			select {
			case progress <- struct{}{}:
			default:
			}
		}
	}()
	for stopped := false; !stopped; {
		select {
		case <-progress:
		case <-time.After(time.Second):
			stopped = true
		}
	}
	// 64 MiB are on their way, and the windows and buffers of one connection are full.
	if got := sent.Load(); got < 32<<20 || got > 96<<20 {
		t.Errorf("it sent %d MiB before it had to wait", got>>20)
	}
	other := n.client()
	if _, err := other.Tail(t.Context(), b, quipu.Linearizable); err != nil {
		t.Errorf("another client: %v", err)
	}
	close(h.let)
	if _, err := other.Append(t.Context(), b, quipu.Draft{Data: []byte("other")}); err != nil {
		t.Errorf("another client: %v", err)
	}
}

// swallowing is a log that keeps nothing but how many records it was given.
type swallowing struct {
	*xtest.Model
	records atomic.Int64
}

func (s *swallowing) AppendBatch(_ context.Context, _ quipu.Book, ds []quipu.Draft) ([]quipu.Seq, error) {
	s.records.Add(int64(len(ds)))
	return make([]quipu.Seq, len(ds)), nil
}

// Answers take room too: a client that never fetches them is not read from for ever.
func TestAClientThatFetchesNoAnswersIsNotReadFrom(t *testing.T) {
	const each, tooMany = 10_000, 50_000_000
	s := &swallowing{Model: model()}
	b := create(t, s)
	n := serve(t, s)
	stream, err := n.rpc().AppendStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	progress := make(chan struct{}, 1)
	go func() {
		ask := &logv1.AppendRequest{Book: uint64(b), Drafts: slices.Repeat([]*logv1.Draft{{}}, each)}
		ask.Drafts[0] = &logv1.Draft{Cond: &logv1.Cond{}} // so that others do not wait for its answer to be sent
		for i := 0; i < tooMany/each; i++ {
			if stream.Send(&logv1.AppendStreamRequest{Appends: []*logv1.AppendRequest{ask}}) != nil {
				return // the test is over
			}
			select {
			case progress <- struct{}{}:
			default:
			}
		}
	}()
	for stopped := false; !stopped; {
		select {
		case <-progress:
		case <-time.After(time.Second):
			stopped = true
		}
	}
	// 64 MiB are a million empty drafts.
	if got := s.records.Load(); got < 500_000 || got > 2_000_000 {
		t.Errorf("%d records were appended for a client that fetches no answers", got)
	}
	if _, err := n.client().AppendBatch(t.Context(), b, make([]quipu.Draft, 2)); err != nil {
		t.Errorf("another client: %v", err)
	}
}

// counting is a log that knows how many records its ranges yielded.
type counting struct {
	*xtest.Model
	yielded atomic.Int64
}

func (c *counting) Range(ctx context.Context, b quipu.Book, tag string, from, to quipu.Seq) iter.Seq2[quipu.Record, error] {
	return func(yield func(quipu.Record, error) bool) {
		for r, err := range c.Model.Range(ctx, b, tag, from, to) {
			c.yielded.Add(1)
			if !yield(r, err) {
				return
			}
		}
	}
}

func TestAReaderThatStopsReadingIsWaitedForAndHoldsUpNobody(t *testing.T) {
	const records, bytes = 1024, 64 << 10
	c := &counting{Model: model()}
	b := create(t, c)
	if _, err := c.AppendBatch(t.Context(), b, slices.Repeat([]quipu.Draft{{Data: make([]byte, bytes)}}, records)); err != nil {
		t.Fatal(err)
	}
	n := serve(t, c)
	lazy, err := n.rpc().Read(t.Context(), &logv1.ReadRequest{Book: uint64(b), Follow: true})
	if err == nil {
		_, err = lazy.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	// Another one reads everything, twice.
	for range 2 {
		want(t, "records of another reader", len(read(t, n.client(), b)), records)
	}
	if got := c.yielded.Load() - 2*records; got > records/4 {
		t.Errorf("%d of %d records were read for a client that took one message", got, records)
	}
	got := 0
	for got < records-4 { // the first message had four
		m, err := lazy.Recv()
		if err != nil {
			t.Fatal(err)
		}
		got += len(m.GetRecords())
	}
	want(t, "the rest, when it reads again", got, records-4)
}

func TestWithATokenOnlyWhoKnowsItIsServed(t *testing.T) {
	n := serve(t, model(), func(o *book.Options) { o.Token = "secret" })
	for given, code := range map[string]quipu.Code{"": quipu.CodeToken, "wrong": quipu.CodeToken, "secret": ""} {
		l := n.client(func(o *sdk.LogOptions) { o.Token = given })
		_, err := l.Books(t.Context())
		want(t, "list with token "+given, quipu.CodeOf(err), code)
		_, err = l.Append(t.Context(), 1, quipu.Draft{})
		want(t, "append with token "+given, quipu.CodeOf(err), map[bool]quipu.Code{true: quipu.CodeNoBook, false: quipu.CodeToken}[code == ""])
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer secret")
	if _, err := n.rpc().OpenBook(ctx, &logv1.OpenBookRequest{Name: "x"}); codeOf(err) != quipu.CodeNoBook {
		t.Errorf("with a bearer token: %v", err)
	}
}

func TestWithoutATokenOnlyLoopbackAndNoWebPageIsServed(t *testing.T) {
	n := serve(t, model())
	ctx := metadata.AppendToOutgoingContext(t.Context(), "origin", "http://evil.example")
	_, err := n.rpc().OpenBook(ctx, &logv1.OpenBookRequest{Name: "x"})
	want(t, "from a page", codeOf(err), quipu.CodeOrigin)
	l := n.client(func(o *sdk.LogOptions) { o.Dial = []grpc.DialOption{grpc.WithAuthority("evil.example")} })
	_, err = l.Books(t.Context())
	want(t, "by a rebound name", quipu.CodeOf(err), quipu.CodeOrigin)
}

// names is the log of a namespace that sees some books.
type names struct {
	*xtest.Model
	see func(name string) bool
}

func (n names) Books(ctx context.Context) ([]quipu.BookInfo, error) {
	books, err := n.Model.Books(ctx)
	return slices.DeleteFunc(books, func(b quipu.BookInfo) bool { return !n.see(b.Name) }), err
}

func TestBooksOfThePlatformAreReadOnlyAndThoseOfOtherNamespacesAreNotThere(t *testing.T) {
	m := model()
	ctx := t.Context()
	var ids []quipu.Book
	for _, name := range []string{"quipu/default", "mine", "quipu/other"} {
		id, err := m.CreateBook(ctx, name, quipu.BookOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Append(ctx, id, quipu.Draft{Data: []byte(name)}); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	n := serve(t, m, func(o *book.Options) {
		o.Log = func(namespace string) (quipu.Log, error) {
			if namespace != "default" {
				return nil, &quipu.Error{Code: quipu.CodeNotFound}
			}
			return names{m, func(name string) bool { return name != "quipu/other" }}, nil
		}
	})
	l := n.client()
	for i, codes := range [][2]quipu.Code{{"", quipu.CodeBookLocked}, {"", ""}, {quipu.CodeNoBook, quipu.CodeNoBook}} {
		b := ids[i]
		for what, err := range reads(ctx, l, b) {
			want(t, fmt.Sprintf("book %d: %s", b, what), quipu.CodeOf(err), codes[0])
		}
		for what, err := range writes(ctx, l, b) {
			want(t, fmt.Sprintf("book %d: %s", b, what), quipu.CodeOf(err), codes[1])
		}
	}
	_, err := l.CreateBook(ctx, "quipu/more", quipu.BookOptions{})
	want(t, "a name of the platform", quipu.CodeOf(err), quipu.CodeBookLocked)
	_, err = n.client(func(o *sdk.LogOptions) { o.Namespace = "nowhere" }).Books(ctx)
	want(t, "a namespace that is not there", quipu.CodeOf(err), quipu.CodeNotFound)
}

// reads and writes are all methods that name a book.
func reads(ctx context.Context, l quipu.Log, b quipu.Book) map[string]error {
	out := map[string]error{}
	_, out["next"] = l.Next(ctx, b, "", 0)
	_, out["prev"] = l.Prev(ctx, b, "", quipu.SeqMax)
	_, out["tail"] = l.Tail(ctx, b, quipu.Local)
	_, out["producer"] = l.Producer(ctx, b, 1)
	for _, err := range l.Range(ctx, b, "", 0, quipu.SeqMax) {
		out["range"] = err
		break
	}
	for _, err := range l.Subscribe(ctx, b, "", 0) {
		out["subscribe"] = err
		break
	}
	return out
}

func writes(ctx context.Context, l *sdk.Log, b quipu.Book) map[string]error {
	out := map[string]error{}
	var seq quipu.Seq
	seq, out["append"] = l.Append(ctx, b, quipu.Draft{Data: []byte("x")})
	_, out["batch"] = l.AppendBatch(ctx, b, []quipu.Draft{{}, {}})
	_, out["large append"] = l.Append(ctx, b, quipu.Draft{Data: make([]byte, 1<<20)})
	out["each"] = l.AppendEach(ctx, b, []quipu.Draft{{}})[0].Err
	out["aux"] = l.SetAux(ctx, b, seq, []byte("hint"))
	out["trim"] = l.Trim(ctx, b, "", seq)
	out["set"] = l.SetBook(ctx, b, quipu.BookOptions{Quota: 1 << 30})
	out["delete"] = l.DeleteBook(ctx, b)
	return out
}
