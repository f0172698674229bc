package xtest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/codec"
)

func trimIsMonotonic(t *testing.T, f fixture) {
	a, b, c := f.append(t, "a", "t"), f.append(t, "b", "t", "u"), f.append(t, "c", "u")
	wantCode(t, f.log.Trim(f.ctx, f.book, quipu.TagAll, c+1), quipu.CodeUsage)
	f.trim(t, "t", b)
	for _, from := range []quipu.Seq{0, a, b} {
		_, err := f.log.Next(f.ctx, f.book, "t", from)
		if at := wantCode(t, err, quipu.CodeTrimmed).Seq; at != b {
			t.Fatalf("the trim point is %s, want %s", at, b)
		}
	}
	_, err := f.log.Next(f.ctx, f.book, "t", b+1)
	wantCode(t, err, quipu.CodeNotFound)
	_, err = f.log.Prev(f.ctx, f.book, "t", c)
	wantCode(t, err, quipu.CodeTrimmed)
	wantAll(t, f.read(t, quipu.TagAll, 0), "b", "c") // a had no other tag
	wantAll(t, f.read(t, "u", 0), "b", "c")
	if r, err := f.log.Next(f.ctx, f.book, quipu.TagAll, a); err != nil || r.Seq != b {
		t.Fatalf("from a record that is trimmed in all its tags: %s, %v; want %s", r.Seq, err, b)
	}
	_, err = f.log.Prev(f.ctx, f.book, quipu.TagAll, a)
	wantCode(t, err, quipu.CodeNotFound)
	f.trim(t, quipu.TagAll, b)
	f.trim(t, quipu.TagAll, a) // lower: nothing changes
	_, err = f.log.Next(f.ctx, f.book, "u", b)
	wantCode(t, err, quipu.CodeTrimmed)
	wantAll(t, f.read(t, "u", b+1), "c")
	if tail, err := f.log.Tail(f.ctx, f.book, quipu.Local); err != nil || tail != c {
		t.Fatalf("tail %s, %v", tail, err)
	}
	_, err = f.log.Append(f.ctx, f.book, quipu.Draft{Cond: &quipu.Cond{Tag: "t", Last: b}})
	if err != nil {
		t.Fatalf("a trimmed record counts for conditions: %v", err)
	}
	books, err := f.log.Books(f.ctx)
	if err != nil || len(books) != 1 || books[0].Trim != b || books[0].Name != "orders" {
		t.Fatalf("books: %+v, %v", books, err)
	}
}

func (f fixture) trim(t *testing.T, tag string, upto quipu.Seq) {
	t.Helper()
	if err := f.log.Trim(f.ctx, f.book, tag, upto); err != nil {
		t.Fatal(err)
	}
}

func hintsChangeNothing(t *testing.T, f fixture) {
	seq := f.append(t, "a")
	_, err := f.log.Aux(f.ctx, f.book, seq)
	wantCode(t, err, quipu.CodeNotFound)
	if err := f.log.SetAux(f.ctx, f.book, seq, []byte("hint")); err != nil {
		t.Fatal(err)
	}
	if aux, err := f.log.Aux(f.ctx, f.book, seq); err == nil && string(aux) != "hint" {
		t.Fatalf("aux is %q", aux)
	}
	wantAll(t, f.read(t, quipu.TagAll, 0), "a")
}

func voidIsInvisible(t *testing.T, f fixture) {
	a := f.append(t, "a", "t")
	_, err := f.log.Append(f.ctx, f.book, quipu.Draft{Data: []byte("void"), Tags: []string{"t"}, Cond: &quipu.Cond{Tag: "t"}})
	if winner := wantCode(t, err, quipu.CodeConflict).Seq; winner != a {
		t.Fatalf("winner %s, want %s", winner, a)
	}
	if tail, err := f.log.Tail(f.ctx, f.book, quipu.Local); err != nil || tail <= a {
		t.Fatalf("a void record takes a position: tail %s, %v", tail, err)
	}
	wantAll(t, f.read(t, quipu.TagAll, 0), "a")
	wantAll(t, f.read(t, "t", 0), "a")
	if r, err := f.log.Prev(f.ctx, f.book, "t", quipu.SeqMax); err != nil || r.Seq != a {
		t.Fatalf("prev is %s, %v", r.Seq, err)
	}
	if _, err := f.log.Append(f.ctx, f.book, quipu.Draft{Cond: &quipu.Cond{Tag: "t", Last: a}}); err != nil {
		t.Fatalf("a void record counted for a condition: %v", err)
	}
}

func booksAreApart(t *testing.T, f fixture) {
	other, err := f.log.CreateBook(f.ctx, "other", quipu.BookOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.log.CreateBook(f.ctx, "other", quipu.BookOptions{})
	wantCode(t, err, quipu.CodeBookExists)
	f.append(t, "mine", "t")
	theirs := fixture{f.ctx, f.log, other}
	wantAll(t, theirs.read(t, "t", 0))
	at := theirs.append(t, "theirs", "t")
	theirs.trim(t, quipu.TagAll, at)
	wantAll(t, f.read(t, "t", 0), "mine")
	tx := quipu.Tx{Writes: []string{"k"}}
	if _, err := f.commit(tx); err != nil {
		t.Fatal(err)
	}
	if _, err := theirs.commit(quipu.Tx{Snapshot: at, Reads: []string{"k"}}); err != nil {
		t.Fatalf("a key of another book conflicts: %v", err)
	}
	_, err = f.log.OpenBook(f.ctx, "nobody")
	wantCode(t, err, quipu.CodeNoBook)
	_, err = f.log.Append(f.ctx, other+1, quipu.Draft{})
	wantCode(t, err, quipu.CodeNoBook)
	_, err = f.log.Next(f.ctx, 0, quipu.TagAll, 0)
	wantCode(t, err, quipu.CodeNoBook)
}

func (f fixture) info(t *testing.T, name string) quipu.BookInfo {
	t.Helper()
	books, err := f.log.Books(f.ctx)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(books, func(b quipu.BookInfo) bool { return b.Name == name })
	if i < 0 {
		t.Fatalf("there is no book %q in %+v", name, books)
	}
	return books[i]
}

func quotaIsABound(t *testing.T, f fixture) {
	o := quipu.BookOptions{Quota: 1000, MaxBytes: 1 << 40, MaxAge: 1000 * time.Hour}
	if err := f.log.SetBook(f.ctx, f.book, o); err != nil {
		t.Fatal(err)
	}
	first := f.append(t, strings.Repeat("a", 300), "t")
	second := f.append(t, strings.Repeat("b", 300), "t")
	info := f.info(t, "orders")
	if info.Records != 2 || info.Bytes < 600 || info.Bytes > 800 || info.Options != o {
		t.Fatalf("the book is %+v", info)
	}
	_, err := f.log.Append(f.ctx, f.book, quipu.Draft{Data: make([]byte, 400)})
	wantCode(t, err, quipu.CodeQuota)
	_, err = f.log.AppendBatch(f.ctx, f.book, []quipu.Draft{{Data: make([]byte, 200)}, {Data: make([]byte, 200)}})
	wantCode(t, err, quipu.CodeQuota)
	wantAll(t, f.read(t, quipu.TagAll, second), strings.Repeat("b", 300))
	f.trim(t, quipu.TagAll, first)
	if info = f.info(t, "orders"); info.Records != 1 {
		t.Fatalf("after a trim the book is %+v", info)
	}
	last := f.append(t, strings.Repeat("c", 300), "t", "u")
	_, err = f.log.Append(f.ctx, f.book, quipu.Draft{Data: make([]byte, 400)})
	wantCode(t, err, quipu.CodeQuota)
	f.trim(t, "t", last) // takes the second, but not the last, which has another tag
	if info = f.info(t, "orders"); info.Records != 1 {
		t.Fatalf("after a trim of a tag the book is %+v", info)
	}
	f.append(t, strings.Repeat("e", 400))
	f.trim(t, "u", last)
	if info = f.info(t, "orders"); info.Records != 1 || info.Bytes > 500 {
		t.Fatalf("after a trim of the other tag the book is %+v", info)
	}
	if err := f.log.SetBook(f.ctx, f.book, quipu.BookOptions{}); err != nil {
		t.Fatal(err)
	}
	f.append(t, strings.Repeat("d", 4000))
}

func deletedIsGone(t *testing.T, f fixture) {
	f.append(t, "old", "t")
	if err := f.log.SetAux(f.ctx, f.book, 1, []byte("x")); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		for _, err := range f.log.Subscribe(f.ctx, f.book, "none", 0) {
			ended <- err
		}
	}()
	if err := f.log.DeleteBook(f.ctx, f.book); err != nil {
		t.Fatal(err)
	}
	wantCode(t, <-ended, quipu.CodeNoBook)
	_, err := f.log.OpenBook(f.ctx, "orders")
	wantCode(t, err, quipu.CodeNoBook)
	for what, err := range f.everyUse() {
		if quipu.CodeOf(err) != quipu.CodeNoBook {
			t.Errorf("%s of a deleted book: %v, want %s", what, err, quipu.CodeNoBook)
		}
	}
	again, err := f.log.CreateBook(f.ctx, "orders", quipu.BookOptions{})
	if err != nil || again == f.book {
		t.Fatalf("the name once more: book %d, %v; the deleted was %d", again, err, f.book)
	}
	f.book = again
	wantAll(t, f.read(t, "t", 0))
	_, err = f.log.Append(f.ctx, again, quipu.Draft{Tags: []string{"t"}, Data: []byte("new"), Cond: &quipu.Cond{Tag: "t"}})
	if err != nil {
		t.Fatalf("a condition does not see the deleted book: %v", err)
	}
	wantAll(t, f.read(t, quipu.TagAll, 0), "new")
}

// everyUse is what each method answers that takes a book.
func (f fixture) everyUse() map[string]error {
	all := map[string]error{}
	_, all["append"] = f.log.Append(f.ctx, f.book, quipu.Draft{})
	_, all["producer"] = f.log.Producer(f.ctx, f.book, 1)
	_, all["next"] = f.log.Next(f.ctx, f.book, quipu.TagAll, 0)
	_, all["prev"] = f.log.Prev(f.ctx, f.book, quipu.TagAll, quipu.SeqMax)
	_, all["tail"] = f.log.Tail(f.ctx, f.book, quipu.Local)
	_, all["aux"] = f.log.Aux(f.ctx, f.book, 1)
	all["setaux"] = f.log.SetAux(f.ctx, f.book, 1, nil)
	all["trim"] = f.log.Trim(f.ctx, f.book, quipu.TagAll, 1)
	all["set"] = f.log.SetBook(f.ctx, f.book, quipu.BookOptions{})
	all["delete"] = f.log.DeleteBook(f.ctx, f.book)
	for _, err := range f.log.Range(f.ctx, f.book, quipu.TagAll, 0, 9) {
		all["range"] = err
	}
	for _, err := range f.log.Subscribe(f.ctx, f.book, quipu.TagAll, 0) {
		all["subscribe"] = err
	}
	return all
}

func batchIsWhole(t *testing.T, f fixture) {
	seqs, err := f.log.AppendBatch(f.ctx, f.book, []quipu.Draft{{Data: []byte("a")}, {Data: []byte("b"), Tags: []string{"t"}}, {Data: []byte("c")}})
	if err != nil || len(seqs) != 3 || seqs[1] != seqs[0]+1 || seqs[2] != seqs[0]+2 {
		t.Fatalf("got %v, %v", seqs, err)
	}
	_, err = f.log.AppendBatch(f.ctx, f.book, []quipu.Draft{{Data: []byte("d")}, {Data: []byte("e"), Cond: &quipu.Cond{Tag: "t"}}})
	if winner := wantCode(t, err, quipu.CodeConflict).Seq; winner != seqs[1] {
		t.Fatalf("winner %s", winner)
	}
	wantAll(t, f.read(t, quipu.TagAll, 0), "a", "b", "c")
	ds := []quipu.Draft{{Data: []byte("f"), Producer: quipu.Producer{ID: 1, N: 1}}, {Data: []byte("g")}}
	first, err := f.log.AppendBatch(f.ctx, f.book, ds)
	if err != nil {
		t.Fatal(err)
	}
	again, err := f.log.AppendBatch(f.ctx, f.book, ds)
	if err != nil || len(again) != 2 || again[0] != first[0] || again[1] != first[1] {
		t.Fatalf("the same batch again: %v, %v, want %v", again, err, first)
	}
	wantAll(t, f.read(t, quipu.TagAll, 0), "a", "b", "c", "f", "g")
}

// commit appends a transaction.
func (f fixture) commit(tx quipu.Tx) (quipu.Seq, error) {
	return f.log.Append(f.ctx, f.book, quipu.Draft{Kind: quipu.KindTx, Version: codec.TxVersion, Tags: tx.Tags, Data: codec.EncodeTx(nil, &tx)})
}

func transactionsAreJudged(t *testing.T, f fixture) {
	start := f.append(t, "start")
	wrote, err := f.commit(quipu.Tx{Writes: []string{"a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	losers := map[string]quipu.Tx{
		"read":  {Snapshot: start, Reads: []string{"x", "a"}},
		"range": {Snapshot: start, Ranges: []quipu.KeyRange{{From: "b"}}},
	}
	for name, tx := range losers {
		_, err := f.commit(tx)
		if winner := wantCode(t, err, quipu.CodeConflict).Seq; winner != wrote {
			t.Fatalf("%s: winner %s, want %s", name, winner, wrote)
		}
	}
	_, err = f.commit(quipu.Tx{NotAfter: 1})
	wantCode(t, err, quipu.CodeConflict)
	_, err = f.commit(quipu.Tx{Snapshot: quipu.SeqMax, Reads: []string{"a"}})
	wantCode(t, err, quipu.CodeSnapshotOld)
	winners := map[string]quipu.Tx{
		"after":   {Snapshot: wrote, Reads: []string{"a"}},
		"blind":   {Writes: []string{"a"}},
		"outside": {Snapshot: start, Ranges: []quipu.KeyRange{{From: "a\x00", To: "b"}, {From: "c"}}},
	}
	for name, tx := range winners {
		if _, err := f.commit(tx); err != nil && name != "after" || name == "after" && err != nil && quipu.CodeOf(err) != quipu.CodeConflict {
			t.Fatalf("%s: %v", name, err)
		}
	}
	_, err = f.log.Append(f.ctx, f.book, quipu.Draft{Kind: quipu.KindTx, Data: []byte("no")})
	wantCode(t, err, quipu.CodeRecord)
}

func limitsHaveCodes(t *testing.T, f fixture) {
	long := strings.Repeat("x", quipu.TagBytesMax+1)
	bad := map[string][]quipu.Draft{
		"no draft":         {},
		"empty tag":        {{Tags: []string{""}}},
		"long tag":         {{Tags: []string{long}}},
		"many tags":        {{Tags: strings.Split(strings.Repeat("t,", quipu.TagsMax)+"t", ",")}},
		"much data":        {{Data: make([]byte, quipu.DataBytesMax+1)}},
		"system record":    {{Kind: quipu.KindSystem}},
		"unknown kind":     {{Kind: 77}},
		"long cond tag":    {{Cond: &quipu.Cond{Tag: long}}},
		"number 0":         {{Producer: quipu.Producer{ID: 1}}},
		"no producer id":   {{Producer: quipu.Producer{N: 1}}},
		"producer inside":  {{}, {Producer: quipu.Producer{ID: 1, N: 1}}},
		"too many records": make([]quipu.Draft, quipu.BatchMax+1),
	}
	for name, ds := range bad {
		if _, err := f.log.AppendBatch(f.ctx, f.book, ds); quipu.CodeOf(err) != quipu.CodeRecord {
			t.Errorf("%s: got %v, want %s", name, err, quipu.CodeRecord)
		}
	}
	wantAll(t, f.read(t, quipu.TagAll, 0))
	for _, name := range []string{"", strings.Repeat("n", quipu.BookNameMax+1), "a\nb", "a\x00", "\xff"} {
		_, err := f.log.CreateBook(f.ctx, name, quipu.BookOptions{})
		wantCode(t, err, quipu.CodeUsage)
	}
	for _, o := range []quipu.BookOptions{{MaxAge: -1}, {MaxBytes: -1}, {Quota: -1}} {
		_, err := f.log.CreateBook(f.ctx, "negative", o)
		wantCode(t, err, quipu.CodeUsage)
		wantCode(t, f.log.SetBook(f.ctx, f.book, o), quipu.CodeUsage)
	}
	whole := strings.Repeat("d", quipu.DataBytesMax)
	f.append(t, whole, strings.Split(strings.Repeat(long[1:]+",", quipu.TagsMax-1)+"t", ",")...)
	wantAll(t, f.read(t, "t", 0), whole)
	wantAll(t, f.read(t, long[1:], 0), whole) // a tag given twice counts once
}

func subscriptionWaits(t *testing.T, f fixture) {
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	f.append(t, "1", "t")
	got := make(chan string)
	ended := make(chan error, 1)
	go func() {
		for r, err := range f.log.Subscribe(ctx, f.book, "t", 0) {
			if err != nil {
				ended <- err
				return
			}
			got <- string(r.Data)
		}
		ended <- nil
	}()
	for _, want := range []string{"1", "2", "3"} {
		if want != "1" {
			f.append(t, "not mine", "u")
			f.append(t, want, "t")
		}
		if data := <-got; data != want {
			t.Fatalf("got %q, want %q", data, want)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("it ended with %v", err)
	}
}

func closedSaysSo(t *testing.T, f fixture) {
	ended := make(chan error, 1)
	f.append(t, "1")
	started := make(chan struct{})
	go func() {
		for _, err := range f.log.Subscribe(f.ctx, f.book, quipu.TagAll, 0) {
			if err != nil {
				ended <- err
				return
			}
			close(started)
		}
		ended <- nil
	}()
	<-started
	if err := f.log.Close(); err != nil {
		t.Fatal(err)
	}
	wantCode(t, <-ended, quipu.CodeLogStopped)
	_, err := f.log.Append(f.ctx, f.book, quipu.Draft{})
	wantCode(t, err, quipu.CodeLogStopped)
	_, err = f.log.Next(f.ctx, f.book, quipu.TagAll, 0)
	wantCode(t, err, quipu.CodeLogStopped)
	_, err = f.log.CreateBook(f.ctx, "late", quipu.BookOptions{})
	wantCode(t, err, quipu.CodeLogStopped)
	_, err = f.log.Books(f.ctx)
	wantCode(t, err, quipu.CodeLogStopped)
}
