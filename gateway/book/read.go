package book

import (
	"context"

	logv1 "github.com/quipu-run/quipu/api/log/v1"
	"google.golang.org/grpc"

	"github.com/quipu-run/quipu"
)

// Bounds of one message of records. A record that is larger goes alone.
const (
	readBytesMax   = 256 << 10
	readRecordsMax = 1024
	recordOverhead = 64 // bytes counted for a record besides its data and tags
)

// Next implements the protocol.
func (s *service) Next(ctx context.Context, q *logv1.NextRequest) (*logv1.RecordResponse, error) {
	return s.one(ctx, q.GetBook(), func(log quipu.Log, id quipu.Book) (quipu.Record, error) {
		return log.Next(ctx, id, string(q.GetTag()), quipu.Seq(q.GetFrom()))
	})
}

// Prev implements the protocol.
func (s *service) Prev(ctx context.Context, q *logv1.PrevRequest) (*logv1.RecordResponse, error) {
	return s.one(ctx, q.GetBook(), func(log quipu.Log, id quipu.Book) (quipu.Record, error) {
		return log.Prev(ctx, id, string(q.GetTag()), quipu.Seq(q.GetTo()))
	})
}

func (s *service) one(ctx context.Context, id uint64, find func(quipu.Log, quipu.Book) (quipu.Record, error)) (*logv1.RecordResponse, error) {
	m := &logv1.RecordResponse{}
	err := s.read(ctx, id, func(log quipu.Log, id quipu.Book) error {
		r, err := find(log, id)
		m.Record = logv1.NewRecord(&r)
		return err
	})
	return m, err
}

// Tail implements the protocol.
func (s *service) Tail(ctx context.Context, q *logv1.TailRequest) (*logv1.TailResponse, error) {
	c := quipu.Linearizable
	if q.GetLocal() {
		c = quipu.Local
	}
	m := &logv1.TailResponse{}
	err := s.read(ctx, q.GetBook(), func(log quipu.Log, id quipu.Book) error {
		seq, err := log.Tail(ctx, id, c)
		m.Seq = uint64(seq)
		return err
	})
	return m, err
}

// Read implements the protocol.
func (s *service) Read(q *logv1.ReadRequest, out grpc.ServerStreamingServer[logv1.ReadResponse]) error {
	ctx, cancel := context.WithCancelCause(out.Context())
	defer cancel(nil)
	defer context.AfterFunc(s.d.closing, func() { cancel(stopping()) })()
	shelf, err := s.d.shelf(ctx)
	if err == nil {
		err = shelf.readable(ctx, quipu.Book(q.GetBook()))
	}
	if err == nil {
		err = out.SendHeader(nil) // a client that waits at the tail knows that it does
	}
	if err == nil {
		err = newReader(shelf.log, q, out).run(ctx)
	}
	if cause := context.Cause(ctx); cause != nil && quipu.CodeOf(cause) == quipu.CodeStopping {
		err = cause
	}
	return s.d.fail(out.Context(), err)
}

// reader sends the records of a stream in messages: as many as there are, up to the bounds of one.
type reader struct {
	log    quipu.Log
	book   quipu.Book
	tag    string
	from   quipu.Seq // the first that was not taken yet
	to     quipu.Seq
	left   uint64 // records
	follow bool
	out    grpc.ServerStreamingServer[logv1.ReadResponse]
	some   logv1.ReadResponse // to be sent
	bytes  int
}

func newReader(log quipu.Log, q *logv1.ReadRequest, out grpc.ServerStreamingServer[logv1.ReadResponse]) *reader {
	r := &reader{log: log, book: quipu.Book(q.GetBook()), tag: string(q.GetTag()), from: quipu.Seq(q.GetFrom()), to: quipu.SeqMax,
		left: q.GetLimit(), follow: q.GetFollow(), out: out}
	if q.To != nil {
		r.to = quipu.Seq(q.GetTo())
	}
	if r.left == 0 {
		r.left = ^uint64(0)
	}
	return r
}

func (r *reader) run(ctx context.Context) error {
	if r.follow && r.to != quipu.SeqMax {
		return &quipu.Error{Code: quipu.CodeUsage, Op: "log.read", Text: "to follow a book and to end at a seq exclude each other"}
	}
	for {
		if err := r.toTail(ctx); err != nil || !r.follow || r.left == 0 {
			return err
		}
		if err := r.wait(ctx); err != nil {
			return err
		}
	}
}

// toTail sends all that there is.
func (r *reader) toTail(ctx context.Context) error {
	for rec, err := range r.log.Range(ctx, r.book, r.tag, r.from, r.to) {
		if err != nil {
			if lost := r.flush(); lost != nil { // what was found before comes first
				return lost
			}
			return err
		}
		if err := r.take(&rec); err != nil {
			return err
		}
		if r.left == 0 {
			break
		}
	}
	return r.flush()
}

// wait takes the next record when there is one. It subscribes anew each time: a subscription cannot tell when it is
// about to wait, which is when what was taken must be sent.
func (r *reader) wait(ctx context.Context) error {
	for rec, err := range r.log.Subscribe(ctx, r.book, r.tag, r.from) {
		if err != nil {
			return err
		}
		return r.take(&rec)
	}
	return ctx.Err()
}

// take adds a record to the message, and sends it if it is full.
func (r *reader) take(rec *quipu.Record) error {
	size := len(rec.Data) + recordOverhead
	for _, t := range rec.Tags {
		size += len(t)
	}
	if r.bytes > 0 && r.bytes+size > readBytesMax {
		if err := r.flush(); err != nil {
			return err
		}
	}
	r.some.Records = append(r.some.Records, logv1.NewRecord(rec))
	r.bytes += size
	r.from = rec.Seq + 1
	r.left--
	if len(r.some.Records) < readRecordsMax {
		return nil
	}
	return r.flush()
}

// flush blocks while the client does not read.
func (r *reader) flush() error {
	if len(r.some.Records) == 0 {
		return nil
	}
	err := r.out.Send(&r.some)
	clear(r.some.Records)
	r.some.Records, r.bytes = r.some.Records[:0], 0
	return err
}
