package gateway

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// library is a house with one book, orders.
func library(t *testing.T, options string) *house {
	t.Helper()
	h := open(t, "")
	if r := h.ask("POST", adminPrefix+"/books", `{"name":"orders","options":`+options+`}`); r.StatusCode != 201 {
		t.Fatalf("create: %d %s", r.StatusCode, text(t, r))
	}
	return h
}

// orders asks about the book, wants a status of success, and reads the reply if v is not nil.
func (h *house) orders(method, path, body string, v any) {
	h.t.Helper()
	r := h.ask(method, adminPrefix+"/books/orders"+path, body)
	got := text(h.t, r)
	if r.StatusCode >= 300 {
		h.t.Fatalf("%s %s: %d %s", method, path, r.StatusCode, got)
	}
	if v != nil {
		h.must(json.Unmarshal([]byte(got), v))
	}
}

func (h *house) append(query, data string) quipu.Seq {
	h.t.Helper()
	var at sdk.Appended
	h.orders("POST", "/records"+query, data, &at)
	return at.Seq
}

// texts are the data of a page, and its next.
func (h *house) texts(query string) (all []string, next string) {
	h.t.Helper()
	var p sdk.Page[sdk.Record]
	h.orders("GET", "/records"+query, "", &p)
	for _, r := range p.Items {
		all = append(all, string(r.Bytes()))
	}
	return all, p.Next
}

func (h *house) wantTexts(query string, want ...string) {
	h.t.Helper()
	if got, _ := h.texts(query); !slices.Equal(got, want) {
		h.t.Errorf("%s: read %q, want %q", query, got, want)
	}
}

func TestARecordIsReadAsItWasAppended(t *testing.T) {
	h := library(t, "{}")
	long := strings.Repeat("long ", 1<<20)
	for _, data := range []string{"", "plain <é>", `{"paid": 7}`, "\x00\xff", long} {
		at := h.append("?tag=a%3D1&tag=b%26c", data)
		r := h.ask("GET", adminPrefix+"/books/orders/records/"+at.String()+"/data", "")
		if got := text(t, r); got != data || r.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%.20q is read as %.20q", data, got)
		}
		for _, as := range []string{"base64", "text", "json"} {
			var rec sdk.Record
			h.orders("GET", "/records/"+at.String()+"?as="+as, "", &rec)
			if string(rec.Bytes()) != data && as != "json" || !slices.Equal(rec.Tags, []string{"a=1", "b&c"}) || rec.Seq != at || rec.Kind != "raw" {
				t.Errorf("%.20q as %s is %+v", data, as, rec)
			}
		}
	}
	var p sdk.Page[sdk.Record]
	h.orders("GET", "/records?as=json&limit=4", "", &p)
	if got := fmt.Sprintf("%v %s %s %v", p.Items[0].Data != nil, p.Items[1].Text, p.Items[2].JSON, p.Items[3].Data); got != `true plain <é> {"paid":7} [0 255]` {
		t.Errorf("as json: %s", got)
	}
}

func TestOnlyOneAppendWinsACondition(t *testing.T) {
	h := library(t, "{}")
	first := h.append("?tag=lock&if-last=lock%3D0", "mine")
	p := refused(t, h.ask("POST", adminPrefix+"/books/orders/records?tag=lock&if-last=lock%3D0", "also mine"), quipu.CodeConflict)
	if p.Seq != first {
		t.Errorf("the winner is %s, want %s", p.Seq, first)
	}
	batch := `{"records":[{"text":"a"},{"text":"b","cond":{"tag":"lock","last":"0"}}]}`
	refused(t, h.ask("POST", adminPrefix+"/books/orders/batch", batch), quipu.CodeConflict)
	h.append("?if-last=lock%3D"+first.String(), "next")
	h.wantTexts("", "mine", "next")
}

func TestAnAppendThatIsSentAgainIsTheSameAppend(t *testing.T) {
	h := library(t, "{}")
	first := h.append("?producer=7.1.1", "once")
	if again := h.append("?producer=7.1.1", "once"); again != first {
		t.Errorf("sent again it is %s, not %s", again, first)
	}
	var once, again sdk.AppendedBatch
	batch := `{"records":[{"text":"two"},{"json":[3]}],"producer":{"id":7,"epoch":1,"n":2}}`
	h.orders("POST", "/batch", batch, &once)
	h.orders("POST", "/batch", batch, &again)
	if !slices.Equal(once.Seqs, again.Seqs) || len(once.Seqs) != 2 {
		t.Errorf("a batch has seqs %v, and sent again %v", once.Seqs, again.Seqs)
	}
	var p sdk.Producer
	if h.orders("GET", "/producers/7", "", &p); p != (sdk.Producer{ID: 7, Epoch: 1, N: 2}) {
		t.Errorf("the book knows %+v of the producer", p)
	}
	h.append("?producer=7.2.1", "successor")
	refused(t, h.ask("POST", adminPrefix+"/books/orders/records?producer=7.1.3", "late"), quipu.CodeFenced)
	h.wantTexts("", "once", "two", "[3]", "successor")
}

func TestABookIsReadBackwardsPageByPage(t *testing.T) {
	h := library(t, "{}")
	var seqs []quipu.Seq
	for i := range 7 {
		seqs = append(seqs, h.append("?tag="+[]string{"even", "odd"}[i%2], fmt.Sprint(i)))
	}
	for query, want := range map[string]string{"?x": "6543210", "?tag=even": "6420", "?from=" + seqs[4].String(): "654", "?tag=odd&to=" + seqs[4].String(): "31"} {
		var got []string
		for to := ""; ; {
			page, next := h.texts(query + "&reverse&limit=2" + to)
			if got = append(got, page...); next == "" {
				break
			}
			query, _, _ = strings.Cut(query, "&to=")
			to = "&to=" + next
		}
		if strings.Join(got, "") != want {
			t.Errorf("%s: read %q, want %s", query, got, want)
		}
	}
	h.orders("POST", "/trim", `{"upto":"`+seqs[3].String()+`"}`, nil)
	h.wantTexts("?reverse", "6", "5", "4")
	refused(t, h.ask("GET", adminPrefix+"/books/orders/records?reverse&to="+seqs[2].String(), ""), quipu.CodeTrimmed)
}

func TestReadingBeginsAfterWhatIsTrimmedUnlessItIsAskedFor(t *testing.T) {
	h := library(t, "{}")
	first := h.append("?tag=a&tag=b", "1")
	second := h.append("?tag=a", "2")
	h.append("?tag=a&tag=b", "3")
	h.orders("POST", "/trim", `{"tag":"a","upto":"`+second.String()+`"}`, nil)
	h.wantTexts("?tag=a", "3")
	h.wantTexts("?tag=b", "1", "3")
	for _, path := range []string{"/records?tag=a&from=0", "/tail?tag=a&from=0", "/tail?tag=a&after=" + first.String()} {
		if p := refused(t, h.ask("GET", adminPrefix+"/books/orders"+path, ""), quipu.CodeTrimmed); p.Seq != second {
			t.Errorf("%s: the trim point is %s, want %s", path, p.Seq, second)
		}
	}
	h.wantTexts("?tag=a&after="+second.String(), "3")
	refused(t, h.ask("GET", adminPrefix+"/books/orders/records/"+second.String(), ""), quipu.CodeNotFound)
	h.orders("POST", "/trim", `{"upto":"`+second.String()+`"}`, nil)
	refused(t, h.ask("GET", adminPrefix+"/books/orders/records/"+second.String(), ""), quipu.CodeTrimmed)
	h.wantTexts("", "3")
}

func TestALongPollEndsWithARecordOrWithItsTime(t *testing.T) {
	h := library(t, "{}")
	first := h.append("?tag=a", "seen")
	h.wantTexts("?wait=1ms&after=" + first.String())
	h.wantTexts("?wait=1m&after=0", "seen") // what is there does not wait
	got := make(chan []string)
	go func() {
		all, _ := h.texts("?tag=a&wait=1m&after=" + first.String())
		got <- all
	}()
	h.append("?tag=b", "another stream")
	h.append("?tag=a", "fresh")
	if all := <-got; !slices.Equal(all, []string{"fresh"}) {
		t.Errorf("the poll got %q", all)
	}
	go func() {
		all, _ := h.texts("?tag=none&wait=1m")
		got <- all
	}()
	h.gw.Drain() // before or after the poll arrives
	if all := <-got; len(all) != 0 {
		t.Errorf("the end of the node gave %q", all)
	}
}

func TestChangesOfOptionsAllCount(t *testing.T) {
	h := library(t, `{"maxAge":"7d"}`)
	var changes sync.WaitGroup
	for _, change := range []string{`"maxBytes":"1GiB"`, `"quota":"10Gi"`} {
		changes.Go(func() { h.orders("PATCH", "", `{"options":{`+change+`}}`, nil) })
	}
	changes.Wait()
	var b sdk.Book
	h.orders("GET", "", "", &b)
	if want := (quipu.BookOptions{MaxAge: 7 * 24 * time.Hour, MaxBytes: 1 << 30, Quota: 10 << 30}); b.Options.Contract() != want {
		t.Errorf("the options are %+v, want %+v", b.Options.Contract(), want)
	}
	b = sdk.Book{}
	h.orders("PATCH", "", `{"options":{"maxAge":"0s","quota":"100"}}`, &b)
	if want := (quipu.BookOptions{MaxBytes: 1 << 30, Quota: 100}); b.Options.Contract() != want {
		t.Errorf("the options are %+v, want %+v", b.Options.Contract(), want)
	}
	h.append("", "fits")
	refused(t, h.ask("POST", adminPrefix+"/books/orders/records", strings.Repeat("x", 100)), quipu.CodeQuota)
	h.wantTexts("", "fits")
}

func TestHalfABodyAppendsNothing(t *testing.T) {
	h := library(t, "{}")
	for _, path := range []string{"/records", "/batch"} {
		conn, err := net.Dial("tcp", h.Listener.Addr().String())
		h.must(err)
		fmt.Fprintf(conn, "POST %s/books/orders%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{\"records\":[{}]}", adminPrefix, path)
		h.must(conn.(*net.TCPConn).CloseWrite())
		reply := make([]byte, 12)
		_, err = conn.Read(reply) // the node is done with it
		h.must(err)
		h.must(conn.Close())
		if string(reply) != "HTTP/1.1 400" {
			t.Errorf("%s: half a body got %q", path, reply)
		}
	}
	h.wantTexts("")
}

func TestATailThatNobodyReadsDisturbsNobody(t *testing.T) {
	h := library(t, "{}")
	lazy := h.ask("GET", adminPrefix+"/books/orders/tail?from=0", "")
	if lazy.StatusCode != http.StatusOK {
		t.Fatal(text(t, lazy))
	}
	data := strings.Repeat("x", 1<<20)
	for range 20 { // more than the buffers of a connection hold
		h.append("?tag=big", data)
	}
	h.append("?tag=small", "through")
	h.wantTexts("?tag=small", "through")
}

func TestAPageOfLargeRecordsEndsEarly(t *testing.T) {
	h := library(t, "{}")
	data := strings.Repeat("x", readBytesMax/2+1)
	for range 3 {
		h.append("", data)
	}
	n := 0
	for from, pages := "0", 0; from != ""; pages++ {
		page, next := h.texts("?from=" + from)
		if len(page) != 1 || pages > 3 {
			t.Fatalf("page %d has %d records", pages, len(page))
		}
		n, from = n+1, next
	}
	if n != 3 {
		t.Errorf("%d records were read", n)
	}
}
