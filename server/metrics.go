package server

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/pool"
	"github.com/quipu-run/quipu/trigger"
)

// measure registers the figures of calls, and answers the observer of calls.
func (n *Node) measure() func(quipu.CallInfo) {
	runs := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "quipu_call_runs_total", Help: "Runs of calls: one each, and one more for each lost conflict."}, []string{"function"})
	took := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "quipu_call_seconds", Help: "Time of calls from arrival until their commit was asked for, or their reply.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10)}, []string{"function"})
	n.deliveries = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "quipu_deliveries_total", Help: "Events by what became of them: done, retried, dead, dropped."}, []string{"namespace", "subscription", "outcome"})
	n.ends = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "quipu_async_calls_total", Help: "Calls that nobody waited for by how they ended: succeeded, failed, cancelled, expired."}, []string{"namespace", "function", "state"})
	n.starts = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "quipu_cold_starts_total", Help: "Starts of instances by what became of them: ready, failed."}, []string{"namespace", "function", "outcome"})
	n.cold = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "quipu_cold_start_seconds", Help: "Time of starts of instances by phase: wait, of the call that waited longest, until the start was begun, where one waited; start, until it ran; init, until it listened and was healthy.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9)}, []string{"namespace", "function", "phase"})
	n.registry.MustRegister(runs, took, n.deliveries, n.ends, n.starts, n.cold, topicMetrics{n}, queueMetrics{n}, budgetMetrics{n})
	return func(i quipu.CallInfo) {
		if i.Error == quipu.CodeNoFunction {
			return // names of functions that are not there are without limit
		}
		runs.WithLabelValues(i.Function).Add(float64(i.Runs))
		took.WithLabelValues(i.Function).Observe(float64(i.Micros) / 1e6)
	}
}

// observeStart measures starts of a namespace's instances. Only what is deployed, or tried for a deploy, is started, so names have a
// limit.
func (n *Node) observeStart(namespace string) func(quipu.Function, pool.ColdStart, bool) {
	return func(f quipu.Function, c pool.ColdStart, failed bool) {
		if failed {
			n.starts.WithLabelValues(namespace, f.Name, "failed").Inc()
			return
		}
		n.starts.WithLabelValues(namespace, f.Name, "ready").Inc()
		phase := func(name string, took time.Duration) {
			n.cold.WithLabelValues(namespace, f.Name, name).Observe(took.Seconds())
		}
		if c.Wait > 0 {
			phase("wait", c.Wait)
		}
		phase("start", c.Start)
		phase("init", c.Init)
	}
}

func (n *Node) observeDelivery(namespace string) func(string, trigger.Fate, int) {
	return func(subscription string, what trigger.Fate, events int) {
		n.deliveries.WithLabelValues(namespace, subscription, string(what)).Add(float64(events))
	}
}

// observeEnd counts the ends of calls of a namespace. A call is accepted of functions that are deployed only, so their names
// have a limit.
func (n *Node) observeEnd(namespace string) func(quipu.CallInfo) {
	return func(i quipu.CallInfo) { n.ends.WithLabelValues(namespace, i.Function, string(i.State)).Inc() }
}

// queueMetrics asks how many calls wait, when somebody wants to know.
type queueMetrics struct{ n *Node }

var callsWaiting = prometheus.NewDesc("quipu_async_calls_waiting", "Calls that nobody waits for which have not ended.", []string{"namespace", "function"}, nil)

// Describe implements prometheus.Collector.
func (queueMetrics) Describe(to chan<- *prometheus.Desc) { to <- callsWaiting }

// Collect implements prometheus.Collector.
func (m queueMetrics) Collect(to chan<- prometheus.Metric) {
	left := seriesMax
	for _, ns := range m.n.namespaces.all() {
		for function, size := range ns.Waiting() {
			if left--; left < 0 {
				return
			}
			to <- prometheus.MustNewConstMetric(callsWaiting, prometheus.GaugeValue, float64(size), ns.name, function)
		}
	}
}

// topicMetrics asks topics and subscriptions how they stand, when somebody wants to know.
type topicMetrics struct{ n *Node }

// seriesMax bounds the topics, and the subscriptions, that are shown: more is for a query, not for a graph.
const seriesMax = 2000

var (
	topicLabels = []string{"namespace", "topic"}
	subLabels   = []string{"namespace", "topic", "subscription"}
	topicEvents = prometheus.NewDesc("quipu_topic_events", "Events that a topic keeps.", topicLabels, nil)
	topicBytes  = prometheus.NewDesc("quipu_topic_bytes", "Bytes of the events that a topic keeps.", topicLabels, nil)
	topicDead   = prometheus.NewDesc("quipu_topic_dead_letters", "Dead letters that were not redriven.", topicLabels, nil)
	subLag      = prometheus.NewDesc("quipu_subscription_lag", "Events that a subscription has not done yet.", subLabels, nil)
	subRetrying = prometheus.NewDesc("quipu_subscription_retrying", "Of those, tried without success.", subLabels, nil)
)

// Describe implements prometheus.Collector.
func (topicMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{topicEvents, topicBytes, topicDead, subLag, subRetrying} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m topicMetrics) Collect(to chan<- prometheus.Metric) {
	left := seriesMax
	for _, ns := range m.n.namespaces.all() {
		topics, err := ns.Topics(context.Background())
		if err != nil {
			to <- prometheus.NewInvalidMetric(topicEvents, err)
			return
		}
		for _, t := range topics {
			if left -= 1 + len(t.Subscriptions); left < 0 {
				return
			}
			collectTopic(to, ns.name, t)
		}
	}
}

func collectTopic(to chan<- prometheus.Metric, namespace string, t quipu.TopicInfo) {
	gauge := func(d *prometheus.Desc, value uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), append([]string{namespace, t.Name}, labels...)...)
	}
	gauge(topicEvents, t.Last+1-t.First)
	gauge(topicBytes, t.Bytes)
	gauge(topicDead, t.DeadLetters)
	for _, s := range t.Subscriptions {
		gauge(subLag, s.Lag, s.Name)
		gauge(subRetrying, uint64(s.Retrying), s.Name)
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
