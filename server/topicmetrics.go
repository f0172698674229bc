package server

import (
	"context"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quipu-run/quipu"
)

// topicMetrics asks topics and subscriptions how they stand, when somebody wants to know.
//
// Whoever may publish makes topics. Those that an application declares, a function subscribes to, or a function's dead letters
// are in have figures of their own, up to topicsLabelled; the others share labelOther, as subscriptions do that are no
// function's.
type topicMetrics struct{ n *Node }

const topicsLabelled = 1000 // of the node

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

// topicFigures are sums by labels.
type topicFigures struct {
	topics map[string]*[3]uint64    // events, bytes, dead letters
	subs   map[[2]string]*[2]uint64 // lag, retrying; by topic and subscription
}

// Collect implements prometheus.Collector.
func (m topicMetrics) Collect(to chan<- prometheus.Metric) {
	left := topicsLabelled
	for _, ns := range m.n.namespaces.all() {
		topics, err := ns.Topics(context.Background())
		if err != nil {
			to <- prometheus.NewInvalidMetric(topicEvents, err)
			return
		}
		f := topicFigures{map[string]*[3]uint64{}, map[[2]string]*[2]uint64{}}
		for _, t := range topics {
			label := labelOther
			if left > 0 && m.isNamed(ns.name, t) {
				label = t.Name
				left--
			}
			m.add(&f, ns.name, label, t)
		}
		f.collect(to, ns.name)
	}
}

// isNamed tells whether a topic is there by what is deployed, and not only because somebody published to it.
func (m topicMetrics) isNamed(namespace string, t quipu.TopicInfo) bool {
	if dead, ok := strings.CutSuffix(t.Name, quipu.DeadLetterTopic("")); t.App != "" || ok && m.n.labels.has(namespace, dead) {
		return true
	}
	for _, s := range t.Subscriptions {
		if m.n.labels.has(namespace, s.Name) {
			return true
		}
	}
	return false
}

func (m topicMetrics) add(f *topicFigures, namespace, label string, t quipu.TopicInfo) {
	sum := f.topics[label]
	if sum == nil {
		sum = &[3]uint64{}
		f.topics[label] = sum
	}
	sum[0], sum[1], sum[2] = sum[0]+t.Last+1-t.First, sum[1]+t.Bytes, sum[2]+t.DeadLetters
	for _, s := range t.Subscriptions {
		key := [2]string{label, labelOther}
		if label != labelOther && m.n.labels.has(namespace, s.Name) {
			key[1] = s.Name
		}
		sum := f.subs[key]
		if sum == nil {
			sum = &[2]uint64{}
			f.subs[key] = sum
		}
		sum[0], sum[1] = sum[0]+s.Lag, sum[1]+uint64(s.Retrying)
	}
}

func (f topicFigures) collect(to chan<- prometheus.Metric, namespace string) {
	gauge := func(d *prometheus.Desc, value uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), append([]string{namespace}, labels...)...)
	}
	for topic, sum := range f.topics {
		gauge(topicEvents, sum[0], topic)
		gauge(topicBytes, sum[1], topic)
		gauge(topicDead, sum[2], topic)
	}
	for key, sum := range f.subs {
		gauge(subLag, sum[0], key[0], key[1])
		gauge(subRetrying, sum[1], key[0], key[1])
	}
}
