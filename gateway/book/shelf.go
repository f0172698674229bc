package book

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/quipu-run/quipu"
)

// shelf is the books of one namespace. A log takes any id; a client may use only those of books that its namespace
// can find by name, and write only those that are not the platform's. An id never changes its book, so what was
// found once need not be asked again.
type shelf struct {
	log quipu.Log

	looking sync.Mutex // one look at all books at a time

	mu     sync.RWMutex // guards below
	locked map[quipu.Book]bool
}

func newShelf(log quipu.Log) *shelf { return &shelf{log: log, locked: map[quipu.Book]bool{}} }

// readable answers CodeNoBook unless the book is of the namespace.
func (s *shelf) readable(ctx context.Context, id quipu.Book) error {
	_, err := s.find(ctx, id)
	return err
}

// writable answers CodeNoBook, and CodeBookLocked for a book of the platform.
func (s *shelf) writable(ctx context.Context, id quipu.Book) error {
	locked, err := s.find(ctx, id)
	if err == nil && locked {
		err = bookLocked(fmt.Sprintf("book %d", id))
	}
	return err
}

func (s *shelf) find(ctx context.Context, id quipu.Book) (locked bool, err error) {
	if locked, known := s.seen(id); known {
		return locked, nil
	}
	s.looking.Lock()
	defer s.looking.Unlock()
	if locked, known := s.seen(id); known { // by who looked before
		return locked, nil
	}
	books, err := s.log.Books(ctx)
	if err != nil {
		return false, err
	}
	all := make(map[quipu.Book]bool, len(books))
	for _, b := range books {
		all[b.ID] = isPlatforms(b.Name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.locked = all // books that are gone go with it
	locked, known := all[id]
	if !known {
		return false, &quipu.Error{Code: quipu.CodeNoBook, Op: "book.find", Text: fmt.Sprintf("the namespace has no book with the id %d", id)}
	}
	return locked, nil
}

func (s *shelf) seen(id quipu.Book) (locked, known bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	locked, known = s.locked[id]
	return locked, known
}

// learn keeps what a name's id is.
func (s *shelf) learn(name string, id quipu.Book) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.locked) >= 2*quipu.BooksMax { // most of them were deleted
		clear(s.locked)
	}
	s.locked[id] = isPlatforms(name)
}

func isPlatforms(name string) bool { return strings.HasPrefix(name, quipu.PlatformPrefix) }

func bookLocked(what string) error {
	return &quipu.Error{Code: quipu.CodeBookLocked, Op: "book.write", Text: what + " is the platform's: it can be read, and only the platform writes to it"}
}
