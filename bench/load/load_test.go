package load

import (
	"context"
	"errors"
	"sync"
	"testing"
)

func TestEachIsDoneOnce(t *testing.T) {
	var mu sync.Mutex
	seen := map[int]int{}
	f := Each(Figure{Bench: "b"}, 8, 1000, func(_ context.Context, i int) error {
		mu.Lock()
		defer mu.Unlock()
		seen[i]++
		if i == 500 {
			return errors.New("no")
		}
		return nil
	})
	if len(seen) != 1000 || f.N != 999 || f.Errors != 1 || f.Err != "no" || f.Conc != 8 || f.OpsPerS <= 0 {
		t.Errorf("%d, %+v", len(seen), f)
	}
	for i, n := range seen {
		if n != 1 {
			t.Errorf("%d was done %d times", i, n)
		}
	}
}

func TestWhatOnlyFailsEnds(t *testing.T) {
	const conc = 4
	f := Each(Figure{}, conc, 1_000_000, func(context.Context, int) error { return errors.New("no") })
	if f.Errors < errorsMax || f.Errors > errorsMax+conc || f.N != 0 {
		t.Errorf("%+v", f)
	}
}
