package autoscale

import (
	"math"
	"time"
)

// bucket is the time that one value of a window is about.
const bucket = time.Second

// window is a ring of the last values, one a second. A second without a value counts as 0 between two that have one, and
// not at all after the newest: then the average is over what is left of the window.
type window struct {
	values      []float64
	first, last time.Time // seconds; first is the begin of what is averaged
}

func newWindow(length time.Duration) window {
	return window{values: make([]float64, max(1, int(length/bucket)))}
}

func (w *window) length() time.Duration { return time.Duration(len(w.values)) * bucket }

func (w *window) at(second time.Time) *float64 {
	return &w.values[int(second.Unix())%len(w.values)]
}

// record adds to the value of a second. One that is older than the window is forgotten.
func (w *window) record(now time.Time, value float64) {
	second := now.Truncate(bucket)
	switch gap := second.Sub(w.last); {
	case w.last.IsZero() || gap >= w.length():
		clear(w.values)
		w.first, w.last = second, second
	case gap > 0:
		for s := w.last.Add(bucket); !s.After(second); s = s.Add(bucket) {
			*w.at(s) = 0
		}
		w.last = second
	case gap <= -w.length():
		return
	case second.Before(w.first):
		w.first = second
	}
	*w.at(second) += value
}

// average is rounded to a millionth, so that the order of additions does not decide.
func (w *window) average(now time.Time) float64 {
	gap := max(0, now.Truncate(bucket).Sub(w.last))
	if w.last.IsZero() || gap >= w.length() {
		return 0
	}
	n := min(int(w.last.Sub(w.first)/bucket)+1, len(w.values)-int(gap/bucket))
	sum := 0.0
	for i := range n {
		sum += *w.at(w.last.Add(-time.Duration(i) * bucket))
	}
	return math.Round(sum/float64(n)*1e6) / 1e6
}
