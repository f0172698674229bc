package meter

import (
	"sync"
	"time"

	"github.com/quipu-run/quipu"
)

// cpuTakenMin is what an instance has to have taken before it is asked for between calls: one that idles must not cause a
// record each second.
const cpuTakenMin = 10 * time.Millisecond

// processors is what instances have taken of the processors, as far as nobody has counted it.
type processors struct {
	of      sync.Map // instance id -> *processor
	running sync.WaitGroup
}

// processor is one instance's.
type processor struct {
	function string
	meter    quipu.CPUMeter

	mu    sync.Mutex // guards the field below
	taken time.Duration
}

// take is what was taken since it was last asked, in whole microseconds; 0 if that is less than least, or not known now: it
// is asked again, at the end at the latest.
func (p *processor) take(least time.Duration) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, err := p.meter.CPUTime()
	if err != nil || now < p.taken+max(least, time.Microsecond) {
		return 0
	}
	micros := (now - p.taken).Microseconds()
	p.taken += time.Duration(micros) * time.Microsecond
	return micros
}

// Watch counts the processor time of an instance until done, and then what is left.
func (v *View) Watch(instance, function string, meter quipu.CPUMeter, done <-chan struct{}) {
	p := &processor{function: function, meter: meter}
	v.processors.of.Store(instance, p)
	v.processors.running.Go(func() {
		<-done
		v.processors.of.Delete(instance)
		p.note(0, v.Note)
	})
}

// CPU is what an instance has taken of the processors since it was last asked, in microseconds; 0 for one that is not watched.
func (v *View) CPU(instance string) int64 {
	if p, ok := v.processors.of.Load(instance); ok {
		return p.(*processor).take(0)
	}
	return 0
}

func (p *processor) note(least time.Duration, note func(quipu.FunctionUsage)) {
	if micros := p.take(least); micros > 0 {
		note(quipu.FunctionUsage{Function: p.function, Usage: quipu.Usage{CPUMicros: micros}})
	}
}

// takeAll notes what instances have taken between calls.
func (s *processors) takeAll(note func(quipu.FunctionUsage)) {
	s.of.Range(func(_, p any) bool {
		p.(*processor).note(cpuTakenMin, note)
		return true
	})
}

// wait waits until all instances are gone and counted.
func (s *processors) wait() { s.running.Wait() }
