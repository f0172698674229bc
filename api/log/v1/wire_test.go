package logv1_test

import (
	"bytes"
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/quipu-run/quipu"
	logv1 "github.com/quipu-run/quipu/api/log/v1"
)

var drafts = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) quipu.Draft {
	d := quipu.Draft{Kind: quipu.Kind(rapid.Byte().Draw(t, "kind")), Version: rapid.Byte().Draw(t, "version"),
		Data: rapid.SliceOf(rapid.Byte()).Draw(t, "data"), Tags: rapid.SliceOfN(rapid.String(), 0, 4).Draw(t, "tags")}
	if rapid.Bool().Draw(t, "has a condition") {
		d.Cond = &quipu.Cond{Tag: rapid.String().Draw(t, "tag"), Last: quipu.Seq(rapid.Uint64().Draw(t, "last"))}
	}
	if rapid.Bool().Draw(t, "has a producer") {
		d.Producer = quipu.Producer{ID: rapid.Uint64().Draw(t, "id"), Epoch: rapid.Uint32().Draw(t, "epoch"), N: rapid.Uint64().Draw(t, "n")}
	}
	return d
}), 0, 4)

// What is written without the generated types is read by them, and is as long as they think.
func TestAppendsAreWrittenAsProtoReadsThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var wire []byte
		want := &logv1.AppendStreamRequest{}
		for range rapid.IntRange(0, 3).Draw(t, "appends") {
			id, book, ds := rapid.Uint64().Draw(t, "id"), rapid.Uint64().Draw(t, "book"), drafts.Draw(t, "drafts")
			wire = logv1.PutAppend(wire, id, quipu.Book(book), ds)
			want.Appends = append(want.Appends, &logv1.AppendRequest{Id: id, Book: book, Drafts: logv1.NewDrafts(ds)})
		}
		got := &logv1.AppendStreamRequest{}
		if err := proto.Unmarshal(wire, got); err != nil || !proto.Equal(got, want) {
			t.Fatalf("got %v, %v\nwant %v", got, err, want)
		}
		if proto.Size(want) != len(wire) {
			t.Fatalf("%d bytes, want %d", len(wire), proto.Size(want))
		}
		sameAppends(t, wire, want)
	})
}

func TestResultsAreWrittenAsProtoReadsThemAndReadAsItWritesThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var wire []byte
		want := &logv1.AppendStreamResponse{}
		for range rapid.IntRange(0, 3).Draw(t, "results") {
			r := &logv1.AppendResult{Id: rapid.Uint64().Draw(t, "id"), Seqs: rapid.SliceOfN(rapid.Uint64(), 0, 4).Draw(t, "seqs")}
			if rapid.Bool().Draw(t, "failed") {
				r.Error = logv1.NewError(quipu.Code(rapid.String().Draw(t, "code")), rapid.String().Draw(t, "text"),
					rapid.String().Draw(t, "hint"), quipu.Seq(rapid.Uint64().Draw(t, "seq")))
			}
			wire = logv1.PutResult(wire, r.GetId(), logv1.PlainSeqs(r.GetSeqs()), r.GetError())
			want.Results = append(want.Results, r)
		}
		got := &logv1.AppendStreamResponse{}
		if err := proto.Unmarshal(wire, got); err != nil || !proto.Equal(got, want) {
			t.Fatalf("got %v, %v\nwant %v", got, err, want)
		}
		i := 0
		err := logv1.EachResult(wire, func(r logv1.Result) {
			w := want.Results[i]
			i++
			if r.ID != w.GetId() || !bytes.Equal(bytesOf(r.Seqs), bytesOf(logv1.PlainSeqs(w.GetSeqs()))) || (r.Err == nil) != (w.Error == nil) ||
				r.Err != nil && *r.Err != *w.GetError().Plain() {
				t.Fatalf("result %d: got %+v, want %v", i, r, w)
			}
		})
		if err != nil || i != len(want.Results) {
			t.Fatalf("%d results, %v, want %d", i, err, len(want.Results))
		}
	})
}

func bytesOf(seqs []quipu.Seq) (out []byte) {
	for _, s := range seqs {
		out = append(out, s.String()...)
	}
	return out
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// sameAppends compares what is read of a message with what proto reads.
func sameAppends(t fataler, wire []byte, want *logv1.AppendStreamRequest) {
	t.Helper()
	i := 0
	err := logv1.EachAppend(wire, func(a *logv1.Append) error {
		w := want.Appends[i]
		i++
		if a.ID != w.GetId() || a.Book != quipu.Book(w.GetBook()) || len(a.Drafts) != len(w.GetDrafts()) {
			t.Fatalf("append %d: got %+v, want %v", i, a, w)
		}
		ds, bad := logv1.PlainDrafts(w.GetDrafts())
		if (bad == nil) != (a.Bad == nil) {
			t.Fatalf("append %d: %v, want %v", i, a.Bad, bad)
		}
		if bad != nil {
			return nil
		}
		for j := range ds {
			if got := a.Drafts[j]; !bytes.Equal(got.Data, ds[j].Data) || !reflect.DeepEqual(withoutData(got), withoutData(ds[j])) {
				t.Fatalf("draft %d of append %d: got %+v, want %+v", j, i, got, ds[j])
			}
		}
		return nil
	})
	if err != nil || i != len(want.Appends) {
		t.Fatalf("%d appends, %v, want %d", i, err, len(want.Appends))
	}
}

func withoutData(d quipu.Draft) quipu.Draft {
	d.Data = nil
	return d
}

// Any bytes are read as proto reads them, or refused as it refuses them.
func FuzzAppends(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(logv1.PutAppend(nil, 1, 2, []quipu.Draft{{Data: []byte("d"), Tags: []string{"a", ""}, Cond: &quipu.Cond{Tag: "t", Last: 3},
		Producer: quipu.Producer{ID: 4, Epoch: 5, N: 6}, Kind: 2, Version: 7}}))
	f.Add([]byte{0x0a, 0x04, 0x12, 0x02, 0x28, 0xff})
	f.Add([]byte{0x0a, 0x03, 0x08, 0x01, 0x0b})
	f.Fuzz(func(t *testing.T, wire []byte) {
		want := &logv1.AppendStreamRequest{}
		if err := proto.Unmarshal(wire, want); err != nil {
			if err := logv1.EachAppend(wire, func(*logv1.Append) error { return nil }); quipu.CodeOf(err) != quipu.CodeUsage {
				t.Fatalf("proto refuses %x, we do not: %v", wire, err)
			}
			return
		}
		sameAppends(t, wire, want)
	})
}

// Any bytes are read as results, or refused.
func FuzzResults(f *testing.F) {
	f.Add(logv1.PutResult(nil, 1, []quipu.Seq{2, 3}, nil))
	f.Add(logv1.PutResult(nil, 1, nil, logv1.NewError(quipu.CodeConflict, "text", "hint", 9)))
	f.Fuzz(func(t *testing.T, wire []byte) {
		n := 0
		err := logv1.EachResult(wire, func(logv1.Result) { n++ })
		want := &logv1.AppendStreamResponse{}
		if proto.Unmarshal(wire, want) == nil && (err != nil || n != len(want.Results)) {
			t.Fatalf("%d results, %v, want %d", n, err, len(want.Results))
		}
	})
}
