package blob

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
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

func (a *aged) keep(text string) quipu.BlobRef {
	a.t.Helper()
	ref, err := a.Put([]byte(text))
	if err != nil {
		a.t.Fatal(err)
	}
	return ref
}

func (a *aged) collect(atStart bool, live ...quipu.BlobRef) Collected {
	a.t.Helper()
	l := Live{Refs: map[string]struct{}{}, AtStart: atStart}
	for _, ref := range live {
		l.Refs[ref.Hash] = struct{}{}
	}
	c, err := a.Collect(a.t.Context(), l)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

func (a *aged) wantThere(there bool, refs ...quipu.BlobRef) {
	a.t.Helper()
	for _, ref := range refs {
		if _, err := a.Get(ref); (err == nil) != there {
			a.t.Errorf("blob of %d bytes: %v", ref.Size, err)
		}
	}
}

func TestWhatEarlierRunsLeftGoesAtOnce(t *testing.T) {
	fs := vfs.NewMem()
	before := newAged(t, fs)
	dead, live, again := before.keep("dead"), before.keep("live one"), before.keep("again three")
	now := newAged(t, fs)
	now.keep("again three") // for a record that is not there yet
	fresh := now.keep("fresh")
	if c := now.collect(true, live); c.Deleted != 1 || c.Kept != 3 || c.DeletedBytes != 4 || c.KeptBytes != 24 {
		t.Errorf("collected %+v", c)
	}
	now.wantThere(false, dead)
	now.wantThere(true, live, again, fresh)
}

func TestWhatDiesIsKeptForItsGrace(t *testing.T) {
	a := newAged(t, vfs.NewMem())
	ref := a.keep("x")
	a.move(2 * Grace)
	a.collect(false, ref)
	a.collect(false) // seen dead for the first time: a reader may have seen it a moment ago
	a.move(Grace - 1)
	a.collect(false)
	a.wantThere(true, ref)
	a.move(1)
	a.collect(false)
	a.wantThere(false, ref)
}

func TestAPutOrAReferenceBeginsTheGraceAnew(t *testing.T) {
	for what, revive := range map[string]func(*aged, quipu.BlobRef){
		"put":       func(a *aged, _ quipu.BlobRef) { a.keep("x") },
		"reference": func(a *aged, ref quipu.BlobRef) { a.collect(false, ref) },
	} {
		a := newAged(t, vfs.NewMem())
		ref := a.keep("x")
		a.move(Grace)
		a.collect(false)
		a.move(Grace - 1)
		revive(a, ref)
		a.move(1)
		a.collect(false) // dead again, and known from here on
		a.move(Grace - 1)
		a.collect(false)
		if _, err := a.Get(ref); err != nil {
			t.Errorf("after a %s: %v", what, err)
		}
		a.move(1)
		a.collect(false)
		a.wantThere(false, ref)
		if ref = a.keep("x"); len(a.idle) != 0 {
			t.Errorf("after a %s something is remembered: %v", what, a.idle)
		}
		a.wantThere(true, ref) // it can come back
	}
}

// Many put, refer, read and let go of few contents, while the collector runs and time flies: what is referred to is there.
// Only between a Put and its reference no more than the grace may pass, as for calls.
func TestALiveBlobIsNeverDeleted(t *testing.T) {
	fs := vfs.NewMem()
	a := newAged(t, fs)
	var mu sync.Mutex // guards refs
	refs := map[string]int{}
	var committing sync.RWMutex
	done := make(chan struct{})
	var wait sync.WaitGroup
	for c := range 4 {
		rng := rand.New(rand.NewPCG(1, uint64(c)))
		wait.Go(func() {
			for range 400 {
				committing.RLock()
				ref := a.keep(fmt.Sprint("content ", rng.IntN(12)))
				mu.Lock()
				refs[ref.Hash]++
				mu.Unlock()
				committing.RUnlock()
				if _, err := a.Get(ref); err != nil {
					t.Errorf("a live blob is gone: %v", err)
				}
				mu.Lock()
				if refs[ref.Hash]--; refs[ref.Hash] == 0 {
					delete(refs, ref.Hash)
				}
				mu.Unlock()
			}
		})
	}
	go func() { wait.Wait(); close(done) }()
	deleted := 0
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		mu.Lock()
		live := Live{Refs: map[string]struct{}{}}
		for hash := range maps.Keys(refs) {
			live.Refs[hash] = struct{}{}
		}
		mu.Unlock()
		c, err := a.Collect(t.Context(), live)
		if err != nil {
			t.Fatal(err)
		}
		deleted += c.Deleted
		committing.Lock() // nothing is between Put and reference
		a.move(Grace / 2)
		committing.Unlock()
	}
	for range 3 {
		deleted += a.collect(false).Deleted
		a.move(Grace)
	}
	if c := a.collect(false); c.Kept != 0 || deleted == 0 {
		t.Errorf("at the end %+v; %d were deleted before", c, deleted)
	}
}

func TestChurnDoesNotGrowTheFolder(t *testing.T) {
	a := newAged(t, vfs.NewMem())
	most := 0
	for i := range 500 {
		live := a.keep(fmt.Sprint("version ", i))
		a.move(time.Hour)
		if c := a.collect(false, live); c.Kept > most {
			most = c.Kept
		}
		a.wantThere(true, live)
	}
	if limit := int(Grace/time.Hour) + 2; most > limit || len(a.put) > 0 || len(a.idle) > limit {
		t.Errorf("there were %d blobs, and %d and %d are remembered; want up to %d", most, len(a.put), len(a.idle), limit)
	}
}

func TestAPowerCutWhileCollectingLeavesWhatIsLive(t *testing.T) {
	fs := vfs.NewCrashableMem()
	before := newAged(t, fs)
	var live, dead []quipu.BlobRef
	for i := range 20 {
		live, dead = append(live, before.keep(fmt.Sprint("live ", i))), append(dead, before.keep(fmt.Sprint("dead ", i)))
	}
	now := newAged(t, fs)
	now.collect(true, live...)
	now.wantThere(false, dead...)
	for _, percent := range []int{0, 50, 100} {
		after := newAged(t, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(7, 7))}))
		after.wantThere(true, live...)
		after.collect(true, live...)
		after.wantThere(true, live...)
		after.wantThere(false, dead...) // also those that the cut brought back
	}
}
