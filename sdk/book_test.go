package sdk_test

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/gateway"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/test/fake"
)

func TestABookOverTheClientDoesWhatTheLogDoes(t *testing.T) {
	c, _ := open(t, "secret")
	ctx := t.Context()
	options := quipu.BookOptions{MaxAge: 36 * time.Hour, MaxBytes: 1 << 20, Quota: 5_000_000_000}
	b, err := c.CreateBook(ctx, "a/b c", options)
	must(t, err)
	if b.Options.Contract() != options || b.Name != "a/b c" {
		t.Errorf("made %+v", b)
	}
	_, err = c.CreateBook(ctx, "a/b c", options)
	wantCode(t, err, quipu.CodeBookExists)
	first, err := c.AppendRecord(ctx, "a/b c", quipu.Draft{Tags: []string{"x=1", "&"}, Data: []byte{0, 255}, Cond: &quipu.Cond{Tag: "x=1"}})
	must(t, err)
	_, err = c.AppendRecord(ctx, "a/b c", quipu.Draft{Cond: &quipu.Cond{Tag: "x=1"}})
	if wantCode(t, err, quipu.CodeConflict); quipu.AsError(err).Seq != first {
		t.Errorf("the winner is %s, want %s", quipu.AsError(err).Seq, first)
	}
	batch := []quipu.Draft{{Data: []byte("one"), Producer: quipu.Producer{ID: 1 << 63, Epoch: 1, N: 1}}, {Tags: []string{"&"}, Cond: &quipu.Cond{Tag: "x=1", Last: first}}}
	seqs, err := c.AppendBatch(ctx, "a/b c", batch)
	must(t, err)
	again, err := c.AppendBatch(ctx, "a/b c", batch)
	must(t, err)
	if !slices.Equal(seqs, again) {
		t.Errorf("a batch that was sent again is %v, not %v", again, seqs)
	}
	p, err := c.BookProducer(ctx, "a/b c", 1<<63)
	must(t, err)
	if p != batch[0].Producer {
		t.Errorf("the producer is %+v", p)
	}
	page, err := c.ReadBook(ctx, "a/b c", sdk.ReadRequest{Tag: "&", Reverse: true})
	must(t, err)
	if len(page.Items) != 2 || page.Items[0].Seq != seqs[1] || !slices.Equal(page.Items[1].Data, []byte{0, 255}) {
		t.Errorf("read %+v", page)
	}
	must(t, c.TrimBook(ctx, "a/b c", "", first))
	_, err = c.ReadBook(ctx, "a/b c", sdk.ReadRequest{From: first.String()})
	wantCode(t, err, quipu.CodeTrimmed)
	quota := quipu.Size(0)
	b, err = c.ChangeBook(ctx, "a/b c", sdk.OptionsChange{Quota: &quota})
	must(t, err)
	if options.Quota = 0; b.Options.Contract() != options || b.Trim != first || b.Records != 2 {
		t.Errorf("changed to %+v", b)
	}
	must(t, c.DeleteBook(ctx, "a/b c"))
	_, err = c.Book(ctx, "a/b c")
	wantCode(t, err, quipu.CodeNoBook)
	_, err = c.AppendRecord(ctx, "", quipu.Draft{})
	wantCode(t, err, quipu.CodeUsage)
}

func wantCode(t *testing.T, err error, code quipu.Code) {
	t.Helper()
	if quipu.CodeOf(err) != code {
		t.Fatalf("got %v, want %s", err, code)
	}
}

func TestTheLargestRecordFitsThroughEveryWay(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a gigabyte for a moment")
	}
	c, _ := open(t, "secret")
	ctx := t.Context()
	_, err := c.CreateBook(ctx, "big", quipu.BookOptions{})
	must(t, err)
	data := []byte(strings.Repeat("\xff", quipu.DataBytesMax))
	_, err = c.AppendRecord(ctx, "big", quipu.Draft{Data: data})
	must(t, err)
	_, err = c.AppendBatch(ctx, "big", []quipu.Draft{{Data: data}})
	must(t, err)
	n := 0
	for rec, err := range c.TailBook(ctx, "big", sdk.ReadRequest{From: "0"}) {
		must(t, err)
		page, err := c.ReadBook(ctx, "big", sdk.ReadRequest{From: rec.Seq.String(), Limit: 1})
		must(t, err)
		if !slices.Equal(rec.Data, data) || len(page.Items) != 1 || !slices.Equal(page.Items[0].Data, data) {
			t.Fatalf("record %d came with %d bytes", n, len(rec.Data))
		}
		if n++; n == 2 {
			break
		}
	}
	_, err = c.AppendRecord(ctx, "big", quipu.Draft{Data: append(data, 0)})
	wantCode(t, err, quipu.CodeBodySize)
}

func TestATailSaysWhyItEndedAndWhereToGoOn(t *testing.T) {
	ns := fake.New()
	gw := gateway.New(gateway.Options{Node: func() sdk.Node { return sdk.Node{} }, Namespaces: func(string) (gateway.Namespace, error) { return ns, nil }})
	srv := httptest.NewServer(gw)
	defer srv.Close()
	c, err := sdk.New(sdk.Options{URL: srv.URL})
	must(t, err)
	at := ns.Book.Put("orders", "one")
	tail := func(end func(), code quipu.Code, hint string) {
		t.Helper()
		var ended error
		for rec, err := range c.TailBook(t.Context(), "orders", sdk.ReadRequest{From: at.String()}) {
			if ended = err; rec.Seq == at {
				end()
			}
		}
		wantCode(t, ended, code)
		if e := quipu.AsError(ended); !strings.Contains(e.Hint, hint) {
			t.Errorf("the hint is %q, without %q", e.Hint, hint)
		}
	}
	tail(gw.Drain, quipu.CodeNoNode, "--from "+(at+1).String())
	srv.Config.Handler = gateway.New(gateway.Options{Node: func() sdk.Node { return sdk.Node{} }, Namespaces: func(string) (gateway.Namespace, error) { return ns, nil }})
	tail(func() { must(t, ns.Log().Close()) }, quipu.CodeLogStopped, "restart the node")
}
