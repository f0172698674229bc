package ledger

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/quipu-run/quipu"
)

const (
	versionEntry = 1
	versionFence = 2
	versionSeal  = 3

	producer    = 1
	epochWriter = 1
	epochFence  = 2

	idBytes    = 8
	indexEvery = 64
	fenceTag   = "fence"
	sealTag    = "seal"
)

// indexTag is that of the entry from which on id is searched for.
func indexTag(id int64) string { return "i" + strconv.FormatInt(id-id%indexEvery, 10) }

func entryDraft(id int64, data []byte) quipu.Draft {
	d := quipu.Draft{Version: versionEntry, Data: make([]byte, idBytes+len(data))}
	binary.LittleEndian.PutUint64(d.Data, uint64(id))
	copy(d.Data[idBytes:], data)
	if id%indexEvery == 0 {
		d.Tags = []string{indexTag(id)}
	}
	return d
}

func sealDraft(last int64, p quipu.Producer) quipu.Draft {
	return quipu.Draft{Version: versionSeal, Tags: []string{sealTag}, Producer: p, Data: binary.LittleEndian.AppendUint64(nil, uint64(last+1))}
}

// number reads what an entry or a seal begins with.
func number(r quipu.Record) (int64, error) {
	if len(r.Data) < idBytes {
		return 0, &quipu.Error{Code: quipu.CodeCorrupt, Op: "ledger.read", Seq: r.Seq, Text: fmt.Sprintf("record %s of version %d has only %d bytes", r.Seq, r.Version, len(r.Data))}
	}
	n := binary.LittleEndian.Uint64(r.Data)
	if n > 1<<62 {
		return 0, &quipu.Error{Code: quipu.CodeCorrupt, Op: "ledger.read", Seq: r.Seq, Text: fmt.Sprintf("record %s has the number %d", r.Seq, n)}
	}
	return int64(n), nil
}

const (
	triesMax  = 5
	firstWait = 20 * time.Millisecond // doubles
)

// appendSurely sends an append with a producer's number again while its outcome is unknown, or the log is busy: the number
// makes all of these one append. Once a try may have added it, only success and CodeFenced are sure: a number that the log
// knows is answered as the first time. Everything else is CodeUnknown then.
func appendSurely(ctx context.Context, opt Options, book quipu.Book, drafts []quipu.Draft) ([]quipu.Seq, error) {
	wait, maybe := firstWait, false
	for try := 1; ; try++ {
		seqs, err := opt.Log.AppendBatch(ctx, book, drafts)
		code := quipu.CodeOf(err)
		if err == nil || code == quipu.CodeFenced {
			return seqs, err
		}
		maybe = maybe || code == quipu.CodeUnknown || code == quipu.CodeNoNode || ctx.Err() != nil
		if try < triesMax && ctx.Err() == nil && (maybe || code == quipu.CodeOverloaded) {
			select {
			case <-ctx.Done():
			case <-opt.Clock.After(wait):
				wait *= 2
				continue
			}
		}
		if maybe {
			err = &quipu.Error{Code: quipu.CodeUnknown, Op: "ledger.append", Text: "the log did not say whether it has the append", Err: err}
		}
		return nil, err
	}
}
