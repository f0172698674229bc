package book_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

func TestANodeThatIsNotThereIsSaidToBeAndNothingWasChanged(t *testing.T) {
	n := serve(t, model())
	n.down()
	l := n.client()
	for what, err := range reads(t.Context(), l, 1) {
		want(t, what, quipu.CodeOf(err), quipu.CodeNoNode)
	}
	for what, err := range writes(t.Context(), l, 1) {
		want(t, what, quipu.CodeOf(err), quipu.CodeNoNode)
	}
	n.up()
	n.awaken(l)
	b := create(t, l)
	if _, err := l.Append(t.Context(), b, quipu.Draft{Data: []byte("now")}); err != nil {
		t.Fatal(err)
	}
	want(t, "the book", fmt.Sprint(read(t, n.log, b)), "[now]")
}

// What was sent and got no answer may be there: the client must not say that it failed.
func TestAnAppendThatWasSentWhenTheConnectionBrokeOrTheCallerLeftIsUnknown(t *testing.T) {
	for name, leave := range map[string]func(n *node, cancel func()){
		"break": func(n *node, _ func()) { n.server.Stop() },
		"leave": func(_ *node, cancel func()) { cancel() },
	} {
		for size, data := range map[string][]byte{"small": []byte("x"), "large": make([]byte, 1<<20)} {
			t.Run(size+" "+name, func(t *testing.T) {
				h := hold()
				b := create(t, h)
				n := serve(t, h)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				answered := make(chan error, 1)
				go func() {
					_, err := n.client().Append(ctx, b, quipu.Draft{Data: data})
					answered <- err
				}()
				<-h.begun
				leave(n, cancel)
				want(t, "the append", quipu.CodeOf(<-answered), quipu.CodeUnknown)
			})
		}
	}
}

func TestAClosedRemoteLogAnswersWhoWaits(t *testing.T) {
	h := hold()
	b := create(t, h)
	l := serve(t, h).client()
	answered := make(chan error, 1)
	go func() {
		_, err := l.Append(t.Context(), b, quipu.Draft{})
		answered <- err
	}()
	<-h.begun
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, "who waited", quipu.CodeOf(<-answered), quipu.CodeUnknown)
	for what, err := range writes(t.Context(), l, b) {
		want(t, what, quipu.CodeOf(err), quipu.CodeLogStopped)
	}
}

// A subscriber sees each record once and in order while its node restarts under it.
func TestASubscriptionGoesOnAfterBreaksWithoutLossOrDouble(t *testing.T) {
	const rounds, each = 4, 50
	n := serve(t, model())
	l := n.client()
	b := create(t, l)
	got := make(chan string, rounds*each)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		for r, err := range l.Subscribe(ctx, b, quipu.TagAll, 0) {
			if err != nil {
				ended <- err
				return
			}
			got <- string(r.Data)
		}
	}()
	next := func(text string) {
		t.Helper()
		select {
		case data := <-got:
			want(t, "record", data, text)
		case err := <-ended:
			t.Fatal(err)
		}
	}
	if _, err := l.Append(t.Context(), b, quipu.Draft{Data: []byte("first")}); err != nil {
		t.Fatal(err)
	}
	next("first") // it is there
	for round := range rounds {
		for i := range each {
			if _, err := n.log.Append(t.Context(), b, quipu.Draft{Data: []byte(fmt.Sprint(round, ".", i))}); err != nil {
				t.Fatal(err)
			}
			if i == each/2 && round%2 == 0 { // in the middle of records, and, below, while it waits
				n.down()
				n.up()
			}
		}
		for i := range each {
			next(fmt.Sprint(round, ".", i))
		}
		n.down()
		n.up()
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}

func TestASubscriptionGivesUpWhenItsNodeStaysAway(t *testing.T) {
	n := serve(t, model())
	l := n.client(func(o *sdk.LogOptions) { o.ReconnectMax = 100 * time.Millisecond })
	b := create(t, l)
	if _, err := l.Append(t.Context(), b, quipu.Draft{}); err != nil {
		t.Fatal(err)
	}
	for _, err := range l.Subscribe(t.Context(), b, quipu.TagAll, 0) {
		if err == nil {
			n.down()
			continue
		}
		want(t, "it ended with", quipu.CodeOf(err), quipu.CodeNoNode)
	}
	n.up() // for its end
}

// Callers of one client share its stream, and the log makes what comes together one batch.
func TestManyCallersShareAStreamAndBatchesOfTheLog(t *testing.T) {
	const callers, each = 500, 20
	c := &batches{held: hold()}
	close(c.let)
	c.begun = make(chan struct{}, callers*each)
	b := create(t, c)
	l := serve(t, c).client()
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			last := quipu.Seq(0)
			for i := range each {
				seq, err := l.Append(t.Context(), b, quipu.Draft{Data: fmt.Append(nil, caller, ".", i)})
				if err != nil || seq <= last {
					t.Errorf("append %d of caller %d: %s after %s, %v", i, caller, seq, last, err)
					return
				}
				last = seq
			}
		})
	}
	wg.Wait()
	all := map[string]bool{}
	for _, data := range read(t, c, b) {
		all[data] = true
	}
	want(t, "different records", len(all), callers*each)
	if n := len(c.begun); n > callers*each/2 {
		t.Errorf("%d appends were %d batches of the log", callers*each, n)
	}
}

// batches is a log that counts in begun.
type batches struct{ *held }

func TestManyAppendsOfOneCallerAreAnsweredInTheirOrderEachForItself(t *testing.T) {
	n := serve(t, model())
	l := n.client()
	b := create(t, l)
	ds := make([]quipu.Draft, 10_000) // more than may be on their way
	for i := range ds {
		ds[i].Data = fmt.Appendf(nil, "%05d", i)
	}
	ds[17].Tags = []string{""}
	ds[4711].Data = make([]byte, 1<<20) // too large for the stream
	last := quipu.Seq(0)
	for i, a := range l.AppendEach(t.Context(), b, ds) {
		switch {
		case i == 17:
			want(t, "the bad one", quipu.CodeOf(a.Err), quipu.CodeRecord)
		case a.Err != nil:
			t.Fatalf("append %d: %v", i, a.Err)
		case i == 4711: // it overtook those on their way
		case a.Seq <= last:
			t.Fatalf("append %d has seq %s after %s", i, a.Seq, last)
		default:
			last = a.Seq
		}
	}
	want(t, "records", len(read(t, n.log, b)), len(ds)-1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, a := range l.AppendEach(ctx, b, ds[:2]) {
		if !errors.Is(a.Err, context.Canceled) {
			t.Errorf("without time: %v", a.Err)
		}
	}
}
