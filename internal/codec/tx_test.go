package codec

import (
	"reflect"
	"testing"

	"github.com/quipu-run/quipu"
	"pgregory.net/rapid"
)

func genTx(t *rapid.T) quipu.Tx {
	keys := rapid.SliceOfN(rapid.StringMatching(`[^\x00].{0,20}`), 1, 5)
	tx := quipu.Tx{
		Snapshot: quipu.Seq(rapid.Uint64().Draw(t, "snapshot")),
		NotAfter: rapid.Int64().Draw(t, "notAfter"),
		Reads:    keys.Draw(t, "reads"),
		Writes:   keys.Draw(t, "writes"),
	}
	for _, from := range keys.Draw(t, "ranges") {
		tx.Ranges = append(tx.Ranges, quipu.KeyRange{From: from, To: from + "z"})
	}
	for _, key := range rapid.SliceOfN(rapid.String(), 0, 3).Draw(t, "later") {
		tx.Later = append(tx.Later, quipu.LaterRead{Key: key, At: quipu.Seq(rapid.Uint64().Draw(t, "at"))})
	}
	for _, view := range keys.Draw(t, "ops") {
		tx.Ops = append(tx.Ops, quipu.Op{View: view, Body: []byte(view + "!")})
	}
	return tx
}

func TestTxSurvivesEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genTx(t)
		data := EncodeTx(nil, &want)
		got, err := DecodeTx(data)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
		head, err := DecodeConflicts(data)
		want.Ops = nil
		if err != nil || !reflect.DeepEqual(head, want) {
			t.Fatalf("conflicts: got %+v, %v, want %+v", head, err, want)
		}
	})
}

func TestCutTxIsRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tx := genTx(t)
		data := EncodeTx(nil, &tx)
		if _, err := DecodeTx(data[:rapid.IntRange(0, len(data)-1).Draw(t, "cut")]); err == nil {
			t.Fatal("a cut transaction was read")
		}
	})
}

func FuzzDecodeTx(f *testing.F) {
	f.Add(EncodeTx(nil, &quipu.Tx{Reads: []string{"a"}, Ops: []quipu.Op{{View: "kv", Body: []byte("b")}}}))
	f.Add(EncodeTx(nil, &quipu.Tx{Later: []quipu.LaterRead{{Key: "a", At: 7}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		tx, err := DecodeTx(data)
		if err != nil {
			return
		}
		again, err := DecodeTx(EncodeTx(nil, &tx))
		if err != nil || !reflect.DeepEqual(again, tx) {
			t.Fatalf("%+v became %+v, %v", tx, again, err)
		}
	})
}
