package locallog

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/quipu-run/quipu"
)

func mustCreate(t testing.TB, l *Log) quipu.Book {
	t.Helper()
	book, err := l.CreateBook(context.Background(), "b", quipu.BookOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return book
}

func TestASecondNodeIsRefused(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, Options{Dir: dir})
	if _, err := Open(Options{Dir: dir}); quipu.CodeOf(err) != quipu.CodeDataInUse {
		t.Fatalf("got %v", err)
	}
}

// Under the reserve the log only reads and trims, and goes on when there is space again.
func TestANearlyFullDiskRefusesAppendsUntilThereIsSpace(t *testing.T) {
	fs := vfs.NewMem()
	o := small(fs)
	o.DiskReserve = 1000
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 30})
	l := mustOpen(t, o)
	book := mustCreate(t, l)
	ctx := context.Background()
	seq, err := l.Append(ctx, book, quipu.Draft{Data: []byte("before")})
	if err != nil {
		t.Fatal(err)
	}
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 999})
	l2 := reopened(t, l)
	if _, err := l2.Append(ctx, book, quipu.Draft{Data: []byte("full")}); quipu.CodeOf(err) != quipu.CodeDiskFull {
		t.Fatalf("append on a full disk: %v", err)
	}
	if r, err := l2.Next(ctx, book, quipu.TagAll, 0); err != nil || string(r.Data) != "before" {
		t.Fatalf("read on a full disk: %v", err)
	}
	if err := l2.Trim(ctx, book, quipu.TagAll, seq); err != nil {
		t.Fatalf("trim on a full disk, which is what helps: %v", err)
	}
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 30})
	if _, err := l2.Append(ctx, book, quipu.Draft{Data: []byte("after")}); err != nil {
		t.Fatalf("append when there is space again: %v", err)
	}
}

func reopened(t *testing.T, l *Log) *Log {
	t.Helper()
	o := l.opts
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return mustOpen(t, o)
}

// A disk that is full while a segment is made ready costs no written byte: the append is refused, and the same append
// works when there is space.
func TestNoSpaceForASegmentIsNoFailureOfTheLog(t *testing.T) {
	var full sync.Map
	hook := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if _, on := full.Load("on"); on && op.Kind == errorfs.OpFileWrite && op.Path != "log/MANIFEST.tmp" {
			return syscall.ENOSPC
		}
		return nil
	})
	o := small(errorfs.Wrap(vfs.NewMem(), hook))
	o.CheckpointBytes = 1 << 20
	l := mustOpen(t, o)
	book := mustCreate(t, l)
	full.Store("on", true)
	d := quipu.Draft{Data: make([]byte, 5000)}
	var err error
	appended := 0
	for ; appended < 100; appended++ {
		if _, err = l.Append(t.Context(), book, d); err != nil {
			break
		}
	}
	if quipu.CodeOf(err) != quipu.CodeDiskFull {
		t.Fatalf("after %d appends: %v", appended, err)
	}
	if _, err := l.Append(t.Context(), book, d); quipu.CodeOf(err) != quipu.CodeDiskFull {
		t.Fatalf("the next append: %v", err)
	}
	full.Delete("on")
	if _, err := l.Append(t.Context(), book, d); err != nil {
		t.Fatalf("with space again: %v", err)
	}
	if n := len(all(t, l, book)); n != appended+1 {
		t.Fatalf("%d records, want %d", n, appended+1)
	}
}

func all(t *testing.T, l *Log, book quipu.Book) []quipu.Record {
	t.Helper()
	var records []quipu.Record
	for r, err := range l.Range(context.Background(), book, quipu.TagAll, 0, quipu.SeqMax) {
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	return records
}

// A transaction of 64 MiB is one record in a segment of its own size, and outlives a power cut like any other.
func TestAnAppendLargerThanASegmentIsOneRecord(t *testing.T) {
	fs := vfs.NewCrashableMem()
	o := small(fs)
	l := mustOpen(t, o)
	book := mustCreate(t, l)
	ds := make([]quipu.Draft, 40)
	for i := range ds {
		ds[i].Data = make([]byte, 100_000)
		ds[i].Data[0] = byte(i)
	}
	seqs, err := l.AppendBatch(t.Context(), book, ds)
	if err != nil {
		t.Fatal(err)
	}
	o.FS = fs.CrashClone(vfs.CrashCloneCfg{})
	after := all(t, mustOpen(t, o), book)
	if len(after) != len(ds) || after[39].Seq != seqs[39] || after[39].Data[0] != 39 || len(after[39].Data) != 100_000 {
		t.Fatalf("%d records after the power cut", len(after))
	}
}

// stuck holds the writer in its fdatasync.
type stuck struct {
	mu      sync.Mutex
	on      bool
	entered chan struct{}
	leave   chan struct{}
}

func (s *stuck) before(op errorfs.Op) error {
	s.mu.Lock()
	on := s.on && op.Kind == errorfs.OpFileSyncData
	s.on = s.on && !on
	s.mu.Unlock()
	if on {
		close(s.entered)
		<-s.leave
	}
	return nil
}

// A caller that gives up while it waits has appended nothing; one whose record is on its way cannot know.
func TestACallerThatGivesUpIsToldWhatIsKnown(t *testing.T) {
	s := &stuck{entered: make(chan struct{}), leave: make(chan struct{})}
	o := small(errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(s.before)))
	o.QueueBytesMax = 1000
	l := mustOpen(t, o)
	book := mustCreate(t, l)
	s.mu.Lock()
	s.on = true
	s.mu.Unlock()

	onItsWay, giveUp := context.WithCancel(context.Background())
	first := make(chan error, 1)
	go func() {
		_, err := l.Append(onItsWay, book, quipu.Draft{Data: []byte("on its way")})
		first <- err
	}()
	<-s.entered
	giveUp()
	if err := <-first; quipu.CodeOf(err) != quipu.CodeUnknown {
		t.Fatalf("on its way: %v", err)
	}

	queued, withdraw := context.WithCancel(context.Background())
	second := make(chan error, 1)
	go func() {
		_, err := l.Append(queued, book, quipu.Draft{Data: make([]byte, 500)})
		second <- err
	}()
	for !isQueued(l.queue) {
		runtime.Gosched()
	}
	if _, err := l.Append(context.Background(), book, quipu.Draft{Data: make([]byte, 600)}); quipu.CodeOf(err) != quipu.CodeOverloaded {
		t.Fatalf("over the queue's bound: %v", err)
	}
	withdraw()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Fatalf("queued: %v", err)
	}
	close(s.leave)
	if _, err := l.Append(context.Background(), book, quipu.Draft{Data: []byte("after")}); err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, r := range all(t, l, book) {
		got += fmt.Sprintf("%s;", r.Data)
	}
	if got != "on its way;after;" {
		t.Fatalf("the log has %q", got)
	}
}

func isQueued(q *queue) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items) > 0
}

func TestHintsAreBounded(t *testing.T) {
	c := newAuxCache(1000)
	for seq := range quipu.Seq(100) {
		c.set(auxKey{1, seq}, make([]byte, 100))
	}
	if c.bytes > 1000 || len(c.entries) != c.order.Len() || len(c.entries) == 0 {
		t.Fatalf("%d bytes in %d entries", c.bytes, len(c.entries))
	}
	if _, ok := c.get(auxKey{1, 99}); !ok {
		t.Fatal("the newest hint is gone")
	}
	c.set(auxKey{1, 200}, make([]byte, 2000))
	if _, ok := c.get(auxKey{1, 200}); ok || c.bytes != 0 {
		t.Fatalf("a hint over the bound was kept: %d bytes", c.bytes)
	}
}

// Whoever watches the log is told of each group commit, of what waits, and where records are read from.
func TestTheLogTellsHowItIsDoing(t *testing.T) {
	fs := vfs.NewMem()
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 30})
	o := small(fs)
	var commits []Commit
	o.Observe = func(c Commit) { commits = append(commits, c) } // the writer's goroutine; read when it has ended
	o.DiskReserve = 1000
	l := mustOpen(t, o)
	book := mustCreate(t, l)
	ctx := context.Background()
	for range 20 {
		if _, err := l.Append(ctx, book, quipu.Draft{Data: make([]byte, 1000)}); err != nil {
			t.Fatal(err)
		}
	}
	all(t, l, book)
	s := l.Stats()
	if s.HotReads == 0 || s.ColdReads == 0 || s.HotReads+s.ColdReads != 20 || s.QueueBytes != 0 || s.DiskFree != 1<<30 || s.ReadOnly {
		t.Errorf("%+v", s)
	}
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 10})
	l.writer.unchecked = diskCheckBytes
	if _, err := l.Append(ctx, book, quipu.Draft{}); quipu.CodeOf(err) != quipu.CodeDiskFull || !l.Stats().ReadOnly {
		t.Errorf("on a full disk: %v, %+v", err, l.Stats())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if len(commits) != 21 || commits[1].Appends != 1 || commits[1].Bytes < 1000 || commits[1].Took < commits[1].Stored {
		t.Errorf("%d commits, the second %+v", len(commits), commits[1])
	}
}
