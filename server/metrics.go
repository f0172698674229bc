package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/trace"
	"github.com/quipu-run/quipu/pool"
	"github.com/quipu-run/quipu/trigger"
)

// measure registers the figures of calls.
func (n *Node) measure() {
	n.runs = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "quipu_call_runs_total", Help: "Runs of calls: one each, and one more for each lost conflict."}, []string{"namespace", "function"})
	n.took = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "quipu_call_seconds", Help: "Time of calls from arrival until their commit was asked for, or their reply.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10)}, []string{"namespace", "function"})
	n.deliveries = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "quipu_deliveries_total", Help: "Events by what became of them: done, retried, dead, dropped."}, []string{"namespace", "subscription", "outcome"})
	n.ends = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "quipu_async_calls_total", Help: "Calls that nobody waited for by how they ended: succeeded, failed, cancelled, expired."}, []string{"namespace", "function", "state"})
	n.starts = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "quipu_cold_starts_total", Help: "Starts of instances by what became of them: ready, failed."}, []string{"namespace", "function", "outcome"})
	n.cold = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "quipu_cold_start_seconds", Help: "Time of starts of instances by phase: wait, of the call that waited longest, until the start was begun, where one waited; start, until it ran; init, until it listened and was healthy.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9)}, []string{"namespace", "function", "phase"})
	n.turns = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "quipu_workflow_turn_seconds", Help: "Time of turns of workflows of Dapr's SDKs from when they were to be made until they were durable.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9)}, []string{"namespace"})
	n.later = newLaterMetrics(n)
	n.executions = newExecutionMetrics(n)
	n.labels = newLabels(n.runs, n.took, n.deliveries, n.ends, n.starts, n.cold, n.later.fates, n.executions.started, n.executions.ended, n.executions.steps)
	n.registry.MustRegister(n.runs, n.took, n.deliveries, n.ends, n.starts, n.cold, topicMetrics{n}, queueMetrics{n}, instanceMetrics{n}, budgetMetrics{n}, actorMetrics{n},
		n.turns, flowMetrics{n}, n.later, n.later.late, n.later.fates,
		n.executions, n.executions.started, n.executions.ended, n.executions.steps)
}

// observeCall measures calls of a namespace.
func (n *Node) observeCall(namespace string) func(quipu.CallInfo) {
	return func(i quipu.CallInfo) {
		n.labels.with(namespace, i.Function, func(label string) {
			n.runs.WithLabelValues(namespace, label).Add(float64(i.Runs))
			trace.Observe(n.took.WithLabelValues(namespace, label), float64(i.Micros)/1e6, i.Trace)
		})
	}
}

// observeStart measures starts of a namespace's instances.
func (n *Node) observeStart(namespace string) func(quipu.Function, pool.ColdStart, bool) {
	return func(f quipu.Function, c pool.ColdStart, failed bool) {
		n.labels.with(namespace, f.Name, func(label string) {
			if failed {
				n.starts.WithLabelValues(namespace, label, "failed").Inc()
				return
			}
			n.starts.WithLabelValues(namespace, label, "ready").Inc()
			phase := func(name string, took time.Duration) {
				n.cold.WithLabelValues(namespace, label, name).Observe(took.Seconds())
			}
			if c.Wait > 0 {
				phase("wait", c.Wait)
			}
			phase("start", c.Start)
			phase("init", c.Init)
		})
	}
}

func (n *Node) observeDelivery(namespace string) func(string, trigger.Fate, int) {
	return func(subscription string, what trigger.Fate, events int) {
		n.labels.with(namespace, subscription, func(label string) { // a function's subscription has its name; others are chosen by clients
			n.deliveries.WithLabelValues(namespace, label, string(what)).Add(float64(events))
		})
	}
}

// observeEnd counts the ends of calls of a namespace that nobody waits for.
func (n *Node) observeEnd(namespace string) func(quipu.CallInfo) {
	return func(i quipu.CallInfo) {
		n.labels.with(namespace, i.Function, func(label string) { n.ends.WithLabelValues(namespace, label, string(i.State)).Inc() })
	}
}

// queueMetrics asks how many calls wait, when somebody wants to know.
type queueMetrics struct{ n *Node }

var callsWaiting = prometheus.NewDesc("quipu_async_calls_waiting", "Calls that nobody waits for which have not ended, nor begun an execution.", []string{"namespace", "function"}, nil)

// Describe implements prometheus.Collector.
func (queueMetrics) Describe(to chan<- *prometheus.Desc) { to <- callsWaiting }

// Collect implements prometheus.Collector.
func (m queueMetrics) Collect(to chan<- prometheus.Metric) {
	for _, ns := range m.n.namespaces.all() {
		sizes := m.n.labels.zeros(ns.name)
		for function, size := range ns.Waiting() {
			m.n.labels.with(ns.name, function, func(label string) { sizes[label] += size })
		}
		for function, size := range sizes {
			to <- prometheus.MustNewConstMetric(callsWaiting, prometheus.GaugeValue, float64(size), ns.name, function)
		}
	}
}

// all lists the namespaces that are open.
func (s *namespaces) all() (list []*namespace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ns := range s.of {
		list = append(list, ns)
	}
	return list
}
