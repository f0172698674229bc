package call

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// ledger is a Meter that keeps what it is told apart: what rode with a transaction, and what did not.
type ledger struct {
	mu     sync.Mutex
	noted  map[string]quipu.Usage
	rode   []quipu.FunctionUsage // of transactions that need not have committed
	cpu    int64
	closed bool
}

func (l *ledger) Note(one quipu.FunctionUsage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sum := l.noted[one.Function]
	sum.Add(one.Usage)
	l.noted[one.Function] = sum
}

func (l *ledger) Ride(tx *view.Tx, taken []quipu.FunctionUsage) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rode = taken // of runs that lose to others, the last one counts
	return nil
}

func (l *ledger) CPU(string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	cpu := l.cpu
	l.cpu = 0
	return cpu
}

func (l *ledger) Allow(string) error {
	if l.closed {
		return &quipu.Error{Code: quipu.CodeBudget}
	}
	return nil
}

// metered is a world whose calls are counted.
func metered(t testing.TB) (*world, *ledger) {
	w, l := newWorld(t), &ledger{noted: map[string]quipu.Usage{}}
	w.o.Meter = l
	return w, l
}

func (w *world) post(function, body string) {
	w.t.Helper()
	r, err := w.Invoke(w.ctx, quipu.CallRequest{Function: function, Method: "POST", Path: "/", Body: strings.NewReader(body), ContentLength: int64(len(body)), Trigger: "http"})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		w.t.Fatal(err)
	}
	r.Body.Close()
}

// echo answers with its request.
func echo(w http.ResponseWriter, r *http.Request, _ quipu.Session) {
	if r.Body != nil {
		io.Copy(w, r.Body) //nolint:errcheck // it goes into memory
	}
}

func TestWhatHasNoRecordIsNotedOnceWhenItIsOver(t *testing.T) {
	w, l := metered(t)
	w.function("plain", false, echo)
	w.function("reader", true, func(_ http.ResponseWriter, r *http.Request, s quipu.Session) {
		if _, err := s.Get(r.Context(), quipu.StoreShared, "k"); err != nil {
			t.Error(err)
		}
	})
	l.cpu = 7
	w.post("plain", "hello")
	w.post("reader", "hello")
	for function, out := range map[string]int64{"plain": 5, "reader": 0} {
		got := l.noted[function]
		want := quipu.Usage{Calls: 1, Runs: 1, BilledMillis: got.BilledMillis, MemoryMB: 128, MemoryMBMillis: 128 * got.BilledMillis, BytesIn: 5, BytesOut: out}
		if got != want || got.BilledMillis < 1 {
			t.Errorf("%s took %+v, want %+v", function, got, want)
		}
	}
	if l.cpu != 7 || l.rode != nil {
		t.Errorf("a call without a record asked for processor time, or rode: %d, %+v", l.cpu, l.rode)
	}
}

func TestWhatLostRunsTookIsInTheRecordOfTheLast(t *testing.T) {
	w, l := metered(t)
	runs := 0
	w.function("f", true, func(rw http.ResponseWriter, r *http.Request, s quipu.Session) {
		if _, err := s.Get(r.Context(), quipu.StoreShared, "k"); err != nil {
			t.Error(err)
		}
		if runs++; runs < 3 { // somebody else is faster
			if err := w.Outside("").Apply(r.Context(), quipu.StoreShared, []quipu.Change{{Key: "k", Value: []byte("theirs")}}); err != nil {
				t.Error(err)
			}
		}
		if err := s.Apply(r.Context(), quipu.StoreShared, []quipu.Change{{Key: "k", Value: []byte("ours")}}); err != nil {
			t.Error(err)
		}
	})
	l.cpu = 7
	w.post("f", "12")
	if len(l.rode) != 1 || len(l.noted) != 1 || l.noted[""].LogAppends != 2 {
		t.Fatalf("%+v rode, %+v was noted; want the call, and two records of somebody else", l.rode, l.noted)
	}
	got := l.rode[0].Usage
	want := quipu.Usage{Calls: 1, Runs: 3, BilledMillis: got.BilledMillis, MemoryMB: 128, MemoryMBMillis: 128 * got.BilledMillis, CPUMicros: 7, BytesIn: 2, LogAppends: 1}
	if got != want || got.BilledMillis < 3 {
		t.Errorf("the call took %+v, want %+v", got, want)
	}
}

func TestAJoinedCallIsBilledToItselfWithTheRecordOfItsCaller(t *testing.T) {
	w, l := metered(t)
	w.function("inner", true, func(rw http.ResponseWriter, r *http.Request, s quipu.Session) {
		if err := s.Apply(r.Context(), quipu.StoreShared, []quipu.Change{{Key: "k", Value: []byte("v")}}); err != nil {
			t.Error(err)
		}
		if r.URL.Path == "/fail" {
			rw.WriteHeader(500)
		}
	})
	w.function("outer", true, func(rw http.ResponseWriter, r *http.Request, s quipu.Session) {
		for _, path := range []string{"/", "/fail"} { // the second is rolled back, and billed
			reply, err := s.Invoke(r.Context(), quipu.CallRequest{Function: "inner", Method: "POST", Path: path, Trigger: "dapr"})
			if err != nil {
				t.Error(err)
				return
			}
			reply.Body.Close()
		}
	})
	w.post("outer", "")
	sum := map[string]quipu.Usage{}
	for _, one := range l.rode {
		u := sum[one.Function]
		u.Add(one.Usage)
		sum[one.Function] = u
	}
	if len(l.noted) != 0 || sum["outer"].Calls != 1 || sum["inner"].Calls != 2 || sum["inner"].Errors != 1 || sum["outer"].LogAppends != 1 || sum["inner"].LogAppends != 0 {
		t.Errorf("%+v rode, %+v was noted", l.rode, l.noted)
	}
}

func TestOnlyCallsFromOutsideAreRefusedForABudget(t *testing.T) {
	w, l := metered(t)
	w.function("inner", false, echo)
	w.function("outer", false, func(rw http.ResponseWriter, r *http.Request, s quipu.Session) {
		l.closed = true // from now on
		reply, err := s.Invoke(context.WithoutCancel(r.Context()), quipu.CallRequest{Function: "inner", Method: "POST", Path: "/", Trigger: "dapr"})
		if err != nil {
			t.Errorf("a call of a call that runs: %v", err)
			return
		}
		reply.Body.Close()
	})
	w.post("outer", "")
	_, err := w.Invoke(w.ctx, quipu.CallRequest{Function: "inner", Method: "POST", Path: "/"})
	if !errors.Is(err, &quipu.Error{Code: quipu.CodeBudget}) {
		t.Errorf("from outside: %v", err)
	}
}

// What counting adds to a call that has no record, without the clock of the machine.
func BenchmarkCountingACall(b *testing.B) {
	w := newWorld(b)
	q := &request{id: "c", f: quipu.Function{Name: "f"}}
	began := w.o.Clock.Now()
	b.ReportAllocs()
	for b.Loop() {
		if err := w.o.Meter.Allow("f"); err != nil {
			b.Fatal(err)
		}
		w.ran(q, began, nil)
		w.rest(q)
	}
}
