package crashtest

import (
	"fmt"
	"sync"
	"time"

	"github.com/quipu-run/quipu/server"
)

// Point is where an instance is killed: after the n-th operation of a function in a step, replies included.
type Point struct {
	Step      int    `json:"step"` // from 1
	Function  string `json:"function"`
	Operation int    `json:"operation"` // from 1
	Text      string `json:"text"`      // of the operation
}

// String is what a report calls it.
func (p Point) String() string {
	if p.Text == reply {
		return fmt.Sprintf("before the reply of %s", p.Function)
	}
	return fmt.Sprintf("after %s by %s", p.Text, p.Function)
}

// reply stands for the operation that a reply is.
const reply = "reply"

// recorder is the probe of a run: it counts operations, strikes at its target, and knows whether anything goes on.
type recorder struct {
	target *Point // nil: none

	mu     sync.Mutex     // guards the fields below
	step   int            // 0 while the application is deployed
	counts map[string]int // operations in this step, by function
	points []Point        // in order
	struck bool
	busy   int       // calls in instances, and instances that start
	last   time.Time // when something happened
}

func newRecorder(target *Point) *recorder {
	return &recorder{target: target, counts: map[string]int{}, last: time.Now()}
}

// probe is server.Probe.
func (r *recorder) probe(e server.ProbeEvent) (kill bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = time.Now()
	switch e.Kind {
	case server.ProbeStarting, server.ProbeCall:
		r.busy++
	case server.ProbeStarted, server.ProbeEnd:
		r.busy--
	case server.ProbeOperation:
		return r.count(e.Function, e.Text)
	case server.ProbeReply:
		return r.count(e.Function, reply)
	}
	return false
}

// count notes an operation and tells whether to strike. The caller holds mu.
func (r *recorder) count(function, text string) bool {
	if r.step == 0 {
		return false
	}
	r.counts[function]++
	p := Point{Step: r.step, Function: function, Operation: r.counts[function], Text: text}
	r.points = append(r.points, p)
	t := r.target
	if t == nil || r.struck || t.Step != p.Step || t.Function != p.Function || t.Operation != p.Operation {
		return false
	}
	r.struck = true
	return true
}

// begin is the start of a step.
func (r *recorder) begin(step int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.step, r.counts, r.last = step, map[string]int{}, time.Now()
}

// touch counts as something that happened.
func (r *recorder) touch() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = time.Now()
}

// idleFor tells whether nothing goes on, and nothing has happened for so long.
func (r *recorder) idleFor(d time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.busy == 0 && time.Since(r.last) >= d
}

func (r *recorder) outcome() (points []Point, struck bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.points, r.struck
}
