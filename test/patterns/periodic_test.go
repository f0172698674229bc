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

// The node is killed with readings to come and ticks under way. There is one roll-up for each second, those in which no
// node ran included, and each reading is in one of them.
func TestPeriodicEachSecondIsRolledUpOnce(t *testing.T) {
	t.Parallel()
	needs(t, "python3")
	rng := random(t)
	n := start(t, example(t, "periodic"))
	sent := map[string][2]int{}
	for i := range 120 {
		if i%40 == 20 {
			n.kill()
			if err := n.up(); err != nil {
				t.Fatal(err)
			}
		}
		meter, value := fmt.Sprint("meter-", rng.IntN(5)), rng.IntN(100)
		a := n.send(fmt.Sprint("reading-", i), "POST", "/readings", fmt.Sprintf(`{"meter": %q, "value": %d}`, meter, value))
		if a.status != http.StatusOK {
			t.Fatalf("reading %d: %d %s", i, a.status, a.body)
		}
		sent[meter] = [2]int{sent[meter][0] + 1, sent[meter][1] + value}
	}
	var last []rollup
	eventually(t, "all readings are in four roll-ups or more", func() bool {
		last = want[[]rollup](t, n.get("/rollups"))
		return len(last) >= 4 && fmt.Sprint(sum(last)) == fmt.Sprint(sent)
	})
	for i := 1; i < len(last); i++ {
		if gap := last[i].Tick.Sub(last[i-1].Tick); gap != time.Second {
			t.Errorf("from roll-up %s to %s are %s, want a second", last[i-1].Tick, last[i].Tick, gap)
		}
	}
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
