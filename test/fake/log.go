package fake

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/quipu-run/quipu"
)

// Books are books in memory.
type Books struct {
	lock    sync.Mutex
	changed chan struct{} // closed and replaced by each append
	books   []quipu.BookInfo
	records map[quipu.Book][]quipu.Record
}

func newBooks() *Books {
	return &Books{changed: make(chan struct{}), records: map[quipu.Book][]quipu.Record{}}
}

// Put appends a raw record to a book, which is made if need be.
func (l *Books) Put(book, data string, tags ...string) quipu.Seq {
	l.lock.Lock()
	defer l.lock.Unlock()
	i := slices.IndexFunc(l.books, func(b quipu.BookInfo) bool { return b.Name == book })
	if i < 0 {
		i = len(l.books)
		l.books = append(l.books, quipu.BookInfo{Name: book, ID: quipu.Book(i + 1)})
	}
	b := &l.books[i]
	b.Tail = quipu.MakeSeq(1, b.Tail.Pos()+1)
	l.records[b.ID] = append(l.records[b.ID], quipu.Record{Book: b.ID, Seq: b.Tail, Kind: quipu.KindRaw, Version: 1,
		Stamp: Epoch.UnixNano(), Tags: tags, Data: []byte(data)})
	close(l.changed)
	l.changed = make(chan struct{})
	return b.Tail
}

// asLog is the part of quipu.Log that reads; the rest is never called by what is tested.
type asLog struct{ l *Books }

func (a asLog) find(book quipu.Book) (quipu.BookInfo, error) {
	a.l.lock.Lock()
	defer a.l.lock.Unlock()
	for _, b := range a.l.books {
		if b.ID == book {
			return b, nil
		}
	}
	return quipu.BookInfo{}, &quipu.Error{Code: quipu.CodeNoBook}
}

func (a asLog) OpenBook(_ context.Context, name string) (quipu.Book, error) {
	a.l.lock.Lock()
	defer a.l.lock.Unlock()
	for _, b := range a.l.books {
		if b.Name == name {
			return b.ID, nil
		}
	}
	return 0, &quipu.Error{Code: quipu.CodeNoBook, Text: fmt.Sprintf("no book has the name %q", name)}
}

func (a asLog) Books(context.Context) ([]quipu.BookInfo, error) {
	a.l.lock.Lock()
	defer a.l.lock.Unlock()
	return slices.Clone(a.l.books), nil
}

func (a asLog) Tail(_ context.Context, book quipu.Book, _ quipu.Consistency) (quipu.Seq, error) {
	b, err := a.find(book)
	return b.Tail, err
}

func (a asLog) Range(_ context.Context, book quipu.Book, tag string, from, to quipu.Seq) iter.Seq2[quipu.Record, error] {
	return func(yield func(quipu.Record, error) bool) {
		a.l.lock.Lock()
		all := slices.Clone(a.l.records[book])
		a.l.lock.Unlock()
		for _, r := range all {
			fits := tag == quipu.TagAll || slices.Contains(r.Tags, tag)
			if fits && r.Seq >= from && r.Seq <= to && !yield(r, nil) {
				return
			}
		}
	}
}

func (a asLog) Subscribe(ctx context.Context, book quipu.Book, tag string, from quipu.Seq) iter.Seq2[quipu.Record, error] {
	return func(yield func(quipu.Record, error) bool) {
		for {
			a.l.lock.Lock()
			changed := a.l.changed
			a.l.lock.Unlock()
			for r := range a.Range(ctx, book, tag, from, quipu.SeqMax) {
				if from = r.Seq + 1; !yield(r, nil) {
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				yield(quipu.Record{}, ctx.Err())
				return
			}
		}
	}
}

var errReadOnly = &quipu.Error{Code: quipu.CodeUsage, Text: "the fake log only reads"}

func (a asLog) CreateBook(context.Context, string) (quipu.Book, error) { return 0, errReadOnly }
func (a asLog) Append(context.Context, quipu.Book, quipu.Draft) (quipu.Seq, error) {
	return 0, errReadOnly
}
func (a asLog) AppendBatch(context.Context, quipu.Book, []quipu.Draft) ([]quipu.Seq, error) {
	return nil, errReadOnly
}
func (a asLog) Next(context.Context, quipu.Book, string, quipu.Seq) (quipu.Record, error) {
	return quipu.Record{}, errReadOnly
}
func (a asLog) Prev(context.Context, quipu.Book, string, quipu.Seq) (quipu.Record, error) {
	return quipu.Record{}, errReadOnly
}
func (a asLog) Trim(context.Context, quipu.Book, string, quipu.Seq) error { return errReadOnly }
func (a asLog) SetAux(context.Context, quipu.Book, quipu.Seq, []byte) error {
	return errReadOnly
}
func (a asLog) Aux(context.Context, quipu.Book, quipu.Seq) ([]byte, error) { return nil, errReadOnly }
func (a asLog) Close() error                                               { return nil }
