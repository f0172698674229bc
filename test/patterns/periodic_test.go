package patterns

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

type rollup struct {
	Tick   time.Time         `json:"tick"`
	Meters map[string][2]int `json:"meters"` // how many readings, and their sum
}

// Functions and the node are killed with readings to come and ticks under way, and then no node runs for more than two
// seconds. There is one roll-up for each second, those included, and each reading is in one of them.
func TestPeriodicEachSecondIsRolledUpOnce(t *testing.T) {
	t.Parallel()
	needs(t, "python3")
	const readings = 200
	rng := random(t)
	bodies, sent := make([]string, readings), map[string][2]int{}
	for i := range bodies {
		meter, value := fmt.Sprint("meter-", rng.IntN(5)), rng.IntN(100)
		bodies[i] = fmt.Sprintf(`{"meter": %q, "value": %d}`, meter, value)
		sent[meter] = [2]int{sent[meter][0] + 1, sent[meter][1] + value}
	}
	n := start(t, example(t, "periodic"))
	killing := n.chaos(rng)
	inParallel(readings, func(i int) {
		if a := n.send(fmt.Sprint("reading-", i), "POST", "/readings", bodies[i]); a.status != http.StatusOK {
			t.Errorf("reading %d: %d %s", i, a.status, a.body)
		}
	})
	killing.end()
	n.kill()
	away := time.Now()
	eventually(t, "more than two seconds have passed", func() bool { return time.Since(away) > 2200*time.Millisecond })
	if err := n.up(); err != nil {
		t.Fatal(err)
	}
	var last []rollup
	back := time.Now().Truncate(time.Second)
	eventually(t, "there is a roll-up for each second from the first until now", func() bool {
		last = want[[]rollup](t, n.get("/rollups"))
		return len(last) > 0 && distinct(last, back) == 1+int(back.Sub(last[0].Tick)/time.Second)
	})
	eventually(t, "all readings are in roll-ups", func() bool {
		last = want[[]rollup](t, n.get("/rollups"))
		return fmt.Sprint(sum(last)) == fmt.Sprint(sent)
	})
	for i := 1; i < len(last); i++ {
		if last[i].Tick.Equal(last[i-1].Tick) {
			t.Errorf("there are two roll-ups for %s", last[i].Tick)
		}
	}
}

// distinct counts the ticks until a time. Later ones may overtake each other.
func distinct(rollups []rollup, until time.Time) int {
	ticks := map[int64]bool{}
	for _, r := range rollups {
		if !r.Tick.After(until) {
			ticks[r.Tick.Unix()] = true
		}
	}
	return len(ticks)
}

func sum(rollups []rollup) map[string][2]int {
	all := map[string][2]int{}
	for _, r := range rollups {
		for meter, s := range r.Meters {
			all[meter] = [2]int{all[meter][0] + s[0], all[meter][1] + s[1]}
		}
	}
	return all
}
