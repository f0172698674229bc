package main

import (
	"testing"
	"time"
)

// A round that something else disturbed is not what is printed.
func TestUnderLoadTheRoundInTheMiddleCounts(t *testing.T) {
	var s rounds
	for _, rate := range []float64{900, 20, 1000} {
		s.add(figure{Bench: "warm", Peer: "quipu", Conc: 64, OpsPerS: rate})
	}
	s.add(figure{Bench: "warm", Peer: "workerd", Conc: 64, OpsPerS: 1})
	if got := s.all(s.keys[0]); got.OpsPerS != 900 || len(s.keys) != 2 {
		t.Errorf("%v of %v, want 900", got.OpsPerS, s.keys)
	}
}

// Starts of all rounds are one figure: the slowest of them is in it.
func TestStartsOfAllRoundsAreOneFigure(t *testing.T) {
	var s rounds
	f := figure{Bench: "cold_start", Peer: "quipu"}
	s.addTaken(f, []time.Duration{3 * time.Millisecond, 5 * time.Millisecond})
	s.addTaken(f, []time.Duration{4 * time.Millisecond})
	got := s.all(s.keys[0])
	if got.N != 3 || got.P50 != 4000 || got.Max != 5000 || got.OpsPerS != 250 {
		t.Errorf("%+v, want 3 starts in 12 ms, p50 4 ms, the longest 5 ms", got)
	}
}

// A ratio is of two figures of one round, never of different ones.
func TestARatioIsOfOneRound(t *testing.T) {
	var s rounds
	a, b := figure{Peer: "quipu"}, figure{Peer: "workerd"}
	for _, r := range [][2]float64{{100, 10}, {8, 4}, {30, 10}} {
		a.OpsPerS, b.OpsPerS = r[0], r[1]
		s.add(a)
		s.add(b)
	}
	got := s.each(keyOf(a), keyOf(b), func(a, b figure) float64 { return a.OpsPerS / b.OpsPerS })
	if got.String() != "3.00 (2.00 to 10.00)" {
		t.Errorf("%v", got)
	}
}
