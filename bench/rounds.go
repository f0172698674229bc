package main

import (
	"cmp"
	"slices"
)

// rounds are the figures of all rounds of a bench, by what they are of.
type rounds struct {
	keys []figureKey // as they came first
	of   map[figureKey][]figure
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

// median is the round in the middle: by rate under load, by p50 of one caller.
func (s *rounds) median(k figureKey) figure {
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
