package server

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/step"
)

// executionMetrics are the figures of durable functions. How executions stand is asked of the view, when somebody wants to know.
type executionMetrics struct {
	n                     *Node
	started, ended, steps *prometheus.CounterVec
}

var executionsOpen = prometheus.NewDesc("quipu_executions", "Executions of durable functions that have not ended by state: active, which run or are about to; waiting, for a time, an event or a call, which take no memory; suspended; stalled, whose revision is gone.",
	[]string{"namespace", "function", "state"}, nil)

func newExecutionMetrics(n *Node) executionMetrics {
	return executionMetrics{n: n,
		started: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "quipu_executions_started_total", Help: "Executions of durable functions that were started."}, []string{"namespace", "function"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "quipu_executions_ended_total", Help: "Executions of durable functions that ended, by how: completed, failed, terminated."}, []string{"namespace", "function", "status"}),
		steps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "quipu_execution_steps_total", Help: "Steps of durable functions whose results were recorded."}, []string{"namespace", "function"}),
	}
}

// Describe implements prometheus.Collector.
func (executionMetrics) Describe(to chan<- *prometheus.Desc) { to <- executionsOpen }

// Collect implements prometheus.Collector.
func (m executionMetrics) Collect(to chan<- prometheus.Metric) {
	for _, ns := range m.n.namespaces.all() {
		states := map[string]map[quipu.WorkflowStatus]int64{}
		for _, c := range ns.flows.view.Counts() {
			if states[c.App] == nil {
				states[c.App] = map[quipu.WorkflowStatus]int64{}
			}
			states[c.App][c.Status] = c.N
		}
		for _, f := range ns.Functions() {
			if !f.Spec.Durable || !m.n.labels.has(ns.name, f.Name) {
				continue
			}
			of, active := states[f.Name], ns.flows.view.CountBusy(flow.KindStep, f.Name)
			for state, count := range map[string]int64{
				"active": active, "waiting": max(0, of[quipu.WorkflowPending]+of[quipu.WorkflowRunning]-active),
				"suspended": of[quipu.WorkflowSuspended], "stalled": of[quipu.WorkflowStalled],
			} {
				to <- prometheus.MustNewConstMetric(executionsOpen, prometheus.GaugeValue, float64(count), ns.name, f.Name, state)
			}
		}
	}
}

// observeExecution counts what becomes of a namespace's executions, and their records for the bill: each turn is one, also if it shares
// its record with others.
func (ns *namespace) observeExecution(o step.Observation) {
	if o.Turn {
		ns.meter.Note(quipu.FunctionUsage{Function: o.Function, Usage: quipu.Usage{LogAppends: 1}})
	}
	m := ns.node.executions
	ns.node.labels.with(ns.name, o.Function, func(label string) {
		if o.Started {
			m.started.WithLabelValues(ns.name, label).Inc()
		}
		if o.Steps > 0 {
			m.steps.WithLabelValues(ns.name, label).Add(float64(o.Steps))
		}
		if o.Ended != "" {
			m.ended.WithLabelValues(ns.name, label, strings.ToLower(string(o.Ended))).Inc()
		}
	})
}
