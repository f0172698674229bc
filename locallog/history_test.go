package locallog

import (
	"flag"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/xtest"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "repeat the random tests with this seed only")
	stepsFlag = flag.Int("steps", 1500, "operations of a random history")
)

// eachSeed runs a random test with a few seeds, and says how to repeat the one that failed.
func eachSeed(t *testing.T, n int, run func(t *testing.T, seed uint64)) {
	t.Helper()
	for range n {
		seed := *seedFlag
		if seed == 0 {
			seed = rand.Uint64N(1_000_000) + 1
		}
		failed := !t.Run("", func(t *testing.T) { run(t, seed) })
		if failed {
			t.Fatalf("seed %d; to repeat: go test ./locallog -run '^%s$' -seed %d", seed, t.Name(), seed)
		}
		if *seedFlag != 0 {
			return
		}
	}
}

// A random history, with clean restarts and power cuts in between, gets the answers that the model gives.
func TestAnyHistoryEqualsTheModel(t *testing.T) {
	recycled, relocated := uint64(0), uint64(0)
	eachSeed(t, 8, func(t *testing.T, seed uint64) {
		fs := vfs.NewCrashableMem()
		o := small(fs)
		l := mustOpen(t, o)
		var sum Stats
		restart := func(rng *rand.Rand) (quipu.Log, bool) {
			unclean := rng.IntN(2) == 0
			if unclean {
				o.FS = o.FS.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			s := l.Stats()
			sum.Rolls, sum.Checkpoints, sum.Deleted = sum.Rolls+s.Rolls, sum.Checkpoints+s.Checkpoints, sum.Deleted+s.Deleted
			sum.Recycled, sum.Relocated = sum.Recycled+s.Recycled, sum.Relocated+s.Relocated
			l = mustOpen(t, o)
			if rng.IntN(4) == 0 {
				if _, err := l.Verify(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
			}
			return l, unclean
		}
		xtest.History(t, seed, *stepsFlag, o.Clock.(*xtest.Clock), l, restart)
		if sum.Rolls == 0 || sum.Checkpoints == 0 {
			t.Fatalf("the history rolled and saved nothing: %+v", sum)
		}
		recycled, relocated = recycled+sum.Recycled, relocated+sum.Relocated
		t.Logf("%d rolls, %d checkpoints, %d segments deleted, %d written over, %d moved out of", sum.Rolls, sum.Checkpoints, sum.Deleted, sum.Recycled, sum.Relocated)
	})
	if recycled == 0 && *seedFlag == 0 {
		t.Error("no history wrote over a deleted segment")
	}
	if relocated == 0 && *seedFlag == 0 {
		t.Error("no history moved records")
	}
}
