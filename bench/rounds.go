package main

import (
	"cmp"
	"slices"
	"time"
)

// rounds are the figures of all rounds of a bench, by what they are of.
type rounds struct {
	keys []figureKey // as they came first
	of   map[figureKey][]figure
	took map[figureKey][]time.Duration // of figures whose rounds are summed up together: all of them
}

type figureKey struct {
	bench, peer, variant string
	conc                 int
}

func keyOf(f figure) figureKey { return figureKey{f.Bench, f.Peer, f.Variant, f.Conc} }

func (s *rounds) add(f figure) {
	if s.of == nil {
		s.of = map[figureKey][]figure{}
	}
	k := keyOf(f)
	if len(s.of[k]) == 0 {
		s.keys = append(s.keys, k)
	}
	s.of[k] = append(s.of[k], f)
}

// addTaken adds a round of which all rounds are to be one figure: a few dozen starts say nothing of a p99.
func (s *rounds) addTaken(f figure, took []time.Duration) {
	if s.took == nil {
		s.took = map[figureKey][]time.Duration{}
	}
	f.Conc = 1
	s.add(f.Summed(took, sum(took)))
	s.took[keyOf(f)] = append(s.took[keyOf(f)], took...)
}

// sum is what starts take one after the other, without the pauses.
func sum(took []time.Duration) (d time.Duration) {
	for _, t := range took {
		d += t
	}
	return d
}

// all sums up what was measured one by one; of anything else it is the round in the middle: by rate under load, by p50 of
// one caller.
func (s *rounds) all(k figureKey) figure {
	if took := s.took[k]; took != nil {
		return s.of[k][0].Summed(took, sum(took))
	}
	all := slices.SortedFunc(slices.Values(s.of[k]), func(a, b figure) int {
		if k.conc > 1 {
			return cmp.Compare(a.OpsPerS, b.OpsPerS)
		}
		return cmp.Compare(a.P50, b.P50)
	})
	return all[len(all)/2]
}

// each makes a ratio of every round; nothing of rounds that lack one of the two.
func (s *rounds) each(a, b figureKey, of func(a, b figure) float64) (all ratios) {
	for i := range min(len(s.of[a]), len(s.of[b])) {
		all.add(of(s.of[a][i], s.of[b][i]))
	}
	return all
}
