package server

import (
	"github.com/prometheus/client_golang/prometheus"
)

// instanceMetrics asks the pools what runs and who waits, when somebody wants to know.
type instanceMetrics struct{ n *Node }

var (
	instancesNow = prometheus.NewDesc("quipu_instances", "Instances by state: starting, ready, stopping.", []string{"namespace", "function", "state"}, nil)
	callsNow     = prometheus.NewDesc("quipu_calls_running", "Calls that instances handle now.", []string{"namespace", "function"}, nil)
	placeQueue   = prometheus.NewDesc("quipu_calls_queued", "Calls that wait for a place in an instance.", []string{"namespace", "function"}, nil)
)

// Describe implements prometheus.Collector.
func (instanceMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{instancesNow, callsNow, placeQueue} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m instanceMetrics) Collect(to chan<- prometheus.Metric) {
	type state struct{ function, state string }
	for _, ns := range m.n.namespaces.all() {
		instances, calls, queued := map[state]int{}, map[string]int{}, map[string]int{}
		for _, i := range ns.pool.Snapshot() {
			m.n.labels.with(ns.name, i.Function, func(label string) {
				instances[state{label, string(i.State)}]++
				calls[label] += i.Inflight
			})
		}
		for function, n := range ns.pool.Waiting() {
			m.n.labels.with(ns.name, function, func(label string) { queued[label] += n })
		}
		for of, n := range instances {
			to <- prometheus.MustNewConstMetric(instancesNow, prometheus.GaugeValue, float64(n), ns.name, of.function, of.state)
		}
		for function, n := range calls {
			to <- prometheus.MustNewConstMetric(callsNow, prometheus.GaugeValue, float64(n), ns.name, function)
		}
		for function, n := range queued {
			to <- prometheus.MustNewConstMetric(placeQueue, prometheus.GaugeValue, float64(n), ns.name, function)
		}
	}
}
