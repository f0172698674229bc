package locallog

import (
	"bytes"
	"testing"

	"github.com/quipu-run/quipu"
)

// sampleBatch is a batch with every part that a record can have.
func sampleBatch() []byte {
	ds := []quipu.Draft{
		{Kind: quipu.KindRaw, Tags: []string{"a", "bc"}, Data: []byte("data"), Producer: quipu.Producer{ID: 1, Epoch: 2, N: 3}},
		{Kind: quipu.KindRaw, Cond: &quipu.Cond{Tag: "a", Last: 9}},
	}
	b := make([]byte, batchHeaderBytes)
	for i := range ds {
		b = appendRecord(b, 7, &ds[i], i > 0)
	}
	at := batchHeaderBytes
	for i := range ds {
		at += finishRecord(b[at:], quipu.Seq(5+i), 1)
	}
	h := batchHeader{count: len(ds), epoch: 11, first: 5, offset: segmentHeaderBytes, synced: segmentHeaderBytes, prev: 3}
	h.put(b)
	return b
}

func TestARecordSurvivesItsEncoding(t *testing.T) {
	b := sampleBatch()
	h, err := parseBatchHeader(b, 11, segmentHeaderBytes)
	if err != nil || h.size != len(b) || h.crc != checksum(b[4:]) || h.prev != 3 {
		t.Fatalf("header %+v, %v", h, err)
	}
	var got []record
	if err := eachRecord(b, &h, func(r *record, _ int) error {
		got = append(got, *r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	first := got[0].public()
	if first.Seq != 5 || first.Book != 7 || len(first.Tags) != 2 || first.Tags[1] != "bc" || string(first.Data) != "data" ||
		got[0].producer != (quipu.Producer{ID: 1, Epoch: 2, N: 3}) {
		t.Errorf("first: %+v", got[0])
	}
	if got[1].condTag != "a" || got[1].condLast != 9 || got[1].flags != flagCond|flagJoined {
		t.Errorf("second: %+v", got[1])
	}
	if _, err := parseBatchHeader(b, 12, segmentHeaderBytes); err == nil {
		t.Error("a batch of another epoch was taken")
	}
	if _, err := parseBatchHeader(b, 11, segmentHeaderBytes+8); err == nil {
		t.Error("a batch that moved was taken")
	}
}

// The decoder never panics, and never reads beyond its input, whatever the bytes are.
func FuzzBatch(f *testing.F) {
	f.Add(sampleBatch())
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseBatchHeader(b, 11, segmentHeaderBytes)
		if err != nil || h.size > len(b) {
			return
		}
		sum := 0
		_ = eachRecord(b[:h.size], &h, func(r *record, at int) error {
			sum += r.size
			out := r.public()
			if len(out.Tags) != r.tagCount || len(out.Data) > r.size || !bytes.Equal(out.Data, r.data) {
				t.Fatalf("record %+v", r)
			}
			return nil
		})
		if sum > h.size {
			t.Fatalf("records of %d bytes in a batch of %d", sum, h.size)
		}
	})
}
