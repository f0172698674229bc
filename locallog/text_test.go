package locallog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/codec"
)

// story runs text histories of one log. Commands:
//
//	append [tag=t] [cond=tag:seq] [producer=id:epoch:n] [crash=before-write|before-sync] [fail=write|sync]   one record for each line of input
//	tx [snapshot=n] [reads=a,b] [writes=a,b]     a transaction
//	read [tag=t] [from=n]     records of the stream
//	trim upto=n [tag=t]
//	tail
//	close, reopen             cleanly, or after a crash
//	verify
//	damage file=f at=n        flips the byte, while the log is closed
//	trace [lines=n]           the file operations since the last trace, without those of the index; waits for n
type story struct {
	mem   *vfs.MemFS
	log   *Log
	book  quipu.Book
	crash atomic.Pointer[string] // the operation before which the power goes
	fail  atomic.Pointer[string] // the operation that fails
	left  *vfs.MemFS             // what the crash left
	ops   opLog
}

func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		s := &story{mem: vfs.NewCrashableMem()}
		s.ops.more.L = &s.ops.mu
		s.open(t)
		book, err := s.log.CreateBook(t.Context(), "b", quipu.BookOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s.book = book
		datadriven.RunTest(t, path, s.run)
		if s.log != nil {
			s.log.Close() //nolint:errcheck // a story may end with a broken log
		}
	})
}

func (s *story) open(t *testing.T) string {
	t.Helper()
	o := small(errorfs.Wrap(s.mem, errorfs.InjectorFunc(s.before)))
	o.SegmentBytesMin, o.SegmentBytesMax = 16<<10, 16<<10
	o.CheckpointBytes = 1 << 20
	l, err := Open(o)
	if err != nil {
		s.log = nil
		return describe(err)
	}
	s.log = l
	tail := quipu.Seq(0)
	if s.book != 0 {
		if tail, err = l.Tail(t.Context(), s.book, quipu.Local); err != nil {
			return describe(err)
		}
	}
	return fmt.Sprintf("tail=%s", short(tail))
}

// before sees every file operation before it happens.
func (s *story) before(op errorfs.Op) error {
	if strings.HasPrefix(op.Path, "log/index") {
		return nil
	}
	s.ops.add(op)
	is := func(p *string) bool {
		return p != nil && (*p == "write" && op.Kind == errorfs.OpFileWriteAt || *p == "sync" && op.Kind == errorfs.OpFileSyncData)
	}
	if is(s.crash.Load()) && s.left == nil {
		s.left = s.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(4, 4))})
		return errors.New("the power went")
	}
	if is(s.fail.Load()) {
		return errors.New("input/output error")
	}
	return nil
}

func (s *story) run(t *testing.T, d *datadriven.TestData) string {
	ctx := context.Background()
	if s.log == nil && d.Cmd != "reopen" && d.Cmd != "damage" && d.Cmd != "trace" {
		return "the log is not open\n"
	}
	switch d.Cmd {
	case "append":
		return s.append(t, d)
	case "tx":
		return s.tx(t, d)
	case "read":
		return s.read(t, d)
	case "trim":
		var upto uint64
		tag := quipu.TagAll
		d.ScanArgs(t, "upto", &upto)
		d.MaybeScanArgs(t, "tag", &tag)
		return describe(s.log.Trim(ctx, s.book, tag, quipu.Seq(upto))) + "\n"
	case "tail":
		tail, err := s.log.Tail(ctx, s.book, quipu.Linearizable)
		return fmt.Sprintf("tail=%s %s\n", short(tail), describe(err))
	case "close":
		err := s.log.Close()
		s.log = nil
		return describe(err) + "\n"
	case "reopen":
		return s.reopen(t) + "\n"
	case "verify":
		r, err := s.log.Verify(ctx, nil)
		return fmt.Sprintf("%d segments, %d batches, %d records: %s\n", r.Segments, r.Batches, r.Records, describe(err))
	case "damage":
		return s.damage(t, d)
	case "trace":
		lines := 0
		d.MaybeScanArgs(t, "lines", &lines)
		return s.ops.take(lines)
	}
	return "unknown command\n"
}

func (s *story) reopen(t *testing.T) string {
	t.Helper()
	if s.log != nil {
		s.log.Close() //nolint:errcheck // it may be broken
	}
	if s.left != nil {
		s.mem, s.left = s.left, nil
	}
	s.crash.Store(nil)
	s.fail.Store(nil)
	return s.open(t)
}

func (s *story) append(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	var ds []quipu.Draft
	var crash, fail, cond, producer, tag string
	d.MaybeScanArgs(t, "tag", &tag)
	d.MaybeScanArgs(t, "cond", &cond)
	d.MaybeScanArgs(t, "producer", &producer)
	if d.MaybeScanArgs(t, "crash", &crash) {
		op := strings.TrimPrefix(crash, "before-")
		s.crash.Store(&op)
	}
	if d.MaybeScanArgs(t, "fail", &fail) {
		s.fail.Store(&fail)
	}
	for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
		draft := quipu.Draft{Data: []byte(line)}
		if n := 0; len(ds) == 0 {
			if _, err := fmt.Sscanf(line, "%d bytes", &n); err == nil {
				draft.Data = make([]byte, n)
			}
		}
		if tag != "" {
			draft.Tags = []string{tag}
		}
		ds = append(ds, draft)
	}
	if name, last, ok := strings.Cut(cond, ":"); ok {
		seq, err := quipu.ParseSeq(last)
		if err != nil {
			t.Fatal(err)
		}
		ds[0].Cond = &quipu.Cond{Tag: name, Last: seq}
	}
	if producer != "" {
		if _, err := fmt.Sscanf(producer, "%d:%d:%d", &ds[0].Producer.ID, &ds[0].Producer.Epoch, &ds[0].Producer.N); err != nil {
			t.Fatal(err)
		}
	}
	seqs, err := s.log.AppendBatch(context.Background(), s.book, ds)
	var out strings.Builder
	for _, seq := range seqs {
		fmt.Fprintf(&out, "seq=%s ", short(seq))
	}
	return out.String() + describe(err) + "\n"
}

func (s *story) tx(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	var snapshot uint64
	var reads, writes string
	d.MaybeScanArgs(t, "snapshot", &snapshot)
	d.MaybeScanArgs(t, "reads", &reads)
	d.MaybeScanArgs(t, "writes", &writes)
	tx := quipu.Tx{Snapshot: quipu.Seq(snapshot), Writes: strings.Split(writes, "+")}
	if reads != "" {
		tx.Reads = strings.Split(reads, "+")
	}
	seq, err := s.log.Append(context.Background(), s.book, quipu.Draft{Kind: quipu.KindTx, Version: codec.TxVersion, Data: codec.EncodeTx(nil, &tx)})
	return fmt.Sprintf("seq=%s %s\n", short(seq), describe(err))
}

func (s *story) read(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	tag, from := quipu.TagAll, uint64(0)
	d.MaybeScanArgs(t, "tag", &tag)
	d.MaybeScanArgs(t, "from", &from)
	var out strings.Builder
	for r, err := range s.log.Range(context.Background(), s.book, tag, quipu.Seq(from), quipu.SeqMax) {
		if err != nil {
			return out.String() + describe(err) + "\n"
		}
		data := string(r.Data)
		if len(data) > 40 {
			data = fmt.Sprintf("%d bytes", len(data))
		}
		fmt.Fprintf(&out, "%s %s\n", short(r.Seq), data)
	}
	return out.String()
}

func (s *story) damage(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	var name string
	var at int
	d.ScanArgs(t, "file", &name)
	d.ScanArgs(t, "at", &at)
	f, err := s.mem.OpenReadWrite("log/"+name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], int64(at)); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], int64(at)); err != nil {
		t.Fatal(err)
	}
	return "ok\n"
}

// short is a seq as term.pos.
func short(s quipu.Seq) string { return fmt.Sprintf("%d.%d", s.Term(), s.Pos()) }

func describe(err error) string {
	if err == nil {
		return "ok"
	}
	e := quipu.AsError(err)
	text := e.Text
	if e.Code == quipu.CodeConflict {
		text = "winner " + short(e.Seq)
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s: %s", e.Code, quipu.Codes[e.Code].Title, text))
}
