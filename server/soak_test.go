package server

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

var (
	soakFlag  = flag.Duration("soak", 4*time.Second, "how long the soak goes on: go test ./server -run Soak -soak 4h -timeout 0 -v")
	soakMount = flag.Int("soak-mount", 0, "MiB of a loop-mounted file system of its own for the soak, which is filled up now and then; needs root")
	soakKills = flag.Int("soak-kills", 2, "how often something is killed in the soaks of workflows, jobs and reminders")
)

const (
	soakAppenders = 4
	soakKeys      = 3
	soakBook      = "soak"
	soakLarge     = 100_000 // bytes of a large value
)

// soak is a node under load that is killed, filled up, trimmed and backed up at random, with what it acknowledged.
type soak struct {
	*killable
	t    *testing.T
	rng  *rand.Rand
	over context.Context

	door  atomic.Pointer[sdk.Log] // of the node as it runs now
	book  quipu.Book
	acked [soakAppenders]atomic.Uint64 // the newest number of each producer
	keys  [soakKeys]atomic.Uint64      // the newest value that was acknowledged
	asked [soakKeys]atomic.Uint64      // the newest value that was sent

	kills, fulls, backups, verified, checked int
}

// Whatever happens to the node, every acknowledged record and value is there, once and in order.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("it has a time, not an end")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := &soak{t: t, rng: rand.New(rand.NewPCG(seed, 0))}
	s.killable = spawn(t, filepath.Join(mountFor(t), "data"), "serve")
	var cancel context.CancelFunc
	s.over, cancel = context.WithTimeout(t.Context(), *soakFlag)
	defer cancel()
	s.connect()
	id, err := s.door.Load().CreateBook(t.Context(), soakBook, quipu.BookOptions{MaxBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	s.book = id
	var load sync.WaitGroup
	for w := range soakAppenders {
		load.Go(func() { s.append(w) })
	}
	for k := range soakKeys {
		load.Go(func() { s.count(k) })
	}
	for s.crash(); s.over.Err() == nil; { // once at least, however slow the machine is
		s.happen()
	}
	load.Wait()
	s.check()
	if s.kills == 0 || s.checked == 0 {
		t.Errorf("nothing happened: %d kills, %d records checked", s.kills, s.checked)
	}
	s.tell("the end")
	s.door.Load().Close() //nolint:errcheck // its node is about to be killed
}

// mountFor is a folder for the node, on a small file system of its own if that is asked for.
func mountFor(t *testing.T) string {
	dir := t.TempDir()
	if *soakMount == 0 {
		return dir
	}
	image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "mount")
	must := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	must("truncate", "-s", strconv.Itoa(*soakMount)+"M", image)
	must("mkfs.ext4", "-q", image)
	must("mkdir", mount)
	must("mount", "-o", "loop", image, mount)
	t.Cleanup(func() { must("umount", "-l", mount) })
	return mount
}

func (s *soak) connect() {
	s.t.Helper()
	l, err := sdk.OpenLog(sdk.LogOptions{Address: s.info.DaprGRPC})
	if err != nil {
		s.t.Fatal(err)
	}
	if old := s.door.Swap(l); old != nil {
		old.Close() //nolint:errcheck // its node is gone
	}
}

// transient tells what a client that means it tries again: the node is away, its disk is full, or nobody knows.
func transient(err error) bool {
	switch quipu.CodeOf(err) {
	case quipu.CodeNoNode, quipu.CodeUnknown, quipu.CodeLogStopped, quipu.CodeStopping, quipu.CodeDiskFull, quipu.CodeOverloaded, quipu.CodeInternal:
		return true
	}
	return errors.Is(err, context.DeadlineExceeded)
}

// append numbers records, and repeats a number until it is answered.
func (s *soak) append(w int) {
	for n := uint64(1); s.over.Err() == nil; n++ {
		d := quipu.Draft{Tags: []string{fmt.Sprint("w", w)}, Data: fmt.Appendf(nil, "%d %0*d", n, 100+int(n%1000), 0), Producer: quipu.Producer{ID: uint64(w + 1), N: n}}
		for {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			_, err := s.door.Load().Append(ctx, s.book, d)
			cancel()
			if err == nil {
				s.acked[w].Store(n)
				break
			}
			if !transient(err) {
				s.t.Errorf("append %d of %d: %v", n, w, err)
				return
			}
			if s.over.Err() != nil {
				return
			}
			<-time.After(10 * time.Millisecond) // be gentle to a node that is away
		}
	}
}

// count writes rising numbers to a key, some of them large.
func (s *soak) count(k int) {
	for n := uint64(1); s.over.Err() == nil; n++ {
		value := strconv.FormatUint(n, 10)
		if n%50 == 0 {
			value = `"` + value + " " + strings.Repeat("x", soakLarge) + `"`
		}
		s.asked[k].Store(n)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		err := s.client.State(quipu.StoreShared, "").Apply(ctx, quipu.Change{Key: fmt.Sprint("k", k), Value: []byte(value)})
		cancel()
		switch {
		case err == nil:
			s.keys[k].Store(n)
		case !transient(err):
			s.t.Errorf("write %d of key %d: %v", n, k, err)
			return
		default:
			<-time.After(10 * time.Millisecond)
		}
	}
}

// happen lets one thing befall the node.
func (s *soak) happen() {
	select {
	case <-s.over.Done():
		return
	case <-time.After(time.Duration(200+s.rng.IntN(1000)) * time.Millisecond): // the random point
	}
	switch n := s.rng.IntN(10); {
	case n < 6:
		s.crash()
	case n < 7 && *soakMount > 0:
		s.fillUp()
	case n < 8:
		s.backUp()
	default:
		s.check()
	}
}

func (s *soak) crash() {
	s.kills++
	s.kill()
	s.up()
	s.connect()
	if s.kills%5 == 0 {
		s.check()
		s.tell("killed")
	}
}

// fillUp takes the disk's space away until appends are refused, gives it back, and wants appends to go on.
func (s *soak) fillUp() {
	s.fulls++
	stone := filepath.Join(filepath.Dir(s.data), "stone")
	out, err := exec.Command("dd", "if=/dev/zero", "of="+stone, "bs=1M").CombinedOutput()
	if err == nil {
		s.t.Fatalf("the disk has no end: %s", out)
	}
	<-time.After(time.Second) // of load on a full disk
	if err := os.Remove(stone); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.client.Books(s.t.Context()); err != nil {
		s.crash() // a log whose index had no space has stopped, and said so; opening it recovers
	}
	before := s.acked[0].Load()
	if !poll(func() bool { return s.acked[0].Load() > before || s.over.Err() != nil }) {
		s.t.Fatalf("no append for %s after the disk had space again", patience)
	}
	s.check()
	s.tell("filled up")
}

// backUp makes a node of a backup, and compares it with what was acknowledged before.
func (s *soak) backUp() {
	var acked [soakAppenders]uint64
	for w := range acked {
		acked[w] = s.acked[w].Load()
	}
	archive := filepath.Join(s.t.TempDir(), "backup.tar")
	if r := s.on("backup", archive); r.exit != 0 {
		s.t.Fatalf("backup: %+v", r)
	}
	data := filepath.Join(s.t.TempDir(), "restored")
	if r := command(s.t, "restore", archive, "--data", data); r.exit != 0 {
		s.t.Fatalf("restore: %+v", r)
	}
	other := &killable{node: node{t: s.t, data: data}, verb: []string{"serve"}}
	other.up()
	l, err := sdk.OpenLog(sdk.LogOptions{Address: other.info.DaprGRPC})
	if err != nil {
		s.t.Fatal(err)
	}
	for w := range acked {
		s.checkStream(l, w, acked[w], "restored")
	}
	s.t.Cleanup(other.noneLeft)
	if err := errors.Join(l.Close(), other.term()); err != nil {
		s.t.Error(err)
	}
	if err := errors.Join(os.RemoveAll(data), os.Remove(archive)); err != nil {
		s.t.Error(err)
	}
	s.backups++
}

// check reads everything.
func (s *soak) check() {
	s.t.Helper()
	for w := range soakAppenders {
		s.checkStream(s.door.Load(), w, s.acked[w].Load(), "here")
	}
	for k := range soakKeys {
		least := s.keys[k].Load()
		item, err := s.client.State(quipu.StoreShared, "").Get(s.t.Context(), fmt.Sprint("k", k))
		if quipu.CodeOf(err) == quipu.CodeNotFound && least == 0 {
			continue
		}
		var got uint64
		if _, scanErr := fmt.Sscan(strings.Trim(string(item.Value), `"`), &got); err != nil || scanErr != nil || got < least || got > s.asked[k].Load() {
			s.t.Fatalf("key %d is %.40q, %v; %d was acknowledged", k, item.Value, err, least)
		}
	}
	if s.rng.IntN(3) == 0 {
		if err := s.client.VerifyBook(s.t.Context(), soakBook, func(sdk.Progress) {}); err != nil {
			s.t.Fatalf("verify: %v", err)
		}
		s.verified++
	}
}

// checkStream wants the numbers of a producer without a gap or a double from the trim point to at least acked.
func (s *soak) checkStream(l *sdk.Log, w int, acked uint64, where string) {
	s.t.Helper()
	from, last := quipu.Seq(1), uint64(0)
	for again := true; again; {
		again = false
		for r, err := range l.Range(s.t.Context(), s.book, fmt.Sprint("w", w), from, quipu.SeqMax) {
			if quipu.CodeOf(err) == quipu.CodeTrimmed { // retention goes on
				from, last, again = quipu.AsError(err).Seq+1, 0, true
				break
			}
			var n uint64
			if _, scanErr := fmt.Sscan(string(r.Data), &n); err != nil || scanErr != nil || last != 0 && n != last+1 {
				s.t.Fatalf("%s: producer %d: %d after %d at %s, %v", where, w, n, last, r.Seq, err)
			}
			last = n
			s.checked++
		}
	}
	if last < acked && acked > 0 {
		s.t.Fatalf("%s: producer %d: the last is %d, and %d was acknowledged", where, w, last, acked)
	}
}

func (s *soak) tell(what string) {
	total := uint64(0)
	for w := range soakAppenders {
		total += s.acked[w].Load()
	}
	s.t.Logf("%s: %d kills, %d times full, %d backups restored, %d times verified; %d appends acknowledged, %d records read and compared",
		what, s.kills, s.fulls, s.backups, s.verified, total, s.checked)
}
