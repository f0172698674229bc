package view

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/codec"
	"github.com/quipu-run/quipu/internal/trace"
	"github.com/tidwall/btree"
)

// txOverhead is room in TxBytesMax for what is not operations.
const txOverhead = 1 << 20

// Tx is an open transaction. Its first read pins a snapshot, which answers all reads, together with the
// transaction's own writes. It must be closed, whether it was committed or not. Its methods may be called
// concurrently.
type Tx struct {
	book *Book
	ctx  context.Context // bounds the wait of the first read
	look bool            // it does not wait

	mu     sync.Mutex
	turn   *Turn // given by Begin, or taken by the first read
	took   bool  // it was taken, so Close gives it back
	eager  bool
	before []*flight          // what those before it in line are committing
	later  map[string]*flight // keys that were read there
	closed bool
	snap   *pebble.Snapshot // nil until the first read
	at     position         // of the snapshot
	now    int64            // Unix nanoseconds at which times to live are judged; 0 until asked
	reads  map[string]struct{}
	ranges []quipu.KeyRange
	newer  []quipu.LaterRead         // given by ReadAt
	own    btree.Map[string, []byte] // pending values by conflict key; nil is deleted
	undo   []undo
	ops    []quipu.Op
	bytes  int
	tags   map[string]struct{}
	gates  []string // names, besides the keys written, whose turns a commit waits for
	until  int64    // NotAfter

	read    func()   // tells that the snapshot is gone
	release []func() // given by OnClose
	ends    []txEnd  // given by OnEnd
	done    bool     // it was committed, or had nothing to commit
	unknown bool     // whether its record is in the log, so nothing of it is let go of
}

// undo restores one key of own.
type undo struct {
	key   string
	value []byte
	was   bool
}

// Mark is a place in a transaction to which Rollback returns.
type Mark struct{ ops, undo, bytes int }

// Begin opens a transaction. One that holds a turn commits ahead of others; turn may be nil. Without one, a
// first read of what others stand in line for waits for its turn, within ctx: a run now would be in vain.
func (b *Book) Begin(ctx context.Context, turn *Turn) *Tx {
	return &Tx{book: b, ctx: ctx, turn: turn, reads: map[string]struct{}{}}
}

// Look opens a transaction that is only for reading: it waits for nobody.
func (b *Book) Look() *Tx { return &Tx{book: b, look: true, reads: map[string]struct{}{}} }

// LookUntil is Look for one who reads much: Peek ends with ctx.
func (b *Book) LookUntil(ctx context.Context) *Tx {
	t := b.Look()
	t.ctx = ctx
	return t
}

// OnClose has release called by Close, or now if the transaction is closed: when what it may have appended is applied, or
// will never be. If that is not known, because the node stops, release is not called.
func (t *Tx) OnClose(release func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		if !t.unknown {
			release()
		}
		return
	}
	t.release = append(t.release, release)
}

// txEnd waits to hear whether what is done in a transaction from a place on counts.
type txEnd struct {
	ops    int
	undone bool
	tell   func(counts bool)
}

// OnEnd has tell called by Close with whether what is done from now on was committed: not if the transaction was not, or went back
// to a place before. If that is not known, because the node stops, tell is not called.
func (t *Tx) OnEnd(tell func(counts bool)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ends = append(t.ends, txEnd{ops: len(t.ops), tell: tell})
}

// Close releases the snapshot, and the turn that the transaction took itself.
func (t *Tx) Close() error {
	for _, end := range t.takeEnds() {
		end.tell(t.done && !end.undone)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.took {
		t.turn.Done()
	}
	if !t.unknown {
		for _, release := range t.release {
			release()
		}
	}
	t.release = nil
	if t.snap == nil {
		return nil
	}
	err := t.snap.Close()
	t.snap = nil
	t.read()
	return err
}

func (t *Tx) takeEnds() []txEnd {
	t.mu.Lock()
	defer t.mu.Unlock()
	ends := t.ends
	if t.ends = nil; t.unknown {
		return nil
	}
	return ends
}

// pin takes the snapshot if there is none yet; key is the first that is read. mu is held.
func (t *Tx) pin(key string) (err error) {
	if t.closed {
		return &quipu.Error{Code: quipu.CodeNoCall, Op: "tx.read", Text: "the transaction has ended"}
	}
	if t.snap != nil {
		return nil
	}
	b := t.book
	if t.turn == nil && !t.look && !b.turns.free(nil, []string{key}) {
		if t.turn, err = b.turns.enter(t.ctx, Claim{keys: []string{key}}, t.eager); err != nil {
			return err
		}
		t.took = true
		if t.eager {
			t.before = t.turn.flights() // before the snapshot, which may have them already
		}
	}
	pinned, read := b.store.o.Reading()
	b.mu.RLock()
	defer b.mu.RUnlock()
	t.snap, t.at, t.read = b.store.db.NewSnapshot(), b.applied, read
	pinned()
	return nil
}

// Now is the time, in Unix nanoseconds, at which the transaction judges what has expired.
func (t *Tx) Now() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.now == 0 {
		t.book.mu.RLock()
		t.now = max(t.book.applied.stamp, t.book.clock.Now().UnixNano())
		t.book.mu.RUnlock()
	}
	return t.now
}

// Snapshot is the seq at which reads are answered; 0 before the first.
func (t *Tx) Snapshot() quipu.Seq {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.at.seq
}

// Get reads one key of a view: the transaction's own pending value, or the snapshot's.
func (t *Tx) Get(view, key string) (value []byte, ok bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	name := conflictKey(view, key)
	if value, ok := t.own.Get(name); ok {
		return value, value != nil, nil
	}
	if err := t.pin(name); err != nil {
		return nil, false, err
	}
	if value, ok := t.ahead(name); ok {
		return value, value != nil, nil
	}
	t.reads[name] = struct{}{}
	stored, closer, err := t.snap.Get(t.book.storeKey(nil, view, key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read view %s: %w", view, err)
	}
	defer closer.Close()
	return append([]byte{}, stored...), true, nil
}

// Scan visits the keys of a view in [from, to) in order, pending ones included, until visit says false;
// to "" is the end of the view.
// What was visited, and that nothing else was there, is a read. value is valid during visit only.
func (t *Tx) Scan(view, from, to string, visit func(key string, value []byte) bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	first, end := conflictKey(view, from), conflictKey(view, to)
	if to == "" {
		end = view + "\x01"
	}
	if err := t.pin(first); err != nil {
		return err
	}
	stored, err := t.snap.NewIter(&pebble.IterOptions{
		LowerBound: append(bytes.Clone(t.book.prefix), first...),
		UpperBound: append(bytes.Clone(t.book.prefix), end...),
	})
	if err != nil {
		return fmt.Errorf("scan view %s: %w", view, err)
	}
	m := merge{stored: stored, skip: len(t.book.prefix), own: t.own.Iter(), end: end}
	m.start(first)
	read := quipu.KeyRange{From: first, To: end}
	for key, value, ok := m.next(); ok; key, value, ok = m.next() {
		if !visit(key[len(view)+1:], value) {
			read.To = key + "\x00"
			break
		}
	}
	t.ranges = append(t.ranges, read)
	if err := stored.Close(); err != nil {
		return fmt.Errorf("scan view %s: %w", view, err)
	}
	return nil
}

// Peek visits the keys of a view in [from, to) as they are at the snapshot, until visit says false. It is no read of the
// transaction: nobody loses for it. value is valid during visit only.
func (t *Tx) Peek(view, from, to string, visit func(key string, value []byte) bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := conflictKey(view, from)
	if err := t.pin(first); err != nil {
		return err
	}
	it, err := t.snap.NewIter(&pebble.IterOptions{
		LowerBound: append(bytes.Clone(t.book.prefix), first...),
		UpperBound: append(bytes.Clone(t.book.prefix), conflictKey(view, to)...),
	})
	if err != nil {
		return fmt.Errorf("peek into view %s: %w", view, err)
	}
	skip := len(t.book.prefix) + len(view) + 1
	for ok := it.First(); ok && t.wanted() == nil && visit(string(it.Key()[skip:]), it.Value()); ok = it.Next() {
	}
	return errors.Join(t.wanted(), it.Close())
}

// wanted says why nobody waits for what LookUntil reads.
func (t *Tx) wanted() error {
	if !t.look || t.ctx == nil {
		return nil
	}
	return t.ctx.Err()
}

// ReadAt says that the transaction relies on a key of view as a record has left it that is newer than the snapshot: it loses if anybody has
// written the key since.
func (t *Tx) ReadAt(view, key string, at quipu.Seq) {
	t.mu.Lock()
	defer t.mu.Unlock()
	read := quipu.LaterRead{Key: conflictKey(view, key), At: at}
	if !slices.Contains(t.newer, read) {
		t.newer = append(t.newer, read)
	}
}

// Put announces that key of view will be written: to the value that its machine will store, or nil for
// a deletion. Later reads of this transaction see it. Do has the operation itself.
func (t *Tx) Put(view, key string, pending []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	name := conflictKey(view, key)
	old, was := t.own.Set(name, pending)
	t.undo = append(t.undo, undo{name, old, was})
	t.bytes += len(name)
}

// Do adds an operation. CodeTxSize if the transaction would grow over its limits.
func (t *Tx) Do(op quipu.Op) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ops) >= quipu.TxOpsMax || t.bytes+len(op.Body) > quipu.TxBytesMax-txOverhead {
		return &quipu.Error{Code: quipu.CodeTxSize, Op: "tx.do",
			Hint: quipu.Codes[quipu.CodeTxSize].Next}
	}
	t.ops = append(t.ops, op)
	t.bytes += len(op.Body)
	return nil
}

// Tag adds a tag to the record.
func (t *Tx) Tag(tag string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tags == nil {
		t.tags = map[string]struct{}{}
	}
	t.tags[tag] = struct{}{}
}

// TagUpTo adds a tag unless the record has that many already: one that a reader can do without.
func (t *Tx) TagUpTo(most int, tag string) {
	t.mu.Lock()
	full := len(t.tags) >= most
	t.mu.Unlock()
	if !full {
		t.Tag(tag)
	}
}

// Gate makes the commit wait for turns of others on a name, as on a key it writes.
func (t *Tx) Gate(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gates = append(t.gates, name)
}

// Expires says that something read is gone at the given time, in Unix nanoseconds: a commit at or
// after it is a conflict.
func (t *Tx) Expires(at int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.until == 0 || at < t.until {
		t.until = at
	}
}

// Mark remembers the operations so far.
func (t *Tx) Mark() Mark {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Mark{len(t.ops), len(t.undo), t.bytes}
}

// Rollback forgets the operations and writes since m. What was read since stays read.
func (t *Tx) Rollback(m Mark) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := len(t.undo) - 1; i >= m.undo; i-- {
		u := t.undo[i]
		if u.was {
			t.own.Set(u.key, u.value)
		} else {
			t.own.Delete(u.key)
		}
	}
	t.ops, t.undo, t.bytes = t.ops[:m.ops], t.undo[:m.undo], m.bytes
	for i := range t.ends {
		t.ends[i].undone = t.ends[i].undone || t.ends[i].ops >= m.ops
	}
}

// Size counts the keys and ranges read and the operations.
func (t *Tx) Size() (reads, ops int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.reads) + len(t.ranges), len(t.ops)
}

// Claim is what the transaction has read and written so far.
func (t *Tx) Claim() Claim {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := Claim{ranges: t.ranges}
	for key := range t.reads {
		c.keys = append(c.keys, key)
	}
	t.own.Scan(func(key string, _ []byte) bool {
		if _, ok := t.reads[key]; !ok {
			c.keys = append(c.keys, key)
		}
		return true
	})
	return c
}

// Commit appends the transaction as one record and returns when it is durable and visible. Without
// operations it appends nothing and answers 0. ctx ends only the wait for turns of others: once on its way
// to the log, a commit is not abandoned. CodeConflict or CodeSnapshotOld: it lost, nothing happened; run it
// again. CodeUnknown: the node stopped, it may or may not have happened.
func (b *Book) Commit(ctx context.Context, t *Tx) (quipu.Seq, error) {
	if trace.Of(ctx) != nil {
		return b.commitTraced(ctx, t)
	}
	return b.commit(ctx, t)
}

func (b *Book) commit(ctx context.Context, t *Tx) (quipu.Seq, error) {
	tx := t.request()
	if len(tx.Ops) == 0 {
		t.noteDone()
		return 0, nil
	}
	leave, err := b.pass(ctx, t, tx.Writes)
	if err != nil {
		return 0, err
	}
	ctx = context.WithoutCancel(ctx)
	seq, err := b.append(ctx, t, &tx)
	leave()
	if err != nil {
		t.noteUnknown(err)
		return 0, err
	}
	_, apply := trace.Start(ctx, "apply")
	err = b.wait(ctx, seq)
	apply.Done(err)
	if err != nil {
		err = &quipu.Error{Code: quipu.CodeUnknown, Op: "tx.commit",
			Text: "the commit is durable, but was not applied before the wait ended", Err: err,
			Hint: quipu.Codes[quipu.CodeUnknown].Next}
		t.noteUnknown(err)
		return seq, err
	}
	t.noteDone()
	return seq, nil
}

func (t *Tx) noteDone() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done = true
}

// append brings a transaction to the log. Those who are eager behind its turn begin with what it writes.
func (b *Book) append(ctx context.Context, t *Tx, tx *quipu.Tx) (seq quipu.Seq, err error) {
	if t.turn != nil {
		f := newFlight(&t.own)
		t.turn.leaves(f)
		defer func() { f.landed(seq, err) }()
	}
	before, err := t.landedBefore()
	if err != nil {
		return 0, err
	}
	tx.Later = append(tx.Later, before...)
	return b.log.Append(ctx, b.id, quipu.Draft{
		Kind: quipu.KindTx, Version: codec.TxVersion, Tags: tx.Tags, Data: codec.EncodeTx(nil, tx)})
}

// noteUnknown remembers that a commit may still turn out to be in the log.
func (t *Tx) noteUnknown(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unknown = t.unknown || quipu.CodeOf(err) == quipu.CodeUnknown
}

// request is the transaction as the log's users see it.
func (t *Tx) request() quipu.Tx {
	t.mu.Lock()
	defer t.mu.Unlock()
	tx := quipu.Tx{Snapshot: t.at.seq, NotAfter: t.until, Ranges: t.ranges, Ops: t.ops, Later: slices.Clone(t.newer)}
	for key := range t.reads {
		tx.Reads = append(tx.Reads, key)
	}
	t.own.Scan(func(key string, _ []byte) bool {
		tx.Writes = append(tx.Writes, key)
		return true
	})
	for tag := range t.tags {
		tx.Tags = append(tx.Tags, tag)
	}
	return tx
}

// lostConflictsMax is how often a change loses before it takes a turn.
const lostConflictsMax = 2

// Change runs change in a transaction and commits it, again from the start when it lost. After
// lostConflictsMax losses it takes a turn on the keys of its last run, so that contention becomes
// serial. An error of change ends it. Only ctx bounds it.
func (b *Book) Change(ctx context.Context, change func(*Tx) error) (quipu.Seq, error) {
	var claim Claim
	for lost := 0; ; lost++ {
		seq, err := b.changeOnce(ctx, lost, &claim, change)
		if !Lost(err) {
			return seq, err
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
}

func (b *Book) changeOnce(ctx context.Context, lost int, claim *Claim, change func(*Tx) error) (quipu.Seq, error) {
	var turn *Turn
	if lost >= lostConflictsMax {
		var err error
		if turn, err = b.Turn(ctx, *claim); err != nil {
			return 0, err
		}
		defer turn.Done()
	}
	t := b.Begin(ctx, turn)
	defer t.Close()
	if err := change(t); err != nil {
		return 0, err
	}
	seq, err := b.Commit(ctx, t)
	*claim = claim.Union(t.Claim())
	return seq, err
}

// Lost tells whether a commit lost and may be run again.
func Lost(err error) bool {
	code := quipu.CodeOf(err)
	return code == quipu.CodeConflict || code == quipu.CodeSnapshotOld
}

// merge walks stored and pending keys in order; a pending one hides the stored one.
type merge struct {
	stored *pebble.Iterator
	skip   int // bytes of the book's prefix
	own    btree.MapIter[string, []byte]
	end    string

	storedOK, ownOK bool
	fromStored      bool
	fromOwn         bool
}

func (m *merge) start(from string) {
	m.storedOK = m.stored.First()
	m.ownOK = m.own.Seek(from) && m.own.Key() < m.end
}

// next answers the smallest key left, without deleted ones.
func (m *merge) next() (key string, value []byte, ok bool) {
	for {
		m.advance()
		switch {
		case !m.storedOK && !m.ownOK:
			return "", nil, false
		case m.ownOK && (!m.storedOK || m.own.Key() <= m.storedKey()):
			m.fromOwn, m.fromStored = true, m.storedOK && m.own.Key() == m.storedKey()
			if value := m.own.Value(); value != nil {
				return m.own.Key(), value, true
			}
		default:
			m.fromOwn, m.fromStored = false, true
			return m.storedKey(), m.stored.Value(), true
		}
	}
}

// advance leaves the keys that the last answer used up.
func (m *merge) advance() {
	if m.fromStored {
		m.storedOK = m.stored.Next()
	}
	if m.fromOwn {
		m.ownOK = m.own.Next() && m.own.Key() < m.end
	}
	m.fromStored, m.fromOwn = false, false
}

func (m *merge) storedKey() string { return string(m.stored.Key()[m.skip:]) }
