package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func rated(peer string, rates ...float64) (all []figure) {
	for _, rate := range rates {
		all = append(all, figure{Bench: "dapr_set", Variant: "HTTP", Peer: peer, Conc: 16, OpsPerS: rate, P50: 1e6 / rate})
	}
	return all
}

// One good round is not enough: the one in the middle counts, for rates and for latencies, which are to be low.
func TestAGoalIsMetByTheRoundInTheMiddle(t *testing.T) {
	var all rounds
	for _, f := range append(rated(ours, 100, 900, 150), rated(daprDefault, 100, 100, 100)...) {
		all.add(f)
	}
	for _, c := range []struct {
		goal daprGoal
		met  bool
	}{
		{daprGoal{bench: "dapr_set", conc: 16, want: 1.5}, true},
		{daprGoal{bench: "dapr_set", conc: 16, want: 2}, false},
		{daprGoal{bench: "dapr_set", conc: 16, latency: true, want: .7}, true},
		{daprGoal{bench: "dapr_set", conc: 16, latency: true, want: .5}, false},
		{daprGoal{bench: "dapr_get", conc: 16, want: 0}, false}, // nobody measured it
	} {
		if got := c.goal.verdict(all, daprDefault); strings.HasSuffix(got, ": met") != c.met {
			t.Errorf("%+v: %s", c.goal, got)
		}
	}
}

// The load counts no answer but the one that it wants, and goes on with another connection.
func TestTheClientTakesNoOtherAnswer(t *testing.T) {
	opened := map[string]bool{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		opened[r.RemoteAddr] = true // one request at a time
		if r.URL.Path != "/v1.0/good" {
			http.Error(w, "no such thing", http.StatusNotFound)
			return
		}
		_, _ = io.Copy(w, r.Body) // the client sees what is missing
	}))
	defer server.Close()
	s := side{http: server.Listener.Addr().String(), token: "t"}
	w := newWires(s.http, 1)
	defer w.close()
	ask := func(path string) error {
		return w.do(0, func(ask []byte) []byte { return s.request(ask, "POST", path, `{"a":1}`) }, http.StatusOK)
	}
	for range 2 {
		if err := ask("/v1.0/good"); err != nil || len(opened) != 1 {
			t.Fatalf("%v on %d connections, want one", err, len(opened))
		}
	}
	if err := ask("/v1.0/bad"); err == nil || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("got %v, want what the server said", err)
	}
	if err := ask("/v1.0/good"); err != nil || len(opened) != 2 {
		t.Errorf("%v on %d connections, want a second", err, len(opened))
	}
}

// What a process has started weighs with it.
func TestMemoryIsOfAllThatAProcessStarted(t *testing.T) {
	if _, err := os.Stat("/proc/self/smaps_rollup"); err != nil {
		t.Skip("there is no /proc/PID/smaps_rollup here")
	}
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer end(child)
	all, err := families([]int{os.Getpid()})
	if err != nil || len(all) != 2 || all[1] != child.Process.Pid {
		t.Fatalf("%v %v, want this process and %d", all, err, child.Process.Pid)
	}
	m, err := memoryOf(os.Getpid())
	if err != nil || m.pss <= 0 || m.rss < m.pss {
		t.Errorf("%+v %v, want shares of no more than there is", m, err)
	}
}
