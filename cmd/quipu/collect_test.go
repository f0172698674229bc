package main

import "testing"

func TestGarbageMayBeAFewTimesWhatLivesWhileThatIsLittle(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 1 << 20: 400, 32 << 20: 400, 64 << 20: 200, 128 << 20: 100, 4 << 30: 100} {
		if got := percentOf(live); got != want {
			t.Errorf("%d MiB live: %d percent, want %d", live>>20, got, want)
		}
	}
}

// A node that was busy gives its spare memory back once, when it comes to rest, and again after the next time.
func TestMemoryIsGivenBackWhenTheNodeComesToRest(t *testing.T) {
	p, allocated := pacer{gave: true}, uint64(0)
	for i, c := range []struct {
		bytes uint64
		want  bool
	}{{1 << 20, false}, {1 << 30, false}, {1 << 30, false}, {1 << 20, true}, {1 << 20, false}, {64 << 20, false}, {0, true}, {0, false}} {
		allocated += c.bytes
		if _, got := p.step(10<<20, allocated); got != c.want {
			t.Errorf("step %d, %d MiB: gives back %v, want %v", i, c.bytes>>20, got, c.want)
		}
	}
}
