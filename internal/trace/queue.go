package trace

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// queue hands spans to an exporter, in batches. It is a span processor. The batch processor of the SDK does the same, but
// does not tell how much it drops, and an operator has to know.
type queue struct {
	exporter sdktrace.SpanExporter
	limits   queueLimits
	logger   *slog.Logger
	spans    chan sdktrace.ReadOnlySpan
	closing  chan struct{}
	once     sync.Once
	done     chan struct{}
	ctx      context.Context // of what is sent
	cut      context.CancelFunc

	exported, dropped, failed atomic.Uint64
}

// queueLimits are named as the variables OTEL_BSP_ of OpenTelemetry, whose defaults they have.
type queueLimits struct {
	Queue   int           // spans that wait
	Batch   int           // of them, sent at once
	Delay   time.Duration // after which a batch that is not full is sent
	Timeout time.Duration // of one batch, with all that the exporter tries
}

func newQueue(e sdktrace.SpanExporter, limits queueLimits, logger *slog.Logger) *queue {
	q := &queue{exporter: e, limits: limits, logger: logger, spans: make(chan sdktrace.ReadOnlySpan, limits.Queue),
		closing: make(chan struct{}), done: make(chan struct{})}
	q.ctx, q.cut = context.WithCancel(context.Background())
	go q.run()
	return q
}

// OnStart is of sdktrace.SpanProcessor.
func (q *queue) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd is of sdktrace.SpanProcessor. It does not wait.
func (q *queue) OnEnd(s sdktrace.ReadOnlySpan) {
	select {
	case q.spans <- s:
	default:
		q.dropped.Add(1)
	}
}

func (q *queue) run() {
	defer close(q.done)
	tick := time.NewTicker(q.limits.Delay)
	defer tick.Stop()
	batch, failing := make([]sdktrace.ReadOnlySpan, 0, q.limits.Batch), false
	for {
		full, over := false, false
		select {
		case s := <-q.spans:
			batch = append(batch, s)
			full = len(batch) == q.limits.Batch
		case <-tick.C:
			full = true
		case <-q.closing:
			over = len(q.spans) == 0
			full = over
			if !over {
				batch = append(batch, <-q.spans)
				full = len(batch) == q.limits.Batch
			}
		}
		if full && len(batch) > 0 {
			failing = q.send(batch, failing)
			batch = batch[:0]
		}
		if over {
			return
		}
	}
}

// send tells of the first of several failures, and of the end of them: a collector may be away for long.
func (q *queue) send(batch []sdktrace.ReadOnlySpan, failing bool) (failed bool) {
	ctx, cancel := context.WithTimeout(q.ctx, q.limits.Timeout)
	defer cancel()
	err := q.exporter.ExportSpans(ctx, batch)
	if err == nil {
		q.exported.Add(uint64(len(batch)))
		if failing {
			q.logger.Info("traces are exported again")
		}
		return false
	}
	q.failed.Add(uint64(len(batch)))
	if !failing {
		q.logger.Warn("traces cannot be exported; calls go on", "err", err)
	}
	return true
}

// Shutdown is of sdktrace.SpanProcessor: it sends what waits, until ctx ends.
func (q *queue) Shutdown(ctx context.Context) error {
	q.once.Do(func() { close(q.closing) })
	stop := context.AfterFunc(ctx, q.cut)
	defer stop()
	<-q.done // at the latest when cut has ended what is sent
	q.cut()
	return q.exporter.Shutdown(ctx)
}

// ForceFlush is of sdktrace.SpanProcessor. Nobody needs it here.
func (q *queue) ForceFlush(context.Context) error { return nil }
