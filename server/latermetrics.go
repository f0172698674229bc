package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/alarm"
)

// laterMetrics are the figures of what is done at a later time.
type laterMetrics struct {
	n     *Node
	late  *prometheus.HistogramVec // which counts them too
	fates *prometheus.CounterVec
}

var timersPending = prometheus.NewDesc("quipu_timers_pending", "Timers that are set, by kind: job, reminder, workflow, step.", []string{"namespace", "kind"}, nil)

func newLaterMetrics(n *Node) laterMetrics {
	return laterMetrics{n: n,
		late: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "quipu_timers_late_seconds", Help: "Timers that were handled by how long after their time that began, by kind.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 10)}, []string{"namespace", "kind"}),
		fates: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "quipu_jobs_total", Help: "Deliveries of jobs by what became of them: delivered, settled (delivered, in the record of its effects), failed, missed (the application was not there)."},
			[]string{"namespace", "function", "outcome"})}
}

// Describe implements prometheus.Collector.
func (laterMetrics) Describe(to chan<- *prometheus.Desc) { to <- timersPending }

// Collect implements prometheus.Collector.
func (m laterMetrics) Collect(to chan<- prometheus.Metric) {
	for _, ns := range m.n.namespaces.all() {
		for kind, n := range ns.later.timers.Counts() {
			to <- prometheus.MustNewConstMetric(timersPending, prometheus.GaugeValue, float64(n), ns.name, kind)
		}
	}
}

// observeTimer measures timers of a namespace that were handled.
func (n *Node) observeTimer(namespace string) func(kind string, late time.Duration) {
	return func(kind string, late time.Duration) {
		n.later.late.WithLabelValues(namespace, kind).Observe(max(0, late).Seconds())
	}
}

// observeAlarm counts what became of deliveries of jobs.
func (n *Node) observeAlarm(namespace string) func(k quipu.AlarmKey, f alarm.Fate) {
	return func(k quipu.AlarmKey, f alarm.Fate) {
		if k.Kind == quipu.AlarmJob {
			n.labels.with(namespace, k.App, func(label string) { n.later.fates.WithLabelValues(namespace, label, string(f)).Inc() })
		}
	}
}
