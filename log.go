package quipu

import (
	"context"
	"iter"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of a record.
const (
	TagBytesMax    = 256      // one tag
	TagsMax        = 32       // tags of one record
	DataBytesMax   = 64 << 20 // data of a raw record
	TxBytesMax     = 64 << 20 // data of a transaction, or of all records of a batch
	BookNameMax    = 255
	BooksMax       = 1 << 16         // of a log
	TagAll         = ""              // as an argument of reads: the whole book
	PlatformPrefix = "quipu/"        // names of books that only the platform writes
	ConflictWindow = uint64(1 << 18) // positions a snapshot may lie behind its commit
	BatchMax       = 1 << 16         // records of one AppendBatch
	ProducerWindow = 16              // newest numbers of a producer whose outcome is remembered
)

// Book is the id of a totally ordered logical log. Its name is known to the log it is in.
type Book uint64

// Kind tells what a record's data is.
type Kind uint8

// Kinds of records. Only KindRaw is open to users of raw books.
const (
	KindRaw    Kind = 1 // bytes of a user of the log
	KindTx     Kind = 2 // an encoded Tx, judged by the resolver
	KindSystem Kind = 3 // the log's own: books, trims; never visible
)

// Record is one entry of a book as a reader sees it. Tags and Data are shared with
// caches: they must not be changed.
type Record struct {
	Book    Book
	Seq     Seq
	Kind    Kind
	Version uint8 // of the encoding of Data
	Stamp   int64 // Unix nanoseconds; never falls within a log
	Tags    []string
	Data    []byte
}

// Draft is a record to be appended.
type Draft struct {
	Kind     Kind  // 0 means KindRaw
	Version  uint8 // of the encoding of Data
	Tags     []string
	Data     []byte
	Cond     *Cond
	Producer Producer
}

// Cond lets a draft win only if the newest record of Tag in its book is Last; Last 0 says
// that there is none. Void and trimmed records keep their effect: a void one does not
// count, a trimmed one does.
type Cond struct {
	Tag  string
	Last Seq
}

// Producer makes appends idempotent within a book. A (ID, Epoch, N) names one append for ever: a
// record, or a batch, whose first draft carries it. N starts at 1 in each epoch and grows by one with each
// append; a higher epoch fences all lower ones. A repeat of one of the newest ProducerWindow numbers
// is answered as the first was, won or lost; an older one is never added again, but gets CodeFenced.
// The zero Producer asks for nothing.
type Producer struct {
	ID    uint64
	Epoch uint32
	N     uint64
}

// BookOptions bound what a book keeps. The zero value keeps everything that is not trimmed.
type BookOptions struct {
	MaxAge   time.Duration // records older than that are trimmed, some time later
	MaxBytes int64         // while the book has more, its oldest records are trimmed, some time later
	Quota    int64         // an append that would give the book more bytes gets CodeQuota
}

// Check answers CodeUsage for options that mean nothing.
func (o BookOptions) Check() error {
	if o.MaxAge < 0 || o.MaxBytes < 0 || o.Quota < 0 {
		return &Error{Code: CodeUsage, Op: "log.create", Text: "the retention and the quota of a book cannot be negative", Hint: "0 means no bound"}
	}
	return nil
}

// ValidBookName tells whether a book can have the name: 1 to BookNameMax bytes of UTF-8 without control characters.
func ValidBookName(name string) bool {
	return name != "" && len(name) <= BookNameMax && utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

// Consistency says how new an answer about the tail must be.
type Consistency uint8

const (
	// Linearizable counts every append acknowledged anywhere before the question.
	Linearizable Consistency = iota
	// Local is what this node has applied, which includes its own acknowledged appends.
	Local
)

// Log holds books. All methods may be called concurrently. Every method names a book that was
// created; otherwise it answers CodeNoBook. After Close or a failed fsync they answer
// CodeLogStopped.
//
// The promises are numbered in docs/concepts/log.md and tested by xtest.Log.
type Log interface {
	// CreateBook makes an empty book, durable on return. CodeBookExists if there is one; CodeUsage for a name
	// or options that cannot be; CodeOverloaded beyond BooksMax.
	CreateBook(ctx context.Context, name string, o BookOptions) (Book, error)
	// SetBook gives a book other options, durable on return.
	SetBook(ctx context.Context, book Book, o BookOptions) error
	// DeleteBook removes a book and all its records, durable on return. Its id is never used again; its name may be.
	DeleteBook(ctx context.Context, book Book) error
	// OpenBook finds a book by name. CodeNoBook if there is none.
	OpenBook(ctx context.Context, name string) (Book, error)
	// Books lists names and ids, by name.
	Books(ctx context.Context) ([]BookInfo, error)

	// Append adds a record and returns when it is durable, judged and readable.
	// CodeConflict: its condition or transaction lost; nothing visible was added, and Error.Seq is
	// the winner's. CodeSnapshotOld: the transaction's snapshot is behind the window.
	// A repeated producer number is no error: it answers the first seq.
	// CodeFenced: a higher epoch of the producer exists, N left a gap, or N is too old to be remembered.
	// CodeRecord: a limit is broken. CodeOverloaded: the queue is full, nothing was added. CodeQuota: the book is
	// full, nothing was added.
	// CodeUnknown: the record may or may not be there (stopped in between).
	Append(ctx context.Context, book Book, d Draft) (Seq, error)
	// AppendBatch adds drafts contiguously, all or none, up to BatchMax of them and TxBytesMax of data in
	// all. Their conditions are judged against the log before the batch; if one loses, all do. A
	// KindTx draft goes alone.
	AppendBatch(ctx context.Context, book Book, ds []Draft) ([]Seq, error)

	// Producer is the newest epoch and number that the book has of a producer, won or lost; N is 0 and Epoch 0 if
	// it has none. A writer that starts anew goes on with the next epoch, which fences whoever used the last.
	Producer(ctx context.Context, book Book, id uint64) (Producer, error)

	// Next is the first visible record of tag with a seq >= from. CodeNotFound at the end.
	// CodeTrimmed if from is at or below the trim point, which is Error.Seq.
	Next(ctx context.Context, book Book, tag string, from Seq) (Record, error)
	// Prev is the last visible record of tag with a seq <= to. CodeNotFound if there is none;
	// CodeTrimmed if it could be one of the trimmed.
	Prev(ctx context.Context, book Book, tag string, to Seq) (Record, error)
	// Range yields the visible records of tag in [from, to] in order, as of some time during the loop.
	// An error, if any, is the last thing it yields.
	Range(ctx context.Context, book Book, tag string, from, to Seq) iter.Seq2[Record, error]
	// Subscribe is Range without an end: at the tail it waits. It ends with ctx, yielding ctx's error.
	Subscribe(ctx context.Context, book Book, tag string, from Seq) iter.Seq2[Record, error]
	// Tail is the seq of the newest record of the book, visible or not; 0 for none.
	Tail(ctx context.Context, book Book, c Consistency) (Seq, error)

	// Trim makes the stream of tag (TagAll: the book, with all its streams) unreadable up to upto,
	// durable on return. A record stays readable through its other tags; one that is trimmed in all of its tags is
	// gone from the book too, without a TRIMMED there. A lower point than before
	// changes nothing. CodeUsage if upto is above the tail of the book.
	Trim(ctx context.Context, book Book, tag string, upto Seq) error

	// SetAux keeps a cache hint for a record; it may vanish at any time and is never truth.
	SetAux(ctx context.Context, book Book, seq Seq, aux []byte) error
	// Aux answers the hint. CodeNotFound if there is none.
	Aux(ctx context.Context, book Book, seq Seq) ([]byte, error)

	// Close makes everything acknowledged durable in its cleanest form and releases the directory.
	Close() error
}

// BookInfo describes a book.
type BookInfo struct {
	Name    string
	ID      Book
	Tail    Seq
	Trim    Seq
	Records int64 // that a read of the whole book finds
	Bytes   int64 // of these, as the log keeps them
	Options BookOptions
}
