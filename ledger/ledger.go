// Package ledger keeps ledgers, as BookKeeper has them, on a quipu.Log: sequences of entries with one writer, which end.
//
// A ledger is made by its writer and numbers its entries from 0. It ends when the writer closes it, or when somebody else
// opens it because the writer seems to be gone: that fences the writer, finds the last entry, and closes the ledger for ever.
// So a system that moves a role from one process to another has a safe way to hand over what was written: the new owner opens
// the ledger of the old one, reads it to its end, and goes on in a new ledger of its own.
//
// It promises:
//
//   - An acknowledged entry is readable, under its id, until the ledger is deleted.
//   - Ids are dense: they start at 0, grow by one in the order of Send, and no entry is there without all before it.
//   - Once Open returned, the old writer adds nothing more: it gets CodeFenced. An append that had no answer before may be in the
//     ledger or not; Open has decided which, and only if it is in does the writer hear of success.
//   - The last entry of a closed ledger never changes, and everybody sees the same. All who open a ledger at once agree on it.
//   - What a reader has seen stays: an entry is readable only when it is durable.
//
// After a crash of the writer's process the ledger is open, with all acknowledged entries and perhaps some that were under way,
// without holes; Open closes it. After a crash in the middle of Open, opening again finishes it. After a crash of the log all
// of this holds as far as the log keeps what it acknowledged.
//
// It does not elect owners, tell whether a writer lives, or copy ledgers: the log does what is done for safety. A log that is
// reached over a network serves as well as one in the process.
//
// # Format
//
// The ledger x is the book ledger/x, without retention. Versions of its records say what they are; others are not of
// the ledger and are skipped.
//
//	version  tags              data
//	1        i128, each 64th   id of the entry (8 bytes, little-endian), the entry
//	2        fence             -
//	3        seal              number of entries (8 bytes, little-endian)
//
// The writer is producer 1 of the book, epoch 1, with a number for each append of one or more entries. The fence is number 1
// of epoch 2, whoever writes it, so there is one; from there on the log refuses epoch 1. The seal is the writer's last number,
// or number 2 of epoch 2 and then a function of what comes before the fence, so that it does not matter who writes it. The tag
// of each 64th entry makes the search for an entry one lookup and 64 records at most.
package ledger

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
)

// Prefix is what names of ledgers get in front as names of books.
const Prefix = "ledger/"

// EntryBytesMax is the size of the largest entry.
const EntryBytesMax = quipu.DataBytesMax - idBytes

// None is the last entry of a ledger without entries.
const None int64 = -1

// Options are checked by New; a zero field gets the default it names.
type Options struct {
	Log           quipu.Log   // required
	Clock         quipu.Clock // for the time between tries; nil means the system's
	QueueBytesMax int         // of entries that wait to be appended, in each writer; 0 means 16 MiB
}

// Ledgers are those of a log. Its methods may be called concurrently.
type Ledgers struct{ opt Options }

// New answers the ledgers of a log. It does not close the log.
func New(opt Options) *Ledgers {
	if opt.Log == nil {
		panic("ledger: Log is required")
	}
	if opt.Clock == nil {
		opt.Clock = systemClock{}
	}
	if opt.QueueBytesMax <= 0 {
		opt.QueueBytesMax = 16 << 20
	}
	return &Ledgers{opt}
}

type systemClock struct{}

func (systemClock) Now() time.Time                         { return time.Now() }
func (systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// Info describes a ledger.
type Info struct {
	Name   string
	Last   int64 // the newest entry; None if there is none. Of a closed ledger, the last for ever
	Closed bool
	Bytes  int64 // that the log keeps for it
}

// Create makes a ledger, durable on return, and answers its only writer. CodeBookExists, also if the ledger is closed;
// CodeUsage for a name that cannot be.
func (l *Ledgers) Create(ctx context.Context, name string) (*Writer, error) {
	if name == "" {
		return nil, &quipu.Error{Code: quipu.CodeUsage, Op: "ledger.create", Text: "the name of the ledger is empty"}
	}
	book, err := l.opt.Log.CreateBook(ctx, Prefix+name, quipu.BookOptions{})
	if err != nil {
		return nil, fmt.Errorf("create ledger %s: %w", name, err)
	}
	return newWriter(l.opt, book, name), nil
}

// OpenReadOnly answers a reader that disturbs no writer. CodeNoBook.
func (l *Ledgers) OpenReadOnly(ctx context.Context, name string) (*Reader, error) {
	book, err := l.opt.Log.OpenBook(ctx, Prefix+name)
	if err != nil {
		return nil, fmt.Errorf("open ledger %s: %w", name, err)
	}
	return &Reader{log: l.opt.Log, book: book, name: name}, nil
}

// Open closes the ledger if it is open, and answers a reader of it. On return its writer is fenced and its last entry
// is decided, durably. Several may open it at once, or again after a failure. CodeNoBook; after any other error the
// writer may be fenced or not, and Open can be tried again.
func (l *Ledgers) Open(ctx context.Context, name string) (*Reader, error) {
	r, err := l.OpenReadOnly(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := l.close(ctx, r); err != nil {
		return nil, fmt.Errorf("close ledger %s: %w", name, err)
	}
	return r, nil
}

// close fences and seals. Its two numbers name the same two records whoever appends them. If the writer seals just before
// the fence, there are two seals that say the same.
func (l *Ledgers) close(ctx context.Context, r *Reader) error {
	if _, closed, err := r.seal(ctx); closed || err != nil {
		return err
	}
	fence := quipu.Draft{Version: versionFence, Tags: []string{fenceTag}, Producer: quipu.Producer{ID: producer, Epoch: epochFence, N: 1}}
	fenced, err := l.append(ctx, r.book, []quipu.Draft{fence})
	if err != nil {
		return err
	}
	last, err := r.newest(ctx, fenced[0])
	if err != nil {
		return err
	}
	_, err = l.append(ctx, r.book, []quipu.Draft{sealDraft(last, quipu.Producer{ID: producer, Epoch: epochFence, N: 2})})
	return err
}

func (l *Ledgers) append(ctx context.Context, book quipu.Book, drafts []quipu.Draft) ([]quipu.Seq, error) {
	return appendSurely(ctx, l.opt, book, drafts)
}

// Delete removes a ledger with its entries, durable on return. Its writer, if it has one, gets CodeNoBook from then on,
// and so do its readers. CodeNoBook.
func (l *Ledgers) Delete(ctx context.Context, name string) error {
	book, err := l.opt.Log.OpenBook(ctx, Prefix+name)
	if err == nil {
		err = l.opt.Log.DeleteBook(ctx, book)
	}
	if err != nil {
		return fmt.Errorf("delete ledger %s: %w", name, err)
	}
	return nil
}

// List describes all ledgers, by name.
func (l *Ledgers) List(ctx context.Context) ([]Info, error) {
	books, err := l.opt.Log.Books(ctx)
	if err != nil {
		return nil, fmt.Errorf("list ledgers: %w", err)
	}
	var all []Info
	for _, b := range books {
		name, ok := strings.CutPrefix(b.Name, Prefix)
		if !ok || name == "" {
			continue
		}
		r := &Reader{log: l.opt.Log, book: b.ID, name: name}
		info, err := r.Info(ctx)
		if quipu.CodeOf(err) == quipu.CodeNoBook {
			continue // it was deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		info.Bytes = b.Bytes
		all = append(all, info)
	}
	return all, nil
}
