package xtest

import (
	"context"
	"iter"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/quipu-run/quipu"
)

// Model is a quipu.Log in memory that is correct because it is obvious. It judges records by
// scanning all that came before, and shares no code with internal/resolve, so that the two can be
// compared. It gives the same seqs as a log on disk to the same history: creating a book and
// moving a trim point take a position each.
type Model struct {
	clock quipu.Clock

	mu        sync.Mutex // guards all below
	changed   chan struct{}
	closed    bool
	term      uint32
	pos       uint64
	stamp     int64
	created   int          // books that there ever were
	books     []*modelBook // by id
	producers map[modelProducer][]modelOutcome
}

type modelBook struct {
	name    string
	id      quipu.Book
	options quipu.BookOptions
	records []modelRecord // by seq
	trims   map[string]quipu.Seq
	aux     map[quipu.Seq][]byte
}

type modelRecord struct {
	quipu.Record
	void   bool
	bytes  int64
	writes []string // conflict keys of a committed transaction
}

type modelProducer struct {
	book quipu.Book
	id   uint64
}

// modelOutcome is what the first use of a producer number was answered.
type modelOutcome struct {
	epoch uint32
	n     uint64
	seqs  []quipu.Seq
	err   error
}

// NewModel makes an empty log that reads time from clock.
func NewModel(clock quipu.Clock) *Model {
	return &Model{clock: clock, changed: make(chan struct{}), producers: map[modelProducer][]modelOutcome{}}
}

// Crash is what an unclean stop and open do to a log that lost nothing: the term grows and hints vanish.
func (m *Model) Crash() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.term++
	for _, b := range m.books {
		b.aux = map[quipu.Seq][]byte{}
	}
}

// CreateBook implements quipu.Log.
func (m *Model) CreateBook(_ context.Context, name string, o quipu.BookOptions) (quipu.Book, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return 0, fail(quipu.CodeLogStopped, "log.create", 0)
	case !quipu.ValidBookName(name) || o.Check() != nil:
		return 0, fail(quipu.CodeUsage, "log.create", 0)
	case slices.ContainsFunc(m.books, func(b *modelBook) bool { return b.name == name }):
		return 0, fail(quipu.CodeBookExists, "log.create", 0)
	}
	m.nextSeq(m.now())
	m.created++
	id := quipu.Book(m.created)
	m.books = append(m.books, &modelBook{name: name, id: id, options: o, trims: map[string]quipu.Seq{}, aux: map[quipu.Seq][]byte{}})
	return id, nil
}

// SetBook implements quipu.Log.
func (m *Model) SetBook(_ context.Context, book quipu.Book, o quipu.BookOptions) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.book(book, "log.set")
	if err != nil {
		return err
	}
	if o.Check() != nil {
		return fail(quipu.CodeUsage, "log.set", 0)
	}
	b.options = o
	m.nextSeq(m.now())
	return nil
}

// DeleteBook implements quipu.Log.
func (m *Model) DeleteBook(_ context.Context, book quipu.Book) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.book(book, "log.delete"); err != nil {
		return err
	}
	m.books = slices.DeleteFunc(m.books, func(b *modelBook) bool { return b.id == book })
	m.nextSeq(m.now())
	return nil
}

// OpenBook implements quipu.Log.
func (m *Model) OpenBook(_ context.Context, name string) (quipu.Book, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return 0, fail(quipu.CodeLogStopped, "log.open", 0)
	}
	for _, b := range m.books {
		if b.name == name {
			return b.id, nil
		}
	}
	return 0, fail(quipu.CodeNoBook, "log.open", 0)
}

// Books implements quipu.Log.
func (m *Model) Books(context.Context) ([]quipu.BookInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, fail(quipu.CodeLogStopped, "log.books", 0)
	}
	infos := make([]quipu.BookInfo, 0, len(m.books))
	for _, b := range m.books {
		infos = append(infos, b.info())
	}
	slices.SortFunc(infos, func(a, b quipu.BookInfo) int { return strings.Compare(a.Name, b.Name) })
	return infos, nil
}

// Append implements quipu.Log.
func (m *Model) Append(ctx context.Context, book quipu.Book, d quipu.Draft) (quipu.Seq, error) {
	seqs, err := m.AppendBatch(ctx, book, []quipu.Draft{d})
	if err != nil {
		return 0, err
	}
	return seqs[0], nil
}

// AppendBatch implements quipu.Log.
func (m *Model) AppendBatch(_ context.Context, book quipu.Book, ds []quipu.Draft) ([]quipu.Seq, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.book(book, "log.append")
	if err != nil {
		return nil, err
	}
	if !wellFormed(ds) {
		return nil, fail(quipu.CodeRecord, "log.append", 0)
	}
	p := ds[0].Producer
	if p == (quipu.Producer{}) {
		if !b.hasRoom(ds) {
			return nil, fail(quipu.CodeQuota, "log.append", 0)
		}
		return m.add(b, ds)
	}
	key := modelProducer{book, p.ID}
	past := m.producers[key]
	if again := repeated(past, p); again != nil {
		return slices.Clone(again.seqs), again.err
	}
	if !follows(past, p) {
		return nil, fail(quipu.CodeFenced, "log.append", 0)
	}
	if !b.hasRoom(ds) {
		return nil, fail(quipu.CodeQuota, "log.append", 0)
	}
	seqs, err := m.add(b, ds)
	past = append(past, modelOutcome{p.Epoch, p.N, slices.Clone(seqs), err})
	m.producers[key] = past[max(0, len(past)-quipu.ProducerWindow):]
	return seqs, err
}

// Producer implements quipu.Log.
func (m *Model) Producer(_ context.Context, book quipu.Book, id uint64) (quipu.Producer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.book(book, "log.producer"); err != nil {
		return quipu.Producer{}, err
	}
	p := quipu.Producer{ID: id}
	if past := m.producers[modelProducer{book, id}]; len(past) > 0 {
		last := past[len(past)-1]
		p.Epoch, p.N = last.epoch, last.n
	}
	return p, nil
}

// Next implements quipu.Log.
func (m *Model) Next(_ context.Context, book quipu.Book, tag string, from quipu.Seq) (quipu.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, _, err := m.next(book, tag, from)
	return r, err
}

// Prev implements quipu.Log.
func (m *Model) Prev(_ context.Context, book quipu.Book, tag string, to quipu.Seq) (quipu.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.book(book, "log.prev")
	if err != nil {
		return quipu.Record{}, err
	}
	trim := b.floor(tag)
	for i := b.firstAbove(to) - 1; i >= 0 && b.records[i].Seq > trim; i-- {
		if b.readable(&b.records[i], tag) {
			return b.records[i].Record, nil
		}
	}
	if trim > 0 {
		return quipu.Record{}, fail(quipu.CodeTrimmed, "log.prev", trim)
	}
	return quipu.Record{}, fail(quipu.CodeNotFound, "log.prev", 0)
}

// Range implements quipu.Log.
func (m *Model) Range(ctx context.Context, book quipu.Book, tag string, from, to quipu.Seq) iter.Seq2[quipu.Record, error] {
	return func(yield func(quipu.Record, error) bool) {
		for from <= to {
			r, err := m.Next(ctx, book, tag, from)
			if quipu.CodeOf(err) == quipu.CodeNotFound || err == nil && r.Seq > to {
				return
			}
			if !yield(r, err) || err != nil {
				return
			}
			from = r.Seq + 1
		}
	}
}

// Subscribe implements quipu.Log.
func (m *Model) Subscribe(ctx context.Context, book quipu.Book, tag string, from quipu.Seq) iter.Seq2[quipu.Record, error] {
	return func(yield func(quipu.Record, error) bool) {
		for {
			m.mu.Lock()
			r, changed, err := m.next(book, tag, from)
			m.mu.Unlock()
			switch {
			case ctx.Err() != nil:
				yield(quipu.Record{}, ctx.Err())
				return
			case err == nil:
				if !yield(r, nil) {
					return
				}
				from = r.Seq + 1
			case quipu.CodeOf(err) != quipu.CodeNotFound:
				yield(quipu.Record{}, err)
				return
			default:
				select {
				case <-ctx.Done():
				case <-changed:
				}
			}
		}
	}
}

// Tail implements quipu.Log.
func (m *Model) Tail(_ context.Context, book quipu.Book, _ quipu.Consistency) (quipu.Seq, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.book(book, "log.tail")
	if err != nil {
		return 0, err
	}
	return b.tail(), nil
}

// Trim implements quipu.Log.
func (m *Model) Trim(_ context.Context, book quipu.Book, tag string, upto quipu.Seq) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.book(book, "log.trim")
	if err != nil {
		return err
	}
	if upto > b.tail() || len(tag) > quipu.TagBytesMax {
		return fail(quipu.CodeUsage, "log.trim", 0)
	}
	if upto > b.trims[tag] && upto > b.trims[quipu.TagAll] {
		b.trims[tag] = upto
		m.nextSeq(m.now())
	}
	return nil
}

// SetAux implements quipu.Log.
func (m *Model) SetAux(_ context.Context, book quipu.Book, seq quipu.Seq, aux []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.book(book, "log.setaux")
	if err == nil {
		b.aux[seq] = slices.Clone(aux)
	}
	return err
}

// Aux implements quipu.Log.
func (m *Model) Aux(_ context.Context, book quipu.Book, seq quipu.Seq) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.book(book, "log.aux")
	if err != nil {
		return nil, err
	}
	if aux, ok := b.aux[seq]; ok {
		return slices.Clone(aux), nil
	}
	return nil, fail(quipu.CodeNotFound, "log.aux", 0)
}

// Close implements quipu.Log.
func (m *Model) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.closed = true
		m.wake()
	}
	return nil
}

// add appends drafts that are well formed and new. Each is judged against the log before all of them.
func (m *Model) add(b *modelBook, ds []quipu.Draft) ([]quipu.Seq, error) {
	stamp := m.now()
	var lost error
	first := quipu.MakeSeq(m.term, m.pos+1)
	for _, d := range ds {
		if lost == nil {
			lost = b.judge(d, first, stamp)
		}
	}
	seqs := make([]quipu.Seq, len(ds))
	for i, d := range ds {
		seqs[i] = m.nextSeq(stamp)
		r := modelRecord{void: lost != nil, bytes: storedBytes(d), Record: quipu.Record{
			Book: b.id, Seq: seqs[i], Kind: d.Kind, Version: d.Version, Stamp: stamp,
			Tags: slices.Clone(d.Tags), Data: slices.Clone(d.Data),
		}}
		if r.Kind == 0 {
			r.Kind = quipu.KindRaw
		}
		if r.Kind == quipu.KindTx {
			r.writes = decodeTx(r.Data).Writes
		}
		b.records = append(b.records, r)
	}
	if lost != nil {
		return nil, lost
	}
	return seqs, nil
}

// now is a stamp that does not fall.
func (m *Model) now() int64 { return max(m.stamp, m.clock.Now().UnixNano()) }

// nextSeq takes a position.
func (m *Model) nextSeq(stamp int64) quipu.Seq {
	m.pos++
	m.stamp = stamp
	m.wake()
	return quipu.MakeSeq(m.term, m.pos)
}

func (m *Model) wake() {
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *Model) book(id quipu.Book, op string) (*modelBook, error) {
	if m.closed {
		return nil, fail(quipu.CodeLogStopped, op, 0)
	}
	for _, b := range m.books {
		if b.id == id {
			return b, nil
		}
	}
	return nil, fail(quipu.CodeNoBook, op, 0)
}

// next answers also the channel that is closed at the next change.
func (m *Model) next(book quipu.Book, tag string, from quipu.Seq) (quipu.Record, <-chan struct{}, error) {
	b, err := m.book(book, "log.next")
	if err != nil {
		return quipu.Record{}, nil, err
	}
	if trim := b.floor(tag); trim > 0 && from <= trim {
		return quipu.Record{}, nil, fail(quipu.CodeTrimmed, "log.next", trim)
	}
	for i := b.firstAt(from); i < len(b.records); i++ {
		if b.readable(&b.records[i], tag) {
			return b.records[i].Record, nil, nil
		}
	}
	return quipu.Record{}, m.changed, fail(quipu.CodeNotFound, "log.next", 0)
}

func (b *modelBook) tail() quipu.Seq {
	if len(b.records) == 0 {
		return 0
	}
	return b.records[len(b.records)-1].Seq
}

func (b *modelBook) info() quipu.BookInfo {
	info := quipu.BookInfo{Name: b.name, ID: b.id, Tail: b.tail(), Trim: b.trims[quipu.TagAll], Options: b.options}
	for i := range b.records {
		if r := &b.records[i]; r.Seq > info.Trim && b.readable(r, quipu.TagAll) {
			info.Records++
			info.Bytes += r.bytes
		}
	}
	return info
}

func (b *modelBook) hasRoom(ds []quipu.Draft) bool {
	more := int64(0)
	for _, d := range ds {
		more += storedBytes(d)
	}
	return b.options.Quota == 0 || b.info().Bytes+more <= b.options.Quota
}

// storedBytes is what a record counts for its book: a header of 40 bytes, what it asks for, tags with their
// lengths, and data, rounded up to 8 bytes.
func storedBytes(d quipu.Draft) int64 {
	n := 40 + len(d.Data)
	if d.Producer != (quipu.Producer{}) {
		n += 20
	}
	if d.Cond != nil {
		n += 10 + len(d.Cond.Tag)
	}
	for _, tag := range d.Tags {
		n += 2 + len(tag)
	}
	return int64(n+7) / 8 * 8
}

// floor is the trim point that reads of tag meet.
func (b *modelBook) floor(tag string) quipu.Seq { return max(b.trims[tag], b.trims[quipu.TagAll]) }

func (b *modelBook) firstAt(seq quipu.Seq) int {
	return sort.Search(len(b.records), func(i int) bool { return b.records[i].Seq >= seq })
}

func (b *modelBook) firstAbove(seq quipu.Seq) int {
	return sort.Search(len(b.records), func(i int) bool { return b.records[i].Seq > seq })
}

// has tells whether the record is in the stream of tag, void or not.
func (r *modelRecord) has(tag string) bool {
	return tag == quipu.TagAll || slices.Contains(r.Tags, tag)
}

func (r *modelRecord) visibleAs(tag string) bool { return !r.void && r.has(tag) }

// readable tells whether a read of tag finds the record. One that is trimmed in all of its tags is gone.
func (b *modelBook) readable(r *modelRecord, tag string) bool {
	kept := func(tag string) bool { return b.trims[tag] < r.Seq }
	return r.visibleAs(tag) && (len(r.Tags) == 0 || slices.ContainsFunc(r.Tags, kept))
}

func fail(code quipu.Code, op string, seq quipu.Seq) error {
	return &quipu.Error{Code: code, Op: op, Seq: seq}
}

var _ quipu.Log = (*Model)(nil)
