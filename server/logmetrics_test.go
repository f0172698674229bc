package server

import (
	"strings"
	"testing"
)

func TestTheLogIsInTheMetrics(t *testing.T) {
	n := start(t)
	n.put("key", "1")
	figures := n.get("/-/metrics").body
	for _, want := range []string{"quipu_log_commit_seconds_count", "quipu_log_store_seconds_bucket", "quipu_log_commit_bytes_sum",
		"quipu_log_queue_bytes 0", "quipu_log_index_bytes", "quipu_log_reads_hot_total", "quipu_log_disk_free_bytes", "quipu_log_read_only 0", "quipu_log_books 1"} {
		if !strings.Contains(figures, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}
