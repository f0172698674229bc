package call

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// Meter counts what calls take. Only Ride may wait.
type Meter interface {
	// Note counts what has no record.
	Note(quipu.FunctionUsage)
	// Ride adds what was taken to a transaction: it counts exactly if that commits.
	Ride(tx *view.Tx, taken []quipu.FunctionUsage) error
	// CPU is what an instance has taken of the processors since it was last asked, in microseconds.
	CPU(instance string) int64
	// Allow refuses calls of a function whose budget is used up. CodeBudget.
	Allow(function string) error
}

// noMeter counts nothing.
type noMeter struct{}

func (noMeter) Note(quipu.FunctionUsage)                   {}
func (noMeter) Ride(*view.Tx, []quipu.FunctionUsage) error { return nil }
func (noMeter) CPU(string) int64                           { return 0 }
func (noMeter) Allow(string) error                         { return nil }

// taken is what a request has taken and nobody has counted. It goes into one record, or to Note, as a whole: runs that lost
// to other commits count with the last one.
type taken struct {
	runs   quipu.Usage           // Runs, and what grows with each
	joined []quipu.FunctionUsage // calls that were part of it
	joins  bool                  // it is part of another, which counts it
	in     *counted              // a body that streams
	out    int64                 // bytes of the reply
}

// ran counts a run that began at a time and is over now.
func (c *Caller) ran(q *request, began time.Time, joined []quipu.FunctionUsage) {
	millis := max(1, int64((c.o.Clock.Now().Sub(began)+time.Millisecond-1)/time.Millisecond))
	u := &q.taken.runs
	u.Runs++
	u.BilledMillis += millis
	u.MemoryMB = memoryMB(q.f)
	u.MemoryMBMillis = u.BilledMillis * u.MemoryMB
	q.taken.joined = append(q.taken.joined, joined...)
}

// memoryMB is what an instance of f may take, rounded up.
func memoryMB(f quipu.Function) int64 {
	if f.Spec.Memory <= 0 {
		return quipu.MemoryMBDefault
	}
	return (int64(f.Spec.Memory)-1)>>20 + 1
}

// own is what the request has taken so far without its parts, with the records that it makes. It is remembered with the call.
func (q *request) own(appends int64) quipu.FunctionUsage {
	u := q.taken.runs
	u.Calls, u.LogAppends, u.BytesIn, u.BytesOut = 1, appends, int64(len(q.body)), q.taken.out
	if q.taken.in != nil {
		u.BytesIn = q.taken.in.n.Load()
	}
	if q.info.Error != "" || q.info.Status >= http.StatusInternalServerError {
		u.Errors = 1
	}
	q.info.Usage = u
	return quipu.FunctionUsage{Function: q.f.Name, Usage: u}
}

// bill is what the request and its parts have taken so far; nil if it did not get as far as the function.
func (q *request) bill(appends int64) []quipu.FunctionUsage {
	if q.taken.runs.Runs == 0 {
		return nil
	}
	return append([]quipu.FunctionUsage{q.own(appends)}, q.taken.joined...)
}

// ride adds what was taken to the transaction that becomes the record of the call, before its result. Once that has
// committed, q.counted must be called.
func (c *Caller) ride(tx *view.Tx, q *request) error {
	all := q.bill(1)
	if all == nil {
		return nil
	}
	return c.o.Meter.Ride(tx, all)
}

// counted forgets what was taken: it is in a record, or may be.
func (q *request) counted() { q.taken = taken{} }

// rest counts what a request has taken that got no record.
func (c *Caller) rest(q *request) {
	if q.taken.runs.Runs == 0 {
		return
	}
	c.o.Meter.Note(q.own(0))
	for _, one := range q.taken.joined {
		c.o.Meter.Note(one)
	}
	q.counted()
}

// processor takes the processor time of the instance that a call ran in, for its record. What nobody takes is counted each
// second.
func (c *Caller) processor(q *request, instance string) {
	q.taken.runs.CPUMicros += c.o.Meter.CPU(instance)
}

// appended counts a record that an operation outside of calls made; function "" is the namespace.
func (c *Caller) appended(function string, err error) error {
	if err == nil {
		c.o.Meter.Note(quipu.FunctionUsage{Function: function, Usage: quipu.Usage{LogAppends: 1}})
	}
	return err
}

// counted is a body of a request that streams: the connection may read it until after the reply.
type counted struct {
	io.Reader
	n atomic.Int64
}

func (r *counted) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	r.n.Add(int64(n))
	return n, err
}
