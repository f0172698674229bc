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
	// quietBytes is what a node allocates in paceEvery at most when it has nothing to do. Then the spare goes back to the system: the
	// collector alone would keep it until somebody calls again.
	quietBytes = 4 << 20
)

// pacer follows what lives and what is done.
type pacer struct {
	allocated uint64 // by the last step
	gave      bool   // back, since the node was busy
}

// paceCollector follows the node until stop is closed. GOGC in the environment wins.
func paceCollector(stop <-chan struct{}) {
	if os.Getenv("GOGC") != "" {
		return
	}
	now := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	tick := time.NewTicker(paceEvery)
	defer tick.Stop()
	for p := (pacer{gave: true}); ; {
		metrics.Read(now)
		percent, giveBack := p.step(now[0].Value.Uint64(), now[1].Value.Uint64())
		debug.SetGCPercent(percent)
		if giveBack {
			debug.FreeOSMemory()
		}
		select {
		case <-tick.C:
		case <-stop:
			return
		}
	}
}

// step takes the bytes that live and those allocated so far. Memory is given back once each time that the node comes to rest.
func (p *pacer) step(live, allocated uint64) (percent int, giveBack bool) {
	busy := allocated-p.allocated > quietBytes
	giveBack = !busy && !p.gave
	p.allocated, p.gave = allocated, !busy
	return percentOf(live), giveBack
}

func percentOf(live uint64) int {
	return int(min(percentMost, max(percentLeast, spareBytes*100/max(live, 1))))
}
