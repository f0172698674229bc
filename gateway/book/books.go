package book

import (
	"context"
	"fmt"
	"slices"

	logv1 "github.com/quipu-run/quipu/api/log/v1"
	"google.golang.org/grpc"

	"github.com/quipu-run/quipu"
)

const (
	booksAtOnce = 1000    // books of one message: at most 300 KiB
	auxBytesMax = 1 << 20 // of a hint
)

// CreateBook implements the protocol.
func (s *service) CreateBook(ctx context.Context, q *logv1.CreateBookRequest) (*logv1.CreateBookResponse, error) {
	shelf, err := s.d.shelf(ctx)
	if err == nil && isPlatforms(q.GetName()) {
		err = bookLocked(fmt.Sprintf("%q", q.GetName()))
	}
	if err != nil {
		return nil, s.d.fail(ctx, err)
	}
	id, err := shelf.log.CreateBook(ctx, q.GetName(), q.GetOptions().Plain())
	if err != nil {
		return nil, s.d.fail(ctx, err)
	}
	shelf.learn(q.GetName(), id)
	return &logv1.CreateBookResponse{Book: uint64(id)}, nil
}

// SetBook implements the protocol.
func (s *service) SetBook(ctx context.Context, q *logv1.SetBookRequest) (*logv1.SetBookResponse, error) {
	err := s.write(ctx, q.GetBook(), func(log quipu.Log, id quipu.Book) error { return log.SetBook(ctx, id, q.GetOptions().Plain()) })
	return &logv1.SetBookResponse{}, err
}

// DeleteBook implements the protocol.
func (s *service) DeleteBook(ctx context.Context, q *logv1.DeleteBookRequest) (*logv1.DeleteBookResponse, error) {
	err := s.write(ctx, q.GetBook(), func(log quipu.Log, id quipu.Book) error { return log.DeleteBook(ctx, id) })
	return &logv1.DeleteBookResponse{}, err
}

// OpenBook implements the protocol.
func (s *service) OpenBook(ctx context.Context, q *logv1.OpenBookRequest) (*logv1.OpenBookResponse, error) {
	shelf, err := s.d.shelf(ctx)
	if err != nil {
		return nil, s.d.fail(ctx, err)
	}
	id, err := shelf.log.OpenBook(ctx, q.GetName())
	if err != nil {
		return nil, s.d.fail(ctx, err)
	}
	shelf.learn(q.GetName(), id)
	return &logv1.OpenBookResponse{Book: uint64(id)}, nil
}

// ListBooks implements the protocol.
func (s *service) ListBooks(_ *logv1.ListBooksRequest, out grpc.ServerStreamingServer[logv1.ListBooksResponse]) error {
	ctx := out.Context()
	shelf, err := s.d.shelf(ctx)
	if err != nil {
		return s.d.fail(ctx, err)
	}
	books, err := shelf.log.Books(ctx)
	if err != nil {
		return s.d.fail(ctx, err)
	}
	for some := range slices.Chunk(books, booksAtOnce) {
		m := &logv1.ListBooksResponse{Books: make([]*logv1.Book, len(some))}
		for i, b := range some {
			m.Books[i] = logv1.NewBook(b)
		}
		if err := out.Send(m); err != nil {
			return err
		}
	}
	return nil
}

// Trim implements the protocol.
func (s *service) Trim(ctx context.Context, q *logv1.TrimRequest) (*logv1.TrimResponse, error) {
	err := s.write(ctx, q.GetBook(), func(log quipu.Log, id quipu.Book) error {
		return log.Trim(ctx, id, string(q.GetTag()), quipu.Seq(q.GetUpto()))
	})
	return &logv1.TrimResponse{}, err
}

// SetAux implements the protocol.
func (s *service) SetAux(ctx context.Context, q *logv1.SetAuxRequest) (*logv1.SetAuxResponse, error) {
	err := s.write(ctx, q.GetBook(), func(log quipu.Log, id quipu.Book) error {
		if len(q.GetAux()) > auxBytesMax {
			return &quipu.Error{Code: quipu.CodeUsage, Op: "log.setaux", Text: fmt.Sprintf("a hint has up to %d bytes, not %d", auxBytesMax, len(q.GetAux()))}
		}
		return log.SetAux(ctx, id, quipu.Seq(q.GetSeq()), q.GetAux())
	})
	return &logv1.SetAuxResponse{}, err
}

// GetAux implements the protocol.
func (s *service) GetAux(ctx context.Context, q *logv1.GetAuxRequest) (*logv1.GetAuxResponse, error) {
	var aux []byte
	err := s.read(ctx, q.GetBook(), func(log quipu.Log, id quipu.Book) (err error) {
		aux, err = log.Aux(ctx, id, quipu.Seq(q.GetSeq()))
		return err
	})
	return &logv1.GetAuxResponse{Aux: aux}, err
}

// LastProducer implements the protocol.
func (s *service) LastProducer(ctx context.Context, q *logv1.LastProducerRequest) (*logv1.LastProducerResponse, error) {
	var p quipu.Producer
	err := s.read(ctx, q.GetBook(), func(log quipu.Log, id quipu.Book) (err error) {
		p, err = log.Producer(ctx, id, q.GetId())
		return err
	})
	return &logv1.LastProducerResponse{Producer: logv1.NewProducer(p)}, err
}

// read does something with a book that the client may read.
func (s *service) read(ctx context.Context, id uint64, do func(quipu.Log, quipu.Book) error) error {
	shelf, err := s.d.shelf(ctx)
	if err == nil {
		err = shelf.readable(ctx, quipu.Book(id))
	}
	if err == nil {
		err = do(shelf.log, quipu.Book(id))
	}
	return s.d.fail(ctx, err)
}

// write does something with a book that the client may write.
func (s *service) write(ctx context.Context, id uint64, do func(quipu.Log, quipu.Book) error) error {
	shelf, err := s.d.shelf(ctx)
	if err == nil {
		err = shelf.writable(ctx, quipu.Book(id))
	}
	if err == nil {
		err = do(shelf.log, quipu.Book(id))
	}
	return s.d.fail(ctx, err)
}
