package server

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/quipu-run/quipu"
)

// books is the log as a namespace sees it: its own platform book, and, for the default namespace, the books
// of users. Ids are known only from here, so filtering names is enough.
type books struct {
	quipu.Log
	namespace string
}

func (b books) shows(name string) bool {
	owner, platform := strings.CutPrefix(name, quipu.PlatformPrefix)
	if platform {
		return owner == b.namespace
	}
	return b.namespace == DefaultNamespace
}

// OpenBook finds a book that the namespace may see. CodeNoBook.
func (b books) OpenBook(ctx context.Context, name string) (quipu.Book, error) {
	if !b.shows(name) {
		return 0, &quipu.Error{Code: quipu.CodeNoBook, Op: "book.open",
			Text: fmt.Sprintf("namespace %s has no book %q", b.namespace, name), Hint: quipu.Codes[quipu.CodeNoBook].Next}
	}
	return b.Log.OpenBook(ctx, name)
}

// Books lists those that the namespace may see.
func (b books) Books(ctx context.Context) ([]quipu.BookInfo, error) {
	all, err := b.Log.Books(ctx)
	return slices.DeleteFunc(all, func(i quipu.BookInfo) bool { return !b.shows(i.Name) }), err
}
