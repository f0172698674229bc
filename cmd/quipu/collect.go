package main

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Between two collections of garbage a node may take spareBytes more than lives, as long as it is small: a call leaves some kilobytes
// behind, and with the default of once the living, which is little, collecting them took a tenth of the processor.
const (
	spareBytes   = 128 << 20
	percentMost  = 400 // of what lives
	percentLeast = 100 // Go's default
	paceEvery    = 10 * time.Second
)

// paceCollector follows what lives, until stop is closed. GOGC in the environment wins.
func paceCollector(stop <-chan struct{}) {
	if os.Getenv("GOGC") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	tick := time.NewTicker(paceEvery)
	defer tick.Stop()
	for {
		metrics.Read(live)
		debug.SetGCPercent(percentOf(live[0].Value.Uint64()))
		select {
		case <-tick.C:
		case <-stop:
			return
		}
	}
}

func percentOf(live uint64) int {
	return int(min(percentMost, max(percentLeast, spareBytes*100/max(live, 1))))
}
