package server

import (
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quipu-run/quipu/actor"
)

// actorMetrics asks for the actors of each type, when somebody wants to know. Types are named by applications: those beyond
// actorTypesLabelled share labelOther.
type actorMetrics struct{ n *Node }

const actorTypesLabelled = 1000 // of a namespace

var (
	actorLabels        = []string{"namespace", "type"}
	actorsActive       = prometheus.NewDesc("quipu_actors_active", "Actors that live in an instance.", actorLabels, nil)
	actorTimers        = prometheus.NewDesc("quipu_actor_timers", "Timers of actors that are set.", actorLabels, nil)
	actorActivations   = prometheus.NewDesc("quipu_actor_activations_total", "Actors that became active.", actorLabels, nil)
	actorDeactivations = prometheus.NewDesc("quipu_actor_deactivations_total", "Actors that left their instance, idle or because it had to go.", actorLabels, nil)
	actorTimersFired   = prometheus.NewDesc("quipu_actor_timers_fired_total", "Turns that timers of actors made.", actorLabels, nil)
	actorTimersFailed  = prometheus.NewDesc("quipu_actor_timers_failed_total", "Of those, turns that failed.", actorLabels, nil)
)

// Describe implements prometheus.Collector.
func (actorMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{actorsActive, actorTimers, actorActivations, actorDeactivations, actorTimersFired, actorTimersFailed} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m actorMetrics) Collect(to chan<- prometheus.Metric) {
	for _, ns := range m.n.namespaces.all() {
		for label, c := range labelled(ns.actors.Counts()) {
			gauge := func(d *prometheus.Desc, kind prometheus.ValueType, n float64) {
				to <- prometheus.MustNewConstMetric(d, kind, n, ns.name, label)
			}
			gauge(actorsActive, prometheus.GaugeValue, float64(c.Active))
			gauge(actorTimers, prometheus.GaugeValue, float64(c.Timers))
			gauge(actorActivations, prometheus.CounterValue, float64(c.Activations))
			gauge(actorDeactivations, prometheus.CounterValue, float64(c.Deactivations))
			gauge(actorTimersFired, prometheus.CounterValue, float64(c.TurnsOfTimers))
			gauge(actorTimersFailed, prometheus.CounterValue, float64(c.FailedTimers))
		}
	}
}

// labelled adds up those that have no label of their own.
func labelled(counts map[string]actor.Count) map[string]actor.Count {
	names := slices.Sorted(maps.Keys(counts))
	if len(names) <= actorTypesLabelled {
		return counts
	}
	var rest actor.Count
	for _, name := range names[actorTypesLabelled:] {
		rest = rest.Plus(counts[name])
		delete(counts, name)
	}
	counts[labelOther] = rest.Plus(counts[labelOther])
	return counts
}
