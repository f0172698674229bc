package book

import (
	"context"

	logv1 "github.com/quipu-run/quipu/api/log/v1"

	"github.com/quipu-run/quipu"
)

// draftOverhead is counted for a draft besides its data and tags.
const draftOverhead = 64

// appending is one append on its way.
type appending struct {
	id     uint64 // the client's, in a stream
	book   quipu.Book
	drafts []quipu.Draft
	bytes  int64
}

// weigh counts what the drafts hold.
func (a *appending) weigh() {
	for i := range a.drafts {
		a.bytes += int64(len(a.drafts[i].Data) + draftOverhead)
		for _, t := range a.drafts[i].Tags {
			a.bytes += int64(len(t))
		}
	}
}

// isPlain tells whether the append wins whatever came before it, so that it may be made one with others.
func (a *appending) isPlain() bool {
	for i := range a.drafts {
		d := &a.drafts[i]
		if d.Cond != nil || d.Producer != (quipu.Producer{}) || d.Kind != 0 && d.Kind != quipu.KindRaw {
			return false
		}
	}
	return len(a.drafts) > 0
}

// do appends, and answers as the log does.
func (a *appending) do(ctx context.Context, log quipu.Log) ([]quipu.Seq, error) {
	if len(a.drafts) != 1 {
		return log.AppendBatch(ctx, a.book, a.drafts)
	}
	seq, err := log.Append(ctx, a.book, a.drafts[0])
	if err != nil {
		return nil, err
	}
	return []quipu.Seq{seq}, nil
}

// Append implements the protocol.
func (s *service) Append(ctx context.Context, q *logv1.AppendRequest) (*logv1.AppendResponse, error) {
	m := &logv1.AppendResponse{}
	shelf, err := s.d.shelf(ctx)
	if err == nil {
		err = shelf.writable(ctx, quipu.Book(q.GetBook()))
	}
	if err == nil {
		m.Seqs, err = s.appendNow(ctx, shelf, q)
	}
	return m, s.d.fail(ctx, err)
}

func (s *service) appendNow(ctx context.Context, shelf *shelf, q *logv1.AppendRequest) ([]uint64, error) {
	drafts, err := logv1.PlainDrafts(q.GetDrafts())
	if err != nil {
		return nil, err
	}
	a := &appending{book: quipu.Book(q.GetBook()), drafts: drafts}
	a.weigh()
	if err := s.d.flight.enter(ctx, a.bytes); err != nil {
		return nil, err
	}
	defer s.d.flight.leave(a.bytes, 1)
	seqs, err := a.do(ctx, shelf.log)
	return logv1.NewSeqs(seqs), err
}
