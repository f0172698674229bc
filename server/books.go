package server

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/quipu-run/quipu"
)

// ownBooks is the log as one namespace sees it: its own platform book and, in the default namespace, the raw
// books, which belong to nobody else. A book gets its id only from OpenBook or Books, so these two are the gate.
type ownBooks struct {
	quipu.Log
	namespace string
}

func (o ownBooks) may(book string) bool {
	if name, ok := strings.CutPrefix(book, quipu.PlatformPrefix); ok {
		return name == o.namespace
	}
	return o.namespace == DefaultNamespace
}

// CreateBook answers CodeUsage in a namespace that can have no books of its own.
func (o ownBooks) CreateBook(ctx context.Context, name string, opt quipu.BookOptions) (quipu.Book, error) {
	if !o.may(name) {
		return 0, &quipu.Error{Code: quipu.CodeUsage, Op: "book.create",
			Text: fmt.Sprintf("namespace %s cannot have a book %q", o.namespace, name), Hint: "create it in the namespace " + DefaultNamespace}
	}
	return o.Log.CreateBook(ctx, name, opt)
}

// OpenBook answers CodeNoBook for a book of another namespace, as for one that is not there.
func (o ownBooks) OpenBook(ctx context.Context, name string) (quipu.Book, error) {
	if !o.may(name) {
		return 0, &quipu.Error{Code: quipu.CodeNoBook, Op: "book.open",
			Text: fmt.Sprintf("namespace %s has no book %q", o.namespace, name), Hint: quipu.Codes[quipu.CodeNoBook].Next}
	}
	return o.Log.OpenBook(ctx, name)
}

// Books lists those of the namespace.
func (o ownBooks) Books(ctx context.Context) ([]quipu.BookInfo, error) {
	books, err := o.Log.Books(ctx)
	return slices.DeleteFunc(books, func(b quipu.BookInfo) bool { return !o.may(b.Name) }), err
}
