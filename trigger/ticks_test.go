package trigger_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/trigger"
)

func scheduled(name string, t quipu.ScheduleTrigger) quipu.Function {
	t.Path, t.Retry = "/tick", quipu.RetrySpec{Max: 3, Backoff: quipu.Duration(time.Second)}
	return quipu.Function{Name: name, Revision: "1", Spec: quipu.Spec{Triggers: []quipu.Trigger{{Schedule: &t}}}}
}

// ticks are the times that a function was called for.
type ticks struct {
	mu   sync.Mutex
	list []time.Time
}

func (s *ticks) handle(events []event, _ int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if events[0].Type != "dev.quipu.tick" {
		return 500
	}
	s.list = append(s.list, events[0].Time)
	return 200
}

func (s *ticks) times() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

func (s *ticks) len() int { return len(s.times()) }

// minutes are n ticks, one a minute, the first at the given minute after noon.
func minutes(first, n int) (list []time.Time) {
	for i := range n {
		list = append(list, noon.Add(time.Duration(first+i)*time.Minute))
	}
	return list
}

func (s *ticks) want(t *testing.T, want ...time.Time) {
	t.Helper()
	got := s.times()
	slices.SortFunc(got, time.Time.Compare)
	if !slices.EqualFunc(got, want, time.Time.Equal) {
		t.Errorf("ticks at %v, want %v", got, want)
	}
}

func TestATickCallsOnceAcrossCrashes(t *testing.T) {
	w := newWorld(t)
	var got ticks
	w.deploy(scheduled("f", quipu.ScheduleTrigger{Cron: "* * * * *", Missed: "last"}), got.handle)
	rng := rand.New(rand.NewPCG(5, 5))
	for minute := range 20 {
		for got.len() <= minute {
			w.Passing(time.Second, "the next tick", func() bool { return got.len() > minute })
		}
		if rng.IntN(2) == 0 {
			w.Crash(rng)
		}
	}
	got.want(t, minutes(1, 20)...)
}

// A rule says what becomes of ticks while no node ran.
func TestMissedTicks(t *testing.T) {
	for rule, want := range map[string][]time.Time{
		"last": {noon.Add(10 * time.Minute)}, "none": nil, "all": minutes(1, 10),
	} {
		t.Run(rule, func(t *testing.T) {
			w := newWorld(t)
			var got ticks
			f := scheduled("f", quipu.ScheduleTrigger{Cron: "* * * * *", Missed: rule})
			w.deploy(f, got.handle)
			w.Eventually("the schedule has begun", func() bool { return w.scheduled() == 1 })
			w.Stop()
			w.Clock.Move(10*time.Minute + 30*time.Second)
			w.Start()
			w.Passing(time.Second, "the next tick is there", func() bool { return got.len() == len(want)+1 })
			got.want(t, append(want, noon.Add(11*time.Minute))...)
		})
	}
}

// scheduled counts the schedules that the view knows.
func (w *world) scheduled() (n int) {
	tx := w.Book.Look()
	defer tx.Close()
	if err := tx.Scan(trigger.Name, "", "", func(string, []byte) bool { n++; return true }); err != nil {
		w.T.Fatal(err)
	}
	return n
}

// The clock jumps forth, which is as if no node had run, and back, which makes no tick twice.
func TestClockJumps(t *testing.T) {
	w := newWorld(t)
	var got ticks
	w.deploy(scheduled("f", quipu.ScheduleTrigger{Cron: "* * * * *", Missed: "last"}), got.handle)
	w.Passing(time.Second, "the first", func() bool { return got.len() == 1 })
	w.Clock.Move(5*time.Hour + 59*time.Minute)
	w.Passing(time.Second, "one for those jumped over", func() bool { return got.len() == 2 })
	w.Clock.Move(-3 * time.Hour)
	for range 100 {
		w.Clock.Move(time.Minute)
	}
	w.Clock.Move(80 * time.Minute)
	w.Passing(time.Second, "the one after", func() bool { return got.len() == 3 })
	times := got.times()
	slices.SortFunc(times, time.Time.Compare)
	if len(slices.CompactFunc(times, time.Time.Equal)) != 3 {
		t.Errorf("a tick came twice: %v", times)
	}
}

// A tick that fails is tried again, like any delivery; a schedule taken away is forgotten.
func TestATickIsADelivery(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	attempts := map[time.Time]int{}
	w.deploy(scheduled("f", quipu.ScheduleTrigger{Cron: "0 * * * *", Missed: "last"}), func(e []event, _ int) int {
		mu.Lock()
		defer mu.Unlock()
		attempts[e[0].Time]++
		return 500
	})
	w.Passing(10*time.Second, "it is a dead letter", func() bool {
		return len(w.deadOrNone("f-dead")) > 0
	})
	mu.Lock()
	if n := attempts[noon.Add(time.Hour)]; n != 4 {
		t.Errorf("%d attempts, want 4", n)
	}
	mu.Unlock()
	w.deploy(on("f", quipu.TopicTrigger{Name: "t"}), func([]event, int) int { return 200 })
	w.Passing(time.Second, "the schedule is forgotten", func() bool { return w.scheduled() == 0 })
}

func (w *world) deadOrNone(topic string) []quipu.Event {
	if _, err := w.engine.Topic(w.T.Context(), topic); err != nil {
		return nil
	}
	return w.dead(topic)
}

func TestSchedulesThatCannotBeAreRefused(t *testing.T) {
	for cron, zone := range map[string]string{"": "", "* * * *": "", "61 * * * *": "", "0 0 30 2 *": "", "@every 10ms": "", "@reboot": "",
		"* * * * ": "Mars/Olympus", "* * * * *": "Local", "TZ=UTC * * * * *": "", "0 0 * * * * *": ""} {
		if err := trigger.ParseSchedule(cron, zone, noon); err == nil {
			t.Errorf("%q in %q was accepted", cron, zone)
		} else if strings.TrimSpace(err.Error()) == "" {
			t.Errorf("%q: an error without words", cron)
		}
	}
	for _, cron := range []string{"*/5 * * * *", "0 0 29 2 *", "30 */10 * * * *", "@hourly", "@every 90s", "0 9-17 * * MON-FRI"} {
		if err := trigger.ParseSchedule(cron, "Europe/Berlin", noon); err != nil {
			t.Errorf("%q: %v", cron, err)
		}
	}
}
