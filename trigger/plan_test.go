package trigger

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/delivery"
)

// The histories in testdata tell what becomes of events, in a small language; testdata/README has its words.
func TestHistories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if strings.HasSuffix(path, "README") {
			return
		}
		h := &history{now: time.Unix(0, 0)}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return h.run(t, d) })
	})
}

// history is a plan with what a runner would keep beside it.
type history struct {
	p     *plan
	now   time.Time
	calls map[string]*group // under way, by name
	made  int
	ends  map[uint64]end
}

func (h *history) run(t *testing.T, d *datadriven.TestData) string {
	var out strings.Builder
	switch d.Cmd {
	case "subscribe":
		h.subscribe(t, d)
	case "publish":
		h.publish(d)
	case "wait":
		h.wait(t, d)
	case "ack", "fail", "miss", "gone", "lose", "each":
		h.over(t, d, &out)
	case "settle":
		h.settle()
	case "retention":
		h.p.expiry = number(t, d.CmdArgs[0].Key)
	default:
		d.Fatalf(t, "unknown command %s", d.Cmd)
	}
	h.step(&out)
	return out.String()
}

func number(t *testing.T, text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (h *history) subscribe(t *testing.T, d *datadriven.TestData) {
	o := planOptions{name: "sub", batch: 1, calls: 1, retry: quipu.RetrySpec{Max: 3, Backoff: quipu.Duration(time.Second)}}
	d.MaybeScanArgs(t, "batch", &o.batch)
	d.MaybeScanArgs(t, "calls", &o.calls)
	d.MaybeScanArgs(t, "retries", &o.retry.Max)
	o.adaptive, o.keepDead = d.HasArg("atomic"), d.HasArg("dead")
	if d.HasArg("keyed") {
		o.key = func(e quipu.Event) string { return string(e.Data) }
	}
	s := delivery.State{}
	if d.HasArg("floor") {
		d.ScanArgs(t, "floor", &s.Floor)
	}
	if d.HasArg("done") {
		for _, arg := range d.CmdArgs {
			if arg.Key == "done" {
				for _, v := range arg.Vals {
					s.Done = append(s.Done, number(t, v))
				}
			}
		}
	}
	h.p, h.calls, h.made, h.ends = newPlan(o, s), map[string]*group{}, 0, map[uint64]end{}
	h.p.setPlaces(o.calls)
	for _, line := range lines(d.Input) { // parked: offset, attempts, alone, due
		f := strings.Fields(line)
		attempts, _ := strconv.Atoi(f[1])
		alone, _ := strconv.Atoi(f[2])
		due, err := time.ParseDuration(f[3])
		if err != nil {
			t.Fatal(err)
		}
		offset := number(t, f[0])
		h.p.park(quipu.Event{Offset: offset}, delivery.Parked{Offset: offset, Attempts: attempts, Alone: alone, Due: h.now.Add(due)})
	}
}

func lines(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
}

// publish loads events: 1 2 3, or 1:key; 4+10s expires then, 5!other is for another subscription alone.
func (h *history) publish(d *datadriven.TestData) {
	var events []quipu.Event
	for _, arg := range d.CmdArgs {
		text, only, _ := strings.Cut(arg.String(), "!")
		text, ttl, _ := strings.Cut(text, "+")
		text, key, _ := strings.Cut(text, ":")
		offset, _ := strconv.ParseUint(text, 10, 64)
		e := quipu.Event{Offset: offset, Data: []byte(key), Only: only}
		if after, err := time.ParseDuration(ttl); err == nil {
			e.Expires = h.now.Add(after)
		}
		events = append(events, e)
	}
	h.p.load(events)
}

func (h *history) wait(t *testing.T, d *datadriven.TestData) {
	after, err := time.ParseDuration(d.CmdArgs[0].Key)
	if err != nil {
		t.Fatal(err)
	}
	h.now = h.now.Add(after)
}

// over ends a call.
func (h *history) over(t *testing.T, d *datadriven.TestData, out *strings.Builder) {
	name := d.CmdArgs[0].Key
	g := h.calls[name]
	if g == nil {
		d.Fatalf(t, "no call %s is under way", name)
	}
	delete(h.calls, name)
	lost := 0
	if d.Cmd == "lose" {
		lost = 1
	}
	h.p.returned(lost)
	switch d.Cmd {
	case "ack", "lose":
		h.p.settled(g.items)
	case "fail":
		h.took(h.p.failed(g, "it failed", h.now), out)
	case "each":
		h.each(d, g, out)
	case "miss":
		h.p.stalled(g, h.now)
	case "gone":
		g.due = h.now
		h.p.again(g)
	}
}

// each ends a call whose events came out differently: a letter for each.
func (h *history) each(d *datadriven.TestData, g *group, out *strings.Builder) {
	for i, letter := range d.CmdArgs[1].Key {
		switch it := g.items[i]; letter {
		case 'a':
			h.p.settled([]*item{it})
		case 'd':
			h.took(setback{ends: []end{{it, causeDropped, h.p.o.keepDead}}}, out)
		default:
			h.took(h.p.failedAlone(it, "it failed", h.now), out)
		}
	}
}

func (h *history) took(s setback, out *strings.Builder) {
	for _, p := range s.parked {
		fmt.Fprintf(out, "park %d after %d attempts, %d alone, for %s\n", p.Offset, p.Attempts, p.Alone, p.Due.Sub(h.now))
	}
	h.p.parkedDurably(s.parked, s.groups)
	for _, e := range s.ends {
		what := "dead letter"
		if !e.keep {
			what = "drop"
		}
		fmt.Fprintf(out, "%s %d: %s\n", what, e.item.event.Offset, e.cause)
		h.ends[e.item.event.Offset] = e
	}
}

// settle makes what was given up durable.
func (h *history) settle() {
	for offset, e := range h.ends {
		h.p.settled([]*item{e.item})
		delete(h.ends, offset)
	}
}

// step starts what can be started and tells how things stand.
func (h *history) step(out *strings.Builder) {
	for {
		g, ends := h.p.next(h.now)
		h.took(setback{ends: ends}, out)
		if g == nil {
			break
		}
		h.made++
		name := "c" + strconv.Itoa(h.made)
		h.calls[name] = g
		fmt.Fprintf(out, "%s: %s, attempt %d\n", name, offsetsOf(g), g.attempt())
	}
	fmt.Fprintf(out, "floor %d", h.p.floor)
	if wake := h.p.wake(); wake.After(h.now) {
		fmt.Fprintf(out, ", next look in %s", wake.Sub(h.now))
	}
	out.WriteString("\n")
}

func offsetsOf(g *group) string {
	var list []string
	for _, it := range g.items {
		list = append(list, strconv.FormatUint(it.event.Offset, 10))
	}
	return strings.Join(list, " ")
}
