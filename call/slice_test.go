package call

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
)

// A result is read as it was written, whatever of a reply and a request it holds; also one of the time before the
// request's body was kept.
func TestTheRequestsBodyIsKeptBesideTheReplys(t *testing.T) {
	for _, want := range []*result{
		{body: []byte("reply")},
		{input: []byte("request"), Kept: 7, Sent: 7},
		{body: []byte("reply"), input: bytes.Repeat([]byte{0}, quipu.CallBodyKept), Kept: quipu.CallBodyKept, Sent: 1 << 20, Query: "a=1&b"},
	} {
		b, err := want.encode([]byte{7})
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeResult(b[1:])
		if err != nil || !bytes.Equal(got.body, want.body) || !bytes.Equal(got.input, want.input) || got.Sent != want.Sent || got.Query != want.Query {
			t.Errorf("wrote %+v, read %+v, %v", want, got, err)
		}
		for cut := range 20 {
			if got, err := decodeResult(b[1 : 1+cut]); !errors.Is(err, errResult) {
				t.Errorf("cut to %d bytes: %+v, %v", cut, got, err)
			}
		}
	}
	head := []byte(`{"info":{"id":"old"}}`)
	got, err := decodeResult(append(append(binary.AppendUvarint(nil, uint64(len(head))), head...), "reply"...))
	if err != nil || string(got.body) != "reply" || len(got.input) != 0 {
		t.Errorf("an older one: %+v, %v", got, err)
	}
	for _, kept := range []string{"6", "-1"} {
		head := []byte(`{"kept":` + kept + `}`)
		if got, err := decodeResult(append(append(binary.AppendUvarint(nil, uint64(len(head))), head...), "reply"...)); !errors.Is(err, errResult) {
			t.Errorf("kept %s of 5 bytes: %+v, %v", kept, got, err)
		}
	}
}

// sliced is a world whose slices show records.
func sliced(t *testing.T) *world {
	w := newWorld(t)
	w.o.Log, w.o.LogBook = w.log, w.id
	return w
}

func (w *world) slice(id string) quipu.CallSlice {
	w.t.Helper()
	s, err := w.Slice(w.ctx, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func TestASliceIsAllThatTheCallDid(t *testing.T) {
	w := sliced(t)
	w.function("seed", false, func(_ http.ResponseWriter, _ *http.Request, s quipu.Session) {
		for _, key := range []string{"a", "aa", "ab", "ac"} {
			put(s, key, "1")
		}
	})
	w.call("seed")
	before := w.o.Book.Applied()
	w.function("f", true, func(rw http.ResponseWriter, r *http.Request, s quipu.Session) {
		get(s, "none")
		put(s, "b", get(s, "a"))
		for _, limit := range []int{1, 100} {
			if _, err := s.List(r.Context(), quipu.StoreShared, quipu.ListRequest{Prefix: "a", Limit: limit}); err != nil {
				t.Error(err)
			}
		}
		rw.Header().Set("X-Mine", "1")
		rw.WriteHeader(201)
		fmt.Fprint(rw, "made")
	})
	a, err := w.try(quipu.CallRequest{Function: "f", Method: "PUT", Path: "/x%2F", RawQuery: "q=1", Trigger: "http",
		Header: http.Header{"Secret": {"s"}}, Body: strings.NewReader("<body>"), ContentLength: -1, IdempotencyKey: "k"})
	if err != nil {
		t.Fatal(err)
	}
	got := w.slice(a.call)
	body := func(b quipu.CallBody) string {
		return fmt.Sprintf("%d %q %q %t", b.Size, b.Text, b.Base64, b.Truncated)
	}
	if got.Method != "PUT" || got.Path != "/x%2F" || got.Query != "q=1" || got.Trigger != "http" || body(got.Request) != `6 "<body>" "" false` {
		t.Errorf("the request: %+v", got)
	}
	if got.Status != 201 || got.Header["X-Mine"][0] != "1" || body(got.Reply) != `4 "made" "" false` {
		t.Errorf("the reply: %+v", got)
	}
	if got.Seq != a.session || got.Snapshot != before || got.Missing != "" || got.Runs != 1 || got.End.Before(got.Start) {
		t.Errorf("the record: %+v, want snapshot %s", got, before)
	}
	for what, c := range map[string][2]any{
		"read": {got.Read, []quipu.CallKey{{View: "call", Key: `Idempotency-Key "k" of function f`}, {View: "kv", Key: "dshared/a"}, {View: "kv", Key: "dshared/none"}}},
		"listed": {got.Ranges, []quipu.CallRange{{View: "kv", From: "dshared/a", To: "dshared/aa", Through: true},
			{View: "kv", From: "dshared/a", To: "dshared/b"}}},
		"written": {got.Written, []quipu.CallKey{{View: "call", Key: `Idempotency-Key "k" of function f`}, {View: "kv", Key: "dshared/b"}}},
		"did":     {got.Ops, []quipu.CallOp{{View: "kv", Text: "an operation of 21 bytes", Size: 21}, {View: "call", Text: "keep the result", Size: got.Ops[1].Size}}},
	} {
		if !reflect.DeepEqual(c[0], c[1]) {
			t.Errorf("%s %+v, want %+v", what, c[0], c[1])
		}
	}
	if text, err := json.Marshal(got); err != nil || strings.Contains(string(text), "Secret") {
		t.Errorf("headers of a request may hold secrets and are not kept: %s, %v", text, err)
	}
}

// The words are those of each view, and so are the events.
func TestAViewSaysWhatItsPartOfARecordIs(t *testing.T) {
	w := sliced(t)
	w.o.Describe = map[string]Words{"kv": {
		Key:    func(key string) string { return strings.Split(key, "\x00")[1] },
		Op:     func([]byte) string { return "set" },
		Events: func([]byte) []quipu.CallEvent { return []quipu.CallEvent{{Topic: "t", ID: "1", Size: 3}} },
	}}
	w.function("f", true, func(_ http.ResponseWriter, _ *http.Request, s quipu.Session) { put(s, "a", "1") })
	got := w.slice(w.call("f").call)
	if got.Written[0] != (quipu.CallKey{View: "kv", Key: "a"}) || got.Ops[0].Text != "set" || got.Events[0].Topic != "t" || len(got.Events) != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestASliceSaysWhyItHasNoRecord(t *testing.T) {
	w := sliced(t)
	w.function("f", true, func(_ http.ResponseWriter, _ *http.Request, s quipu.Session) { put(s, "a", "1") })
	w.function("reader", true, func(_ http.ResponseWriter, _ *http.Request, s quipu.Session) { get(s, "a") })
	w.function("caller", true, func(rw http.ResponseWriter, r *http.Request, s quipu.Session) {
		reply, err := s.Invoke(r.Context(), quipu.CallRequest{Function: "f", Method: "POST", Path: "/"})
		if err != nil {
			t.Error(err)
			return
		}
		fmt.Fprint(rw, reply.Call)
	})
	if got := w.slice(w.call("reader").call); !strings.Contains(got.Missing, "changed nothing") || got.Reads != 1 {
		t.Errorf("a call without effects: %+v", got)
	}
	joined := w.call("caller")
	if got := w.slice(joined.body); !strings.Contains(got.Missing, "call "+joined.call+" made it") {
		t.Errorf("a call that joined another: %+v", got)
	}
	if _, err := w.Slice(w.ctx, "nobody"); quipu.CodeOf(err) != quipu.CodeNotFound {
		t.Errorf("an unknown call: %v", err)
	}
	old := w.call("f")
	w.call("f")
	if err := w.log.Trim(w.ctx, w.id, quipu.TagAll, old.session); err != nil {
		t.Fatal(err)
	}
	if got := w.slice(old.call); !strings.Contains(got.Missing, "trimmed away") || got.Status != 200 || got.Seq != old.session {
		t.Errorf("a trimmed record: %+v", got)
	}
	w.o.Log = nil
	if got := w.slice(old.call); got.Missing == "" || got.Ops != nil {
		t.Errorf("no log: %+v", got)
	}
}

func TestLongBodiesAreCutBetweenCharacters(t *testing.T) {
	w := sliced(t)
	w.function("f", true, func(rw http.ResponseWriter, _ *http.Request, s quipu.Session) {
		put(s, "a", "1")
		fmt.Fprint(rw, strings.Repeat("r", 100_000))
	})
	long := "x" + strings.Repeat("é", quipu.CallBodyKept)
	a, err := w.try(quipu.CallRequest{Function: "f", Method: "POST", Path: "/", Body: strings.NewReader(long), ContentLength: -1})
	if err != nil {
		t.Fatal(err)
	}
	got := w.slice(a.call)
	if r := got.Request; r.Size != int64(len(long)) || r.Text != long[:quipu.CallBodyKept-1] || !r.Truncated {
		t.Errorf("%d bytes, %d shown, truncated %t", r.Size, len(r.Text), r.Truncated)
	}
	if r := got.Reply; r.Size != 100_000 || r.Text != "" || !r.Truncated {
		t.Errorf("a reply in a blob: %+v", r)
	}
	if b := bodyOf([]byte("a\xff"), 2); b.Text != "" || string(b.Base64) != "a\xff" {
		t.Errorf("bytes: %+v", b)
	}
}
