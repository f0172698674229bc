package main

import "fmt"

// daprGoal is what is wanted of a ratio to daprd, in the same round.
type daprGoal struct {
	bench   string
	conc    int
	against []string
	latency bool    // p50 at most want times theirs; else at least want times their rate
	want    float64 // without a unit
}

var both = []string{daprDefault, daprFsync}

var daprGoals = []daprGoal{
	{"dapr_set", 16, both, false, 2},
	{"dapr_get", 16, both, false, 2},
	{"dapr_publish", 16, both, false, 4},
	{"dapr_invoke_self", 16, both[:1], false, 3},
	{"dapr_invoke", 16, both[:1], false, 3},
	{"dapr_set", 1, both, true, .6},
	{"dapr_get", 1, both, true, .6},
	{"dapr_publish", 1, both, true, .5},
	{"dapr_invoke_self", 1, both[:1], true, .5},
	{"dapr_invoke", 1, both[:1], true, .5},
}

// goals says what the figures mean for the goals, and what a call costs the servers, whose load is on the same processors.
func (d *daprBench) goals() {
	for _, g := range daprGoals {
		for _, peer := range g.against {
			d.note("%s", g.verdict(d.rounds, peer))
		}
	}
	d.memoryGoal()
	d.note("processor per call of the servers, at 16 connections, µs (sidecars and Redis together; not the applications, not the load):")
	for _, op := range daprOps {
		line := fmt.Sprintf("  %s, %s:", op.name, op.variant)
		for _, peer := range []string{ours, daprDefault, daprFsync} {
			if cost := d.costs[figureKey{op.name, peer, op.variant, 16}]; len(cost) > 0 {
				line += fmt.Sprintf(" %s %s", peer, cost)
			}
		}
		d.note("%s", line)
	}
}

// verdict is of the round in the middle; the others are told beside it.
func (g daprGoal) verdict(all rounds, peer string) string {
	us, them := figureKey{g.bench, ours, "HTTP", g.conc}, figureKey{g.bench, peer, "HTTP", g.conc}
	what, least, ratio := "rate", "at least", func(a, b figure) float64 { return a.OpsPerS / b.OpsPerS }
	if g.latency {
		what, least, ratio = "p50", "at most", func(a, b figure) float64 { return a.P50 / b.P50 }
	}
	found := all.each(us, them, ratio)
	return fmt.Sprintf("%s of %s, %d connections: %s of %s's, %s %.1f: %s", what, g.bench, g.conc, found, peer, least, g.want, met(len(found) > 0 && (found[len(found)/2] >= g.want) != g.latency))
}

func met(ok bool) string {
	if ok {
		return "met"
	}
	return "missed"
}
