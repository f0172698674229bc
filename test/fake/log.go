package fake

import (
	"context"
	"fmt"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/xtest"
)

// Books are books in memory.
type Books struct{ log *xtest.Model }

func newBooks() *Books { return &Books{xtest.NewModel(xtest.NewClock(Epoch))} }

// Put appends a raw record to a book, which is made if need be.
func (l *Books) Put(book, data string, tags ...string) quipu.Seq {
	ctx := context.Background()
	id, err := l.log.OpenBook(ctx, book)
	if quipu.CodeOf(err) == quipu.CodeNoBook {
		id, err = l.log.CreateBook(ctx, book, quipu.BookOptions{})
	}
	if err != nil {
		panic(fmt.Sprintf("fake: book %q: %v", book, err))
	}
	seq, err := l.log.Append(ctx, id, quipu.Draft{Version: 1, Tags: tags, Data: []byte(data)})
	if err != nil {
		panic(fmt.Sprintf("fake: append to %q: %v", book, err))
	}
	return seq
}
