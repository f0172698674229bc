package gateway

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quipu-run/quipu/internal/trace"
)

// metrics have labels from closed sets only: names of deployed functions, operations of the admin API, and
// statuses that HTTP knows. Paths come from outside and are never a label.
type metrics struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	admin   *prometheus.CounterVec

	mu    sync.RWMutex
	known map[[2]string]bool // namespace and function; guarded by mu
}

func newMetrics(reg *prometheus.Registry) *metrics {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "quipu_http_requests_total",
			Help: "Requests that went to a function, by status of the answer; 0 if the client left first."}, []string{"namespace", "function", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "quipu_http_request_seconds",
			Help:    "From a request's headers to the end of its answer.",
			Buckets: []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 30}}, []string{"namespace", "function"}),
		admin: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "quipu_admin_requests_total",
			Help: "Requests to the admin API, by operation and status."}, []string{"operation", "status"}),
	}
	reg.MustRegister(m.calls, m.seconds, m.admin)
	return m
}

func (m *metrics) call(namespace, function string, status int, took time.Duration, span *trace.Span) {
	m.mu.RLock() // not between keep's deletion and its new set: a late call must not bring a removed function back
	defer m.mu.RUnlock()
	if !m.known[[2]string{namespace, function}] {
		return
	}
	m.calls.WithLabelValues(namespace, function, statusLabel(status)).Inc()
	trace.Observe(m.seconds.WithLabelValues(namespace, function), took.Seconds(), span.TraceID())
}

// keep forgets functions that are gone, so that deploying and removing cannot grow the metrics for ever.
func (m *metrics) keep(tables map[string]*table) {
	live := map[[2]string]bool{}
	for ns, t := range tables {
		for _, r := range t.routes {
			live[[2]string{ns, r.function}] = true
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.known {
		if !live[key] {
			gone := prometheus.Labels{"namespace": key[0], "function": key[1]}
			m.calls.DeletePartialMatch(gone)
			m.seconds.DeletePartialMatch(gone)
		}
	}
	m.known = live
}

func statusLabel(status int) string {
	if http.StatusText(status) != "" || status == 0 {
		return strconv.Itoa(status)
	}
	return "other"
}
