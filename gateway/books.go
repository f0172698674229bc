package gateway

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// batchBodyMax holds TxBytesMax of data in base64, with its tags.
const batchBodyMax = 96 << 20

var (
	readCodes  = []quipu.Code{quipu.CodeNoBook, quipu.CodeTrimmed}
	changes    = []quipu.Code{quipu.CodeNoBook, quipu.CodeBookLocked, quipu.CodeDiskFull}
	addCodes   = slices.Concat(changes, []quipu.Code{quipu.CodeConflict, quipu.CodeRecord, quipu.CodeFenced, quipu.CodeQuota, quipu.CodeOverloaded, quipu.CodeBodySize})
	asForm     = param{"as", "string", "how data is written: base64 (default, in data), text (in text, if it is UTF-8) or json (in json, if it is JSON, else as text)"}
	afterParam = param{"after", "seq", "instead of from: the last seq that was seen"}
)

// bookRoutes are the operations on books as a whole.
func (g *Gateway) bookRoutes() []adminRoute {
	missing := readCodes[:1]
	return []adminRoute{
		{id: "listBooks", method: "GET", path: "/books", summary: "Books by name.",
			status: 200, reply: jsonType, shape: sdk.Page[sdk.Book]{}, serve: g.listBooks},
		{id: "createBook", method: "POST", path: "/books", summary: "Make a book; durable on return. Without options it keeps everything that is not trimmed.",
			body: jsonType, takes: sdk.NewBook{}, status: 201, reply: jsonType, shape: sdk.Book{},
			codes: []quipu.Code{quipu.CodeBookExists, quipu.CodeBookLocked, quipu.CodeUsage, quipu.CodeBadJSON, quipu.CodeOverloaded, quipu.CodeDiskFull}, serve: g.createBook},
		{id: "getBook", method: "GET", path: "/books/{book}", summary: "One book: its tail and trim point, what it holds, its options.",
			status: 200, reply: jsonType, shape: sdk.Book{}, codes: missing, serve: g.getBook},
		{id: "changeBook", method: "PATCH", path: "/books/{book}", summary: "Change options of a book; durable on return. Those that are not given stay; 0 removes a bound.",
			body: jsonType, takes: sdk.BookChange{}, status: 200, reply: jsonType, shape: sdk.Book{},
			codes: append(slices.Clone(changes), quipu.CodeUsage, quipu.CodeBadJSON), serve: g.changeBook},
		{id: "deleteBook", method: "DELETE", path: "/books/{book}", summary: "Remove a book with all its records; durable on return.",
			status: 204, codes: changes, serve: deleteBook},
		{id: "trimBook", method: "POST", path: "/books/{book}/trim", summary: "Make the book, or the stream of one tag, unreadable up to a seq; durable on return. A lower point than before changes nothing.",
			body: jsonType, takes: sdk.TrimTo{}, status: 204, codes: append(slices.Clone(changes), quipu.CodeUsage, quipu.CodeBadJSON), serve: trimBook},
		{id: "getProducer", method: "GET", path: "/books/{book}/producers/{producer}", summary: "The newest epoch and number that the book has of a producer; zeros if none. A writer that starts anew goes on with the next epoch, numbers from 1.",
			status: 200, reply: jsonType, shape: sdk.Producer{}, codes: append(slices.Clone(missing), quipu.CodeUsage), serve: getProducer},
		{id: "verifyBook", method: "POST", path: "/books/{book}/verify", summary: "Read every byte the book depends on. Progress comes as lines of JSON; the last has ok or problem.",
			status: 200, reply: jsonLinesType, shape: sdk.Progress{}, codes: missing, serve: g.verifyBook},
		{id: "getLogStats", method: "GET", path: "/log/stats", summary: "What the log of the node holds, and did since the start.",
			status: 200, reply: jsonType, shape: sdk.LogStats{}, serve: g.getLogStats},
	}
}

func (g *Gateway) getLogStats(a *ask) error {
	stats, err := g.opt.LogStats(a.Context())
	if err != nil {
		return err
	}
	return a.reply(stats)
}

func (g *Gateway) listBooks(a *ask) error {
	books, err := a.ns.Log().Books(a.Context())
	if err != nil {
		return err
	}
	items := make([]sdk.Book, 0, len(books))
	for _, b := range books {
		items = append(items, bookOf(b, g.opt.Sync))
	}
	return a.reply(page(items))
}

func bookOf(b quipu.BookInfo, sync string) sdk.Book {
	return sdk.Book{Name: b.Name, ID: fmt.Sprintf("%016x", uint64(b.ID)), Tail: b.Tail, Trim: b.Trim, Records: b.Records, Bytes: b.Bytes,
		Options: sdk.OptionsOf(b.Options), Locked: isLocked(b.Name), Sync: sync}
}

func isLocked(name string) bool { return strings.HasPrefix(name, quipu.PlatformPrefix) }

func (g *Gateway) createBook(a *ask) error {
	var want sdk.NewBook
	if err := a.object(&want); err != nil {
		return err
	}
	if isLocked(want.Name) {
		return locked("log.create", want.Name)
	}
	if _, err := a.ns.Log().CreateBook(a.Context(), want.Name, want.Options.Contract()); err != nil {
		return err
	}
	info, err := a.info(want.Name)
	if err != nil {
		return err
	}
	writeJSON(a.ResponseWriter, 201, bookOf(info, g.opt.Sync))
	return nil
}

func locked(op, name string) error {
	return &quipu.Error{Code: quipu.CodeBookLocked, Op: op, Text: "the book " + quote(name) + " is the platform's: it can be read, but nothing else"}
}

// info finds a book by name. CodeNoBook.
func (a *ask) info(name string) (quipu.BookInfo, error) {
	books, err := a.ns.Log().Books(a.Context())
	if err != nil {
		return quipu.BookInfo{}, err
	}
	i := slices.IndexFunc(books, func(b quipu.BookInfo) bool { return b.Name == name })
	if i < 0 {
		return quipu.BookInfo{}, &quipu.Error{Code: quipu.CodeNoBook, Text: "there is no book " + quote(name)}
	}
	return books[i], nil
}

func (g *Gateway) getBook(a *ask) error {
	info, err := a.info(a.values["book"])
	if err != nil {
		return err
	}
	return a.reply(bookOf(info, g.opt.Sync))
}

// writable finds a book that its users may change. CodeNoBook, CodeBookLocked.
func (a *ask) writable(op string) (quipu.Log, quipu.Book, error) {
	log := a.ns.Log()
	book, err := log.OpenBook(a.Context(), a.values["book"])
	if err == nil && isLocked(a.values["book"]) {
		err = locked(op, a.values["book"])
	}
	return log, book, err
}

// changeBook reads the options and writes them whole, one change at a time, so that two changes of different options
// both count.
func (g *Gateway) changeBook(a *ask) error {
	var change sdk.BookChange
	if err := a.object(&change); err != nil {
		return err
	}
	log, book, err := a.writable("log.set")
	if err != nil {
		return err
	}
	g.options.Lock()
	defer g.options.Unlock()
	info, err := a.info(a.values["book"])
	if err != nil {
		return err
	}
	options := change.Options.In(sdk.OptionsOf(info.Options))
	if err := log.SetBook(a.Context(), book, options.Contract()); err != nil {
		return err
	}
	return g.getBook(a)
}

func deleteBook(a *ask) error {
	log, book, err := a.writable("log.delete")
	if err != nil {
		return err
	}
	return a.done(log.DeleteBook(a.Context(), book))
}

func trimBook(a *ask) error {
	var to sdk.TrimTo
	if err := a.object(&to); err != nil {
		return err
	}
	if to.Upto == 0 {
		return usage("the trim lacks upto, the last seq that goes")
	}
	log, book, err := a.writable("log.trim")
	if err != nil {
		return err
	}
	return a.done(log.Trim(a.Context(), book, to.Tag, to.Upto))
}

func getProducer(a *ask) error {
	id, err := strconv.ParseUint(a.values["producer"], 10, 64)
	if err != nil {
		return usage("the producer is %s; it must be a number", quote(a.values["producer"]))
	}
	log := a.ns.Log()
	book, err := log.OpenBook(a.Context(), a.values["book"])
	if err != nil {
		return err
	}
	p, err := log.Producer(a.Context(), book, id)
	if err != nil {
		return err
	}
	return a.reply(sdk.Producer{ID: p.ID, Epoch: p.Epoch, N: p.N})
}
