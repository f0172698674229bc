package server

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/quipu-run/quipu/locallog"
)

// logMetrics are the figures of the log: of each group commit as it happens, and of the rest when somebody asks.
type logMetrics struct {
	log     func() locallog.Stats
	appends prometheus.Histogram
	bytes   prometheus.Histogram
	stored  prometheus.Histogram
	took    prometheus.Histogram
}

func newLogMetrics() *logMetrics {
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	}
	seconds := prometheus.ExponentialBuckets(50e-6, 2, 16) // up to 1.6 s
	return &logMetrics{
		appends: histogram("quipu_log_commit_appends", "Appends that share a group commit.", prometheus.ExponentialBuckets(1, 2, 14)),
		bytes:   histogram("quipu_log_commit_bytes", "Bytes of a group commit.", prometheus.ExponentialBuckets(256, 4, 10)),
		stored:  histogram("quipu_log_store_seconds", "Write and fdatasync of a group commit.", seconds),
		took:    histogram("quipu_log_commit_seconds", "A group commit, from the queue to its last answer.", seconds),
	}
}

func (m *logMetrics) observe(c locallog.Commit) {
	m.appends.Observe(float64(c.Appends))
	m.bytes.Observe(float64(c.Bytes))
	m.stored.Observe(c.Stored.Seconds())
	m.took.Observe(c.Took.Seconds())
}

// logFigure is a number of the log's statistics.
type logFigure struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(locallog.Stats) float64
}

func figure(kind prometheus.ValueType, name, help string, value func(locallog.Stats) float64) logFigure {
	return logFigure{prometheus.NewDesc("quipu_log_"+name, help, nil, nil), kind, value}
}

func count(name, help string, value func(locallog.Stats) uint64) logFigure {
	return figure(prometheus.CounterValue, name, help, func(s locallog.Stats) float64 { return float64(value(s)) })
}

func gauge(name, help string, value func(locallog.Stats) int64) logFigure {
	return figure(prometheus.GaugeValue, name, help, func(s locallog.Stats) float64 { return float64(value(s)) })
}

var logFigures = []logFigure{
	count("appends_total", "Appends written since the start, won or lost.", func(s locallog.Stats) uint64 { return s.Appends }),
	count("records_total", "Records written since the start.", func(s locallog.Stats) uint64 { return s.Records }),
	count("written_bytes_total", "Bytes written to segments since the start.", func(s locallog.Stats) uint64 { return s.Bytes }),
	count("syncs_total", "Syncs of segments since the start: one for each group commit, with --sync always.", func(s locallog.Stats) uint64 { return s.Syncs }),
	count("checkpoints_total", "Checkpoints of the index since the start.", func(s locallog.Stats) uint64 { return s.Checkpoints }),
	count("deleted_segments_total", "Segments deleted since the start.", func(s locallog.Stats) uint64 { return s.Deleted }),
	count("relocated_segments_total", "Of these, those out of which live records were moved.", func(s locallog.Stats) uint64 { return s.Relocated }),
	count("moved_records_total", "Records moved out of mostly dead segments since the start.", func(s locallog.Stats) uint64 { return s.Moved }),
	count("reads_hot_total", "Records that were read from memory.", func(s locallog.Stats) uint64 { return s.HotReads }),
	count("reads_cold_total", "Records that were read from a segment.", func(s locallog.Stats) uint64 { return s.ColdReads }),
	count("retention_failures_total", "Looks at the retention of a book that failed, to be tried again.", func(s locallog.Stats) uint64 { return s.RetentionFailures }),
	gauge("queue_bytes", "Appends that wait for the writer, or are being written.", func(s locallog.Stats) int64 { return s.QueueBytes }),
	gauge("index_bytes", "Index in memory that is not saved yet.", func(s locallog.Stats) int64 { return int64(s.IndexBytes) }),
	gauge("segments", "Segment files.", func(s locallog.Stats) int64 { return int64(s.Segments) }),
	gauge("kept_segments", "Of these, those that moved records are in.", func(s locallog.Stats) int64 { return int64(s.Kept) }),
	gauge("segment_bytes", "Segment files, with the part that is not written yet.", func(s locallog.Stats) int64 { return s.SegmentBytes }),
	gauge("spare_bytes", "Deleted segments that wait to be written over.", func(s locallog.Stats) int64 { return s.SpareBytes }),
	gauge("disk_free_bytes", "Free space of the data directory's file system.", func(s locallog.Stats) int64 { return int64(s.DiskFree) }),
	gauge("books", "Books that there are.", func(s locallog.Stats) int64 { return int64(s.Books) }),
	gauge("read_only", "1 while the free space is under the reserve and appends are refused.", func(s locallog.Stats) int64 {
		if s.ReadOnly {
			return 1
		}
		return 0
	}),
}

// Describe implements prometheus.Collector.
func (m *logMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, h := range []prometheus.Histogram{m.appends, m.bytes, m.stored, m.took} {
		h.Describe(to)
	}
	for _, f := range logFigures {
		to <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (m *logMetrics) Collect(to chan<- prometheus.Metric) {
	for _, h := range []prometheus.Histogram{m.appends, m.bytes, m.stored, m.took} {
		h.Collect(to)
	}
	s := m.log()
	for _, f := range logFigures {
		to <- prometheus.MustNewConstMetric(f.desc, f.kind, f.value(s))
	}
}
