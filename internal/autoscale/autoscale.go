// Package autoscale says how many instances a load wants: Knative's formula, as its autoscaler computes it
// (knative.dev/serving, pkg/autoscaler/scaling, Scale), with its defaults. test/knative compares the two tick by tick.
//
// A load is calls at a time. It is averaged over a stable window (60 s) and a panic window (a tenth of it), and each
// average divided by the target, 70 % of what an instance can take. What comes of the stable window is wanted, within
// half and a thousand times what is ready. If the panic window wants at least twice what is ready, there is panic: then
// the larger of both is wanted, and never less than before, until it has been quiet for a stable window.
//
// It is values in, values out: it reads no clock and starts nothing. Nothing is durable: after a crash of the node there
// are no instances, and it begins with no load. Not here: rates instead of calls at a time, Knative's delay of scaling down,
// and its burst capacity, which is about a queue that is not always in the way; ours is.
package autoscale

import (
	"math"
	"time"
)

// Knative's defaults.
const (
	Tick          = 2 * time.Second // between two questions
	WindowDefault = 60 * time.Second
	Utilization   = 0.7 // of an instance's concurrency

	panicShare     = 10 // of the window
	panicThreshold = 2.0
	maxScaleUp     = 1000.0
	maxScaleDown   = 2.0
)

// Bounds of a window: its panic window is whole seconds, which its averages are of, and memory is bounded.
const (
	WindowMin = 10 * time.Second
	WindowMax = time.Hour
)

// Scaler decides for one revision. It is not safe for concurrent use.
type Scaler struct {
	target        float64
	stable, panic window
	length        time.Duration // of the stable window

	panicking bool
	panicAt   time.Time // last over the threshold
	most      int       // wanted since the panic began
}

// New makes a scaler for instances that take concurrency calls at a time; length is the stable window, from WindowMin to
// WindowMax.
func New(concurrency int, length time.Duration) *Scaler {
	length = min(max(length.Truncate(time.Second), WindowMin), WindowMax)
	return &Scaler{
		target: Target(concurrency), length: length,
		stable: newWindow(length), panic: newWindow((length / panicShare).Round(time.Second)),
	}
}

// Target is how many calls at a time an instance should have.
func Target(concurrency int) float64 { return Utilization * float64(concurrency) }

// Record says that there were so many calls at a time, on average, in the second of now.
func (s *Scaler) Record(now time.Time, calls float64) {
	s.stable.record(now, calls)
	s.panic.record(now, calls)
}

// Want is how many instances there should be, with so many ready now. Ask each Tick.
func (s *Scaler) Want(now time.Time, ready int) int {
	have := math.Max(1, float64(ready))
	most, least := math.Ceil(maxScaleUp*have), math.Floor(have/maxScaleDown)
	wish := func(w *window) (want int, raw float64) {
		raw = math.Ceil(w.average(now) / s.target)
		return int(math.Min(math.Max(raw, least), most)), raw
	}
	want, _ := wish(&s.stable)
	urgent, raw := wish(&s.panic)
	s.alarm(now, raw/have >= panicThreshold)
	if !s.panicking {
		return want
	}
	s.most = max(s.most, want, urgent)
	return s.most
}

// alarm begins a panic, prolongs it, or ends it when the surge has gone through the stable window.
func (s *Scaler) alarm(now time.Time, over bool) {
	switch {
	case over:
		s.panicking, s.panicAt = true, now
	case s.panicking && s.panicAt.Add(s.length).Before(now):
		s.panicking, s.most = false, 0
	}
}
