package blob

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
)

// aged is a store whose clock the test moves.
type aged struct {
	*Store
	t  *testing.T
	mu sync.Mutex // guards at
	at time.Time
}

func newAged(t *testing.T, fs vfs.FS) *aged {
	a := &aged{Store: open(t, fs), t: t, at: time.Unix(1e9, 0)}
	a.now = func() time.Time {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.at
	}
	return a
}

func (a *aged) move(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = a.at.Add(d)
}

func (a *aged) keep(data []byte) quipu.BlobRef {
	a.t.Helper()
	ref, err := a.Put(data)
	if err != nil {
		a.t.Fatal(err)
	}
	return ref
}

// put is a Put whose record came.
func (a *aged) put(data []byte) quipu.BlobRef {
	a.t.Helper()
	ref := a.keep(data)
	a.Release(ref)
	return ref
}

func visiting(live ...quipu.BlobRef) Live {
	return func(_ context.Context, visit func(quipu.BlobRef)) (int64, error) {
		for _, ref := range live {
			visit(ref)
		}
		return 0, nil
	}
}

func (a *aged) collect(live ...quipu.BlobRef) Collected {
	a.t.Helper()
	c, err := a.Collect(a.t.Context(), visiting(live...))
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

func (a *aged) wantThere(there bool, refs ...quipu.BlobRef) {
	a.t.Helper()
	for _, ref := range refs {
		if _, err := a.Get(ref); (err == nil) != there {
			a.t.Errorf("blob %s of %d bytes: %v", ref.Hash[:8], ref.Size, err)
		}
	}
}

// big is a value of which no two have room among the dead.
func big(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "%015d ", i), roomMin/16*3/4) }

func TestWhatDiesStaysForItsGraceIfThereIsRoom(t *testing.T) {
	a := newAged(t, vfs.NewMem())
	ref, other := a.put([]byte("x")), a.put([]byte("live"))
	a.collect(ref, other)
	a.move(2 * Grace)
	if c := a.collect(other); c.Dead != 1 || c.DeadBytes != 1 || c.Live != 1 || c.LiveBytes != 4 {
		t.Errorf("%+v", c)
	}
	a.move(Grace - 1)
	a.collect(other)
	a.wantThere(true, ref)
	a.move(1)
	a.collect(other)
	a.wantThere(false, ref)
	a.wantThere(true, other)
	if again := a.put([]byte("x")); len(a.dead)+len(a.held) != 0 {
		t.Errorf("something is remembered: %v, %v", a.dead, a.held)
	} else {
		a.wantThere(true, again) // it can come back
	}
}

func TestAPutOrAReferenceBeginsTheGraceAnew(t *testing.T) {
	for what, revive := range map[string]func(*aged, quipu.BlobRef){
		"put":       func(a *aged, _ quipu.BlobRef) { a.put([]byte("x")) },
		"reference": func(a *aged, ref quipu.BlobRef) { a.collect(ref) },
	} {
		a := newAged(t, vfs.NewMem())
		ref := a.put([]byte("x"))
		a.collect()
		a.move(Grace - 1)
		revive(a, ref)
		a.move(1)
		a.collect() // dead again, and known from here on
		a.move(Grace - 1)
		a.collect()
		if _, err := a.Get(ref); err != nil {
			t.Errorf("after a %s: %v", what, err)
		}
		a.move(1)
		a.collect()
		a.wantThere(false, ref)
	}
}

func TestWithoutRoomTheFirstDeadGoesFirst(t *testing.T) {
	a := newAged(t, vfs.NewMem())
	first, second := a.put(big(1)), a.put(big(2))
	a.collect(second)
	a.wantThere(true, first) // alone it has room
	a.move(time.Second)
	if c := a.collect(); c.Deleted != 1 || c.DeletedBytes != first.Size || c.Dead != 1 {
		t.Errorf("%+v", c)
	}
	a.wantThere(false, first)
	a.wantThere(true, second)
}

// A record may come long after its Put. Until then there is no room that is too small for its blob.
func TestWhatIsHeldStaysUntilItsRecordHasCome(t *testing.T) {
	a := newAged(t, vfs.NewMem())
	late := a.keep(big(0))
	twice := a.keep(big(1))
	a.keep(big(1))
	a.Release(twice)
	for i := range 5 {
		a.put(big(10 + i))
		a.move(2 * Grace)
		a.collect()
	}
	a.wantThere(true, late, twice)
	a.collect(late) // its record
	a.Release(late)
	a.Release(twice) // it has none
	for range 2 {
		a.move(2 * Grace)
		a.collect(late)
	}
	a.wantThere(true, late)
	a.wantThere(false, twice)
}

// What is put, recorded and released while references are read may not be among them.
func TestWhatIsReleasedWhileCollectingStays(t *testing.T) {
	a := newAged(t, vfs.NewMem())
	before := a.keep(big(0))
	dead := a.put(big(1))
	var during, again quipu.BlobRef
	collect := func() {
		_, err := a.Collect(t.Context(), func(context.Context, func(quipu.BlobRef)) (int64, error) {
			a.Release(before)
			during, again = a.put(big(2)), a.put(big(1))
			return 0, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	a.collect(before)
	a.move(2 * Grace) // dead is due
	collect()
	if again != dead {
		t.Fatal("equal bytes have two names")
	}
	a.wantThere(true, before, during, again)
}

// A reader keeps what was there when it began, however long it reads, and nothing that came later.
func TestAReaderKeepsWhatItsSnapshotRefersTo(t *testing.T) {
	a := newAged(t, vfs.NewMem())
	old := a.put(big(0))
	pinned, done := a.Reading()
	between := a.put(big(1)) // whether the snapshot has it is not known
	pinned()
	var later []quipu.BlobRef
	for i := range 5 {
		later = append(later, a.put(big(10+i)))
		a.move(2 * Grace)
		a.collect(later[i])
	}
	a.wantThere(true, old, between)
	a.wantThere(false, later[:3]...)
	_, young := a.Reading() // one that never said it has its snapshot; it began after those two were found dead
	done()
	a.collect(later[4])
	a.wantThere(false, old, between)
	young()
	if len(a.born) != 0 || len(a.readers.of) != 0 {
		t.Errorf("remembered are %d and %d", len(a.born), len(a.readers.of))
	}
}

// A second Put that was slower than the first does not make a blob look younger than its readers.
func TestAReaderKeepsWhatIsPutAgain(t *testing.T) {
	a := newAged(t, vfs.NewMem())
	slow, err := a.write(big(0))
	if err != nil {
		t.Fatal(err)
	}
	ref := a.put(big(0))
	pinned, done := a.Reading()
	pinned()
	defer done()
	if err := a.settle(ref, slow); err != nil {
		t.Fatal(err)
	}
	a.move(2 * Grace)
	for range 2 {
		a.collect()
		a.move(2 * Grace)
	}
	a.wantThere(true, ref)
}

// Many put, refer, read at snapshots and let go of few contents, while the collector runs: what is referred to, now or at
// a snapshot, is there.
func TestALiveBlobIsNeverDeleted(t *testing.T) {
	a := newAged(t, vfs.NewMem())
	var mu sync.Mutex // guards refs
	refs := map[int]quipu.BlobRef{}
	var wait sync.WaitGroup
	var deleted atomic.Int64 // while they do so
	for c := range 4 {
		rng := rand.New(rand.NewPCG(1, uint64(c)))
		wait.Go(func() {
			for i := 0; i < 400 || deleted.Load() < 20 && i < 100_000; i++ {
				ref := a.keep(fmt.Append(nil, "content ", rng.IntN(12)))
				mu.Lock()
				refs[rng.IntN(3)] = ref
				mu.Unlock()
				a.Release(ref)
				pinned, done := a.Reading()
				mu.Lock()
				seen := refs[rng.IntN(3)]
				mu.Unlock()
				pinned()
				a.move(2 * Grace) // whatever is dead is due
				if seen.Hash != "" {
					if _, err := a.Get(seen); err != nil {
						t.Errorf("a blob of a snapshot is gone: %v", err)
					}
				}
				done()
			}
		})
	}
	over := make(chan struct{})
	go func() { wait.Wait(); close(over) }()
	live := func(_ context.Context, visit func(quipu.BlobRef)) (int64, error) {
		mu.Lock()
		defer mu.Unlock()
		for _, ref := range refs {
			visit(ref)
		}
		return 0, nil
	}
	for running := true; running; {
		select {
		case <-over:
			running = false
		default:
		}
		c, err := a.Collect(t.Context(), live)
		if err != nil {
			t.Fatal(err)
		}
		deleted.Add(int64(c.Deleted))
	}
	a.move(2 * Grace)
	a.collect()
	a.move(2 * Grace)
	if c := a.collect(); c.Live+c.Dead != 0 || deleted.Load() == 0 {
		t.Errorf("at the end %+v; %d were deleted before", c, deleted.Load())
	}
}

// Due comes with the bytes that came, not with those that were there already.
func TestACollectIsDueWhenEnoughCame(t *testing.T) {
	a := newAged(t, vfs.NewMem())
	due := func() bool {
		select {
		case <-a.Due():
			return true
		default:
			return false
		}
	}
	a.put(big(0))
	for range 5 {
		a.put(big(0))
	}
	if due() {
		t.Error("due after one blob")
	}
	a.put(big(1))
	if !due() {
		t.Error("not due although there is no room for more")
	}
	a.collect()
	a.put(big(2))
	if due() {
		t.Error("due right after it was done")
	}
}

func TestACollectThatCannotAskDeletesNothing(t *testing.T) {
	a := newAged(t, vfs.NewMem())
	refs := []quipu.BlobRef{a.put(big(0)), a.put(big(1))}
	a.collect(refs...)
	a.move(2 * Grace)
	_, err := a.Collect(t.Context(), func(context.Context, func(quipu.BlobRef)) (int64, error) { return 0, errEnough })
	if err == nil {
		t.Error("no error")
	}
	a.wantThere(true, refs...)
}

func TestAPowerCutWhileCollectingLeavesWhatIsLive(t *testing.T) {
	fs := vfs.NewCrashableMem()
	now := newAged(t, fs)
	var live, dead []quipu.BlobRef
	for i := range 20 {
		live, dead = append(live, now.put(fmt.Append(nil, "live ", i))), append(dead, now.put(fmt.Append(nil, "dead ", i)))
	}
	now.collect(live...)
	now.move(Grace)
	now.collect(live...)
	now.wantThere(false, dead...)
	for _, percent := range []int{0, 50, 100} {
		after := newAged(t, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(7, 7))}))
		after.wantThere(true, live...)
		after.collect(live...)
		after.move(Grace)
		after.collect(live...)
		after.wantThere(true, live...)
		after.wantThere(false, dead...) // also those that the cut brought back
	}
}
