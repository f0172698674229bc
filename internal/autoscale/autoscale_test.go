package autoscale

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var begin = time.Unix(1_000_000, 0)

// play feeds a second of each load, and asks each Tick with so many instances ready as were wanted before.
func play(s *Scaler, from time.Time, ready int, load func(second int) float64, seconds int) (now time.Time, wants []int) {
	for n := range seconds {
		now = from.Add(time.Duration(n) * time.Second)
		s.Record(now, load(n))
		if n%2 == 1 {
			ready = s.Want(now, ready)
			wants = append(wants, ready)
		}
	}
	return now, wants
}

func always(calls float64) func(int) float64 { return func(int) float64 { return calls } }

func TestASteadyLoadGetsItsShareOfInstances(t *testing.T) {
	_, wants := play(New(10, WindowDefault), begin, 1, always(35), 200)
	if last := wants[len(wants)-1]; last != 5 { // 35 calls, 7 for each
		t.Fatal("wants ", wants)
	}
}

func TestASurgeIsMetWithinATickAndNotForgottenInThePanic(t *testing.T) {
	s := New(10, WindowDefault)
	now, _ := play(s, begin, 1, always(5), 120)
	now, wants := play(s, now.Add(time.Second), 1, always(140), 10)
	if last := wants[len(wants)-1]; last != 20 || wants[0] < 2 {
		t.Fatal("140 calls at a time, 7 for each, want ", wants)
	}
	now, wants = play(s, now.Add(time.Second), 20, always(0), 48)
	for _, want := range wants {
		if want < 20 {
			t.Fatal("less in the panic: ", wants)
		}
	}
	_, wants = play(s, now.Add(time.Second), 20, always(0), 30)
	if last := wants[len(wants)-1]; last != 0 {
		t.Fatal("after the panic, with nothing to do: ", wants)
	}
}

// A fall of the load halves what is ready with each tick, not more.
func TestAfterAFallHalfOfTheInstancesStay(t *testing.T) {
	s := New(10, WindowDefault)
	now, _ := play(s, begin, 10, always(70), 100)
	now = now.Add(2 * time.Minute) // nothing was heard: the windows are empty
	for _, want := range []int{5, 2, 1, 0} {
		if got := s.Want(now, max(2*want, 1)); got != want {
			t.Fatalf("of %d, %d stay", 2*want, got)
		}
	}
}

func TestTheMeterTellsAveragesOfSeconds(t *testing.T) {
	s := New(10, WindowDefault)
	m := Meter{To: s}
	m.Set(begin.Add(500*time.Millisecond), 8) // for half a second
	m.Set(begin.Add(time.Second), 2)
	m.Set(begin.Add(1250*time.Millisecond), 6)
	m.Set(begin.Add(1200*time.Millisecond), 6) // a clock that goes back
	m.Set(begin.Add(2*time.Second), 0)
	if got := s.stable.average(begin.Add(time.Second)); got != (4+5)/2. {
		t.Error("average ", got)
	}
	m.Set(begin.Add(3*time.Second), 1)
	m.Set(begin.Add(time.Hour), 0) // all the hour there was one
	if got := s.stable.average(begin.Add(time.Hour - time.Second)); got != 1 {
		t.Error("after an hour: ", got)
	}
}

// However a level moves, what the windows hold is its time-weighted average.
func TestTheMeterLosesNoTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New(10, WindowMax)
		m := Meter{To: s}
		now, level, sum := begin, 0, 0.0
		m.Set(now, 0)
		for range rapid.IntRange(1, 50).Draw(t, "changes") {
			d := time.Duration(rapid.Int64Range(0, int64(10*time.Second)).Draw(t, "for"))
			sum += float64(level) * d.Seconds()
			now, level = now.Add(d), rapid.IntRange(0, 1000).Draw(t, "level")
			m.Set(now, level)
		}
		end := now.Truncate(time.Second).Add(time.Second)
		sum += float64(level) * end.Sub(now).Seconds()
		m.Set(end, 0)
		want := sum / end.Sub(begin).Seconds()
		if got := s.stable.average(end.Add(-time.Second)); math.Abs(got-want) > 2e-6 {
			t.Fatalf("the average is %v, not %v", got, want)
		}
	})
}

func BenchmarkMeter(b *testing.B) {
	m := Meter{To: New(80, WindowDefault)}
	now := begin
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		now = now.Add(10 * time.Microsecond)
		m.Set(now, n&63)
	}
}
