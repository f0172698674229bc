package trace

import "github.com/prometheus/client_golang/prometheus"

// Observe adds a value to a histogram, with the trace that shows how it came about, if there is one.
func Observe(to prometheus.Observer, value float64, traceID string) {
	if e, ok := to.(prometheus.ExemplarObserver); ok && traceID != "" {
		e.ObserveWithExemplar(value, prometheus.Labels{"trace_id": traceID})
		return
	}
	to.Observe(value)
}
