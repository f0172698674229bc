package sdk

import (
	"context"
	"iter"
	"time"

	logv1 "github.com/quipu-run/quipu/api/log/v1"

	"github.com/quipu-run/quipu"
)

// Next implements quipu.Log.
func (l *Log) Next(ctx context.Context, book quipu.Book, tag string, from quipu.Seq) (quipu.Record, error) {
	m, err := ask(ctx, l, l.rpc.Next, &logv1.NextRequest{Book: uint64(book), Tag: []byte(tag), From: uint64(from)})
	if err != nil {
		return quipu.Record{}, err
	}
	return m.GetRecord().Plain(book), nil
}

// Prev implements quipu.Log.
func (l *Log) Prev(ctx context.Context, book quipu.Book, tag string, to quipu.Seq) (quipu.Record, error) {
	m, err := ask(ctx, l, l.rpc.Prev, &logv1.PrevRequest{Book: uint64(book), Tag: []byte(tag), To: uint64(to)})
	if err != nil {
		return quipu.Record{}, err
	}
	return m.GetRecord().Plain(book), nil
}

// Tail implements quipu.Log.
func (l *Log) Tail(ctx context.Context, book quipu.Book, c quipu.Consistency) (quipu.Seq, error) {
	m, err := ask(ctx, l, l.rpc.Tail, &logv1.TailRequest{Book: uint64(book), Local: c == quipu.Local})
	return quipu.Seq(m.GetSeq()), err
}

// Range implements quipu.Log. A consumer that takes its time is waited for.
func (l *Log) Range(ctx context.Context, book quipu.Book, tag string, from, to quipu.Seq) iter.Seq2[quipu.Record, error] {
	return func(yield func(quipu.Record, error) bool) {
		if from > to {
			return
		}
		end := uint64(to)
		r := reading{log: l, book: book, yield: yield, ask: &logv1.ReadRequest{Book: uint64(book), Tag: []byte(tag), From: uint64(from), To: &end}}
		if err := r.run(ctx); err != nil && !r.over {
			yield(quipu.Record{}, err)
		}
	}
}

// Subscribe implements quipu.Log. It goes on after a break of the connection, and after a restart of the node.
func (l *Log) Subscribe(ctx context.Context, book quipu.Book, tag string, from quipu.Seq) iter.Seq2[quipu.Record, error] {
	return func(yield func(quipu.Record, error) bool) {
		r := reading{log: l, book: book, yield: yield,
			ask: &logv1.ReadRequest{Book: uint64(book), Tag: []byte(tag), From: uint64(from), Follow: true}}
		for {
			err := r.run(ctx)
			if r.over {
				return
			}
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			if !l.again(ctx, &r, err) {
				yield(quipu.Record{}, err)
				return
			}
		}
	}
}

// Waits between two attempts of a subscription to go on.
const (
	againMin = 20 * time.Millisecond
	againMax = time.Second
)

// again waits before a subscription goes on, and tells whether it may.
func (l *Log) again(ctx context.Context, r *reading, err error) bool {
	if code := quipu.CodeOf(err); code != quipu.CodeNoNode && code != quipu.CodeStopping {
		return false
	}
	if r.heard.IsZero() || time.Since(r.heard) > l.opt.ReconnectMax { // it was never there, or is gone
		return false
	}
	r.wait = min(max(2*r.wait, againMin), againMax)
	timer := time.NewTimer(r.wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return true // the next attempt says so
	case <-l.closing.Done():
		return true
	}
}

// reading is a stream of records, of one request after the other.
type reading struct {
	log   *Log
	book  quipu.Book
	ask   *logv1.ReadRequest // From is the first that was not yielded
	yield func(quipu.Record, error) bool
	over  bool          // the consumer wants no more
	heard time.Time     // until when the node answered
	wait  time.Duration // before the last attempt
}

// run yields until the end, an error, or the consumer wants no more.
func (r *reading) run(ctx context.Context) error {
	call, cancel := context.WithCancel(r.log.call(ctx))
	defer cancel() // frees the stream if it is left before its end
	stream, err := r.log.rpc.Read(call, r.ask)
	if err != nil {
		return r.log.problem(ctx, err)
	}
	header, _ := stream.Header() // which the node sends at once; an error comes with Recv
	for {
		m, err := stream.Recv()
		if header != nil {
			r.heard, r.wait = time.Now(), 0
		}
		if ended(err) {
			return nil
		}
		if err != nil {
			return r.log.problem(ctx, err)
		}
		for _, rec := range m.GetRecords() {
			r.ask.From = rec.GetSeq() + 1
			if !r.yield(rec.Plain(r.book), nil) {
				r.over = true
				return nil
			}
		}
	}
}
