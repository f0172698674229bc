package server

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/quipu-run/quipu"
)

// ownBooks is the log as one namespace sees it: its own platform book, which it can only read, and its raw books. A book
// gets its id only from CreateBook, OpenBook or Books, so these three are the gate.
//
// In the log the raw books of the default namespace have the names that their users gave them, and those of another
// are called @NAMESPACE/NAME.
type ownBooks struct {
	quipu.Log
	namespace string
	platform  quipu.Book // of the namespace
}

const foreignPrefix = "@"

// stored is what the log calls a book of the namespace; false if it can have none of that name.
func (o ownBooks) stored(name string) (string, bool) {
	switch {
	case strings.HasPrefix(name, quipu.PlatformPrefix):
		return name, name == quipu.PlatformPrefix+o.namespace
	case o.namespace == DefaultNamespace:
		return name, !strings.HasPrefix(name, foreignPrefix)
	}
	return foreignPrefix + o.namespace + "/" + name, true
}

// shown is the opposite of stored.
func (o ownBooks) shown(stored string) (string, bool) {
	name := stored
	if o.namespace != DefaultNamespace && !strings.HasPrefix(stored, quipu.PlatformPrefix) {
		own := false
		if name, own = strings.CutPrefix(stored, foreignPrefix+o.namespace+"/"); !own {
			return "", false
		}
	}
	_, may := o.stored(name)
	return name, may
}

// CreateBook makes a raw book of the namespace. CodeBookLocked for a name that only the platform gives.
func (o ownBooks) CreateBook(ctx context.Context, name string, options quipu.BookOptions) (quipu.Book, error) {
	if strings.HasPrefix(name, quipu.PlatformPrefix) {
		return 0, &quipu.Error{Code: quipu.CodeBookLocked, Op: "book.create", Text: "books whose names start with " + quipu.PlatformPrefix + " are the platform's"}
	}
	stored, may := o.stored(name)
	if !may || !quipu.ValidBookName(name) || !quipu.ValidBookName(stored) {
		return 0, &quipu.Error{Code: quipu.CodeUsage, Op: "book.create", Text: fmt.Sprintf("a book cannot be called %.300q", name),
			Hint: fmt.Sprintf("use 1 to %d bytes of UTF-8 without control characters, and no %s in front", quipu.BookNameMax-len(stored)+len(name), foreignPrefix)}
	}
	return o.Log.CreateBook(ctx, stored, options)
}

// OpenBook answers CodeNoBook for a book of another namespace, as for one that is not there.
func (o ownBooks) OpenBook(ctx context.Context, name string) (quipu.Book, error) {
	stored, may := o.stored(name)
	if !may {
		return 0, &quipu.Error{Code: quipu.CodeNoBook, Op: "book.open",
			Text: fmt.Sprintf("namespace %s has no book %.300q", o.namespace, name), Hint: quipu.Codes[quipu.CodeNoBook].Next}
	}
	return o.Log.OpenBook(ctx, stored)
}

// Books lists those of the namespace.
func (o ownBooks) Books(ctx context.Context) ([]quipu.BookInfo, error) {
	books, err := o.Log.Books(ctx)
	own := make([]quipu.BookInfo, 0, len(books))
	for _, b := range books {
		if name, may := o.shown(b.Name); may {
			b.Name = name
			own = append(own, b)
		}
	}
	slices.SortFunc(own, func(a, b quipu.BookInfo) int { return strings.Compare(a.Name, b.Name) })
	return own, err
}

// raw lets only raw books be written to. CodeBookLocked.
func (o ownBooks) raw(book quipu.Book, op string) error {
	if book != o.platform {
		return nil
	}
	return &quipu.Error{Code: quipu.CodeBookLocked, Op: op, Text: "the book " + quipu.PlatformPrefix + o.namespace + " is the platform's: it can be read, but nothing else"}
}

// Append refuses the platform's book.
func (o ownBooks) Append(ctx context.Context, book quipu.Book, d quipu.Draft) (quipu.Seq, error) {
	if err := o.raw(book, "log.append"); err != nil {
		return 0, err
	}
	return o.Log.Append(ctx, book, d)
}

// AppendBatch refuses the platform's book.
func (o ownBooks) AppendBatch(ctx context.Context, book quipu.Book, ds []quipu.Draft) ([]quipu.Seq, error) {
	if err := o.raw(book, "log.append"); err != nil {
		return nil, err
	}
	return o.Log.AppendBatch(ctx, book, ds)
}

// SetBook refuses the platform's book.
func (o ownBooks) SetBook(ctx context.Context, book quipu.Book, options quipu.BookOptions) error {
	if err := o.raw(book, "log.set"); err != nil {
		return err
	}
	return o.Log.SetBook(ctx, book, options)
}

// DeleteBook refuses the platform's book.
func (o ownBooks) DeleteBook(ctx context.Context, book quipu.Book) error {
	if err := o.raw(book, "log.delete"); err != nil {
		return err
	}
	return o.Log.DeleteBook(ctx, book)
}

// Trim refuses the platform's book.
func (o ownBooks) Trim(ctx context.Context, book quipu.Book, tag string, upto quipu.Seq) error {
	if err := o.raw(book, "log.trim"); err != nil {
		return err
	}
	return o.Log.Trim(ctx, book, tag, upto)
}

// SetAux refuses the platform's book.
func (o ownBooks) SetAux(ctx context.Context, book quipu.Book, seq quipu.Seq, aux []byte) error {
	if err := o.raw(book, "log.setaux"); err != nil {
		return err
	}
	return o.Log.SetAux(ctx, book, seq, aux)
}

// isBookOf tells whether a raw book belongs to a namespace that is not the default one.
func isBookOf(stored, namespace string) bool {
	return strings.HasPrefix(stored, foreignPrefix+namespace+"/")
}
