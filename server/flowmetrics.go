package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// flowMetrics asks what workflows there are and who works on them, when somebody wants to know. Who may start workflows makes up
// names of applications, so figures are those of a namespace.
type flowMetrics struct{ n *Node }

var (
	flowInstances  = prometheus.NewDesc("quipu_workflow_instances", "Instances of workflows by status, those that ended and are kept included.", []string{"namespace", "status"}, nil)
	flowWorkers    = prometheus.NewDesc("quipu_workflow_workers", "Streams of work items that workers of Dapr's SDKs hold.", []string{"namespace"}, nil)
	flowActivities = prometheus.NewDesc("quipu_workflow_activities", "Activities that workers do now.", []string{"namespace"}, nil)
	flowOpen       = prometheus.NewDesc("quipu_workflow_open_turns", "Turns that workers make now.", []string{"namespace"}, nil)
	flowWaiting    = prometheus.NewDesc("quipu_workflow_waiting_items", "Turns and activities that no worker has.", []string{"namespace"}, nil)
	flowMemory     = prometheus.NewDesc("quipu_workflow_instances_in_memory", "Instances that have work, or had some lately.", []string{"namespace"}, nil)
)

// Describe implements prometheus.Collector.
func (flowMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{flowInstances, flowWorkers, flowActivities, flowOpen, flowWaiting, flowMemory} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m flowMetrics) Collect(to chan<- prometheus.Metric) {
	for _, ns := range m.n.namespaces.all() {
		byStatus := map[string]int64{}
		for _, c := range ns.flows.view.Counts() {
			byStatus[string(c.Status)] += c.N
		}
		for status, n := range byStatus {
			to <- prometheus.MustNewConstMetric(flowInstances, prometheus.GaugeValue, float64(n), ns.name, status)
		}
		var workers, instances, turns, activities, waiting int
		for _, s := range ns.flows.hub.Stats() {
			workers, instances, turns = workers+s.Workers, instances+s.Instances, turns+s.Turns
			activities, waiting = activities+s.Activities, waiting+s.Waiting
		}
		for d, n := range map[*prometheus.Desc]int{flowWorkers: workers, flowMemory: instances, flowOpen: turns, flowActivities: activities, flowWaiting: waiting} {
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), ns.name)
		}
	}
}

// observeTurns tells how long turns of workflows take.
func (n *Node) observeTurns(namespace string) func(string, time.Duration) {
	took := n.turns.WithLabelValues(namespace)
	return func(_ string, d time.Duration) { took.Observe(d.Seconds()) }
}
