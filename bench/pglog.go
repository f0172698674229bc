package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// pgFigure reads the latencies that pgbench logged: the third column, in microseconds, of one line a transaction.
func pgFigure(prefix string, seconds int) (f figure, err error) {
	names, err := filepath.Glob(prefix + ".*")
	if err != nil {
		return f, err
	}
	var took []float64
	for _, name := range names {
		file, err := os.Open(name)
		if err != nil {
			return f, err
		}
		for lines := bufio.NewScanner(file); lines.Scan(); {
			var client, n int
			var micros float64
			if _, err := fmt.Sscan(lines.Text(), &client, &n, &micros); err == nil {
				took = append(took, micros)
			}
		}
		if err := file.Close(); err != nil {
			return f, err
		}
	}
	if len(took) == 0 {
		return f, fmt.Errorf("pgbench logged nothing to %s", prefix)
	}
	slices.Sort(took)
	at := func(part float64) float64 { return took[int(part*float64(len(took)-1))] }
	f.N, f.Seconds, f.OpsPerS = len(took), float64(seconds), float64(len(took))/float64(seconds)
	f.P50, f.P90, f.P99, f.Max = at(0.5), at(0.9), at(0.99), at(1)
	return f, nil
}
