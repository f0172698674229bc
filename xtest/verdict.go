package xtest

import (
	"fmt"
	"slices"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/codec"
)

// judge answers nil if d wins at seq, and otherwise the error that its caller gets.
func (b *modelBook) judge(d quipu.Draft, seq quipu.Seq, stamp int64) error {
	if d.Cond != nil {
		if newest := b.newest(d.Cond.Tag); newest != d.Cond.Last {
			return fail(quipu.CodeConflict, "log.append", newest)
		}
	}
	if d.Kind != quipu.KindTx {
		return nil
	}
	tx := decodeTx(d.Data)
	if len(tx.Reads)+len(tx.Ranges) > 0 {
		if tx.Snapshot >= seq || tx.Snapshot.Pos()+quipu.ConflictWindow < seq.Pos() {
			return fail(quipu.CodeSnapshotOld, "log.append", 0)
		}
	}
	for _, l := range tx.Later {
		if l.At >= seq || l.At.Pos()+quipu.ConflictWindow < seq.Pos() {
			return fail(quipu.CodeSnapshotOld, "log.append", 0)
		}
	}
	if winner := b.winner(tx); winner > 0 {
		return fail(quipu.CodeConflict, "log.append", winner)
	}
	if tx.NotAfter != 0 && stamp >= tx.NotAfter {
		return fail(quipu.CodeConflict, "log.append", 0)
	}
	return nil
}

// newest is the last record of tag that is not void, trimmed or not; 0 for none.
func (b *modelBook) newest(tag string) quipu.Seq {
	for _, r := range slices.Backward(b.records) {
		if r.visibleAs(tag) {
			return r.Seq
		}
	}
	return 0
}

// winner is the newest record that wrote what tx read after it was read; 0 for none.
func (b *modelBook) winner(tx quipu.Tx) quipu.Seq {
	for _, r := range slices.Backward(b.records) {
		if !r.void && slices.ContainsFunc(r.writes, func(key string) bool { return readBefore(tx, key, r.Seq) }) {
			return r.Seq
		}
	}
	return 0
}

// readBefore tells whether tx read key as it was before seq.
func readBefore(tx quipu.Tx, key string, seq quipu.Seq) bool {
	return tx.Snapshot < seq && (slices.Contains(tx.Reads, key) || slices.ContainsFunc(tx.Ranges, func(r quipu.KeyRange) bool { return r.Contains(key) })) ||
		slices.ContainsFunc(tx.Later, func(l quipu.LaterRead) bool { return l.Key == key && l.At < seq })
}

// repeated finds the outcome of p among the newest numbers of its producer.
func repeated(past []modelOutcome, p quipu.Producer) *modelOutcome {
	for i := range past {
		if past[i].epoch == p.Epoch && past[i].n == p.N {
			return &past[i]
		}
	}
	return nil
}

// follows tells whether p is the number that may come now.
func follows(past []modelOutcome, p quipu.Producer) bool {
	if len(past) == 0 {
		return p.N == 1
	}
	last := past[len(past)-1]
	return p.Epoch == last.epoch && p.N == last.n+1 || p.Epoch > last.epoch && p.N == 1
}

// wellFormed tells whether drafts keep the limits of records and of a batch.
func wellFormed(ds []quipu.Draft) bool {
	total := 0
	for i, d := range ds {
		total += len(d.Data)
		if !wellFormedDraft(d, len(ds) == 1) || i > 0 && d.Producer != (quipu.Producer{}) {
			return false
		}
	}
	return len(ds) > 0 && len(ds) <= quipu.BatchMax && total <= quipu.TxBytesMax
}

func wellFormedDraft(d quipu.Draft, alone bool) bool {
	switch d.Kind {
	case 0, quipu.KindRaw:
		if len(d.Data) > quipu.DataBytesMax {
			return false
		}
	case quipu.KindTx:
		if _, err := codec.DecodeTx(d.Data); err != nil || !alone {
			return false
		}
	default:
		return false
	}
	for _, tag := range d.Tags {
		if tag == "" || len(tag) > quipu.TagBytesMax {
			return false
		}
	}
	p := d.Producer
	if p != (quipu.Producer{}) && (p.ID == 0 || p.N == 0) {
		return false
	}
	return len(d.Tags) <= quipu.TagsMax && (d.Cond == nil || len(d.Cond.Tag) <= quipu.TagBytesMax)
}

// decodeTx reads data that was checked when it was appended.
func decodeTx(data []byte) quipu.Tx {
	tx, err := codec.DecodeTx(data)
	if err != nil {
		panic(fmt.Sprintf("xtest: a transaction that was accepted is malformed: %v", err))
	}
	return tx
}
