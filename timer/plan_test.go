package timer

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/timers"
	"pgregory.net/rapid"
)

// disk is what the plan follows: the timers of one lane as the log has them, with reads that show some moment of it, and handlers
// that change a timer, or do not.
type disk struct {
	plan    *plan
	now     int64
	seq     quipu.Seq
	timers  map[string]news
	unheard []news // applied, and not told to the plan yet
	reads   []reading
	looked  *page // what the first of reads has seen
	flights []flight
	early   bool // a timer was handled before its time
}

var theLane = laneKey{"job", "app"}

func (d *disk) step() {
	reads, flights, _ := d.plan.step(d.now)
	for _, f := range flights {
		d.early = d.early || f.item.time() > d.now
	}
	d.reads, d.flights = append(d.reads, reads...), append(d.flights, flights...)
}

// commit is a record; the plan hears of it later.
func (d *disk) commit(id string, due int64) {
	d.seq++
	n := news{key: timers.Key{Kind: theLane.kind, Owner: theLane.owner, ID: id}, due: due, seq: d.seq}
	if due == 0 {
		delete(d.timers, id)
	} else {
		d.timers[id] = n
	}
	d.unheard = append(d.unheard, n)
}

func (d *disk) hear(n int) {
	for range n {
		d.plan.hear(d.unheard[0])
		d.unheard = d.unheard[1:]
	}
	d.step()
}

// page is the next page of the lane as it is on disk now.
func (d *disk) page(after place) (pg page) {
	for _, n := range d.timers {
		if (place{n.due, n.key.ID}).compare(after) > 0 {
			pg.timers = append(pg.timers, n)
		}
	}
	slices.SortFunc(pg.timers, func(a, b news) int { return place{a.due, a.key.ID}.compare(place{b.due, b.key.ID}) })
	if pg.to = everything; len(pg.timers) >= pageMax {
		pg.timers = pg.timers[:pageMax]
		last := pg.timers[pageMax-1]
		pg.to = place{last.due, last.key.ID}
	}
	return pg
}

func (d *disk) returns(i int) {
	f := d.flights[i]
	d.flights = slices.Delete(d.flights, i, i+1)
	d.plan.returned(f, d.now)
	d.step()
}

// idle lets everything come to rest: what is applied is heard, reads end, and handlers take off what they handle.
func (d *disk) idle(t *rapid.T) {
	for range 100_000 {
		d.hear(len(d.unheard))
		switch {
		case len(d.reads) > 0:
			d.read()
		case len(d.flights) > 0:
			if n, ok := d.timers[d.flights[0].key.ID]; ok && n.seq == d.flights[0].seq {
				d.commit(d.flights[0].key.ID, 0)
			}
			d.hear(len(d.unheard))
			d.returns(0)
		default:
			_, _, next := d.plan.step(d.now)
			if next == 0 {
				return
			}
			d.now = max(d.now, next)
			d.step()
		}
	}
	t.Fatal("it never comes to rest")
}

func (d *disk) read() {
	r := d.reads[0]
	d.reads = d.reads[1:]
	if d.looked == nil {
		pg := d.page(r.after)
		d.looked = &pg
	}
	d.plan.read(r.lane, *d.looked, nil)
	d.looked = nil
	d.step()
}

// Whatever happens in whatever order: no timer is handled early or twice at a time, and none is forgotten.
func TestThePlanForgetsNoTimer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := &disk{plan: newPlan(), now: 1000, timers: map[string]news{}}
		for i := range rapid.SampledFrom([]int{0, 10, 300, 3000}).Draw(t, "from before") {
			id := fmt.Sprintf("old%d", i)
			d.seq++
			d.timers[id] = news{key: timers.Key{Kind: theLane.kind, Owner: theLane.owner, ID: id}, due: int64(900 + i*7%2000), seq: d.seq}
		}
		if len(d.timers) > 0 {
			d.plan.add(theLane)
		}
		d.plan.listed = true
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				d.commit(fmt.Sprint("t", rapid.IntRange(0, 30).Draw(t, "id")), rapid.Int64Range(1, 4000).Draw(t, "due"))
			},
			"set many": func(t *rapid.T) {
				from := rapid.IntRange(0, 50).Draw(t, "from")
				for i := range 400 {
					d.commit(fmt.Sprint("m", from*40+i), int64(1+(i*37+from)%3000))
				}
			},
			"change an old one": func(t *rapid.T) {
				id := fmt.Sprint("old", rapid.IntRange(0, 3000).Draw(t, "id"))
				if _, ok := d.timers[id]; ok {
					d.commit(id, rapid.Int64Range(0, 4000).Draw(t, "due"))
				}
			},
			"hear": func(t *rapid.T) { d.hear(rapid.IntRange(0, len(d.unheard)).Draw(t, "n")) },
			"time": func(t *rapid.T) { d.now += rapid.Int64Range(0, 500).Draw(t, "by"); d.step() },
			"look": func(*rapid.T) {
				if len(d.reads) > 0 && d.looked == nil {
					pg := d.page(d.reads[0].after)
					d.looked = &pg
				}
			},
			"read": func(*rapid.T) {
				if len(d.reads) > 0 {
					d.read()
				}
			},
			"return": func(t *rapid.T) {
				if len(d.flights) == 0 {
					return
				}
				i := rapid.IntRange(0, len(d.flights)-1).Draw(t, "flight")
				id := d.flights[i].key.ID
				if _, ok := d.timers[id]; ok && rapid.Bool().Draw(t, "changes it") { // as a handler does, whose commit is heard before it returns
					d.commit(id, rapid.SampledFrom([]int64{0, 1, d.now + 100, d.now + 3000}).Draw(t, "due"))
					d.hear(len(d.unheard))
				}
				d.returns(i)
			},
			"": func(t *rapid.T) { d.check(t) },
		})
		d.idle(t)
		if len(d.timers) > 0 {
			t.Fatalf("%d timers were forgotten, one is %+v", len(d.timers), first(d.timers))
		}
		if len(d.plan.lanes) > 0 || d.plan.flights != 0 {
			t.Fatalf("something is left: %d lanes, %d flights", len(d.plan.lanes), d.plan.flights)
		}
	})
}

func first(m map[string]news) (one news) {
	for _, one = range m {
		break
	}
	return one
}

func (d *disk) check(t *rapid.T) {
	if d.early {
		t.Fatal("a timer was handled early")
	}
	flying := map[string]bool{}
	for _, f := range d.flights {
		if flying[f.key.ID] {
			t.Fatalf("%s is handled twice at a time", f.key.ID)
		}
		flying[f.key.ID] = true
	}
	if len(d.flights) > laneFlightsMax {
		t.Fatalf("%d are handled", len(d.flights))
	}
	if l := d.plan.lanes[theLane]; l != nil && len(l.items) > 2*itemsMax+laneFlightsMax+pageMax {
		t.Fatalf("%d are in memory", len(l.items))
	}
}

func TestOneThatFailsIsTriedAgainLaterAndLater(t *testing.T) {
	d := &disk{plan: newPlan(), now: 1000, timers: map[string]news{}}
	d.plan.listed = true
	d.commit("a", 1000)
	d.hear(1)
	for _, wait := range []time.Duration{200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 1600 * time.Millisecond} {
		if len(d.flights) != 1 {
			t.Fatalf("%d tries at %d", len(d.flights), d.now)
		}
		d.returns(0)
		if _, _, next := d.plan.step(d.now); next != d.now+int64(wait) {
			t.Fatalf("the next try is %s later, want %s", time.Duration(next-d.now), wait)
		}
		d.now += int64(wait)
		d.step()
	}
	d.returns(0)
	d.plan.hasten(theLane)
	if d.step(); len(d.flights) != 1 {
		t.Error("it was hastened, and waits")
	}
}
