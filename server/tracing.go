package server

import (
	"context"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quipu-run/quipu/internal/trace"
)

// traceFlushMax is how long the end of the node waits for a collector, after all else has ended: what calls did in the drain
// is to be sent too.
const traceFlushMax = 2 * time.Second

// openTrace makes the tracer, with its figures.
func (n *Node) openTrace(ctx context.Context) (err error) {
	if n.trace, err = trace.New(ctx, n.cfg.Trace, n.cfg.Version, n.cfg.Logger); err != nil {
		return err
	}
	n.registry.MustRegister(traceMetrics{n.trace}, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "quipu_build_info",
		Help: "1, with the version of the node.", ConstLabels: prometheus.Labels{"version": n.cfg.Version, "go": runtime.Version()}}, func() float64 { return 1 }))
	return nil
}

// closeTrace sends what waits. A collector that does not take it is no failure of the node: it was told of, and is counted.
func (n *Node) closeTrace() {
	ctx, cancel := context.WithTimeout(context.Background(), traceFlushMax)
	defer cancel()
	if err := n.trace.Close(ctx); err != nil {
		n.cfg.Logger.Warn("traces were not sent at the end", "err", err)
	}
}

// traceMetrics are the figures of the tracer.
type traceMetrics struct{ of *trace.Tracer }

var traceSpans = prometheus.NewDesc("quipu_trace_spans_total", "Spans for the collector by what became of them: exported, failed (sent, and not taken), dropped (the queue was full).", []string{"outcome"}, nil)

// Describe implements prometheus.Collector.
func (traceMetrics) Describe(to chan<- *prometheus.Desc) { to <- traceSpans }

// Collect implements prometheus.Collector.
func (m traceMetrics) Collect(to chan<- prometheus.Metric) {
	f := m.of.Figures()
	for outcome, n := range map[string]uint64{"exported": f.Exported, "failed": f.Failed, "dropped": f.Dropped} {
		to <- prometheus.MustNewConstMetric(traceSpans, prometheus.CounterValue, float64(n), outcome)
	}
}
