package server

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/meter"
	"github.com/quipu-run/quipu/pool"
	"github.com/quipu-run/quipu/view"
)

func (ns *namespace) newMeter() *meter.View {
	return meter.New(meter.Options{Clock: ns.node.upkeep, Logger: ns.node.cfg.Logger, Stored: ns.stored,
		Publish: func(tx *view.Tx, m quipu.Message) error { return ns.topic.Put(tx, m) }})
}

// stored is what the namespace keeps: its book in the log, and its views. Large values and bundles are shared between
// namespaces, by their content, and not counted.
func (ns *namespace) stored(ctx context.Context) (int64, error) {
	books, err := ns.node.log.Books(ctx)
	if err != nil {
		return 0, err
	}
	sum, err := ns.book.Bytes()
	for _, b := range books {
		if b.ID == ns.id {
			sum += b.Bytes
		}
	}
	return sum, err
}

// metered is a runtime whose instances have their processor time counted.
type metered struct {
	quipu.Runtime
	meter *meter.View
}

func (m metered) Start(ctx context.Context, spec quipu.InstanceSpec) (quipu.Instance, error) {
	i, err := m.Runtime.Start(ctx, spec)
	if c, ok := i.(quipu.CPUMeter); ok && err == nil {
		m.meter.Watch(spec.ID, spec.Function, c, i.Done())
	}
	return i, err
}

// countStart bills what starts take, also those that fail.
func (ns *namespace) countStart(also func(quipu.Function, pool.ColdStart, bool)) func(quipu.Function, pool.ColdStart, bool) {
	return func(f quipu.Function, c pool.ColdStart, failed bool) {
		also(f, c, failed)
		ns.meter.Note(quipu.FunctionUsage{Function: f.Name, Usage: quipu.Usage{Starts: 1, StartMillis: millis(c.Start), InitMillis: millis(c.Init)}})
	}
}

// millis rounds up.
func millis(d time.Duration) int64 { return int64((d + time.Millisecond - 1) / time.Millisecond) }

// budgetMetrics tells how far budgets are used up, when somebody wants to know.
type budgetMetrics struct{ n *Node }

var budgetUsed = prometheus.NewDesc("quipu_budget_used_percent", "How much of a budget this month has used up; function is empty for that of the namespace.",
	[]string{"namespace", "function"}, nil)

// Describe implements prometheus.Collector.
func (budgetMetrics) Describe(to chan<- *prometheus.Desc) { to <- budgetUsed }

// Collect implements prometheus.Collector.
func (m budgetMetrics) Collect(to chan<- prometheus.Metric) {
	left := functionsLabelled
	for _, ns := range m.n.namespaces.all() {
		for _, s := range ns.meter.Standing() {
			if left--; left < 0 {
				return
			}
			to <- prometheus.MustNewConstMetric(budgetUsed, prometheus.GaugeValue, float64(s.Percent), ns.name, s.Function)
		}
	}
}
